//! Who is to blame when many exits fail at one place: they, or the place? Pure.
//!
//! A site that is down looks, exit by exit, exactly like a site that bans them all. What tells the two apart is who
//! fails: exits that passed a moment ago do not all turn bad within a minute. Of those that were tested within the last
//! minute and are known to be good, when more than half fail it is the place, and nothing they failed there counts.
//!
//! The share is of those *tested* within the minute, not of all that are good: the tester's own pace lets it see a few
//! hundred exits a minute at most, so that with thousands of good ones half of them could never fail in time.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::exit::{ExitId, Moment};
use crate::route::ban::is_target_at_fault;

/// How long a pass vouches for an exit, and for the place: the order of the tester's round.
pub const RECENT: Duration = Duration::from_secs(3600);

/// How close together failures must lie to be the place's.
pub const TOGETHER: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    passed: Option<Moment>,
    failed: Option<Moment>,
    /// When something else last showed that the exit itself is in order.
    sound: Option<Moment>,
    /// Rounds in a row that ended the same way: passes above zero, failures below.
    streak: i32,
}

impl Record {
    /// When it passed, if that was lately and nothing else has happened since.
    fn passing(&self, now: Moment) -> Option<Moment> {
        self.passed.filter(|at| self.streak > 0 && now.since(*at) < RECENT)
    }
}

/// What became of exits at one place: an echo server, a check target, a host's certificate.
#[derive(Clone, Debug, Default)]
pub struct TargetHealth(HashMap<ExitId, Record>);

impl TargetHealth {
    /// An exit passed here. The answer is how often in a row it has.
    pub fn passed(&mut self, exit: &ExitId, now: Moment) -> i32 {
        let record = self.0.entry(exit.clone()).or_default();
        record.streak = record.streak.max(0).saturating_add(1);
        record.passed = Some(now);
        record.streak
    }

    /// An exit failed here; `sound` if the same round showed elsewhere that the exit works. The answer is how often in
    /// a row it has failed, below zero.
    pub fn failed(&mut self, exit: &ExitId, sound: bool, now: Moment) -> i32 {
        let record = self.0.entry(exit.clone()).or_default();
        record.streak = record.streak.min(0).saturating_sub(1);
        record.failed = Some(now);
        record.sound = sound.then_some(now).or(record.sound);
        record.streak
    }

    /// True if the place is to blame for what fails there now.
    pub fn target_is_down(&self, now: Moment) -> bool {
        let lately = |at: Option<Moment>, span| at.is_some_and(|at| now.since(at) < span);
        let (mut tested, mut failing) = (0, 0);
        for record in self.0.values() {
            let credible = lately(record.passed, RECENT) || lately(record.sound, TOGETHER);
            if credible && (lately(record.passed, TOGETHER) || lately(record.failed, TOGETHER)) {
                tested += 1;
                failing += usize::from(record.streak < 0 && lately(record.failed, TOGETHER));
            }
        }
        is_target_at_fault(tested, failing)
    }

    /// True if another exit passed here lately: the place is as it should be for somebody.
    pub fn vouched_by_another(&self, exit: &ExitId, now: Moment) -> bool {
        self.0.iter().any(|(id, record)| id != exit && record.passed.is_some_and(|at| now.since(at) < RECENT))
    }

    /// When this exit last passed here.
    pub fn last_pass(&self, exit: &ExitId) -> Option<Moment> {
        self.0.get(exit)?.passed
    }

    /// True if an exit failed when it was last here.
    pub fn failed_last(&self, exit: &ExitId) -> bool {
        self.0.get(exit).is_some_and(|record| record.streak < 0)
    }

    /// When each exit passed here that passed lately and did not fail since, earliest first.
    pub fn passes(&self, now: Moment) -> Vec<Moment> {
        let mut passes: Vec<_> = self.0.values().filter_map(|record| record.passing(now)).collect();
        passes.sort_unstable();
        passes
    }

    /// How many passed here lately and did not fail since.
    pub fn passing(&self, now: Moment) -> usize {
        self.0.values().filter(|record| record.passing(now).is_some()).count()
    }

    /// Those who passed here last, the latest first, of those who did not fail since.
    pub fn latest(&self, count: usize, now: Moment) -> Vec<ExitId> {
        let mut all: Vec<_> = self.0.iter().filter_map(|(id, record)| Some((record.passing(now)?, id))).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.into_iter().take(count).map(|(_, id)| id.clone()).collect()
    }

    /// Forgets exits that are there no more.
    pub fn keep(&mut self, exits: &HashSet<ExitId>) {
        self.0.retain(|exit, _| exits.contains(exit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Fingerprint;

    const START: Moment = Moment(1_788_314_400_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn exit(n: u16) -> ExitId {
        let mut id = [0; 20];
        id[..2].copy_from_slice(&n.to_be_bytes());
        ExitId::Tor(Fingerprint(id))
    }

    fn health(passed: u16) -> TargetHealth {
        let mut all = TargetHealth::default();
        (0..passed).for_each(|n| _ = all.passed(&exit(n), START));
        all
    }

    #[test]
    fn most_good_ones_failing_together_speak_against_the_place() {
        let later = START.after(10 * TOGETHER);
        for (passing, failing, want) in [(0, 2, false), (0, 3, true), (3, 3, false), (3, 4, true), (150, 151, true)] {
            // A thousand are good, and the minute sees only some of them.
            let mut all = health(1000);
            (0..failing).for_each(|n| _ = all.failed(&exit(n), false, later));
            (failing..failing + passing).for_each(|n| _ = all.passed(&exit(n), later));
            assert_eq!(all.target_is_down(later), want, "{failing} fail, {passing} pass");
            assert!(!all.target_is_down(later.after(TOGETHER)), "a minute later that says nothing");
        }
    }

    #[test]
    fn who_was_never_good_is_no_witness() {
        let mut all = health(2);
        (10..90).for_each(|n| _ = all.failed(&exit(n), false, START));
        assert!(!all.target_is_down(START));
        (10..15).for_each(|n| _ = all.failed(&exit(n), true, START));
        assert!(all.target_is_down(START), "but an exit that works elsewhere at the same time is one");
        let old = START.after(RECENT);
        let mut all = health(5);
        (0..5).for_each(|n| _ = all.failed(&exit(n), false, old));
        assert!(!all.target_is_down(old), "an hour ago is not lately");
    }

    #[test]
    fn a_pass_takes_a_failure_back() {
        let mut all = health(3);
        (0..3).for_each(|n| _ = all.failed(&exit(n), false, START.after(SECOND)));
        assert!(all.target_is_down(START.after(SECOND)));
        assert_eq!(all.passed(&exit(0), START.after(2 * SECOND)), 1);
        assert!(!all.target_is_down(START.after(2 * SECOND)));
        assert_eq!((all.failed(&exit(0), false, START), all.failed(&exit(0), false, START)), (-1, -2));
    }

    #[test]
    fn vouching_takes_another() {
        let mut all = health(1);
        assert!(!all.vouched_by_another(&exit(0), START) && all.vouched_by_another(&exit(1), START));
        assert!(!all.vouched_by_another(&exit(1), START.after(RECENT)));
        assert_eq!((all.passes(START), all.passing(START)), (vec![START], 1));
        assert_eq!(all.latest(9, START), [exit(0)]);
        all.keep(&HashSet::new());
        assert!(!all.vouched_by_another(&exit(1), START));
    }
}
