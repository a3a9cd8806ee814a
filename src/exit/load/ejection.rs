//! Ejection: an exit gets no connections after a run of failed or late dials, and gets connections again after one
//! successful dial. This is a circuit breaker without a lock.
//!
//! If the dials through an exit fail, each client waits for a deadline, and the next check of the exit may be far away.
//! So a run of failures ejects the exit for a time, which doubles with each ejection.
//!
//! After that time *one* connection may try the exit. If this trial succeeds, the ejection ends, and if it fails, the
//! exit is ejected again. If a trial has no result because the client left, another trial is made after [`TRIAL`]. So
//! no exit stays ejected for ever.
//!
//! An exit is also ejected after a run of late dials, because a slow exit hurts clients in the same way. A dial is late
//! if another exit was faster, although that exit was dialled later for the same target. So a slow target makes no dial
//! late, and if all exits are slow, no dial is late.
//!
//! The average of latencies alone does not keep clients away from a slow exit. Each time the average has decayed, the
//! next few clients would wait again, and one slow request in a hundred spoils a 99th percentile.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::super::moment::Moment;

/// The number of failures in a row that eject an exit. The value is between one and Envoy's five. The dialer counts
/// only faults of the exit, so three in a row are not an accident. The clients of failed dials get another exit.
const RUN: u64 = 3;

/// The number of late dials in a row that eject an exit. A dial is late if a later dial through another exit was
/// faster. By chance one dial in twenty-five is late, so three dials in a row are late by chance only once in fifteen
/// thousand times.
const LATE_RUN: u64 = 3;

/// A run of late dials ejects the exit only if the run lasts at least this long. The reason: when this machine or the
/// exit's machine is busy for a moment, all dials of that moment are late together and must not eject the exit. Not
/// tuned: the value is longer than most such moments.
const LATE_SPAN: Duration = Duration::from_millis(150);

/// The length of the first ejection because of failures. The value is between linkerd's 1 s and Envoy's 30 s, and long
/// enough to rebuild a circuit. Not tuned.
const FIRST: Duration = Duration::from_secs(10);

/// How many times the length of an ejection can double: 10 s · 2⁶ is 10 min 40 s. At about that time the tester checks
/// the exit anyway.
const DOUBLINGS: u64 = 6;

/// The length of the first ejection because of late dials, and how many times this length can double. The ejections
/// last from 3 s to 96 s. Not tuned: an exit that was late by chance loses little time, and the trials of a slow exit
/// cost one client a hedged dial (a second dial through another exit) every 96 s.
const LATE_FIRST: Duration = Duration::from_secs(3);
const LATE_DOUBLINGS: u64 = 5;

/// The time that a trial has for its result. After this time another trial may be made. Not tuned: the value is longer
/// than the deadline of a dial.
const TRIAL: Duration = Duration::from_secs(15);

/// Whether new connections may choose an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The exit takes part in choosing: its circuit breaker is closed.
    Closed,
    /// The exit takes no part in choosing until this moment.
    Ejected(Moment),
    /// The time of the ejection is over, and one connection may try the exit.
    HalfOpen,
}

/// How fast a dial was, compared with a dial through a second exit to the same target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialSpeed {
    /// There was no second exit to compare with.
    Unknown,
    /// The dial was compared with a second exit and was not late.
    Kept,
    /// The dial was slower than a dial through a second exit that began later, or than such a dial would probably have
    /// been.
    Late,
}

/// Reports that an exit was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejected {
    /// When the trial of the exit is due.
    pub until: Moment,
}

/// What a successful dial changed about the ejection of its exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialEffect {
    Same,
    /// The exit was ejected and takes part in choosing again.
    Back,
    /// The exit was ejected because its dials were late.
    Out(Ejected),
}

/// The state of the circuit breaker in one word. From the lowest bits: 4 bits for the number of failures in a row, 4
/// bits for the number of late dials in a row, 6 bits for the level (how many ejections count for the doubling), 1 bit
/// for "ejected because of late dials", 1 bit for "trial claimed", 48 bits for the end of the ejection in ms (0: not
/// ejected).
#[derive(Debug, Default)]
pub(super) struct Ejection {
    packed: AtomicU64,
    /// When the run of late dials began, in µs since the Unix epoch. This time is not part of `packed`. A thread that
    /// reads `packed` and this time at different moments may eject the exit a moment later, which does no harm.
    late_since: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packed {
    run: u64,
    lates: u64,
    level: u64,
    late: bool,
    trial: bool,
    until: u64,
}

impl From<u64> for Packed {
    fn from(bits: u64) -> Self {
        let flag = |at: u32| bits >> at & 1 == 1;
        Self {
            run: bits & 0xf,
            lates: bits >> 4 & 0xf,
            level: bits >> 8 & 0x3f,
            late: flag(14),
            trial: flag(15),
            until: bits >> 16,
        }
    }
}

impl From<Packed> for u64 {
    fn from(p: Packed) -> Self {
        p.run | p.lates << 4 | p.level << 8 | u64::from(p.late) << 14 | u64::from(p.trial) << 15 | p.until << 16
    }
}

impl Packed {
    fn out(self, late: bool, now: Moment) -> Self {
        let (first, doublings) = if late { (LATE_FIRST, LATE_DOUBLINGS) } else { (FIRST, DOUBLINGS) };
        let until = now.after(first * (1 << self.level.min(doublings))).0 / 1000;
        Self { run: 0, lates: 0, level: (self.level + 1).min(DOUBLINGS + 1), late, trial: false, until }
    }

    /// Ends the ejection. The level (how many ejections count for the doubling) falls by only one. So an exit that soon
    /// fails again is ejected for longer than the first time.
    fn back(self) -> Self {
        Self { run: 0, lates: 0, level: self.level.saturating_sub(1), late: false, trial: false, until: 0 }
    }

    /// Returns the state after a successful dial. `lasting` is true if the run of late dials has lasted for
    /// [`LATE_SPAN`].
    fn succeeded(self, speed: DialSpeed, lasting: bool, now: Moment) -> Self {
        let alive = Self { run: 0, ..self };
        match (self.until, speed) {
            (0, DialSpeed::Kept) => Self { lates: 0, ..alive },
            (0, DialSpeed::Unknown) => alive,
            (0, DialSpeed::Late) if lasting && self.lates + 1 >= LATE_RUN => alive.out(true, now),
            (0, DialSpeed::Late) => Self { lates: (self.lates + 1).min(LATE_RUN), ..alive },
            (_, DialSpeed::Late) if self.trial => alive.out(true, now),
            (_, DialSpeed::Kept) if self.trial => alive.back(),
            // The exit is ejected because it was slow, and this dial does not show whether the exit is still slow: the
            // dial began before the ejection, or there was no other dial to compare with.
            _ if self.late => alive,
            _ => alive.back(),
        }
    }

    fn failed(self, now: Moment) -> Self {
        match self {
            // This dial began before the ejection and is one of the failures that caused the ejection.
            Self { until: 1.., trial: false, late: false, .. } => self,
            Self { trial: true, .. } => self.out(false, now),
            _ if self.run + 1 >= RUN => self.out(false, now),
            _ => Self { run: self.run + 1, ..self },
        }
    }

    /// Compares the state `self` with the next state `new`. Returns whether the exit came back, was ejected or stays as
    /// before.
    fn effect(self, new: Self) -> DialEffect {
        let was_in = self.until == 0 || self.trial;
        match new.until {
            0 if self.until != 0 => DialEffect::Back,
            1.. if !new.trial && (was_in || new.late != self.late) => {
                DialEffect::Out(Ejected { until: Moment(new.until * 1000) })
            }
            _ => DialEffect::Same,
        }
    }
}

impl Ejection {
    /// Records that a dial succeeded at this speed.
    pub(super) fn succeeded(&self, speed: DialSpeed, now: Moment) -> DialEffect {
        let old = Packed::from(self.packed.load(Relaxed));
        if speed == DialSpeed::Late && old.lates == 0 {
            self.late_since.store(now.0, Relaxed);
        }
        let lasting = speed == DialSpeed::Late && now.since(Moment(self.late_since.load(Relaxed))) >= LATE_SPAN;
        // In nearly all cases the state does not change, and no write is needed.
        if old.succeeded(speed, lasting, now) == old {
            return DialEffect::Same;
        }
        let next = |bits| Some(Packed::from(bits).succeeded(speed, lasting, now).into());
        let old = self.packed.fetch_update(Relaxed, Relaxed, next).map_or(old, Packed::from);
        old.effect(old.succeeded(speed, lasting, now))
    }

    /// Records that a dial failed through the fault of the exit. Returns `Some` if this failure ejected the exit.
    pub(super) fn failed(&self, now: Moment) -> Option<Ejected> {
        let next = |bits| Some(Packed::from(bits).failed(now).into());
        let old = Packed::from(self.packed.fetch_update(Relaxed, Relaxed, next).ok()?);
        if let DialEffect::Out(ejected) = old.effect(old.failed(now)) { Some(ejected) } else { None }
    }

    pub(super) fn state(&self, now: Moment) -> State {
        match Packed::from(self.packed.load(Relaxed)).until {
            0 => State::Closed,
            until if until > now.0 / 1000 => State::Ejected(Moment(until * 1000)),
            _ => State::HalfOpen,
        }
    }

    pub(super) fn is_slow(&self) -> bool {
        let packed = Packed::from(self.packed.load(Relaxed));
        packed.until != 0 && packed.late
    }

    pub(super) fn claim_trial(&self, now: Moment) -> bool {
        let claim = |bits| {
            let old = Packed::from(bits);
            let due = old.until != 0 && old.until <= now.0 / 1000;
            due.then(|| Packed { trial: true, until: now.after(TRIAL).0 / 1000, ..old }.into())
        };
        self.packed.fetch_update(Relaxed, Relaxed, claim).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment(1_788_314_400_000_000);

    fn eject(ejection: &Ejection, now: Moment) -> Moment {
        (0..RUN).find_map(|_| ejection.failed(now)).expect("a run of failures ejects").until
    }

    #[test]
    fn a_run_of_failures_ejects_and_a_success_breaks_the_run() {
        let ejection = Ejection::default();
        for _ in 0..10 {
            assert_eq!(ejection.failed(START), None);
            assert_eq!(ejection.failed(START), None);
            assert_eq!(ejection.succeeded(DialSpeed::Unknown, START), DialEffect::Same);
        }
        assert_eq!(eject(&ejection, START), START.after(FIRST));
        assert_eq!(ejection.state(START), State::Ejected(START.after(FIRST)));
        assert_eq!(ejection.failed(START), None, "a dial from before the ejection changes nothing");
        assert!(!ejection.claim_trial(START));
    }

    #[test]
    fn one_trial_brings_it_back_or_doubles_the_wait() {
        let ejection = Ejection::default();
        let mut now = eject(&ejection, START);
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert_eq!(ejection.state(now), State::HalfOpen);
            assert!(ejection.claim_trial(now));
            assert!(!ejection.claim_trial(now), "there is one trial");
            let until = ejection.failed(now).unwrap().until;
            waits.push(until.since(now).as_secs());
            now = until;
        }
        assert_eq!(waits, [20, 40, 80, 160, 320, 640, 640, 640]);
        assert!(ejection.claim_trial(now));
        assert_eq!(ejection.succeeded(DialSpeed::Unknown, now), DialEffect::Back);
        assert_eq!(ejection.state(now), State::Closed);
        assert_eq!(eject(&ejection, now).since(now).as_secs(), 640, "the level falls slowly");
    }

    #[test]
    fn a_trial_without_an_end_is_due_again() {
        let ejection = Ejection::default();
        let due = eject(&ejection, START);
        assert!(ejection.claim_trial(due));
        let later = due.after(TRIAL);
        assert_eq!(ejection.state(later), State::HalfOpen);
        assert!(ejection.claim_trial(later));
    }

    fn late(ejection: &Ejection, now: Moment) -> Option<Moment> {
        match ejection.succeeded(DialSpeed::Late, now) {
            DialEffect::Out(ejected) => Some(ejected.until),
            DialEffect::Same => None,
            DialEffect::Back => panic!("a late dial ends no ejection"),
        }
    }

    /// Reports late dials until the exit is ejected. Returns when the trial is due.
    fn slow(ejection: &Ejection, now: Moment) -> Moment {
        (0..).find_map(|n| late(ejection, now.after(LATE_SPAN / 2 * n))).expect("a run of late dials ejects")
    }

    #[test]
    fn a_run_of_late_dials_ejects_and_one_in_time_breaks_it() {
        let ejection = Ejection::default();
        for _ in 0..10 {
            assert_eq!((late(&ejection, START), late(&ejection, START)), (None, None));
            assert_eq!(
                ejection.succeeded(DialSpeed::Unknown, START),
                DialEffect::Same,
                "that says nothing about its speed"
            );
            assert_eq!(ejection.succeeded(DialSpeed::Kept, START), DialEffect::Same);
        }
        assert!((0..100).all(|_| late(&ejection, START).is_none()), "dials of one moment count as one");
        assert_eq!(late(&ejection, START.after(LATE_SPAN / 2)), None);
        let now = START.after(LATE_SPAN);
        assert_eq!(late(&ejection, now), Some(now.after(LATE_FIRST)));
        for speed in [DialSpeed::Unknown, DialSpeed::Kept, DialSpeed::Late] {
            assert_eq!(
                ejection.succeeded(speed, now),
                DialEffect::Same,
                "a dial from before the ejection changes nothing: {speed:?}"
            );
        }
    }

    #[test]
    fn a_trial_in_time_brings_a_slow_exit_back_and_a_late_one_doubles_the_wait() {
        let ejection = Ejection::default();
        let mut now = slow(&ejection, START);
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert!(ejection.claim_trial(now));
            assert_eq!(
                ejection.succeeded(DialSpeed::Unknown, now),
                DialEffect::Same,
                "without a comparison nothing is decided"
            );
            let until = late(&ejection, now).unwrap();
            waits.push(until.since(now).as_secs());
            now = until;
        }
        assert_eq!(waits, [6, 12, 24, 48, 96, 96, 96]);
        assert!(ejection.claim_trial(now));
        assert_eq!(ejection.succeeded(DialSpeed::Kept, now), DialEffect::Back);
        assert_eq!(ejection.state(now), State::Closed);
    }

    #[test]
    fn failures_count_while_an_exit_is_out_for_being_slow() {
        let ejection = Ejection::default();
        let slow = slow(&ejection, START);
        let out = eject(&ejection, START);
        assert!(out > slow);
        assert_eq!(ejection.failed(START), None);
        assert!(ejection.claim_trial(out));
        assert_eq!(late(&ejection, out), Some(out.after(LATE_FIRST * 4)), "it works, and is slow");
    }

    #[test]
    fn packing_loses_nothing() {
        let packed = Packed { run: 15, lates: 9, level: 63, late: true, trial: false, until: (1 << 48) - 1 };
        assert_eq!(Packed::from(u64::from(packed)), packed);
        let packed = Packed { run: 0, lates: 15, level: 0, late: false, trial: true, until: 1 };
        assert_eq!(Packed::from(u64::from(packed)), packed);
    }
}
