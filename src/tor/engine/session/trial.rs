//! Builds test circuits. A test circuit shows whether a guard answers: the guard in use, or a better guard that failed
//! before.
//!
//! A test circuit has three hops like any other, and is closed as soon as its first relay has answered. If the relay
//! does not answer, tor closes the test circuit after tor's time-out for builds. A late answer before that time still
//! counts.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime};

use rand::seq::IteratorRandom as _;
use tokio::time::Instant;

use super::Session;
use crate::exit::Fingerprint;
use crate::tor::control::Command;
use crate::tor::event::{Circ, CircuitId};
use crate::tor::netdir::Flags;
use crate::tor::path::{self, Entry, Hops, Want};

/// The first tag for the commands that build test circuits. The tags of other builds count from 1.
const TAGS: u64 = 1 << 63;

/// The number of exits that are drawn at random for a test circuit. The first one to which a path exists is used, which
/// is nearly always the first of all.
const EXITS: usize = 5;

/// The number of other guards in a row that are tested without a pause: the number of primary guards in guard-spec.
const AT_ONCE: u32 = 3;

/// After [`AT_ONCE`] failed tests of guards, the next guard is tested after this pause. The pause doubles with each
/// further failure. Without a pause, an engine whose network refuses everything would quickly try its whole sample of
/// guards. Not tuned.
const PAUSE: Duration = Duration::from_secs(10);

/// The longest pause between two tests of other guards.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// A test circuit that has no result yet.
#[derive(Clone, Copy, Debug)]
struct Trial {
    guard: Fingerprint,
    began: Instant,
    circuit: Option<CircuitId>,
    /// True if this test circuit was already reported as late.
    late: bool,
}

/// A test circuit whose first relay did not answer in time. The field `tag` is that of the command that built the
/// circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Late {
    pub(super) tag: u64,
    pub(super) guard: Fingerprint,
    pub(super) began: Instant,
}

/// The test circuits of an engine.
#[derive(Debug, Default)]
pub(super) struct Trials {
    next: u64,
    running: BTreeMap<u64, Trial>,
    /// How many tests of other guards failed in a row, and when the last test failed.
    failed: u32,
    failed_at: Option<Instant>,
}

impl Trials {
    fn begin(&mut self, guard: Fingerprint, now: Instant) -> u64 {
        self.next += 1;
        let tag = TAGS | self.next;
        self.running.insert(tag, Trial { guard, began: now, circuit: None, late: false });
        tag
    }

    /// Handles tor's answer to the command that built a test circuit. Returns false if the tag belongs to something
    /// else.
    pub(super) fn answered(&mut self, tag: u64, circuit: Option<CircuitId>, now: Instant) -> bool {
        match (circuit, self.running.get_mut(&tag)) {
            // The relay can answer only after tor has begun, so a slow answer of tor itself must not count.
            (Some(_), Some(trial)) => (trial.circuit, trial.began) = (circuit, now),
            (None, _) => {
                self.running.remove(&tag);
            }
            (Some(_), None) => {}
        }
        tag >= TAGS
    }

    pub(super) fn is_one(&self, circuit: CircuitId) -> bool {
        self.running.values().any(|trial| trial.circuit == Some(circuit))
    }

    /// Returns true if this guard is being tested and its answer is not late yet.
    fn tests(&self, guard: Fingerprint) -> bool {
        self.running.values().any(|trial| trial.guard == guard && !trial.late)
    }

    /// Returns true if this entry (guard or bridge) is being tested, even if its answer is already late.
    pub(super) fn is_testing(&self, entry: Option<Entry>) -> bool {
        self.running.values().any(|trial| entry.is_some_and(|entry| entry.id() == trial.guard))
    }

    /// Removes and returns a test circuit that has a result. `None` if there is no such test circuit.
    fn take(&mut self, circuit: CircuitId) -> Option<Late> {
        let tag = *self.running.iter().find(|(_, trial)| trial.circuit == Some(circuit))?.0;
        let Trial { guard, began, .. } = self.running.remove(&tag)?;
        Some(Late { tag, guard, began })
    }

    /// Returns the test circuits whose first relay has not answered within the time `answer`. Returns each of them only
    /// once. A command that tor itself has not answered says nothing about a relay.
    pub(super) fn late(&mut self, answer: Duration, now: Instant) -> Vec<Late> {
        let is_old = |trial: &Trial| now.saturating_duration_since(trial.began) >= answer;
        let is_late = |trial: &Trial| !trial.late && trial.circuit.is_some() && is_old(trial);
        let late = self.running.iter_mut().filter(|(_, trial)| is_late(trial)).map(|(tag, trial)| {
            trial.late = true;
            Late { tag: *tag, guard: trial.guard, began: trial.began }
        });
        late.collect()
    }

    /// Returns the time at which the oldest command to build a test circuit was sent, among the commands that tor has
    /// not answered yet. `None` if tor has answered all of them.
    pub(super) fn oldest_command(&self) -> Option<Instant> {
        self.running.values().filter(|trial| trial.circuit.is_none()).map(|trial| trial.began).min()
    }

    /// Forgets all test circuits. Called when tor closes all its connections.
    pub(super) fn clear(&mut self) {
        self.running.clear();
    }

    /// Records the result of a test of a guard that is not in use. `well` is true if that guard answered.
    fn note(&mut self, well: bool, now: Instant) {
        (self.failed, self.failed_at) = if well { (0, None) } else { (self.failed + 1, Some(now)) };
    }

    /// Returns true if another guard may be tested now.
    fn may_test_another(&self, now: Instant) -> bool {
        let over = self.failed.saturating_sub(AT_ONCE);
        let pause =
            if self.failed < AT_ONCE { Duration::ZERO } else { (PAUSE * 2u32.pow(over.min(10))).min(PAUSE_MAX) };
        self.failed_at.is_none_or(|at| now.saturating_duration_since(at) >= pause)
    }
}

impl Session<'_> {
    /// Tests a guard that is not in use: either it is better than the guard in use, or it may replace a silent one.
    /// Does nothing while an earlier test of it may still be answered in time, or while the pause after failed tests
    /// lasts.
    pub(super) fn try_guard(&mut self, guard: Fingerprint) {
        if self.trials.may_test_another(Instant::now()) {
            self.test(Entry::Guard(guard), guard);
        }
    }

    /// Tests the guard or bridge in use. Does nothing while an earlier test of it may still be answered in time.
    pub(super) fn test_entry(&mut self) {
        if let Some(entry) = self.entry() {
            self.test(entry, entry.id());
        }
    }

    fn test(&mut self, entry: Entry, guard: Fingerprint) {
        let Some(dir) = self.engine.shared.netdir().filter(|_| !self.trials.tests(guard)) else { return };
        let exits = dir.relays().filter(|relay| relay.flags().has(Flags::EXIT)).map(|relay| relay.fingerprint());
        let none = HashSet::new();
        let path = exits.sample(&mut rand::rng(), EXITS).into_iter().find_map(|exit| {
            let want = Want { entry, exit, target: None, hops: Hops::Three, avoid: &none, rules: self.live.rules };
            path::choose(&dir, &want, &mut rand::rng()).ok()
        });
        let Some(path) = path else { return };
        let tag = self.trials.begin(guard, Instant::now());
        if self.live.control.extend_circuit(path.hops(), tag).is_err() {
            self.trials.answered(tag, None, Instant::now());
        }
    }

    /// Handles an event of a test circuit. `ended` is true if the circuit has ended, and false if it has reached one
    /// more relay.
    pub(super) async fn tried(&mut self, circ: &Circ, ended: bool) {
        let Some(trial) = self.trials.take(circ.id) else { return };
        if !ended {
            drop(self.live.control.start(&Command::new("CLOSECIRCUIT").arg(circ.id)));
        }
        if self.is_entry(trial.guard) {
            match circ.is_answered() {
                true => self.hear(),
                false => self.miss(super::Source::Test(trial.tag), trial.began),
            }
            return;
        }
        // A guard that refuses the circuit shows that the network works, but this guard cannot be used now.
        let works = !circ.path.is_empty();
        self.trials.note(works, Instant::now());
        if works {
            self.heard_another(trial.guard);
        } else if circ.is_answered() || self.engine.shared.liveness().is_alive_since(trial.began) {
            self.engine.guard().note_failure(trial.guard, SystemTime::now());
        }
        self.find_entry().await;
    }

    /// Handles a test of a guard that is not in use, if the guard did not answer in time.
    pub(super) async fn tried_in_vain(&mut self, late: Late) {
        self.trials.note(false, Instant::now());
        // The guard counts as down only if another relay has answered some engine since this test began. Otherwise the
        // network may be down, and the missing answer says nothing about this guard.
        if self.engine.shared.liveness().is_alive_since(late.began) {
            self.engine.guard().note_failure(late.guard, SystemTime::now());
            self.find_entry().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(n: u8) -> Fingerprint {
        Fingerprint([n; 20])
    }

    #[test]
    fn a_test_runs_until_its_result_and_is_late_once() {
        let (mut trials, start) = (Trials::default(), Instant::now());
        let answer = Duration::from_secs(3);
        let tag = trials.begin(guard(1), start);
        assert!(tag >= TAGS && trials.tests(guard(1)) && !trials.tests(guard(2)));
        assert_eq!((trials.oldest_command(), trials.late(answer, start + answer)), (Some(start), vec![]));
        assert!(trials.answered(tag, Some(CircuitId(7)), start) && !trials.answered(5, Some(CircuitId(8)), start));
        assert!(trials.is_one(CircuitId(7)) && !trials.is_one(CircuitId(8)));
        assert_eq!(trials.oldest_command(), None);
        assert_eq!(trials.late(answer, start + answer / 2), []);
        let late = Late { tag, guard: guard(1), began: start };
        assert_eq!(trials.late(answer, start + answer), [late]);
        assert_eq!(trials.late(answer, start + answer * 2), []);
        assert!(!trials.tests(guard(1)), "a second source may be asked");
        assert_eq!(trials.take(CircuitId(7)), Some(late), "a late answer still counts");
        assert_eq!(trials.take(CircuitId(7)), None);
        let refused = trials.begin(guard(1), start);
        assert!(trials.answered(refused, None, start) && !trials.tests(guard(1)));
        trials.begin(guard(1), start);
        trials.clear();
        assert!(!trials.tests(guard(1)));
    }

    #[test]
    fn three_guards_are_tested_at_once_and_further_ones_ever_more_slowly() {
        let (mut trials, start) = (Trials::default(), Instant::now());
        for (failures, pause) in [(1, 0_u64), (2, 0), (3, 10), (4, 20), (5, 40)] {
            trials.note(false, start);
            for (seconds, may) in [(pause, true), (pause.saturating_sub(1), pause == 0)] {
                let now = start + Duration::from_secs(seconds);
                assert_eq!(trials.may_test_another(now), may, "{failures} failures, {seconds} s");
            }
        }
        (0..20).for_each(|_| trials.note(false, start));
        assert!(trials.may_test_another(start + PAUSE_MAX));
        trials.note(true, start);
        assert!(trials.may_test_another(start));
    }
}
