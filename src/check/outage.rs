//! Detects that many exits fail together because of a cause on our side of the exits. Pure.
//!
//! Exits do not all die within minutes. If they seem to die, then something that they have in common has failed: the
//! connection of this machine, a guard, or an engine (tor process). Most of these failures are reported as faults of an
//! engine and never reach this module. The other failures look like silent exits or like pages that do not answer.
//!
//! The rule compares two numbers. The first number is how many exits had worked and began to fail within the last ten
//! minutes. The second number is how many exits passed since the first of these failures. The exits fail together if
//! the first number is at least three and larger than the second number.
//!
//! While exits fail together, a failure of an exit is pardoned: it does not count against the exit, and the exit is
//! tested again soon. If other exits pass meanwhile, at most [`PARDONS`] failures of one exit in a row are pardoned. So
//! if most exits really died, the dead exits become bad after a few tests. While no exit at all passes, no exit becomes
//! bad.
//!
//! Next: `check/target_health.rs` has the same rule for pages.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::target_health::RECENT;
use crate::exit::{ExitId, Moment};
use crate::route::ban::is_target_at_fault;

/// Exits that begin to fail within this time may fail for a common reason. The time is longer than the pause between
/// two tests while few exits are tested.
const TOGETHER: Duration = Duration::from_secs(600);

/// How many failures of one exit in a row are pardoned while other exits pass. Two tests of an exit are some minutes
/// apart, and a guard that died is replaced within a minute.
const PARDONS: u8 = 2;

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    passed: Option<Moment>,
    /// When the exit began to fail. `None` if the exit has passed since then, or has never failed.
    failing: Option<Moment>,
    /// True if the exit had passed within the last hour when it began to fail.
    had_worked: bool,
    /// How many failures of the exit in a row were pardoned.
    pardons: u8,
}

impl Record {
    /// Returns when the exit began to fail. `None` if the exit does not fail, or if its failure cannot be part of an
    /// outage now.
    fn fell(&self, now: Moment) -> Option<Moment> {
        self.failing.filter(|began| self.had_worked && now.since(*began) < TOGETHER)
    }
}

/// Exit → its latest results.
#[derive(Debug, Default)]
pub(super) struct Outage(HashMap<ExitId, Record>);

impl Outage {
    /// Records that an exit passed.
    pub(super) fn passed(&mut self, exit: &ExitId, now: Moment) {
        *self.0.entry(exit.clone()).or_default() = Record { passed: Some(now), ..Record::default() };
    }

    /// Records that an exit failed. Returns true if the failure counts against the exit.
    pub(super) fn counts(&mut self, exit: &ExitId, now: Moment) -> bool {
        let record = self.0.entry(exit.clone()).or_default();
        if record.failing.is_none() {
            record.had_worked = record.passed.is_some_and(|at| now.since(at) < RECENT);
        }
        // The exit began to fail now if this is its first failure, or if its last failure was pardoned. Otherwise the
        // time of the first failure stays.
        record.failing = record.failing.filter(|_| record.pardons == 0).or(Some(now));
        let pardons = record.pardons;
        let (passing, failing) = self.together(now);
        let pardoned = is_target_at_fault(passing + failing, failing) && (passing == 0 || pardons < PARDONS);
        if let Some(record) = self.0.get_mut(exit) {
            record.pardons = if pardoned { pardons.saturating_add(1) } else { 0 };
        }
        !pardoned
    }

    /// Returns how many exits passed since the first failure of a possible outage, and how many exits fail in this
    /// outage.
    fn together(&self, now: Moment) -> (usize, usize) {
        let fell: Vec<Moment> = self.0.values().filter_map(|record| record.fell(now)).collect();
        let Some(first) = fell.iter().min() else { return (0, 0) };
        let passed = |record: &&Record| record.failing.is_none() && record.passed.is_some_and(|at| at >= *first);
        (self.0.values().filter(passed).count(), fell.len())
    }

    /// Deletes the results of all exits that are not in `exits`.
    pub(super) fn keep(&mut self, exits: &HashSet<ExitId>) {
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

    /// A hundred exits that passed ten minutes ago.
    fn worked() -> (Outage, Moment) {
        let mut outage = Outage::default();
        (0..100).for_each(|n| outage.passed(&exit(n), START));
        (outage, START.after(TOGETHER))
    }

    #[test]
    fn an_exit_that_fails_while_others_pass_is_bad() {
        let (mut outage, now) = worked();
        assert!(outage.counts(&exit(10), now));
        (0..10).for_each(|n| outage.passed(&exit(n), now));
        for n in 11..20 {
            assert!(outage.counts(&exit(n), now.after(SECOND)), "{n}: ten passed");
        }
        assert!(!outage.counts(&exit(20), now.after(SECOND)), "eleven of twenty-one fail");
    }

    #[test]
    fn from_the_third_on_nobody_is_bad_while_nobody_passes() {
        let (mut outage, mut now) = worked();
        // These exits passed their check one second before other exits begin to fail.
        (50..100).for_each(|n| outage.passed(&exit(n), now));
        now = now.after(SECOND);
        assert!(outage.counts(&exit(0), now) && outage.counts(&exit(1), now), "two alone are no outage");
        for minute in 0..300 {
            let now = now.after(60 * SECOND * minute);
            for n in 2..6 {
                assert!(!outage.counts(&exit(n), now), "minute {minute}, exit {n}");
            }
        }
    }

    #[test]
    fn after_two_pardons_an_exit_is_bad_if_others_pass() {
        let (mut outage, now) = worked();
        (0..50).for_each(|n| _ = outage.counts(&exit(n), now));
        let later = now.after(5 * SECOND);
        (70..80).for_each(|n| outage.passed(&exit(n), later));
        assert!(!outage.counts(&exit(60), later));
        assert!(!outage.counts(&exit(60), later.after(SECOND)), "the second pardon");
        assert!(outage.counts(&exit(60), later.after(2 * SECOND)), "others pass, so it is the exit");
        // When exit 60 passes its check, its earlier failures no longer matter.
        outage.passed(&exit(60), later.after(3 * SECOND));
        assert!(!outage.counts(&exit(60), later.after(4 * SECOND)));
    }

    #[test]
    fn what_is_dead_for_longer_is_no_part_of_an_outage() {
        let (mut outage, now) = worked();
        assert!(outage.counts(&exit(0), now) && outage.counts(&exit(1), now));
        // Exits 0 and 1 failed ten minutes ago and were not pardoned. Now they fail again.
        let later = now.after(TOGETHER);
        assert!(outage.counts(&exit(0), later) && outage.counts(&exit(1), later));
        assert!(outage.counts(&exit(2), later), "one began to fail, two are old");
        assert!(outage.counts(&exit(3), later));
        assert!(!outage.counts(&exit(4), later), "three began to fail");
    }

    #[test]
    fn an_exit_that_is_not_tested_any_more_leaves_the_outage() {
        // While nothing passes, failures are pardoned, and each pardoned failure counts as the beginning of the outage.
        let (mut outage, now) = worked();
        (0..3).for_each(|n| _ = outage.counts(&exit(n), now));
        let last = now.after(TOGETHER);
        assert!(outage.counts(&exit(3), last), "the others failed ten minutes ago, so this exit fails alone");
        let (mut outage, now) = worked();
        (0..3).for_each(|n| _ = outage.counts(&exit(n), now));
        let last = Moment(now.after(TOGETHER).0 - 1);
        assert!(!outage.counts(&exit(3), last), "less than ten minutes ago");
    }

    #[test]
    fn exits_that_did_not_work_lately_are_no_part_of_an_outage() {
        let mut outage = Outage::default();
        for n in 0..20 {
            assert!(outage.counts(&exit(n), START), "{n} was never good");
        }
        let mut outage = Outage::default();
        (0..20).for_each(|n| outage.passed(&exit(n), START));
        for n in 0..20 {
            assert!(outage.counts(&exit(n), START.after(RECENT)), "{n} was good an hour ago");
        }
        outage.keep(&HashSet::new());
        assert!(outage.0.is_empty());
    }
}
