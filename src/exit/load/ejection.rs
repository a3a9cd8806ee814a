//! Ejection: an exit is out after a run of failed or late dials, and back after one success. A circuit breaker without a
//! lock.
//!
//! An exit whose dials fail costs each client a deadline, long before the next check finds it. A run of failures ejects
//! it for a time that doubles with each ejection. After that time *one* connection may try it, and the result of this
//! trial decides. A trial without a result (the client left) is repeated after [`TRIAL`], so that no exit stays out for
//! ever.
//!
//! An exit that has become slow hurts clients in the same way. Slow is relative: a dial is late if another exit, dialled
//! later for the same target, was faster. So a slow target makes no dial late, and if all exits are slow, none is. The
//! average of latencies alone is not enough: whenever it has decayed, the next few clients would pay, and one slow request
//! in a hundred spoils a 99th percentile.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::super::moment::Moment;

/// Failures in a row that eject an exit. Between Envoy's five and one: the dialer counts only the exit's own faults, so
/// three are no accident, and the clients were failed over meanwhile.
const RUN: u64 = 3;

/// Late dials in a row that eject an exit. One dial in twenty-five is late by chance; three in a row are one in fifteen
/// thousand.
const LATE_RUN: u64 = 3;

/// How long the run of late dials must last. When this machine or the exit's is busy for a moment, all dials of that
/// moment are late together, and must count as one. Not tuned: longer than most such moments.
const LATE_SPAN: Duration = Duration::from_millis(150);

/// The length of the first ejection. Not tuned: between linkerd's 1 s and Envoy's 30 s, and long enough to rebuild a
/// circuit.
const FIRST: Duration = Duration::from_secs(10);

/// The most doublings: 10 s · 2⁶ is 10 min 40 s, about the time until the tester checks the exit anyway.
const DOUBLINGS: u64 = 6;

/// The length of the first ejection for being late, and the most doublings: 3 s to 96 s. Not tuned: an exit that was late
/// by chance loses little, and a trial of a slow exit costs one client a hedged dial each minute and a half.
const LATE_FIRST: Duration = Duration::from_secs(3);
const LATE_DOUBLINGS: u64 = 5;

/// How long a trial has for its result before another one may be made. Not tuned: longer than a dial's deadline.
const TRIAL: Duration = Duration::from_secs(15);

/// Whether an exit takes part in choosing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does: the circuit breaker is closed.
    Closed,
    /// It does not until this moment.
    Ejected(Moment),
    /// The ejection is over, and one connection may try the exit.
    HalfOpen,
}

/// How a dial compares with another exit's dial to the same target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialSpeed {
    /// There was no other dial to compare with.
    Unknown,
    /// As fast as the other.
    Kept,
    /// Slower than another that began later, or would have begun later.
    Late,
}

/// An exit was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejected {
    /// When its trial is due.
    pub until: Moment,
}

/// What a successful dial changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialEffect {
    Same,
    /// An ejected exit takes part again.
    Back,
    /// The exit was ejected for being late.
    Out(Ejected),
}

/// The state of the circuit breaker in one word. From the low end: 4 bits failures in a row, 4 bits late dials in a row,
/// 6 bits level, 1 bit ejected for being late, 1 bit trial claimed, 48 bits the end of the ejection in ms (0: none).
#[derive(Debug, Default)]
pub(super) struct Ejection {
    packed: AtomicU64,
    /// When the run of late dials began. Apart from `packed`: a thread that reads the two at different times ejects the exit
    /// a moment later, which does no harm.
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

    /// The level falls by one only, so that an exit that soon fails again stays out longer.
    fn back(self) -> Self {
        Self { run: 0, lates: 0, level: self.level.saturating_sub(1), late: false, trial: false, until: 0 }
    }

    /// `lasting`: the run of late dials has lasted for [`LATE_SPAN`].
    fn succeeded(self, speed: DialSpeed, lasting: bool, now: Moment) -> Self {
        let alive = Self { run: 0, ..self };
        match (self.until, speed) {
            (0, DialSpeed::Kept) => Self { lates: 0, ..alive },
            (0, DialSpeed::Unknown) => alive,
            (0, DialSpeed::Late) if lasting && self.lates + 1 >= LATE_RUN => alive.out(true, now),
            (0, DialSpeed::Late) => Self { lates: (self.lates + 1).min(LATE_RUN), ..alive },
            (_, DialSpeed::Late) if self.trial => alive.out(true, now),
            (_, DialSpeed::Kept) if self.trial => alive.back(),
            // The exit is ejected for being slow, and this dial says nothing about its speed now: it began before the
            // ejection, or there was no other dial to compare with.
            _ if self.late => alive,
            _ => alive.back(),
        }
    }

    fn failed(self, now: Moment) -> Self {
        match self {
            // A dial that began before the ejection: it is one of the failures that caused it.
            Self { until: 1.., trial: false, late: false, .. } => self,
            Self { trial: true, .. } => self.out(false, now),
            _ if self.run + 1 >= RUN => self.out(false, now),
            _ => Self { run: self.run + 1, ..self },
        }
    }

    /// What the change from `self` to `new` means.
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
    /// A dial succeeded at this speed.
    pub(super) fn succeeded(&self, speed: DialSpeed, now: Moment) -> DialEffect {
        let old = Packed::from(self.packed.load(Relaxed));
        if speed == DialSpeed::Late && old.lates == 0 {
            self.late_since.store(now.0, Relaxed);
        }
        let lasting = speed == DialSpeed::Late && now.since(Moment(self.late_since.load(Relaxed))) >= LATE_SPAN;
        // Nearly always nothing changes, and nothing needs to be written.
        if old.succeeded(speed, lasting, now) == old {
            return DialEffect::Same;
        }
        let next = |bits| Some(Packed::from(bits).succeeded(speed, lasting, now).into());
        let old = self.packed.fetch_update(Relaxed, Relaxed, next).map_or(old, Packed::from);
        old.effect(old.succeeded(speed, lasting, now))
    }

    /// A dial failed by the exit's fault. `Some` if that ejected it.
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

    /// Reports late dials until the exit is ejected; when its trial is due.
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
