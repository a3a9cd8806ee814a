//! Decides which public proxy is checked next, and when. Pure: the caller passes the time and a random number.
//!
//! There are five classes (`check/due_queue.rs`), which are served in this order: proxies for which a live request
//! waits, proxies that were never checked, proxies that worked, proxies that are due for the long test (many requests,
//! to see whether a proxy is reliable), and proxies that failed. So long tests do not delay the first tests of a new
//! list, and the many dead proxies are tested after everything else.
//!
//! After a failure, a proxy is tested again after a pause. The pause doubles with each further failure. After a number
//! of failures in a row, the proxy is given up.

use std::time::Duration;

use super::super::due_queue::{DueQueue, Ended, Entry, Gates};
use super::super::schedule::{doubled, spread};
use crate::exit::{ExitId, Moment};

/// How often proxies are checked, and how many at the same time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) concurrency: usize,
    pub(super) failed_every: Duration,
    pub(super) failed_at_most: Duration,
    pub(super) working_every: Duration,
    /// How many failures in a row lead to giving up a proxy.
    pub(super) remove_after: u32,
    /// True if the long test (many requests, one after another) is enabled.
    pub(super) long: bool,
}

/// At most half (one in this many) of all running checks may be long tests, because a long test makes twenty requests.
const LONG_SHARE: usize = 2;

/// A proxy that was checked within this time is not checked again for a live request. Not tuned.
const URGENT_GAP: Duration = Duration::from_secs(5);

/// The classes of proxies. The class that is served first comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Urgent,
    New,
    Working,
    Long,
    Failed,
}

#[derive(Debug)]
struct Scheduled {
    class: Class,
    due: Moment,
    /// When the last check of the proxy ended.
    ended: Moment,
    /// How many checks in a row failed.
    failures: u32,
    /// True if the proxy worked when it was last checked.
    works: bool,
    /// True if the proxy has passed the long test (many requests, one after another) since it began to work.
    lasts: bool,
    /// True if the proxy failed the long test. Only a passed long test resets this.
    doubted: bool,
}

impl Entry for Scheduled {
    fn class(&self) -> usize {
        self.class as usize
    }

    fn due(&self) -> Moment {
        self.due
    }
}

/// The known facts about a proxy when the proxy is added to the schedule.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LastCheck {
    /// When the proxy was last checked, if the proxy worked then.
    pub(super) worked: Option<Moment>,
    /// True if the proxy has passed the long test.
    pub(super) lasts: bool,
}

/// The schedule of all public proxies that are checked.
#[derive(Debug)]
pub(super) struct PublicSchedule {
    terms: Terms,
    queue: DueQueue<Scheduled, 5>,
}

impl PublicSchedule {
    pub(super) fn new(terms: Terms) -> Self {
        Self { terms, queue: DueQueue::new() }
    }

    /// Makes `proxies` the set of proxies that are checked. Proxies that are already on the schedule keep their data.
    pub(super) fn list(&mut self, proxies: impl IntoIterator<Item = (ExitId, LastCheck)>, now: Moment) {
        let every = self.terms.working_every;
        self.queue.list(proxies, |LastCheck { worked, lasts }| {
            let (class, due) = worked.map_or((Class::New, now), |at| (Class::Working, at.after(every).max(now)));
            let (works, ended) = (worked.is_some(), Moment(0));
            Scheduled { class, due, ended, failures: 0, works, lasts, doubted: false }
        });
    }

    pub(super) fn knows(&self, id: &ExitId) -> bool {
        self.queue.get(id).is_some()
    }

    /// Returns true if the proxy worked when it was last checked.
    pub(super) fn works(&self, id: &ExitId) -> bool {
        self.queue.get(id).is_some_and(|entry| entry.works)
    }

    /// Returns true if the proxy has failed the long test (many requests, one after another) and has not passed it
    /// since.
    pub(super) fn is_doubted(&self, id: &ExitId) -> bool {
        self.queue.get(id).is_some_and(|entry| entry.doubted)
    }

    /// Returns how many checks of the proxy failed in a row.
    pub(super) fn failures(&self, id: &ExitId) -> u32 {
        self.queue.get(id).map_or(0, |entry| entry.failures)
    }

    /// Called when a live request waits for this proxy, or failed through it: the proxy is checked soon. Returns false
    /// if the proxy is not on the schedule.
    pub(super) fn urgent(&mut self, id: &ExitId, now: Moment) -> bool {
        let fresh = self.queue.get(id).is_some_and(|entry| now.since(entry.ended) < URGENT_GAP);
        if fresh { true } else { self.force(id, now) }
    }

    /// Makes this proxy the next one to be checked. Returns false if the proxy is not on the schedule.
    pub(super) fn force(&mut self, id: &ExitId, now: Moment) -> bool {
        self.queue.hasten(id, |entry| (entry.class, entry.due) = (Class::Urgent, now))
    }

    /// Makes the check of this proxy due now, and leaves the proxy in its class. Returns false if the proxy is not on
    /// the schedule.
    pub(super) fn soon(&mut self, id: &ExitId, now: Moment) -> bool {
        self.queue.hasten(id, |entry| entry.due = entry.due.min(now))
    }

    /// Makes this proxy the next one to be checked. If a check of it runs, the proxy is checked once more after that
    /// check.
    pub(super) fn again(&mut self, id: &ExitId, now: Moment) {
        if !self.queue.again(id) {
            self.force(id, now);
        }
    }

    /// Takes the next proxy to check. The second value is true if the long test (many requests, one after another) of
    /// this proxy is due.
    pub(super) fn next(&mut self, now: Moment) -> Option<(ExitId, bool)> {
        let (id, class) = self.queue.take(now, &self.gates())?;
        Some((id, class == Class::Long as usize))
    }

    /// Returns the time at which [`Self::next`] will return a proxy. `None` if a running check must end first.
    pub(super) fn wake(&self) -> Option<Moment> {
        self.queue.wake(&self.gates())
    }

    fn gates(&self) -> Gates<5> {
        let most = self.terms.concurrency;
        let open = (self.queue.running() < most).then_some(Moment(0));
        let long = self.queue.running_of(Class::Long as usize) * LONG_SHARE < most.max(LONG_SHARE);
        [open, open, open, open.filter(|_| long), open]
    }

    /// Ends the check of this proxy. `random`, a number from 0 to 1, spreads the times of the next checks. Returns true
    /// if the proxy has failed too many times in a row and is given up.
    pub(super) fn ended(&mut self, id: &ExitId, how: Ended, now: Moment, random: f64) -> bool {
        let terms = self.terms;
        self.queue.end(id, |entry, running| {
            let long = running.class == Class::Long as usize;
            let (class, pause) = entry.after(how, long, terms);
            let again = (Class::Urgent, Duration::ZERO);
            let (class, pause) = if running.again { again } else { (class, spread(pause, random)) };
            (entry.class, entry.due, entry.ended) = (class, now.after(pause), now);
        });
        let given_up = self.queue.get(id).is_some_and(|entry| entry.failures >= terms.remove_after);
        if given_up {
            self.queue.forget(id);
        }
        given_up
    }

    /// Returns how many checks run, and how many proxies are due and wait.
    pub(super) fn load(&self, now: Moment) -> (usize, usize) {
        (self.queue.running(), self.queue.waiting(5, now))
    }
}

impl Scheduled {
    /// Records how a check ended. `long` is true if the check was a long test. Returns the proxy's class for the next
    /// check, and the pause before the next check.
    fn after(&mut self, how: Ended, long: bool, terms: Terms) -> (Class, Duration) {
        match how {
            Ended::Good if self.doubted && !long => (Class::Long, Duration::ZERO),
            Ended::Good => {
                self.lasts |= long;
                (self.failures, self.works, self.doubted) = (0, true, false);
                let long_is_due = terms.long && !self.lasts;
                if long_is_due { (Class::Long, Duration::ZERO) } else { (Class::Working, terms.working_every) }
            }
            Ended::Bad => {
                (self.failures, self.works, self.lasts) = (self.failures + 1, false, false);
                self.doubted |= long;
                (Class::Failed, doubled(terms.failed_every, self.failures, terms.failed_at_most))
            }
            Ended::Open | Ended::TargetDown if self.works => (Class::Working, terms.failed_every),
            Ended::Open | Ended::TargetDown => (Class::Failed, terms.failed_every),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::schedule::SPREAD;
    use super::*;
    use crate::exit::{Protocol, PublicId};

    const START: Moment = Moment(1_788_314_400_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn id(n: u8) -> ExitId {
        ExitId::Public(Arc::new(PublicId { protocol: Protocol::Http, addr: ([192, 0, 2, n], 80).into() }))
    }

    fn schedule(concurrency: usize) -> PublicSchedule {
        PublicSchedule::new(Terms {
            concurrency,
            failed_every: 30 * SECOND,
            failed_at_most: 100 * SECOND,
            working_every: 1200 * SECOND,
            remove_after: 5,
            long: true,
        })
    }

    fn all(schedule: &mut PublicSchedule, now: Moment) -> Vec<(ExitId, bool)> {
        std::iter::from_fn(|| schedule.next(now)).collect()
    }

    #[test]
    fn new_proxies_come_before_long_tests_and_failed_ones_last() {
        let mut schedule = schedule(4);
        let worked = LastCheck { worked: Some(Moment(1)), lasts: true };
        schedule.list([(id(1), LastCheck::default()), (id(2), LastCheck::default()), (id(3), worked)], START);
        assert_eq!(all(&mut schedule, START).len(), 3);
        schedule.ended(&id(1), Ended::Good, START, 0.3);
        schedule.ended(&id(2), Ended::Bad, START, 0.3);
        schedule.ended(&id(3), Ended::Good, START, 0.3);
        schedule.list([1, 2, 3, 4].map(|n| (id(n), LastCheck::default())), START);
        let later = START.after(60 * SECOND);
        schedule.urgent(&id(3), later);
        assert_eq!(all(&mut schedule, later), [(id(3), false), (id(4), false), (id(1), true), (id(2), false)]);
        assert_eq!(schedule.load(later), (4, 0));
    }

    #[test]
    fn pauses_double_and_the_fifth_failure_is_the_last() {
        let (mut schedule, mut now, mut pauses) = (schedule(1), START, Vec::new());
        schedule.list([(id(1), LastCheck::default())], now);
        loop {
            assert_eq!(schedule.next(now), Some((id(1), false)));
            let last = schedule.ended(&id(1), Ended::Bad, now, 0.3);
            let Some(due) = schedule.wake() else {
                assert!(last && !schedule.knows(&id(1)));
                break;
            };
            assert!(!last && schedule.next(Moment(due.0 - 1)).is_none());
            pauses.push(due.since(now).as_secs_f64());
            now = due;
        }
        for (pause, want) in pauses.iter().zip([30.0, 60.0, 100.0, 100.0]) {
            assert!((pause / want - 1.0).abs() <= SPREAD, "{pauses:?}");
        }
        assert_eq!(pauses.len(), 4);
    }

    #[test]
    fn a_working_proxy_has_one_long_test_and_then_short_ones() {
        let mut schedule = schedule(1);
        schedule.list([(id(1), LastCheck::default())], START);
        assert_eq!(schedule.next(START), Some((id(1), false)));
        assert!(!schedule.ended(&id(1), Ended::Good, START, 0.3));
        assert_eq!(schedule.next(START), Some((id(1), true)));
        schedule.ended(&id(1), Ended::Good, START, 0.3);
        assert!(schedule.next(START.after(1000 * SECOND)).is_none() && schedule.works(&id(1)));
        assert_eq!(schedule.next(START.after(1400 * SECOND)), Some((id(1), false)));
        schedule.ended(&id(1), Ended::Open, START, 0.3);
        assert!(
            schedule.works(&id(1)) && schedule.failures(&id(1)) == 0,
            "our own faults do not count as its failures"
        );
    }

    #[test]
    fn only_the_long_test_clears_a_proxy_that_failed_it() {
        let (mut schedule, mut now) = (schedule(1), START);
        schedule.list([(id(1), LastCheck::default())], now);
        let mut runs = Vec::new();
        for ended in [Ended::Good, Ended::Bad, Ended::Good, Ended::Bad, Ended::Good, Ended::Good] {
            now = schedule.wake().unwrap().max(now);
            let (_, long) = schedule.next(now).unwrap();
            schedule.ended(&id(1), ended, now, 0.3);
            runs.push((long, schedule.failures(&id(1)), schedule.works(&id(1))));
        }
        let (short, long) = (false, true);
        let want = [
            (short, 0, true),
            (long, 1, false),
            (short, 1, false),
            (long, 2, false),
            (short, 2, false),
            (long, 0, true),
        ];
        assert_eq!(runs, want);
    }

    #[test]
    fn long_tests_have_half_of_the_limit() {
        let mut schedule = schedule(4);
        let past = |n: u8| (id(n), LastCheck::default());
        schedule.list((0..20).map(past), START);
        for _ in 0..5 {
            let batch = all(&mut schedule, START);
            assert_eq!(batch.len(), 4);
            batch.iter().for_each(|(id, _)| _ = schedule.ended(id, Ended::Good, START, 0.3));
        }
        assert_eq!(all(&mut schedule, START).len(), 2, "nothing is due but long tests");
        schedule.list([past(1)], START);
        assert_eq!(schedule.load(START).0, 2, "a check goes on although its proxy has left");
        (0..20).for_each(|n| _ = schedule.ended(&id(n), Ended::Good, START, 0.3));
        assert_eq!(schedule.load(START).0, 0, "and its place is free when it ends");
    }

    #[test]
    fn an_urgent_check_does_not_repeat_one_that_has_just_ended() {
        let mut schedule = schedule(1);
        schedule.list([(id(1), LastCheck { worked: Some(START), lasts: true })], START);
        schedule.urgent(&id(1), START);
        assert_eq!(schedule.next(START), Some((id(1), false)));
        schedule.ended(&id(1), Ended::Good, START, 0.3);
        schedule.urgent(&id(1), START.after(SECOND));
        assert_eq!(schedule.next(START.after(SECOND)), None);
        schedule.force(&id(1), START.after(SECOND));
        assert!(schedule.next(START.after(SECOND)).is_some());
        schedule.urgent(&id(9), START);
        assert!(!schedule.knows(&id(9)));
    }
}
