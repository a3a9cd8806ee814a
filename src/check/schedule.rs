//! Decides which Tor exit is checked next, and when. Pure: the caller passes the time and a random number.
//!
//! There are four classes (`check/due_queue.rs`), which are served in this order: exits for which a live request waits,
//! exits in use, exits that were never checked, and all other exits.
//!
//! Two budgets limit the checks. The first one limits how many checks begin per second, because a guard has to build a
//! circuit for each check. The second one limits how many checks run at the same time, and is smaller while circuits
//! are slow. A check for a live request does not have to wait for these budgets, up to a limit of its own, because the
//! request waits for the check.
//!
//! Next: `check/tester_state.rs` calls this code. `check/verdict.rs` decides how each check ended.

mod check_rate;
mod concurrency_limit;

use std::collections::BTreeSet;
use std::time::Duration;

use self::check_rate::CheckRate;
use self::concurrency_limit::ConcurrencyLimit;
use super::due_queue::{DueQueue, Ended, Entry, Gates};
use crate::exit::{ExitId, Moment, Verdict};

/// Exits in use are checked this many times as often as other exits, because the pools of routes depend on their
/// verdicts. Not tuned.
const USED_SOONER: u32 = 4;

/// The pause before the next check after the first failure of an exit. The pause doubles with each further failure. A
/// relay can restart within this time. Not tuned.
const RETRY: Duration = Duration::from_secs(60);

/// The pause after failures grows up to this many times `check.every`, so an exit that fails for hours is checked
/// rarely, but is still checked.
const SELDOM: u32 = 8;

/// The pause after a first check that said nothing about the exit. The pause doubles with each such check, up to the
/// second value. A Tor engine restarts in about two seconds, and a request to an engine that is not ready costs
/// nothing. Not tuned.
const OPEN_RETRY: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(16)];

/// The least time between the end of a check and the next check of the same exit for a live request. The first value
/// applies after a check with a verdict, the second one after a check without a verdict. The limit is needed because
/// many requests may wait for the same exit, one after another. Not tuned.
const URGENT_GAPS: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(1)];

/// How many checks live requests may start beyond the limit of running checks. A browser opens about this many
/// connections at the same time.
const URGENT_BEYOND: usize = 16;

/// How far the times of the next checks are spread, as a share of the pause, in both directions. Checks that began at
/// the same time must not stay together.
pub(super) const SPREAD: f64 = 0.1;

/// How often exits are checked, and how many at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The time between two checks of an exit.
    pub every: Duration,
    /// How many checks begin per second at most.
    pub per_second: f64,
    /// How many checks run at the same time at most.
    pub concurrency: usize,
}

/// The classes of exits. The class that is served first comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Urgent,
    Used,
    New,
    Others,
}

#[derive(Clone, Copy, Debug)]
struct Scheduled {
    due: Moment,
    /// When the last check of the exit ended. `None` if the exit was never checked.
    ended: Option<Moment>,
    /// The earliest time at which a live request can cause a check of the exit.
    urgent_from: Moment,
    tested: bool,
    used: bool,
    urgent: bool,
    /// How many checks in a row were not good.
    failures: u32,
}

impl Entry for Scheduled {
    fn class(&self) -> usize {
        let class = match self {
            Self { urgent: true, .. } => Class::Urgent,
            Self { used: true, .. } => Class::Used,
            Self { tested: false, .. } => Class::New,
            _ => Class::Others,
        };
        class as usize
    }

    fn due(&self) -> Moment {
        self.due
    }
}

impl Scheduled {
    fn new(last: LastCheck, terms: Terms, now: Moment) -> Self {
        let tested = last.verdict != Verdict::Untested;
        let due = match last.checked {
            Some(at) if last.verdict == Verdict::Good => at.after(terms.every),
            Some(at) if tested => at.after(RETRY),
            _ => now,
        };
        let (ended, urgent_from, failures) = (last.checked, now, 0);
        Self { due, ended, urgent_from, tested, used: false, urgent: false, failures }
    }
}

/// The known facts about an exit when the exit is added to the schedule.
#[derive(Clone, Copy, Debug)]
pub struct LastCheck {
    /// When the exit was last checked. `None` if the exit was never checked.
    pub checked: Option<Moment>,
    /// The verdict of the last check.
    pub verdict: Verdict,
}

/// The schedule of all Tor exits that are checked.
#[derive(Debug)]
pub struct Schedule {
    terms: Terms,
    rate: CheckRate,
    concurrency: ConcurrencyLimit,
    queue: DueQueue<Scheduled, 4>,
}

impl Schedule {
    pub fn new(terms: Terms) -> Self {
        let (rate, concurrency) = (CheckRate::new(terms.per_second), ConcurrencyLimit::new(terms.concurrency));
        Self { terms, rate, concurrency, queue: DueQueue::new() }
    }

    /// Makes `exits` the set of exits that are checked. Exits that are already on the schedule keep their data.
    pub fn list(&mut self, exits: impl IntoIterator<Item = (ExitId, LastCheck)>, now: Moment) {
        let terms = self.terms;
        self.queue.list(exits, |last| Scheduled::new(last, terms, now));
    }

    pub fn knows(&self, id: &ExitId) -> bool {
        self.queue.get(id).is_some()
    }

    /// Makes `used` the set of exits in use.
    pub fn use_only(&mut self, used: &BTreeSet<ExitId>, now: Moment) {
        let changed: Vec<_> = self.queue.class(Class::Used as usize).chain(used).cloned().collect();
        let sooner = self.terms.every / USED_SOONER;
        for id in changed {
            let is_used = used.contains(&id);
            self.queue.change(&id, |entry| {
                if is_used && !entry.used && entry.failures == 0 {
                    entry.due = entry.due.min(entry.ended.map_or(now, |ended| ended.after(sooner)));
                }
                entry.used = is_used;
            });
        }
    }

    /// Called when a live request waits for this exit: the exit is checked soon. Returns false if the exit is not on
    /// the schedule.
    pub fn urgent(&mut self, id: &ExitId, now: Moment) -> bool {
        self.queue.hasten(id, |entry| {
            // An exit that has just passed needs no new check, because the request can use that exit now.
            let passed = entry.tested && entry.failures == 0 && now < entry.urgent_from;
            if !passed {
                (entry.urgent, entry.due) = (true, now.max(entry.urgent_from));
            }
        })
    }

    /// Called when a person wants a check of this exit now. Returns false if the exit is not on the schedule.
    pub fn force(&mut self, id: &ExitId, now: Moment) -> bool {
        self.queue.hasten(id, |entry| (entry.urgent, entry.due) = (true, now))
    }

    /// Makes the check of this exit due now, and leaves the exit in its class. Returns false if the exit is not on the
    /// schedule.
    pub fn soon(&mut self, id: &ExitId, now: Moment) -> bool {
        self.queue.hasten(id, |entry| entry.due = entry.due.min(now))
    }

    /// Makes this exit due now. If a check of it runs, the exit is checked once more afterwards, because the next check
    /// needs information that the running check does not have.
    pub fn again(&mut self, id: &ExitId, now: Moment) {
        if !self.queue.again(id) {
            self.soon(id, now);
        }
    }

    /// Records how long a check waited for its circuit.
    pub fn waited(&mut self, wait: Duration) {
        self.concurrency.waited(wait);
    }

    /// Makes every exit that works due now, because there is something new to check, for example a new site. The order
    /// of the exits stays the same.
    pub fn hurry(&mut self, now: Moment) {
        let works = self.queue.iter().filter(|(_, entry)| entry.failures == 0);
        for id in works.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.queue.change(&id, |entry| entry.due = entry.due.min(entry.ended.unwrap_or(now)));
        }
    }

    /// Takes the next exit, if a check may begin now.
    pub fn next(&mut self, now: Moment) -> Option<ExitId> {
        let (id, _) = self.queue.take(now, &self.gates())?;
        self.queue.change(&id, |entry| entry.urgent = false);
        self.rate.take(now);
        Some(id)
    }

    /// Returns the time at which [`Self::next`] will return an exit. `None` if a running check must end first.
    pub fn wake(&self) -> Option<Moment> {
        self.queue.wake(&self.gates())
    }

    fn gates(&self) -> Gates<4> {
        let running = self.queue.running();
        let urgent = (running < self.terms.concurrency + URGENT_BEYOND).then_some(Moment(0));
        let others = (running < self.concurrency.size()).then(|| self.rate.next());
        [urgent, others, others, others]
    }

    /// Ends the check of this exit. `random`, a number from 0 to 1, spreads the times of the next checks.
    pub fn ended(&mut self, id: &ExitId, how: Ended, now: Moment, random: f64) {
        let every = self.terms.every;
        self.queue.end(id, |entry, running| {
            entry.ended = Some(now);
            entry.urgent_from = now.after(URGENT_GAPS[usize::from(how == Ended::Open)]);
            entry.tested |= how != Ended::Open;
            entry.failures = if how == Ended::Good { 0 } else { entry.failures.saturating_add(1) };
            let pause = match how {
                Ended::Good if entry.used => every / USED_SOONER,
                Ended::Good => every,
                Ended::Bad => doubled(RETRY.min(every), entry.failures, every.saturating_mul(SELDOM)),
                Ended::Open => doubled(OPEN_RETRY[0], entry.failures, OPEN_RETRY[1]).min(every),
            };
            entry.due = if running.again { now } else { now.after(spread(pause, random)) };
        });
    }

    /// Returns how many checks run now.
    pub fn running(&self) -> usize {
        self.queue.running()
    }

    /// Returns how many exits are due and wait for their check.
    pub fn waiting(&self, now: Moment) -> usize {
        self.queue.waiting(now)
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
