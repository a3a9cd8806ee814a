//! Out after a run of failures or of late dials, back after one success: a circuit breaker without a lock.
//!
//! An exit that fails its dials costs every client that is sent there a deadline, long before the tester comes round to
//! it. A run of failures takes it out of choosing for a while, twice as long each time; when the while is over, *one*
//! connection may try it, and what becomes of that one decides. A trial whose end nobody reports (the client left) is
//! due again after a while of its own, so that no exit stays out for want of an answer.
//!
//! An exit that has become slow is the same to clients, only milder. What is slow is relative: a dial is late when
//! another exit, asked later for the same target, was there first. So a slow target makes nobody late, and when all
//! exits are slow none of them is. Averages do not do this alone: each time one has decayed far enough for the exit to
//! be tried again, the next few clients pay, and it takes one slow request in a hundred to spoil a 99th percentile.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::super::moment::Moment;

/// Failures in a row that eject. Between Envoy's five and one: each is an exit's own fault by the dialer's verdict, so
/// three are no accident, and clients were failed over meanwhile.
const RUN: u64 = 3;

/// Late dials in a row that eject. One dial in twenty-five is late by chance, three in a row are one in fifteen thousand.
const LATE_RUN: u64 = 3;

/// How long they must go on. Dials that are under way together are late together when this machine, or the exit's, has
/// other things to do for a moment: a hundred of them are one word. Arbitrary: longer than most such moments.
const LATE_SPAN: Duration = Duration::from_millis(150);

/// The first time out; arbitrary, between linkerd's 1 s and Envoy's 30 s: a circuit is rebuilt within it.
const FIRST: Duration = Duration::from_secs(10);

/// Doublings at most: 10 s · 2⁶ is 10 min 40 s, the order in which the tester comes round to it anyway.
const DOUBLINGS: u64 = 6;

/// The first time out for being late, and its doublings: 3 s to 96 s. Arbitrary: a chance costs an exit little of its
/// share, a trial costs its client a hedged dial, and one a minute and a half is nothing among its requests.
const LATE_FIRST: Duration = Duration::from_secs(3);
const LATE_DOUBLINGS: u64 = 5;

/// How long the one trial has before another may be made. Arbitrary: longer than a dial's deadline.
const TRIAL: Duration = Duration::from_secs(15);

/// Whether an exit takes part in choosing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does.
    Closed,
    /// It does not, until then.
    Ejected(Moment),
    /// Its time out is over: one connection may try it.
    HalfOpen,
}

/// How long a dial took, beside what another exit would have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialSpeed {
    /// Nobody can say: there was no other exit to go by.
    Unknown,
    /// As quick as the others.
    Kept,
    /// Another was there first though it began later, or would have been.
    Late,
}

/// An exit was taken out of choosing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejected {
    /// When a trial is due.
    pub until: Moment,
}

/// What a dial that succeeded changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialEffect {
    /// Nothing.
    Same,
    /// It brought an ejected exit back.
    Back,
    /// It was one late dial too many.
    Out(Ejected),
}

/// From the low end: 4 bits run of failures, 4 bits run of late dials, 6 bits level, 1 bit out for being late, 1 bit
/// trial claimed, 48 bits the end of the time out in ms (0: not ejected).
#[derive(Debug, Default)]
pub(super) struct Ejection {
    packed: AtomicU64,
    /// When the run of late dials began. Beside the rest: whoever reads the two a moment apart ejects a moment later.
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

    /// The level goes down by one only: an exit that fails again soon stays out longer.
    fn back(self) -> Self {
        Self { run: 0, lates: 0, level: self.level.saturating_sub(1), late: false, trial: false, until: 0 }
    }

    /// `lasting`: its run of late dials has gone on for long enough to mean something.
    fn succeeded(self, speed: DialSpeed, lasting: bool, now: Moment) -> Self {
        let alive = Self { run: 0, ..self };
        match (self.until, speed) {
            (0, DialSpeed::Kept) => Self { lates: 0, ..alive },
            (0, DialSpeed::Unknown) => alive,
            (0, DialSpeed::Late) if lasting && self.lates + 1 >= LATE_RUN => alive.out(true, now),
            (0, DialSpeed::Late) => Self { lates: (self.lates + 1).min(LATE_RUN), ..alive },
            (_, DialSpeed::Late) if self.trial => alive.out(true, now),
            (_, DialSpeed::Kept) if self.trial => alive.back(),
            // It is out for being slow, and this one says nothing of its pace now: it began before, or had nothing to go by.
            _ if self.late => alive,
            _ => alive.back(),
        }
    }

    fn failed(self, now: Moment) -> Self {
        match self {
            // Dials that began before the ejection end one by one: they are the failures that it was for.
            Self { until: 1.., trial: false, late: false, .. } => self,
            Self { trial: true, .. } => self.out(false, now),
            _ if self.run + 1 >= RUN => self.out(false, now),
            _ => Self { run: self.run + 1, ..self },
        }
    }

    /// What became of `self`.
    fn turn(self, new: Self) -> DialEffect {
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
    /// A dial succeeded, at this pace.
    pub(super) fn succeeded(&self, speed: DialSpeed, now: Moment) -> DialEffect {
        let old = Packed::from(self.packed.load(Relaxed));
        if speed == DialSpeed::Late && old.lates == 0 {
            self.late_since.store(now.0, Relaxed);
        }
        let lasting = speed == DialSpeed::Late && now.since(Moment(self.late_since.load(Relaxed))) >= LATE_SPAN;
        // Nearly always there is nothing to write.
        if old.succeeded(speed, lasting, now) == old {
            return DialEffect::Same;
        }
        let next = |bits| Some(Packed::from(bits).succeeded(speed, lasting, now).into());
        let old = self.packed.fetch_update(Relaxed, Relaxed, next).map_or(old, Packed::from);
        old.turn(old.succeeded(speed, lasting, now))
    }

    /// A dial failed by the exit's own fault. `Some` if that ejected it.
    pub(super) fn failed(&self, now: Moment) -> Option<Ejected> {
        let next = |bits| Some(Packed::from(bits).failed(now).into());
        let old = Packed::from(self.packed.fetch_update(Relaxed, Relaxed, next).ok()?);
        if let DialEffect::Out(ejected) = old.turn(old.failed(now)) { Some(ejected) } else { None }
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
        assert_eq!(ejection.failed(START), None, "a dial from before is no news");
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
        assert_eq!(eject(&ejection, now).since(now).as_secs(), 640, "it is not forgiven at once");
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
            DialEffect::Back => panic!("a late dial brings nobody back"),
        }
    }

    /// Late again and again; when its trial is due.
    fn slow(ejection: &Ejection, now: Moment) -> Moment {
        (0..).find_map(|n| late(ejection, now.after(LATE_SPAN / 2 * n))).expect("a run of late dials ejects")
    }

    #[test]
    fn a_run_of_late_dials_ejects_and_one_in_time_breaks_it() {
        let ejection = Ejection::default();
        for _ in 0..10 {
            assert_eq!((late(&ejection, START), late(&ejection, START)), (None, None));
            assert_eq!(ejection.succeeded(DialSpeed::Unknown, START), DialEffect::Same, "that is no word on its pace");
            assert_eq!(ejection.succeeded(DialSpeed::Kept, START), DialEffect::Same);
        }
        assert!((0..100).all(|_| late(&ejection, START).is_none()), "what comes at once is one word");
        assert_eq!(late(&ejection, START.after(LATE_SPAN / 2)), None);
        let now = START.after(LATE_SPAN);
        assert_eq!(late(&ejection, now), Some(now.after(LATE_FIRST)));
        for speed in [DialSpeed::Unknown, DialSpeed::Kept, DialSpeed::Late] {
            assert_eq!(ejection.succeeded(speed, now), DialEffect::Same, "a dial from before is no news: {speed:?}");
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
                "who has nothing to go by decides nothing"
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
        assert_eq!(late(&ejection, out), Some(out.after(LATE_FIRST * 4)), "alive, and slow");
    }

    #[test]
    fn what_is_packed_comes_out() {
        let packed = Packed { run: 15, lates: 9, level: 63, late: true, trial: false, until: (1 << 48) - 1 };
        assert_eq!(Packed::from(u64::from(packed)), packed);
        let packed = Packed { run: 0, lates: 15, level: 0, late: false, trial: true, until: 1 };
        assert_eq!(Packed::from(u64::from(packed)), packed);
    }
}
