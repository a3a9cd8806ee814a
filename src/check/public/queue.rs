//! Who is tested next, and when again. Pure.
//!
//! There are lanes, and the first that has somebody due is served: whom a live request waits for; whom nobody has
//! tested; who worked and is due again; who is due for the long test; who failed. So a first pass over a new list is
//! not held up by second opinions, and the many dead ones wait for whatever is worth more. A proxy that fails rests
//! twice as long each time, and is given up after so many failures in a row.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use rand::{Rng, RngExt};

use crate::exit::{ExitId, Moment};
use crate::lifecycle::yielding;

/// How often and how many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) at_once: usize,
    pub(super) failed_every: Duration,
    pub(super) failed_at_most: Duration,
    pub(super) working_every: Duration,
    pub(super) remove_after: u32,
    /// There is a long test.
    pub(super) long: bool,
}

/// The share of the places that long tests may have: they are twenty requests each.
const LONG_SHARE: usize = 2;

/// How soon a proxy is tested again because a live request wishes it. Arbitrary: one that has just been tested has been.
const WISH_PAUSE: Duration = Duration::from_secs(5);

/// Pauses differ by so much, or whatever began together would end together for ever.
const SPREAD: f64 = 0.1;

/// Why somebody waits, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    Urgent,
    New,
    Working,
    Long,
    Failed,
}

impl Lane {
    const ALL: [Self; 5] = [Self::Urgent, Self::New, Self::Working, Self::Long, Self::Failed];
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It works.
    Good,
    /// It does not.
    Bad,
    /// Nothing was learned.
    Open,
}

#[derive(Debug)]
struct Entry {
    lane: Lane,
    due: Moment,
    running: Option<Lane>,
    /// Once more, as soon as this test is over.
    again: bool,
    failures: u32,
    /// It worked when it was last tested.
    works: bool,
    /// It has passed the long test since it began to work.
    lasts: bool,
    /// It failed the long test: the short one does not clear it.
    doubted: bool,
    ended: Moment,
}

/// What is known of one at the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Past {
    /// It worked when it was last tested, which was then.
    pub(super) worked: Option<Moment>,
    pub(super) lasts: bool,
}

/// Everybody who is to be tested.
#[derive(Debug)]
pub(super) struct Queue {
    terms: Terms,
    entries: HashMap<ExitId, Entry>,
    lanes: [BTreeSet<(Moment, ExitId)>; 5],
    running: usize,
    long: usize,
}

impl Queue {
    pub(super) fn new(terms: Terms) -> Self {
        Self { terms, entries: HashMap::new(), lanes: Default::default(), running: 0, long: 0 }
    }

    /// Makes these, and no others, those that are tested.
    pub(super) fn list(&mut self, listed: &[(ExitId, Past)], now: Moment) {
        let ids: HashSet<&ExitId> = listed.iter().map(|(id, _)| id).collect();
        let gone: Vec<ExitId> = self.entries.keys().filter(|id| !ids.contains(id)).cloned().collect();
        for id in gone {
            self.forget(&id);
        }
        for (id, past) in listed {
            yielding::yield_if_due();
            if self.entries.contains_key(id) {
                continue;
            }
            let (lane, due) = match past.worked {
                Some(at) => (Lane::Working, at.after(self.terms.working_every).max(now)),
                None => (Lane::New, now),
            };
            let works = past.worked.is_some();
            let entry = Entry {
                lane,
                due,
                running: None,
                again: false,
                failures: 0,
                works,
                lasts: past.lasts,
                doubted: false,
                ended: Moment(0),
            };
            self.lanes[lane as usize].insert((due, id.clone()));
            self.entries.insert(id.clone(), entry);
        }
    }

    /// Forgets one; a test that runs goes on.
    pub(super) fn forget(&mut self, id: &ExitId) {
        let Some(entry) = self.entries.remove(id) else { return };
        self.lanes[entry.lane as usize].remove(&(entry.due, id.clone()));
        if let Some(lane) = entry.running {
            self.leave(lane);
        }
    }

    pub(super) fn knows(&self, id: &ExitId) -> bool {
        self.entries.contains_key(id)
    }

    /// True if it worked when it was last tested.
    pub(super) fn works(&self, id: &ExitId) -> bool {
        self.entries.get(id).is_some_and(|entry| entry.works)
    }

    /// True if it has failed the long test, and not passed it since.
    pub(super) fn is_doubted(&self, id: &ExitId) -> bool {
        self.entries.get(id).is_some_and(|entry| entry.doubted)
    }

    /// A live request waits for this one, or failed on it.
    pub(super) fn wish(&mut self, id: &ExitId, now: Moment) {
        let fresh = self.entries.get(id).is_some_and(|entry| now.since(entry.ended) < WISH_PAUSE);
        if !fresh {
            self.put(id, Lane::Urgent, now);
        }
    }

    /// Somebody insists.
    pub(super) fn force(&mut self, id: &ExitId, now: Moment) {
        self.put(id, Lane::Urgent, now);
    }

    /// It is to be tested again, also if it is being tested now.
    pub(super) fn again(&mut self, id: &ExitId, now: Moment) {
        match self.entries.get_mut(id) {
            Some(entry) if entry.running.is_some() => entry.again = true,
            _ => self.put(id, Lane::Urgent, now),
        }
    }

    fn put(&mut self, id: &ExitId, lane: Lane, due: Moment) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if entry.running.is_none() {
            self.lanes[entry.lane as usize].remove(&(entry.due, id.clone()));
            self.lanes[lane as usize].insert((due, id.clone()));
        }
        (entry.lane, entry.due) = (lane, due);
    }

    /// The next to be tested, and whether that is the long test.
    pub(super) fn next(&mut self, now: Moment) -> Option<(ExitId, bool)> {
        if self.running >= self.terms.at_once {
            return None;
        }
        let lane = Lane::ALL.into_iter().find(|lane| self.is_due(*lane, now))?;
        let (_, id) = self.lanes[lane as usize].pop_first()?;
        let entry = self.entries.get_mut(&id)?;
        entry.running = Some(lane);
        // Where it stands now is where it goes back to, unless its test says otherwise.
        self.running += 1;
        self.long += usize::from(lane == Lane::Long);
        Some((id, lane == Lane::Long))
    }

    fn is_due(&self, lane: Lane, now: Moment) -> bool {
        let full = lane == Lane::Long && self.long * LONG_SHARE >= self.terms.at_once.max(LONG_SHARE);
        !full && self.lanes[lane as usize].first().is_some_and(|(due, _)| *due <= now)
    }

    fn leave(&mut self, lane: Lane) {
        self.running -= 1;
        self.long -= usize::from(lane == Lane::Long);
    }

    /// A test is over. True: it failed once too often, and is to be given up.
    pub(super) fn ended<R: Rng + ?Sized>(&mut self, id: &ExitId, ended: Ended, now: Moment, rng: &mut R) -> bool {
        let Some(entry) = self.entries.get_mut(id) else { return false };
        let Some(ran) = entry.running.take() else { return false };
        entry.ended = now;
        let spread = 1.0 + rng.random_range(-SPREAD..SPREAD);
        let (lane, pause) = match ended {
            Ended::Good if entry.doubted && ran != Lane::Long => (Lane::Long, Duration::ZERO),
            Ended::Good => {
                entry.lasts |= ran == Lane::Long;
                (entry.failures, entry.works, entry.doubted) = (0, true, false);
                let pause = self.terms.working_every.mul_f64(spread);
                let long = self.terms.long && !entry.lasts;
                if long { (Lane::Long, Duration::ZERO) } else { (Lane::Working, pause) }
            }
            Ended::Bad => {
                (entry.failures, entry.works, entry.lasts) = (entry.failures + 1, false, false);
                entry.doubted |= ran == Lane::Long;
                let grown = self.terms.failed_every.saturating_mul(1 << (entry.failures - 1).min(16));
                (Lane::Failed, grown.min(self.terms.failed_at_most).mul_f64(spread))
            }
            Ended::Open if entry.works => (Lane::Working, self.terms.failed_every.mul_f64(spread)),
            Ended::Open => (Lane::Failed, self.terms.failed_every.mul_f64(spread)),
        };
        let (lane, pause) =
            if std::mem::take(&mut entry.again) { (Lane::Urgent, Duration::ZERO) } else { (lane, pause) };
        let given_up = entry.failures >= self.terms.remove_after;
        (entry.lane, entry.due) = (lane, now.after(pause));
        self.lanes[lane as usize].insert((entry.due, id.clone()));
        self.leave(ran);
        if given_up {
            self.forget(id);
        }
        given_up
    }

    /// The failures in a row of one.
    pub(super) fn failures(&self, id: &ExitId) -> u32 {
        self.entries.get(id).map_or(0, |entry| entry.failures)
    }

    /// When somebody is due next; never, while there is no place.
    pub(super) fn wake(&self) -> Option<Moment> {
        if self.running >= self.terms.at_once {
            return None;
        }
        let due = |lane: &Lane| {
            let full = *lane == Lane::Long && self.long * LONG_SHARE >= self.terms.at_once.max(LONG_SHARE);
            self.lanes[*lane as usize].first().filter(|_| !full).map(|(due, _)| *due)
        };
        Lane::ALL.iter().filter_map(due).min()
    }

    /// Tests that run, and proxies that are due and wait.
    pub(super) fn load(&self, now: Moment) -> (usize, usize) {
        // Counting the waiting walks them; the bound keeps that from being felt.
        let waiting =
            |lane: &BTreeSet<(Moment, ExitId)>| lane.iter().take(100_000).take_while(|(due, _)| *due <= now).count();
        (self.running, self.lanes.iter().map(waiting).sum())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::exit::{Protocol, PublicId};

    const START: Moment = Moment(1_788_314_400_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn id(n: u8) -> ExitId {
        ExitId::Public(Arc::new(PublicId { protocol: Protocol::Http, addr: ([192, 0, 2, n], 80).into() }))
    }

    fn queue(at_once: usize) -> Queue {
        Queue::new(Terms {
            at_once,
            failed_every: 30 * SECOND,
            failed_at_most: 100 * SECOND,
            working_every: 1200 * SECOND,
            remove_after: 5,
            long: true,
        })
    }

    fn all(queue: &mut Queue, now: Moment) -> Vec<(ExitId, bool)> {
        std::iter::from_fn(|| queue.next(now)).collect()
    }

    fn rng() -> SmallRng {
        SmallRng::seed_from_u64(7)
    }

    #[test]
    fn new_ones_come_before_second_opinions_and_those_who_failed_last() {
        let mut queue = queue(4);
        let worked = Past { worked: Some(Moment(1)), lasts: true };
        queue.list(&[(id(1), Past::default()), (id(2), Past::default()), (id(3), worked)], START);
        assert_eq!(all(&mut queue, START).len(), 3);
        queue.ended(&id(1), Ended::Good, START, &mut rng());
        queue.ended(&id(2), Ended::Bad, START, &mut rng());
        queue.ended(&id(3), Ended::Good, START, &mut rng());
        queue.list(&[1, 2, 3, 4].map(|n| (id(n), Past::default())), START);
        let later = START.after(60 * SECOND);
        queue.wish(&id(3), later);
        assert_eq!(all(&mut queue, later), [(id(3), false), (id(4), false), (id(1), true), (id(2), false)]);
        assert_eq!(queue.load(later), (4, 0));
    }

    #[test]
    fn pauses_double_and_the_fifth_failure_is_the_last() {
        let (mut queue, mut now, mut pauses) = (queue(1), START, Vec::new());
        queue.list(&[(id(1), Past::default())], now);
        loop {
            assert_eq!(queue.next(now), Some((id(1), false)));
            let last = queue.ended(&id(1), Ended::Bad, now, &mut rng());
            let Some(due) = queue.wake() else {
                assert!(last && !queue.knows(&id(1)));
                break;
            };
            assert!(!last && queue.next(Moment(due.0 - 1)).is_none());
            pauses.push(due.since(now).as_secs_f64());
            now = due;
        }
        for (pause, want) in pauses.iter().zip([30.0, 60.0, 100.0, 100.0]) {
            assert!((pause / want - 1.0).abs() <= SPREAD, "{pauses:?}");
        }
        assert_eq!(pauses.len(), 4);
    }

    #[test]
    fn one_that_works_is_tested_at_length_once_and_then_now_and_then() {
        let mut queue = queue(1);
        queue.list(&[(id(1), Past::default())], START);
        assert_eq!(queue.next(START), Some((id(1), false)));
        assert!(!queue.ended(&id(1), Ended::Good, START, &mut rng()));
        assert_eq!(queue.next(START), Some((id(1), true)));
        queue.ended(&id(1), Ended::Good, START, &mut rng());
        assert!(queue.next(START.after(1000 * SECOND)).is_none() && queue.works(&id(1)));
        assert_eq!(queue.next(START.after(1400 * SECOND)), Some((id(1), false)));
        queue.ended(&id(1), Ended::Open, START, &mut rng());
        assert!(queue.works(&id(1)) && queue.failures(&id(1)) == 0, "what was ours is not held against it");
    }

    #[test]
    fn one_that_failed_at_length_is_cleared_at_length() {
        let (mut queue, mut now) = (queue(1), START);
        queue.list(&[(id(1), Past::default())], now);
        let mut runs = Vec::new();
        for ended in [Ended::Good, Ended::Bad, Ended::Good, Ended::Bad, Ended::Good, Ended::Good] {
            now = queue.wake().unwrap().max(now);
            let (_, long) = queue.next(now).unwrap();
            queue.ended(&id(1), ended, now, &mut rng());
            runs.push((long, queue.failures(&id(1)), queue.works(&id(1))));
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
    fn there_is_a_limit_and_long_tests_have_half_of_it() {
        let mut queue = queue(4);
        let past = |n: u8| (id(n), Past::default());
        queue.list(&(0..20).map(past).collect::<Vec<_>>(), START);
        for _ in 0..5 {
            let batch = all(&mut queue, START);
            assert_eq!(batch.len(), 4);
            batch.iter().for_each(|(id, _)| _ = queue.ended(id, Ended::Good, START, &mut rng()));
        }
        assert_eq!(all(&mut queue, START).len(), 2, "nothing is due but long tests");
        queue.list(&[past(1)], START);
        assert_eq!(
            queue.running,
            usize::from(queue.entries[&id(1)].running.is_some()),
            "who left gives its place back"
        );
    }

    #[test]
    fn a_wish_does_not_repeat_what_was_just_done() {
        let mut queue = queue(1);
        queue.list(&[(id(1), Past { worked: Some(START), lasts: true })], START);
        queue.wish(&id(1), START);
        assert_eq!(queue.next(START), Some((id(1), false)));
        queue.ended(&id(1), Ended::Good, START, &mut rng());
        queue.wish(&id(1), START.after(SECOND));
        assert_eq!(queue.next(START.after(SECOND)), None);
        queue.force(&id(1), START.after(SECOND));
        assert!(queue.next(START.after(SECOND)).is_some());
        queue.wish(&id(9), START);
        assert!(!queue.knows(&id(9)));
    }
}
