//! Decides which Tor exit is checked next, and when. Pure: the caller passes the time and a random number.
//!
//! How often the tester checks an exit depends on demand: often if routes use the exit, seldom if the exit is a reserve
//! of routes, and hardly ever if nobody wants the exit. `check/demand.rs` decides which exits are wanted. There are
//! five classes (`check/due_queue.rs`), which are served in this order: exits for which a live request waits, exits
//! that routes use or that could fill a route with too few exits, exits that a person wants checked, reserves, and all
//! other exits.
//!
//! These budgets limit the checks:
//!
//! - how many checks begin per second, because a guard has to build a circuit for each check;
//! - how many checks run at the same time, which is less while circuits are slow;
//! - how many requests each echo server gets (`check/schedule/echo_budget.rs`);
//! - how many checks of exits that nobody wants begin (`TRICKLE`).
//!
//! A check for which a live request waits must begin soon. So only two things can delay such a check: the budgets of
//! the echo servers, and a limit on running checks that is higher for such checks.
//!
//! While no engine (tor process) reaches the Tor network, only one check runs at a time. This check shows when an
//! engine reaches the network again.
//!
//! Next: `check/tester_state.rs` calls this code. `check/verdict.rs` decides how each check ended.

mod check_rate;
mod concurrency_limit;
mod echo_budget;
mod entry;

use std::collections::HashMap;
use std::time::Duration;

use self::check_rate::CheckRate;
use self::concurrency_limit::ConcurrencyLimit;
pub use self::echo_budget::{EchoBudget, EchoTerms};
pub use self::entry::LastCheck;
use self::entry::{Class, Scheduled};
use super::demand::Want;
use super::due_queue::{DueQueue, Ended, Gates};
use crate::exit::{ExitId, Moment};

/// How many checks live requests may start beyond the limit of running checks. A browser opens about this many
/// connections at the same time.
const URGENT_BEYOND: usize = 16;

/// How many checks of exits that nobody wants may begin within the time `check.stale_after`: six an hour with the
/// default. With these checks, one good exit of each country is known, so the first request for a country need not wait
/// for a check.
const TRICKLE: u32 = 36;

/// How many checks of exits that nobody wants may begin together after a pause, for example at the first start: one for
/// each country that has exits.
const TRICKLE_BURST: u32 = 64;

/// The pause between two checks while no engine reaches the Tor network. Such a check only looks at the engines, so it
/// costs nearly nothing.
const UPLINK_RETRY: Duration = Duration::from_secs(2);

/// How far the times of the next checks are spread, as a share of the pause, in both directions. Checks that began at
/// the same time must not stay together.
pub(super) const SPREAD: f64 = 0.1;

/// How often exits are checked, and how many at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The time between two checks of an exit that routes use.
    pub every: Duration,
    /// The age after which a verdict no longer counts. Exits that are only a reserve of routes are checked three times
    /// within this age.
    pub stale_after: Duration,
    /// How many checks begin per second at most.
    pub per_second: f64,
    /// How many checks run at the same time at most.
    pub concurrency: usize,
    /// How many requests each echo server may get.
    pub echo: EchoTerms,
}

impl Terms {
    /// Returns the time between two checks of an exit that is only a reserve of routes. A verdict counts for three
    /// times as long, so it still counts if two checks in a row do not happen.
    fn reserve_every(&self) -> Duration {
        (self.stale_after / 3).max(self.every)
    }
}

/// The schedule of all Tor exits that are checked.
#[derive(Debug)]
pub struct Schedule {
    terms: Terms,
    rate: CheckRate,
    trickle: CheckRate,
    concurrency: ConcurrencyLimit,
    echoes: EchoBudget,
    /// True if an engine reaches the Tor network, as far as is known.
    uplink: bool,
    /// The time from which the next check may begin while `uplink` is false.
    uplink_from: Moment,
    queue: DueQueue<Scheduled, 5>,
}

impl Schedule {
    /// Returns an empty schedule. `echoes` is the number of echo servers.
    pub fn new(terms: Terms, echoes: usize) -> Self {
        let each = terms.stale_after / TRICKLE;
        Self {
            terms,
            rate: CheckRate::per_second(terms.per_second),
            trickle: CheckRate::new(each, each * TRICKLE_BURST),
            concurrency: ConcurrencyLimit::new(terms.concurrency),
            echoes: EchoBudget::new(terms.echo, echoes),
            uplink: true,
            uplink_from: Moment(0),
            queue: DueQueue::new(),
        }
    }

    /// Makes `exits` the set of exits that are checked. Exits that are already on the schedule keep their data.
    pub fn list(&mut self, exits: impl IntoIterator<Item = (ExitId, LastCheck)>) {
        let terms = self.terms;
        self.queue.list(exits, |last| Scheduled::new(last, &terms));
    }

    pub fn knows(&self, id: &ExitId) -> bool {
        self.queue.get(id).is_some()
    }

    /// Returns when the last check of this exit ended. `None` if it was never checked.
    pub fn ended_at(&self, id: &ExitId) -> Option<Moment> {
        self.queue.get(id)?.ended
    }

    /// Makes `wanted` the set of wanted exits. All other exits are checked rarely, in the order of `rank`: the exit
    /// with the smallest rank comes first. An exit for which `rank` returns `None` needs no check.
    pub fn want_only(&mut self, wanted: &HashMap<ExitId, Want>, rank: impl Fn(&ExitId) -> Option<u32>, now: Moment) {
        let terms = self.terms;
        let changed: Vec<_> = self
            .queue
            .iter()
            .filter_map(|(id, entry)| {
                let next = (wanted.get(id).copied(), rank(id));
                (next != (entry.want, entry.rank)).then(|| (id.clone(), next))
            })
            .collect();
        for (id, (want, rank)) in changed {
            self.queue.change(&id, |entry| entry.wanted(want, rank, &terms, now));
        }
    }

    /// Called when the verdict on an exit no longer counts.
    pub fn forget_verdict(&mut self, id: &ExitId, now: Moment) {
        let terms = self.terms;
        self.queue.change(id, |entry| entry.forget(&terms, now));
    }

    /// Called when a live request waits for this exit: the exit is checked soon. Returns false if the exit is not on
    /// the schedule.
    pub fn urgent(&mut self, id: &ExitId, now: Moment) -> bool {
        self.queue.hasten(id, |entry| entry.urgent(now))
    }

    /// Called when a person wants a check of this exit now. Returns false if the exit is not on the schedule.
    pub fn force(&mut self, id: &ExitId, now: Moment) -> bool {
        self.queue.hasten(id, |entry| (entry.urgent, entry.due) = (true, now))
    }

    /// Called when a person wants checks of many exits, of which this is one. Returns false if the exit is not on the
    /// schedule.
    pub fn soon(&mut self, id: &ExitId, now: Moment) -> bool {
        self.queue.hasten(id, |entry| (entry.asked, entry.due) = (true, entry.due.min(now)))
    }

    /// Makes this exit due now, because its next check must compare something new. If a check of the exit runs, the
    /// exit is checked once more after that check.
    pub fn again(&mut self, id: &ExitId, now: Moment) {
        if !self.queue.again(id) {
            self.queue.hasten(id, |entry| (entry.again, entry.due) = (true, entry.due.min(now)));
        }
    }

    /// Records how long a check waited for its circuit.
    pub fn waited(&mut self, wait: Duration) {
        self.concurrency.waited(wait);
    }

    /// Records one request to the echo server with this index.
    pub fn asked_echo(&mut self, echo: usize, now: Moment) {
        self.echoes.spend(echo, now);
    }

    /// Returns how many requests each echo server has got, and how many it may get now.
    pub fn echoes(&self) -> &EchoBudget {
        &self.echoes
    }

    /// Records whether an engine reaches the Tor network.
    pub fn set_uplink(&mut self, up: bool) {
        self.uplink = up;
    }

    /// Makes every wanted exit that works due now, because checks have something new to request, for example a new
    /// site.
    pub fn hurry(&mut self, now: Moment) {
        let works = self.queue.iter().filter(|(_, entry)| entry.works() && entry.want.is_some());
        for id in works.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.queue.change(&id, |entry| entry.due = entry.due.min(entry.ended.unwrap_or(now)));
        }
    }

    /// Takes the next exit, if a check may begin now.
    pub fn next(&mut self, now: Moment) -> Option<ExitId> {
        let (id, class) = self.queue.take(now, &self.gates())?;
        self.rate.take(now);
        if class == Class::Others as usize {
            self.trickle.take(now);
        }
        Some(id)
    }

    /// Ends a check that was not made. Called after [`Self::next`] returned this exit, if clients' streams through the
    /// exit succeeded at the time `at`, because a check would show the same.
    pub fn proven(&mut self, id: &ExitId, at: Moment, random: f64) {
        let terms = self.terms;
        self.rate.give_back();
        self.queue.end(id, |entry, _| entry.proven(at, &terms, random));
    }

    /// Returns true if this exit, which [`Self::next`] returned, needs a check even if clients use it. The reason is
    /// that a person or another check wants a check, or that the exit's address was confirmed too long ago.
    pub fn needs_check(&self, id: &ExitId, now: Moment) -> bool {
        self.queue.get(id).is_none_or(|entry| entry.needs_check(now))
    }

    /// Returns true if a client waits for the first check of this exit, which [`Self::next`] returned.
    pub fn is_awaited(&self, id: &ExitId) -> bool {
        self.queue.get(id).is_some_and(|entry| entry.urgent && !entry.works())
    }

    /// Returns the time at which [`Self::next`] will return an exit. `None` if a running check must end first.
    pub fn wake(&self) -> Option<Moment> {
        self.queue.wake(&self.gates())
    }

    fn gates(&self) -> Gates<5> {
        let running = self.queue.running();
        if !self.uplink {
            return [(running == 0).then_some(self.uplink_from); 5];
        }
        let urgent = (running < self.terms.concurrency + URGENT_BEYOND).then_some(self.echoes.next());
        let asked = (running < self.concurrency.size()).then(|| self.rate.next());
        let used = asked.map(|at| at.max(self.echoes.next()));
        let reserve = asked.map(|at| at.max(self.echoes.next_half()));
        let others = reserve.map(|at| at.max(self.trickle.next()));
        [urgent, used, asked, reserve, others]
    }

    /// Ends the check of this exit. `random`, a number from 0 to 1, spreads the times of the next checks.
    pub fn ended(&mut self, id: &ExitId, how: Ended, now: Moment, random: f64) {
        let terms = self.terms;
        self.uplink_from = now.after(UPLINK_RETRY);
        self.queue.end(id, |entry, running| entry.ended(how, running.again, &terms, now, random));
    }

    /// Returns how many checks run now.
    pub fn running(&self) -> usize {
        self.queue.running()
    }

    /// Returns how many exits are due and wait for their check. Exits that nobody wants do not count.
    pub fn waiting(&self, now: Moment) -> usize {
        self.queue.waiting(Class::Others as usize, now)
    }
}

/// Returns `pause`, doubled for each failure after the first one, but at most `most`.
pub(super) fn doubled(pause: Duration, failures: u32, most: Duration) -> Duration {
    pause.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(most)
}

/// Returns `pause`, made longer or shorter by at most [`SPREAD`]. `random` is a number from 0 to 1.
pub(super) fn spread(pause: Duration, random: f64) -> Duration {
    pause.mul_f64(1.0 + SPREAD * (2.0 * random - 1.0))
}

#[cfg(test)]
mod tests;
