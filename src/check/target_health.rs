//! If many exits fail at one target (an echo server, a site, a host's certificate), is this the fault of the target?
//! Pure.
//!
//! If a site is down, each single exit looks as if the site had banned it. But exits that passed a moment ago do not
//! all turn bad within a minute. So if more than half of the good exits that were tested within the last minute fail,
//! the target is down, and its failures count against no exit.
//!
//! The share is computed from the good exits that were *tested* within the last minute, not from all good exits. The
//! tester checks at most a few hundred exits per minute. So if there are thousands of good exits, half of them could
//! never fail within one minute.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::exit::{ExitId, Moment};
use crate::route::ban::is_target_at_fault;

/// How long a passed check counts, for the exit and for the target. The tester needs about this time to check all exits
/// once.
pub const RECENT: Duration = Duration::from_secs(3600);

/// If several exits fail within this time, the failures may be the fault of the target.
pub const TOGETHER: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    passed: Option<Moment>,
    failed: Option<Moment>,
    /// When the exit last failed at this target although the exit passed another target in the same check. `None` if
    /// this has not happened.
    worked_elsewhere: Option<Moment>,
    /// How many results in a row were the same: positive for passes, negative for failures.
    streak: i32,
}

impl Record {
    /// Returns when the exit last passed. Returns `None` if the last pass is too old, or if the exit has failed since.
    fn passing(&self, now: Moment) -> Option<Moment> {
        self.passed.filter(|at| self.streak > 0 && now.since(*at) < RECENT)
    }
}

/// The results of all exits at one target.
#[derive(Clone, Debug, Default)]
pub struct TargetHealth(HashMap<ExitId, Record>);

impl TargetHealth {
    /// Records that an exit passed. Returns how many times in a row the exit has passed.
    pub fn passed(&mut self, exit: &ExitId, now: Moment) -> i32 {
        let record = self.0.entry(exit.clone()).or_default();
        record.streak = record.streak.max(0).saturating_add(1);
        record.passed = Some(now);
        record.streak
    }

    /// Records that an exit failed. `works_elsewhere` is true if the exit passed another target in the same check.
    /// Returns how many times in a row the exit has failed, as a negative number.
    pub fn failed(&mut self, exit: &ExitId, works_elsewhere: bool, now: Moment) -> i32 {
        let record = self.0.entry(exit.clone()).or_default();
        record.streak = record.streak.min(0).saturating_sub(1);
        record.failed = Some(now);
        record.worked_elsewhere = works_elsewhere.then_some(now).or(record.worked_elsewhere);
        record.streak
    }

    /// Returns true if most good exits that were tested within the last minute fail at this target.
    pub fn target_is_down(&self, now: Moment) -> bool {
        let within = |at: Option<Moment>, span| at.is_some_and(|at| now.since(at) < span);
        let (mut tested, mut failing) = (0, 0);
        for record in self.0.values() {
            let is_good = within(record.passed, RECENT) || within(record.worked_elsewhere, TOGETHER);
            if is_good && (within(record.passed, TOGETHER) || within(record.failed, TOGETHER)) {
                tested += 1;
                failing += usize::from(record.streak < 0 && within(record.failed, TOGETHER));
            }
        }
        is_target_at_fault(tested, failing)
    }

    /// Returns true if another exit passed this target within the last hour.
    pub fn passed_by_another(&self, exit: &ExitId, now: Moment) -> bool {
        self.0.iter().any(|(id, record)| id != exit && record.passed.is_some_and(|at| now.since(at) < RECENT))
    }

    /// Returns when another exit last passed this target. Returns `None` if no other exit has passed.
    pub fn last_pass_of_another(&self, exit: &ExitId) -> Option<Moment> {
        self.0.iter().filter(|(id, _)| *id != exit).filter_map(|(_, record)| record.passed).max()
    }

    /// Returns when this exit last passed the target. Returns `None` if no pass is recorded.
    pub fn last_pass(&self, exit: &ExitId) -> Option<Moment> {
        self.0.get(exit)?.passed
    }

    /// Returns true if the latest result of this exit is a failure.
    pub fn failed_last(&self, exit: &ExitId) -> bool {
        self.0.get(exit).is_some_and(|record| record.streak < 0)
    }

    /// Returns the times at which exits passed, for all exits that passed within the last hour and did not fail since.
    /// The earliest time is first.
    pub fn passes(&self, now: Moment) -> Vec<Moment> {
        let mut passes: Vec<_> = self.0.values().filter_map(|record| record.passing(now)).collect();
        passes.sort_unstable();
        passes
    }

    /// Returns how many exits passed within the last hour and did not fail since.
    pub fn passing(&self, now: Moment) -> usize {
        self.0.values().filter(|record| record.passing(now).is_some()).count()
    }

    /// Returns the exits that passed most recently and did not fail since, at most `count`. The latest is first.
    pub fn latest(&self, count: usize, now: Moment) -> Vec<ExitId> {
        let mut all: Vec<_> = self.0.iter().filter_map(|(id, record)| Some((record.passing(now)?, id))).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.into_iter().take(count).map(|(_, id)| id.clone()).collect()
    }

    /// Deletes the results of all exits that are not in `exits`.
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
    fn the_target_is_down_when_most_good_exits_fail_within_a_minute() {
        let later = START.after(10 * TOGETHER);
        for (passing, failing, want) in [(0, 2, false), (0, 3, true), (3, 3, false), (3, 4, true), (150, 151, true)] {
            // A thousand exits are good, and only some of them are tested within the minute.
            let mut all = health(1000);
            (0..failing).for_each(|n| _ = all.failed(&exit(n), false, later));
            (failing..failing + passing).for_each(|n| _ = all.passed(&exit(n), later));
            assert_eq!(all.target_is_down(later), want, "{failing} fail, {passing} pass");
            assert!(!all.target_is_down(later.after(TOGETHER)), "a minute later those failures are too old");
        }
    }

    #[test]
    fn exits_that_were_never_good_do_not_count() {
        let mut all = health(2);
        (10..90).for_each(|n| _ = all.failed(&exit(n), false, START));
        assert!(!all.target_is_down(START));
        (10..15).for_each(|n| _ = all.failed(&exit(n), true, START));
        assert!(all.target_is_down(START), "but those that work elsewhere at the same time do");
        let old = START.after(RECENT);
        let mut all = health(5);
        (0..5).for_each(|n| _ = all.failed(&exit(n), false, old));
        assert!(!all.target_is_down(old), "a pass an hour ago is too old");
    }

    #[test]
    fn an_exit_that_passes_again_does_not_count_as_failing() {
        let mut all = health(3);
        (0..3).for_each(|n| _ = all.failed(&exit(n), false, START.after(SECOND)));
        assert!(all.target_is_down(START.after(SECOND)));
        assert_eq!(all.passed(&exit(0), START.after(2 * SECOND)), 1);
        assert!(!all.target_is_down(START.after(2 * SECOND)));
        assert_eq!((all.failed(&exit(0), false, START), all.failed(&exit(0), false, START)), (-1, -2));
    }

    #[test]
    fn an_exit_does_not_confirm_itself() {
        let mut all = health(1);
        assert!(!all.passed_by_another(&exit(0), START) && all.passed_by_another(&exit(1), START));
        assert!(!all.passed_by_another(&exit(1), START.after(RECENT)));
        assert_eq!((all.passes(START), all.passing(START)), (vec![START], 1));
        assert_eq!(all.latest(9, START), [exit(0)]);
        all.keep(&HashSet::new());
        assert!(!all.passed_by_another(&exit(1), START));
    }
}
