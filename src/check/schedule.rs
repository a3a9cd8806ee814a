//! Who is tested next, and when. Pure: the clock and the dice are passed in.
//!
//! Four queues, the first that has somebody due goes first: exits that a live request waits for, exits in use, exits
//! that nobody has tested, and the others by age. Each queue is ordered by the moment at which its exits are due, so
//! that asking who is next looks at four heads and never at the thousands behind them.
//!
//! Two budgets bound it all: new checks a second, because every check is a circuit that a guard has to build, and
//! checks at once, of which there are fewer while circuits are slow to come. A live request waits for neither, within
//! reason: it is why the tester exists.
//!
//! Next: `check/tester_state.rs` asks; `check/verdict.rs` says how each check ended.

mod check_rate;
mod concurrency_limit;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use self::check_rate::CheckRate;
use self::concurrency_limit::ConcurrencyLimit;
use crate::exit::{ExitId, Moment, Verdict};

/// How much sooner exits in use are tested again than others: their verdicts are what routes stand on. Arbitrary.
const USED_SOONER: u32 = 4;

/// The pause after an exit's first failure; it doubles with each. Arbitrary: long enough for a relay to restart.
const RETRY: Duration = Duration::from_secs(60);

/// The pause doubles up to this many times the ordinary round: what fails for hours is asked seldom, not never.
const SELDOM: u32 = 8;

/// The pause after a first check that said nothing of the exit; it doubles up to the second. Arbitrary: an engine
/// restarts in about two seconds, and asking one that is not ready costs nothing.
const AGAIN: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(16)];

/// How soon a request that waits for an exit has it tested again: after a verdict, and after a check that came to
/// none. Arbitrary: many requests may wait for the same exit, one after another.
const WISH_GAPS: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(1)];

/// Checks beyond the limit that live requests may start. Arbitrary: a browser's burst of new sessions.
const WISHES_BEYOND: usize = 16;

/// How far due times are spread, as a share of the pause either way: what began together must not stay together.
const SPREAD: f64 = 0.1;

/// How often, and how many.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How often an exit is tested again.
    pub every: Duration,
    /// New checks a second.
    pub per_second: f64,
    /// Checks at once.
    pub concurrency: usize,
}

/// How a check ended, as far as the next one depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The exit works.
    Good,
    /// It does not.
    Bad,
    /// Nothing can be said of it.
    Open,
}

/// The queues, first to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Wished,
    Used,
    New,
    Old,
}

const CLASSES: [Class; 4] = [Class::Wished, Class::Used, Class::New, Class::Old];

#[derive(Clone, Copy, Debug)]
struct Entry {
    due: Moment,
    /// When its last check ended.
    ended: Option<Moment>,
    /// No wish is heard before.
    rest: Moment,
    tested: bool,
    used: bool,
    wished: bool,
    /// Is tested once more as soon as the check that runs is over.
    again: bool,
    /// Ends in a row that were not good.
    failures: u32,
}

impl Entry {
    fn class(&self) -> Class {
        match self {
            Self { wished: true, .. } => Class::Wished,
            Self { used: true, .. } => Class::Used,
            Self { tested: false, .. } => Class::New,
            _ => Class::Old,
        }
    }
}

/// What is known of an exit that is put on the schedule.
#[derive(Clone, Copy, Debug)]
pub struct Past {
    /// When it was last tested.
    pub checked: Option<Moment>,
    /// What that came to.
    pub verdict: Verdict,
}

/// Everybody who is to be tested.
#[derive(Debug)]
pub struct Schedule {
    terms: Terms,
    rate: CheckRate,
    concurrency: ConcurrencyLimit,
    entries: HashMap<ExitId, Entry>,
    queues: [BTreeSet<(Moment, ExitId)>; 4],
    running: HashSet<ExitId>,
}

impl Schedule {
    /// An empty one.
    pub fn new(terms: Terms) -> Self {
        let (rate, concurrency) = (CheckRate::new(terms.per_second), ConcurrencyLimit::new(terms.concurrency));
        Self { terms, rate, concurrency, entries: HashMap::new(), queues: Default::default(), running: HashSet::new() }
    }

    /// Makes these the exits that there are. What is known of those already here stays.
    pub fn list(&mut self, exits: impl IntoIterator<Item = (ExitId, Past)>, now: Moment) {
        let mut listed = HashSet::with_capacity(self.entries.len());
        for (id, past) in exits {
            if !self.entries.contains_key(&id) {
                self.add(id.clone(), past, now);
            }
            listed.insert(id);
        }
        let gone: Vec<_> = self.entries.keys().filter(|id| !listed.contains(*id)).cloned().collect();
        for id in gone {
            self.unqueue(&id);
            self.entries.remove(&id);
        }
    }

    fn add(&mut self, id: ExitId, past: Past, now: Moment) {
        let tested = past.verdict != Verdict::Untested;
        let due = match past.checked {
            Some(at) if past.verdict == Verdict::Good => at.after(self.terms.every),
            Some(at) if tested => at.after(RETRY),
            _ => now,
        };
        let entry = Entry {
            due,
            ended: past.checked,
            rest: now,
            tested,
            used: false,
            wished: false,
            again: false,
            failures: 0,
        };
        self.entries.insert(id.clone(), entry);
        self.queue(&id);
    }

    /// True of an exit that is on the schedule.
    pub fn knows(&self, id: &ExitId) -> bool {
        self.entries.contains_key(id)
    }

    /// Makes these the exits in use.
    pub fn use_only(&mut self, used: &BTreeSet<ExitId>, now: Moment) {
        let stale: Vec<_> = self.queues[Class::Used as usize].iter().map(|(_, id)| id).chain(used).cloned().collect();
        for id in stale {
            let (is_used, sooner) = (used.contains(&id), self.terms.every / USED_SOONER);
            self.change(&id, |entry| {
                if is_used && !entry.used && entry.failures == 0 {
                    entry.due = entry.due.min(entry.ended.map_or(now, |ended| ended.after(sooner)));
                }
                entry.used = is_used;
            });
        }
    }

    /// A live request waits for this exit. False if there is none of that name.
    pub fn wish(&mut self, id: &ExitId, now: Moment) -> bool {
        self.hasten(id, |entry| {
            // Who has just passed was what the request waited for.
            let served = entry.tested && entry.failures == 0 && now < entry.rest;
            if !served {
                (entry.wished, entry.due) = (true, now.max(entry.rest));
            }
        })
    }

    /// Somebody insists on a check of this exit now. False if there is none of that name.
    pub fn force(&mut self, id: &ExitId, now: Moment) -> bool {
        self.hasten(id, |entry| (entry.wished, entry.due) = (true, now))
    }

    /// Whoever waits for an exit that is being tested waits for that test.
    fn hasten(&mut self, id: &ExitId, change: impl FnOnce(&mut Entry)) -> bool {
        if self.running.contains(id) { self.entries.contains_key(id) } else { self.change(id, change) }
    }

    /// This exit is due, in its own queue. False if there is none of that name.
    pub fn soon(&mut self, id: &ExitId, now: Moment) -> bool {
        self.hasten(id, |entry| entry.due = entry.due.min(now))
    }

    /// This exit is due, and once more if it is being tested now: something has become known that its next check needs.
    pub fn again(&mut self, id: &ExitId, now: Moment) {
        if !self.running.contains(id) {
            self.soon(id, now);
        } else if let Some(entry) = self.entries.get_mut(id) {
            entry.again = true;
        }
    }

    /// How long a check waited for its circuit.
    pub fn waited(&mut self, wait: Duration) {
        self.concurrency.waited(wait);
    }

    /// Every exit that works is due, because there is something new to test it for. The order stays.
    pub fn hurry(&mut self, now: Moment) {
        let late: Vec<_> =
            self.entries.iter().filter(|(_, entry)| entry.failures == 0).map(|(id, _)| id.clone()).collect();
        for id in late {
            self.change(&id, |entry| entry.due = entry.due.min(entry.ended.unwrap_or(now)));
        }
    }

    /// Takes whoever is next, if anybody may be tested now.
    pub fn next(&mut self, now: Moment) -> Option<ExitId> {
        let class = CLASSES.into_iter().find(|class| self.opens(*class).is_some_and(|at| at <= now))?;
        let (_, id) = self.queues[class as usize].pop_first()?;
        self.entries.get_mut(&id)?.wished = false;
        self.running.insert(id.clone());
        self.rate.take(now);
        Some(id)
    }

    /// When [`Self::next`] has somebody; `None` if not before a check ends.
    pub fn wake(&self) -> Option<Moment> {
        CLASSES.into_iter().filter_map(|class| self.opens(class)).min()
    }

    /// When the head of a queue may be tested.
    fn opens(&self, class: Class) -> Option<Moment> {
        let (due, _) = self.queues[class as usize].first()?;
        let (limit, rate) = match class {
            Class::Wished => (self.terms.concurrency + WISHES_BEYOND, Moment(0)),
            _ => (self.concurrency.size(), self.rate.next()),
        };
        (self.running.len() < limit).then(|| rate.max(*due))
    }

    /// A check of this exit ended. `dice`, from 0 to 1, spreads the next one.
    pub fn ended(&mut self, id: &ExitId, how: Ended, now: Moment, dice: f64) {
        self.running.remove(id);
        let every = self.terms.every;
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.ended = Some(now);
        entry.rest = now.after(WISH_GAPS[usize::from(how == Ended::Open)]);
        entry.tested |= how != Ended::Open;
        entry.failures = if how == Ended::Good { 0 } else { entry.failures.saturating_add(1) };
        let doubled =
            |pause: Duration, most: Duration| pause.saturating_mul(1 << (entry.failures - 1).min(16)).min(most);
        let pause = match how {
            Ended::Good if entry.used => every / USED_SOONER,
            Ended::Good => every,
            Ended::Bad => doubled(RETRY.min(every), every.saturating_mul(SELDOM)),
            Ended::Open => doubled(AGAIN[0], AGAIN[1]).min(every),
        };
        let spread = pause.mul_f64(1.0 + SPREAD * (2.0 * dice - 1.0));
        entry.due = if std::mem::take(&mut entry.again) { now } else { now.after(spread) };
        self.queue(id);
    }

    /// Checks that run now.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Exits that are due and wait. Walks over those alone.
    pub fn waiting(&self, now: Moment) -> usize {
        self.queues.iter().map(|queue| queue.iter().take_while(|(due, _)| *due <= now).count()).sum()
    }

    fn change(&mut self, id: &ExitId, change: impl FnOnce(&mut Entry)) -> bool {
        self.unqueue(id);
        let Some(entry) = self.entries.get_mut(id) else { return false };
        change(entry);
        self.queue(id);
        true
    }

    fn queue(&mut self, id: &ExitId) {
        if let Some(entry) = self.entries.get(id).filter(|_| !self.running.contains(id)) {
            self.queues[entry.class() as usize].insert((entry.due, id.clone()));
        }
    }

    fn unqueue(&mut self, id: &ExitId) {
        if let Some(entry) = self.entries.get(id) {
            self.queues[entry.class() as usize].remove(&(entry.due, id.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
