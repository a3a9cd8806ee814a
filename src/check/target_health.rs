//! When many exits fail at one target (an echo server, a site, a host's certificate): is it the target's fault? Pure.
//!
//! A site that is down looks, exit by exit, like a site that bans every exit. But exits that passed a moment ago do not
//! all turn bad within a minute. So when more than half of the good exits that were tested within the last minute fail,
//! the target is down, and failures there count against no exit.
//!
//! The share is of the exits that were *tested* within the minute, not of all good ones: the tester checks a few hundred
//! exits a minute at most, so of thousands of good exits half could never fail within one.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::exit::{ExitId, Moment};
use crate::route::ban::is_target_at_fault;

/// How long a pass counts, for the exit and for the target: about as long as the tester needs for all exits.
pub const RECENT: Duration = Duration::from_secs(3600);

/// Failures of several exits within this time may be the target's.
pub const TOGETHER: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    passed: Option<Moment>,
    failed: Option<Moment>,
    /// When the exit failed here although it worked elsewhere in the same check.
    worked_elsewhere: Option<Moment>,
    /// Results in a row that were the same: passes above zero, failures below.
    streak: i32,
}

impl Record {
    /// When the exit passed, if that is recent and it did not fail since.
    fn passing(&self, now: Moment) -> Option<Moment> {
        self.passed.filter(|at| self.streak > 0 && now.since(*at) < RECENT)
    }
}

/// The results of all exits at one target.
#[derive(Clone, Debug, Default)]
pub struct TargetHealth(HashMap<ExitId, Record>);

impl TargetHealth {
    /// An exit passed. Returns how often in a row it has.
    pub fn passed(&mut self, exit: &ExitId, now: Moment) -> i32 {
        let record = self.0.entry(exit.clone()).or_default();
        record.streak = record.streak.max(0).saturating_add(1);
        record.passed = Some(now);
        record.streak
    }

    /// An exit failed; `works_elsewhere` if it passed another target in the same check. Returns how often in a row it has
    /// failed, as a number below zero.
    pub fn failed(&mut self, exit: &ExitId, works_elsewhere: bool, now: Moment) -> i32 {
        let record = self.0.entry(exit.clone()).or_default();
        record.streak = record.streak.min(0).saturating_sub(1);
        record.failed = Some(now);
        record.worked_elsewhere = works_elsewhere.then_some(now).or(record.worked_elsewhere);
        record.streak
    }

    /// True if most good exits that were tested within the last minute fail here.
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

    /// True if another exit passed here within the last hour.
    pub fn passed_by_another(&self, exit: &ExitId, now: Moment) -> bool {
        self.0.iter().any(|(id, record)| id != exit && record.passed.is_some_and(|at| now.since(at) < RECENT))
    }

    /// When this exit last passed.
    pub fn last_pass(&self, exit: &ExitId) -> Option<Moment> {
        self.0.get(exit)?.passed
    }

    /// True if the latest result of this exit is a failure.
    pub fn failed_last(&self, exit: &ExitId) -> bool {
        self.0.get(exit).is_some_and(|record| record.streak < 0)
    }

    /// When each exit passed that passed within the last hour and did not fail since, earliest first.
    pub fn passes(&self, now: Moment) -> Vec<Moment> {
        let mut passes: Vec<_> = self.0.values().filter_map(|record| record.passing(now)).collect();
        passes.sort_unstable();
        passes
    }

    /// How many exits passed within the last hour and did not fail since.
    pub fn passing(&self, now: Moment) -> usize {
        self.0.values().filter(|record| record.passing(now).is_some()).count()
    }

    /// The exits that passed last and did not fail since, the latest first.
    pub fn latest(&self, count: usize, now: Moment) -> Vec<ExitId> {
        let mut all: Vec<_> = self.0.iter().filter_map(|(id, record)| Some((record.passing(now)?, id))).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.into_iter().take(count).map(|(_, id)| id.clone()).collect()
    }

    /// Forgets all other exits.
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
            // A thousand are good, and only some of them are tested within the minute.
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
