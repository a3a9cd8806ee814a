//! The guard of an engine: which one, for how long, and when to be suspicious of it. Pure.
//!
//! A client that enters the Tor network through ever new relays will one day enter through a hostile one, so an engine
//! keeps one guard for months. This is Tor's guard specification, reduced to a client with one guard for everything:
//!
//! - A *sample* of guards, drawn by the consensus' weights, bounds how many relays an engine will ever enter through in a
//!   period, even if an attacker takes relays down. It is saved; a member leaves it when its lifetime (120 days, of
//!   which a random tenth is already over when it comes in) is up, or when it has been unlisted for 20 days.
//! - Members that have once worked are *confirmed* and come before the others; within both the order is that of the draw.
//!   The first one that is listed, not kept away and not known to be down is the guard.
//! - A guard that is down is tried again every 10 minutes at first, every 9 hours in the end, and is gone back to.
//! - Circuits that fail beyond the guard are counted, because a hostile guard would let through those circuits only whose
//!   other end it sees as well. Below certain rates there is an [`Alarm`]; whether the guard is then dropped is for the
//!   consensus to say (it says no, so far).
//!
//! Engines have different guards, because otherwise one dead relay would stop all of them. The caller passes the guards of
//! the other engines.
//!
//! # What makes tor itself keep to that guard
//!
//! Measured with tor 0.4.9.11 on a private network of 16 guards, every `connect(2)` traced, a new consensus every 20 s:
//!
//! - `EntryNodes $FINGERPRINT` is enough: circuits *and* directory fetches use that relay and nothing else. Beside it
//!   `NumEntryGuards 1` and `NumDirectoryGuards 1` change nothing; they matter while `EntryNodes` is not set, when tor would
//!   otherwise use several directory guards.
//! - Without a cached consensus tor asks an authority or a fallback directory for the first one, whatever `EntryNodes` says.
//!   So a further engine is started on a copy of the first one's `cached-*` files, and the very first one runs without
//!   `EntryNodes` until it has a directory; the guard that it came to by itself is then [adopted](GuardState::adopt).
//! - The relay must have the flags Guard, Stable, Fast, V2Dir and Valid. Given one without, tor makes no connection
//!   and does not say so; [`GuardState::choose`] leaves a guard that loses them.
//! - `SETCONF EntryNodes=…` on a running engine closes every circuit that never carried a stream, also those that a
//!   controller built, and keeps the others usable. So it comes before building spares, not after.
//! - `EXTENDCIRCUIT` does not care about `EntryNodes`: a [trial](Choice::trial) needs no change of configuration.
//! - With the guard down and its consensus stale, tor turns to an authority or a fallback directory. A prompt `SETCONF`
//!   to the next guard keeps it from that.
//!
//! Next: `guard/sample.rs` (who is in the sample), `guard/bias.rs` (the alarm), `guard/saved.rs` (the state as text).

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::Rng;

use super::netdir::{Netdir, Relay, Rules};
use crate::exit::Fingerprint;

mod bias;
mod hex;
mod sample;
mod saved;
mod settings;
#[cfg(test)]
mod tests;

pub use bias::{Alarm, Failing, Level};
pub use saved::BadState;

use sample::{Candidate, Reach};
use settings::Settings;

/// One engine's guards. The caller saves [`to_json`](Self::to_json) after every change of [`Choice`], and once a minute.
#[derive(Clone, Debug, Default)]
pub struct GuardState {
    /// In the order in which they were drawn.
    sample: Vec<Candidate>,
    current: Option<Fingerprint>,
    /// This and all fields below are not saved.
    settings: Settings,
    /// When a guard last worked, in seconds since 1970; 0 for never.
    last_success: u64,
    /// How many circuits to an exit failed in a row.
    failed_in_a_row: HashMap<Fingerprint, u32>,
}

/// Relays that must not be this engine's guard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exclude<'a> {
    /// Guards and directory guards of the other engines. Their families and neighbours are excluded with them.
    pub guards: &'a [Fingerprint],
    /// The network's own rules.
    pub rules: Rules,
}

/// The guard to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub guard: Fingerprint,
    /// True if the current guard works, but this better one is due for another try: build a circuit through it, report
    /// the result, and choose again. False: use it for everything from now on.
    pub trial: bool,
    /// The guard that it replaces, if it replaces one.
    pub moved_from: Option<Fingerprint>,
}

/// Why there is no guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NoGuard {
    /// The directory lists no possible guard.
    #[error("the directory lists no relay that can be a guard")]
    NoneListed,
    /// All possible guards are used by other engines, are related to those, or were dropped for selective failure.
    #[error("every guard of the sample is used by another engine, related to one that is, or was dropped")]
    AllExcluded,
}

impl GuardState {
    /// The guard that was chosen last: for the engine's configuration before any directory is known.
    pub fn current(&self) -> Option<Fingerprint> {
        self.current
    }

    /// Brings the sample up to date with a directory and says which guard to use now. To be called with every new
    /// directory, after a failure, and when [`next_retry`](Self::next_retry) has come.
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

    /// Puts a guard that tor chose by itself first in the sample. False if that relay cannot be a guard.
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

    /// Notes that a connection to this guard was made, or that a circuit got past it.
    pub fn note_success<R: Rng + ?Sized>(&mut self, guard: Fingerprint, now: SystemTime, rng: &mut R) {
        let now = seconds(now);
        let Some(place) = self.place(guard) else { return };
        let blur = self.settings.blur(now, rng);
        let candidate = &mut self.sample[place];
        candidate.reach = Reach::Yes;
        candidate.failing_since = None;
        candidate.confirmed.get_or_insert(blur);
        let offline = now.saturating_sub(self.last_success) > self.settings.internet_likely_down;
        self.last_success = now;
        // After a time without any success our own network was down, so failures of that time say nothing about guards.
        if offline {
            self.sample.iter_mut().filter(|candidate| candidate.primary).for_each(Candidate::may_be_up);
        }
    }

    /// Notes that this guard could not be reached: no connection, or the first hop of a circuit failed.
    pub fn note_failure(&mut self, guard: Fingerprint, now: SystemTime) {
        let now = seconds(now);
        if let Some(place) = self.place(guard) {
            let candidate = &mut self.sample[place];
            candidate.reach = Reach::No;
            candidate.failing_since.get_or_insert(now);
            candidate.last_tried = now;
        }
    }

    /// Notes whether a circuit that got past this guard was completed.
    pub fn note_build(&mut self, guard: Fingerprint, exit: Fingerprint, built: bool) {
        if let Some(place) = self.place(guard).filter(|_| self.counts_for_the_guard(exit, built)) {
            self.sample[place].bias.note_build(built, &self.settings.bias);
            self.drop_if_told_to(place);
        }
    }

    /// Notes, once per circuit, whether a circuit through this guard worked: the exit answered a stream, or the circuit was
    /// destroyed under the first stream.
    pub fn note_use(&mut self, guard: Fingerprint, carried: bool) {
        if let Some(place) = self.place(guard) {
            self.sample[place].bias.note_use(carried, &self.settings.bias);
            self.drop_if_told_to(place);
        }
    }

    /// Whether the guard in use lets through suspiciously few circuits.
    pub fn alarm(&self) -> Option<Alarm> {
        let place = self.place(self.current?)?;
        self.sample[place].bias.alarm(self.sample[place].id, &self.settings.bias)
    }

    /// When a better guard than the current one is due for another try.
    pub fn next_retry(&self) -> Option<SystemTime> {
        let order = self.order();
        let better = order.iter().take_while(|place| Some(self.sample[**place].id) != self.current);
        let down = better.map(|place| &self.sample[*place]).filter(|candidate| candidate.reach == Reach::No);
        down.map(Candidate::retry_at).min().map(|at| UNIX_EPOCH + Duration::from_secs(at))
    }

    fn place(&self, guard: Fingerprint) -> Option<usize> {
        self.sample.iter().position(|candidate| candidate.id == guard)
    }

    /// Indexes of the usable members of the sample, best first.
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

    /// The best guard that is not down. If all are down, the fault is probably ours, so all are tried again.
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
        let current_serves = current.is_some_and(|current| current.fit && current.reach != Reach::No);
        let trial = current_serves && self.current != Some(guard) && self.sample[best].reach == Reach::Maybe;
        let moved_from = self.current.filter(|current| *current != guard && !trial);
        if !trial {
            self.current = Some(guard);
        }
        Choice { guard, trial, moved_from }
    }

    /// An exit that is down fails every circuit, through any guard. So after some failures in a row, circuits to that exit
    /// say nothing about the guard, until one succeeds.
    fn counts_for_the_guard(&mut self, exit: Fingerprint, built: bool) -> bool {
        /// Any value from 2 to 5 does: more than chance, and few enough that some dead exits cause no alarm.
        const COUNTED: u32 = 3;
        /// More exits than the public network has. A full table is cleared.
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
    exclude.guards.iter().any(|other| {
        let kin = |other: Relay<'_>| other.relation(relay, exclude.rules).is_some();
        *other == relay.fingerprint() || dir.relay(other).is_some_and(kin)
    })
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
