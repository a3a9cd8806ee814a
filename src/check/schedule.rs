//! Which Tor exit is checked next, and when. Pure: the clock and the random number are passed in.
//!
//! There are four classes (`check/due_queue.rs`), served in this order: exits that a live request waits for, exits in
//! use, exits that were never checked, and all others.
//!
//! Two budgets limit the checks: new checks a second, because each is a circuit that a guard has to build, and checks
//! at once, of which there are fewer while circuits are slow to come. A check for a live request waits for neither, up
//! to a limit of its own, because the request waits for the check.
//!
//! Next: `check/tester_state.rs` asks; `check/verdict.rs` decides how each check ended.

mod check_rate;
mod concurrency_limit;

use std::collections::BTreeSet;
use std::time::Duration;

use self::check_rate::CheckRate;
use self::concurrency_limit::ConcurrencyLimit;
use super::due_queue::{DueQueue, Ended, Entry, Gates};
use crate::exit::{ExitId, Moment, Verdict};

/// Exits in use are checked this many times as often as others, because pools depend on their verdicts. Not tuned.
const USED_SOONER: u32 = 4;

/// The pause after an exit's first failure; it doubles with each. Long enough for a relay to restart; not tuned.
const RETRY: Duration = Duration::from_secs(60);

/// The pause doubles up to this many times `check.every`: an exit that fails for hours is checked seldom, not never.
const SELDOM: u32 = 8;

/// The pause after a first check that said nothing of the exit; it doubles up to the second value. An engine restarts
/// in about two seconds, and asking one that is not ready costs nothing. Not tuned.
const OPEN_RETRY: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(16)];

/// How soon a live request may have an exit checked again: after a verdict, and after a check without one. Many
/// requests may wait for the same exit, one after another. Not tuned.
const URGENT_GAPS: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(1)];

/// Checks beyond the limit that live requests may start: a browser opens about this many connections at once.
const URGENT_BEYOND: usize = 16;

/// How far due times are spread, as a share of the pause either way: checks that began together must not stay together.
pub(super) const SPREAD: f64 = 0.1;

/// How often, and how many.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How often an exit is checked again.
    pub every: Duration,
    /// New checks a second.
    pub per_second: f64,
    /// Checks at once.
    pub concurrency: usize,
}

/// The classes, the first to serve first.
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
    /// When its last check ended.
    ended: Option<Moment>,
    /// A live request has it checked from this moment on.
    urgent_from: Moment,
    tested: bool,
    used: bool,
    urgent: bool,
    /// Checks in a row that were not good.
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

/// What is known of an exit when it is put on the schedule.
#[derive(Clone, Copy, Debug)]
pub struct LastCheck {
    /// When it was last checked.
    pub checked: Option<Moment>,
    /// The verdict of that check.
    pub verdict: Verdict,
}

/// All Tor exits that are checked.
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

    /// Makes these the exits that are checked. What is known of those already here stays.
    pub fn list(&mut self, exits: impl IntoIterator<Item = (ExitId, LastCheck)>, now: Moment) {
        let terms = self.terms;
        self.queue.list(exits, |last| Scheduled::new(last, terms, now));
    }

    pub fn knows(&self, id: &ExitId) -> bool {
        self.queue.get(id).is_some()
    }

    /// Makes these the exits in use.
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

    /// A live request waits for this exit. False if it is not on the schedule.
    pub fn urgent(&mut self, id: &ExitId, now: Moment) -> bool {
        self.queue.hasten(id, |entry| {
            // An exit that has just passed needs no check: the request can use it.
            let passed = entry.tested && entry.failures == 0 && now < entry.urgent_from;
            if !passed {
                (entry.urgent, entry.due) = (true, now.max(entry.urgent_from));
            }
        })
    }

    /// A person wants this exit checked now. False if it is not on the schedule.
    pub fn force(&mut self, id: &ExitId, now: Moment) -> bool {
        self.queue.hasten(id, |entry| (entry.urgent, entry.due) = (true, now))
    }

    /// This exit is due, in its own class. False if it is not on the schedule.
    pub fn soon(&mut self, id: &ExitId, now: Moment) -> bool {
        self.queue.hasten(id, |entry| entry.due = entry.due.min(now))
    }

    /// This exit is due, and is checked once more if a check of it runs: its next check needs what has just become known.
    pub fn again(&mut self, id: &ExitId, now: Moment) {
        if !self.queue.again(id) {
            self.soon(id, now);
        }
    }

    /// How long a check waited for its circuit.
    pub fn waited(&mut self, wait: Duration) {
        self.concurrency.waited(wait);
    }

    /// Every exit that works is due, because there is something new to check it for. The order stays.
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

    /// When [`Self::next`] will return an exit; `None` if a running check must end first.
    pub fn wake(&self) -> Option<Moment> {
        self.queue.wake(&self.gates())
    }

    fn gates(&self) -> Gates<4> {
        let running = self.queue.running();
        let urgent = (running < self.terms.concurrency + URGENT_BEYOND).then_some(Moment(0));
        let others = (running < self.concurrency.size()).then(|| self.rate.next());
        [urgent, others, others, others]
    }

    /// A check of this exit ended. `random`, from 0 to 1, spreads the next one.
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

    /// Checks that run now.
    pub fn running(&self) -> usize {
        self.queue.running()
    }

    /// Exits that are due and wait.
    pub fn waiting(&self, now: Moment) -> usize {
        self.queue.waiting(now)
    }
}

/// A pause that doubles with each failure after the first, up to `most`.
pub(super) fn doubled(pause: Duration, failures: u32, most: Duration) -> Duration {
    pause.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(most)
}

/// A pause with [`SPREAD`] added or taken away; `random` is from 0 to 1.
pub(super) fn spread(pause: Duration, random: f64) -> Duration {
    pause.mul_f64(1.0 + SPREAD * (2.0 * random - 1.0))
}

#[cfg(test)]
mod tests;
