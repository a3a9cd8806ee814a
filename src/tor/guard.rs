//! The guard of an engine: which relay it is, for how long, and when it becomes suspicious. Pure: no I/O.
//!
//! A client that enters the Tor network through many different relays will one day enter through a hostile one. So an
//! engine keeps one guard for months. This module implements Tor's guard specification, reduced to a client with one
//! guard for everything:
//!
//! - The *sample* is a saved list of guards, drawn by the weights of the consensus. An engine uses only guards of its
//!   sample, so an attacker who takes guards down cannot make the engine try more and more relays. A member leaves the
//!   sample when its lifetime of 120 days is over or when it has been unlisted for 20 days. When a member is added, a
//!   random part of its lifetime (up to 12 days) counts as already over.
//! - Members that have worked once are *confirmed* and come before the others. Within each of the two groups, the order
//!   is that of the draw. The guard is the first member that is listed, not excluded and not known to be down.
//! - A guard that is down is tried again, at first every 10 minutes and in the end every 9 hours. When it works again,
//!   the engine returns to it.
//! - An engine changes its guard only to one that has answered a test, and only while it is known that the network
//!   works (`tor/liveness.rs`). So if this machine has no network, no engine tries one guard of its sample after the
//!   other.
//! - Circuits that fail beyond the guard are counted, because a hostile guard would let only those circuits through
//!   whose other end it also observes. Below certain success rates there is an [`Alarm`]. A parameter of the consensus
//!   decides whether the guard is then dropped. So far the consensus does not ask for that.
//!
//! Engines have different guards, because otherwise one dead relay would stop all engines. The caller passes the guards
//! of the other engines as an argument.
//!
//! # How to make tor itself use only this guard
//!
//! Measured with tor 0.4.9.11 on a private network of 16 guards, with every `connect(2)` traced and a new consensus
//! every 20 s:
//!
//! - `EntryNodes $FINGERPRINT` is enough: circuits *and* directory downloads use this relay and no other. Adding
//!   `NumEntryGuards 1` and `NumDirectoryGuards 1` changes nothing. These two options matter only while `EntryNodes` is
//!   not set, because tor would otherwise use several directory guards.
//! - Without a cached consensus, tor requests the first consensus from an authority or a fallback directory, whatever
//!   `EntryNodes` contains. So every further engine starts with a copy of the first engine's `cached-*` files. The very
//!   first engine runs without `EntryNodes` until it has a directory. The guard that its tor has chosen by then is
//!   [adopted](GuardState::adopt).
//! - The relay must have the flags Guard, Stable, Fast, V2Dir and Valid. If one of these flags is missing, tor makes no
//!   connection and reports nothing. [`GuardState::choose`] leaves a guard that loses one of these flags.
//! - `SETCONF EntryNodes=…` on a running engine closes every circuit that never carried a stream, even if a controller
//!   built the circuit. It keeps the other circuits usable. So this command is sent before spare circuits are built,
//!   not after.
//! - `EXTENDCIRCUIT` ignores `EntryNodes`. So a [trial](Choice::trial) needs no change of the configuration.
//! - If the guard is down and the consensus is stale, tor connects to an authority or a fallback directory. An
//!   immediate `SETCONF` to the next guard prevents this.
//!
//! Next: `guard/sample.rs` (members of the sample), `guard/reachable.rs` (which of them this machine can reach),
//! `guard/bias.rs` (the alarm), `guard/saved.rs` (the state as text).

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::Rng;

use super::netdir::{Netdir, Relay, Rules};
use crate::exit::Fingerprint;

mod bias;
mod hex;
mod reachable;
mod sample;
mod saved;
mod settings;
#[cfg(test)]
mod tests;

pub use bias::{Alarm, Failing, Level};
pub use reachable::Reachable;
pub use saved::BadState;

use sample::{Candidate, Reach};
use settings::Settings;

/// The guards of one engine. The caller saves the text of [`to_json`](Self::to_json) after every new [`Choice`], and
/// once a minute.
#[derive(Clone, Debug, Default)]
pub struct GuardState {
    /// The sample: the guards among which this engine chooses, in the order in which they were drawn.
    sample: Vec<Candidate>,
    current: Option<Fingerprint>,
    /// The parameters from the consensus for the choice of guards. This field and the fields below are not saved.
    settings: Settings,
    /// The time of the last success of any guard, in seconds since 1970. 0 means never.
    last_success: u64,
    /// The exit → the number of its circuits that failed in a row.
    failed_in_a_row: HashMap<Fingerprint, u32>,
}

/// Relays that must not become the guard of this engine.
#[derive(Clone, Copy, Debug)]
pub struct Exclude<'a> {
    /// Guards and directory guards of the other engines. Relays of the same family or subnet are also excluded.
    pub guards: &'a [Fingerprint],
    /// The rules for paths, which differ between the public network and private networks.
    pub rules: Rules,
    /// The rules that tell which addresses this machine can reach.
    pub reachable: &'a Reachable,
}

/// The result of [`GuardState::choose`]: the guard to use or to test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub guard: Fingerprint,
    /// False if the chosen guard is to be used for everything from now on. True if it is not known whether the chosen
    /// guard works. The caller then keeps its current guard, builds a test circuit through the chosen guard, reports
    /// the result, and chooses again. So an engine changes only to a guard that answers.
    pub trial: bool,
    /// The guard that was used before. `None` if this choice does not replace a guard.
    pub moved_from: Option<Fingerprint>,
}

/// Why no guard could be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NoGuard {
    /// The directory lists no relay that can be a guard.
    #[error("the directory lists no relay that can be a guard")]
    NoneListed,
    /// All possible guards are used by other engines, are related to such guards, cannot be reached by this machine, or
    /// were dropped because circuits through them failed selectively.
    #[error(
        "every guard of the sample is used by another engine, related to one that is, out of reach of this machine (torrc: \
         ReachableAddresses, FascistFirewall, ClientUseIPv4), or was dropped"
    )]
    AllExcluded,
}

impl GuardState {
    /// Returns the guard that was chosen last. Used for an engine's configuration before any directory is known.
    /// Returns `None` if no guard was chosen yet.
    pub fn current(&self) -> Option<Fingerprint> {
        self.current
    }

    /// Updates the sample with a directory of relays and returns the guard to use now. Call this with every new
    /// directory, after a failure, and when the time of [`next_retry`](Self::next_retry) has come.
    pub fn choose<R: Rng + ?Sized>(
        &mut self,
        dir: &Netdir,
        now: SystemTime,
        rng: &mut R,
        exclude: &Exclude<'_>,
    ) -> Result<Choice, NoGuard> {
        let now = seconds(now);
        self.settings = Settings::of(dir);
        self.follow(dir, now, rng);
        self.filter(dir, exclude);
        let guards = self.extend(dir, now, rng, exclude);
        let order = self.order();
        self.mark_primary(&order);
        self.consider_retries(now);
        let Some(best) = self.best(&order) else {
            return Err(if guards == 0 { NoGuard::NoneListed } else { NoGuard::AllExcluded });
        };
        Ok(self.settle(best))
    }

    /// Puts a guard that tor chose by itself at the first place of the sample. Returns false if that relay cannot be a
    /// guard.
    pub fn adopt<R: Rng + ?Sized>(&mut self, guard: Fingerprint, dir: &Netdir, now: SystemTime, rng: &mut R) -> bool {
        if !dir.relay(&guard).is_some_and(sample::is_possible_guard) {
            return false;
        }
        self.settings = Settings::of(dir);
        let added = self.place(guard).map(|place| self.sample.remove(place));
        let candidate = added.unwrap_or_else(|| self.candidate(guard, seconds(now), rng));
        self.sample.insert(0, candidate);
        self.current = Some(guard);
        true
    }

    /// Records that the connection to this guard works, or that a circuit was extended beyond this guard.
    pub fn note_success<R: Rng + ?Sized>(&mut self, guard: Fingerprint, now: SystemTime, rng: &mut R) {
        let now = seconds(now);
        let Some(place) = self.place(guard) else { return };
        let blur = self.settings.blur(now, rng);
        let candidate = &mut self.sample[place];
        candidate.reach = Reach::Yes;
        candidate.failing_since = None;
        candidate.confirmed.get_or_insert(blur);
        // Another guard that answered a test earlier may be down by now, so it must answer again before it is used.
        if self.current == Some(guard) {
            let others = self.sample.iter_mut().filter(|candidate| candidate.id != guard);
            others.for_each(Candidate::was_up_once);
        }
        let offline = now.saturating_sub(self.last_success) > self.settings.internet_likely_down;
        self.last_success = now;
        // If no guard had a success for a long time, our own network was down. So failures in that time say nothing
        // about guards.
        if offline {
            self.sample.iter_mut().for_each(Candidate::may_be_up);
        }
    }

    /// Withdraws the failures of guards since the time `since`, because this machine could reach no relay in that time.
    /// The guards that failed are then tried again in their order.
    pub fn withdraw(&mut self, since: SystemTime) {
        let since = seconds(since);
        let failed = |candidate: &&mut Candidate| candidate.failing_since.is_some_and(|at| at >= since);
        self.sample.iter_mut().filter(failed).for_each(|candidate| {
            candidate.may_be_up();
            (candidate.failing_since, candidate.last_tried) = (None, 0);
        });
    }

    /// Records that this guard is down although the network works. A guard that is already recorded as down keeps its
    /// retry time. Only a failed retry makes the next retry later.
    pub fn note_down(&mut self, guard: Fingerprint, now: SystemTime) {
        let is_known = self.place(guard).is_some_and(|place| self.sample[place].reach == Reach::No);
        if !is_known {
            self.note_failure(guard, now);
        }
    }

    /// Returns true if this guard answered when it was last tried.
    pub fn is_up(&self, guard: Fingerprint) -> bool {
        self.place(guard).is_some_and(|place| self.sample[place].reach == Reach::Yes)
    }

    /// Returns the best guard, other than the current one, that is not known to be down. A test of this guard shows
    /// whether the network works while the current guard is silent. `None` if there is no such guard.
    pub fn alternative(&self) -> Option<Fingerprint> {
        let other =
            |place: &usize| Some(self.sample[*place].id) != self.current && self.sample[*place].reach != Reach::No;
        self.order().into_iter().find(other).map(|place| self.sample[place].id)
    }

    /// Records that this guard could not be reached: the connection or the first hop of a circuit failed.
    pub fn note_failure(&mut self, guard: Fingerprint, now: SystemTime) {
        let now = seconds(now);
        if let Some(place) = self.place(guard) {
            let candidate = &mut self.sample[place];
            candidate.reach = Reach::No;
            candidate.failing_since.get_or_insert(now);
            candidate.last_tried = now;
        }
    }

    /// Records the result of a circuit build that got past this guard. `built` is true if the circuit was completed.
    pub fn note_build(&mut self, guard: Fingerprint, exit: Fingerprint, built: bool) {
        if let Some(place) = self.place(guard).filter(|_| self.counts_for_the_guard(exit, built)) {
            self.sample[place].bias.note_build(built, &self.settings.bias);
            self.drop_if_told_to(place);
        }
    }

    /// Records, once per circuit, whether a complete circuit through this guard worked. `carried` is true if the exit
    /// answered a stream. It is false if the circuit was destroyed under its first stream.
    pub fn note_use(&mut self, guard: Fingerprint, carried: bool) {
        if let Some(place) = self.place(guard) {
            self.sample[place].bias.note_use(carried, &self.settings.bias);
            self.drop_if_told_to(place);
        }
    }

    /// Returns an alarm if very few circuits through the current guard succeed.
    pub fn alarm(&self) -> Option<Alarm> {
        let place = self.place(self.current?)?;
        self.sample[place].bias.alarm(self.sample[place].id, &self.settings.bias)
    }

    /// Returns the time when a better guard than the current one is due for another try. Returns `None` if no better
    /// guard is known to be down.
    pub fn next_retry(&self) -> Option<SystemTime> {
        let order = self.order();
        let better = order.iter().take_while(|place| Some(self.sample[**place].id) != self.current);
        let down = better.map(|place| &self.sample[*place]).filter(|candidate| candidate.reach == Reach::No);
        down.map(Candidate::retry_at).min().map(|at| UNIX_EPOCH + Duration::from_secs(at))
    }

    fn place(&self, guard: Fingerprint) -> Option<usize> {
        self.sample.iter().position(|candidate| candidate.id == guard)
    }

    /// Returns the indexes of the usable members of the sample, the best first.
    fn order(&self) -> Vec<usize> {
        let fit = |confirmed: bool| {
            let all = self.sample.iter().enumerate();
            all.filter(move |(_, candidate)| candidate.fit && candidate.confirmed.is_some() == confirmed)
        };
        fit(true).chain(fit(false)).map(|(place, _)| place).collect()
    }

    fn mark_primary(&mut self, order: &[usize]) {
        self.sample.iter_mut().for_each(|candidate| candidate.primary = false);
        for place in order.iter().take(self.settings.primary_guards) {
            self.sample[*place].primary = true;
        }
    }

    fn consider_retries(&mut self, now: u64) {
        let due = |candidate: &&mut Candidate| candidate.reach == Reach::No && now >= candidate.retry_at();
        self.sample.iter_mut().filter(due).for_each(Candidate::may_be_up);
    }

    /// Returns the index of the best guard that is not down. If all guards are down, our own network is probably at
    /// fault, so all guards are tried again.
    fn best(&mut self, order: &[usize]) -> Option<usize> {
        let up = order.iter().find(|place| self.sample[**place].reach != Reach::No);
        if up.is_none() {
            order.iter().for_each(|place| self.sample[*place].may_be_up());
        }
        up.or(order.first()).copied()
    }

    fn settle(&mut self, best: usize) -> Choice {
        let guard = self.sample[best].id;
        let current = self.current.and_then(|current| self.place(current)).map(|place| &self.sample[place]);
        // If the current guard must not be used any more, the engine changes to the best guard immediately. If the
        // current guard is only down, the engine changes only to a guard that has answered a test.
        let has_guard = current.is_some_and(|current| current.fit);
        let trial = has_guard && self.current != Some(guard) && self.sample[best].reach != Reach::Yes;
        let moved_from = self.current.filter(|current| *current != guard && !trial);
        if !trial {
            self.current = Some(guard);
        }
        Choice { guard, trial, moved_from }
    }

    /// Returns true if the result of a circuit to this exit counts for the guard's statistics. Circuits to an exit that
    /// is down fail through any guard. So after some failures in a row, circuits to that exit do not count until one
    /// succeeds.
    fn counts_for_the_guard(&mut self, exit: Fingerprint, built: bool) -> bool {
        /// The number of failures in a row of circuits to one exit that count for the guard. Any value from 2 to 5
        /// works. One failure may be chance, so 1 is too small. With a large value, a few dead exits would cause an
        /// alarm.
        const COUNTED: u32 = 3;
        /// The largest number of exits in the table of failures, which is more than the public network has. A full
        /// table is cleared.
        const MAX_EXITS: usize = 4096;
        if built {
            self.failed_in_a_row.remove(&exit);
            return true;
        }
        if self.failed_in_a_row.len() >= MAX_EXITS {
            self.failed_in_a_row.clear();
        }
        let failed = self.failed_in_a_row.entry(exit).or_default();
        *failed = failed.saturating_add(1);
        *failed <= COUNTED
    }

    fn drop_if_told_to(&mut self, place: usize) {
        let limits = &self.settings.bias;
        let candidate = &mut self.sample[place];
        let alarm = candidate.bias.alarm(candidate.id, limits);
        candidate.dropped |= limits.drop_guards && alarm.is_some_and(|alarm| alarm.level == Level::Extreme);
    }
}

fn is_excluded(relay: Relay<'_>, dir: &Netdir, exclude: &Exclude<'_>) -> bool {
    !exclude.reachable.reaches(relay)
        || exclude.guards.iter().any(|other| {
            let kin = |other: Relay<'_>| other.relation(relay, exclude.rules).is_some();
            *other == relay.fingerprint() || dir.relay(other).is_some_and(kin)
        })
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
