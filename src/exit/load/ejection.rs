//! Out after a run of failures, back after one success: a circuit breaker in one atomic.
//!
//! An exit that fails its dials costs every client that is sent there a deadline, long before the tester comes round to
//! it. A run of failures takes it out of choosing for a while, twice as long each time; when the while is over, *one*
//! connection may try it, and what becomes of that one decides. A trial whose end nobody reports (the client left, the
//! target was at fault) is due again after a while of its own, so that no exit stays out for want of an answer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::super::moment::Moment;

/// Failures in a row that eject. Between Envoy's five and one: each is an exit's own fault by the dialer's verdict, so
/// three are no accident, and clients were failed over meanwhile.
const RUN: u64 = 3;

/// The first time out; arbitrary, between linkerd's 1 s and Envoy's 30 s: a circuit is rebuilt within it.
const FIRST: Duration = Duration::from_secs(10);

/// Doublings at most: 10 s · 2⁶ is 10 min 40 s, the order in which the tester comes round to it anyway.
const DOUBLINGS: u64 = 6;

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

/// A failure took an exit out of choosing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejected {
    /// When a trial is due.
    pub until: Moment,
}

/// From the low end: 8 bits run of failures, 7 bits level, 1 bit trial claimed, 48 bits the end of the time out in ms
/// (0: not ejected).
#[derive(Debug, Default)]
pub(super) struct Ejection(AtomicU64);

#[derive(Clone, Copy)]
struct Packed {
    run: u64,
    level: u64,
    trial: bool,
    until: u64,
}

impl From<u64> for Packed {
    fn from(bits: u64) -> Self {
        Self { run: bits & 0xff, level: bits >> 8 & 0x7f, trial: bits >> 15 & 1 == 1, until: bits >> 16 }
    }
}

impl From<Packed> for u64 {
    fn from(p: Packed) -> Self {
        p.run | p.level << 8 | u64::from(p.trial) << 15 | p.until << 16
    }
}

impl Packed {
    fn out(self, now: Moment) -> Self {
        let span = FIRST * (1 << self.level.min(DOUBLINGS));
        let until = now.after(span).0 / 1000;
        Self { run: 0, level: (self.level + 1).min(DOUBLINGS + 1), trial: false, until }
    }
}

impl Ejection {
    /// True if the exit was out. Its level goes down by one only: an exit that fails again soon stays out longer.
    pub(super) fn succeeded(&self) -> bool {
        let old = Packed::from(self.0.load(Relaxed));
        if old.run == 0 && old.until == 0 {
            return false;
        }
        let back = |bits| {
            let old = Packed::from(bits);
            let level = if old.until == 0 { old.level } else { old.level.saturating_sub(1) };
            Some(Packed { run: 0, level, trial: false, until: 0 }.into())
        };
        self.0.fetch_update(Relaxed, Relaxed, back).is_ok_and(|bits| Packed::from(bits).until != 0)
    }

    pub(super) fn failed(&self, now: Moment) -> Option<Ejected> {
        let count = |bits| {
            let old = Packed::from(bits);
            Some(match old {
                // Dials that began before the ejection end one by one: they are the failures that it was for.
                Packed { until: 1.., trial: false, .. } => return None,
                Packed { until: 1.., .. } => old.out(now).into(),
                _ if old.run + 1 >= RUN => old.out(now).into(),
                _ => Packed { run: old.run + 1, ..old }.into(),
            })
        };
        let old = self.0.fetch_update(Relaxed, Relaxed, count).ok()?;
        let new = Packed::from(count(old)?);
        (new.until != 0).then_some(Ejected { until: Moment(new.until * 1000) })
    }

    pub(super) fn state(&self, now: Moment) -> State {
        match Packed::from(self.0.load(Relaxed)).until {
            0 => State::Closed,
            until if until > now.0 / 1000 => State::Ejected(Moment(until * 1000)),
            _ => State::HalfOpen,
        }
    }

    pub(super) fn claim_trial(&self, now: Moment) -> bool {
        let claim = |bits| {
            let old = Packed::from(bits);
            let due = old.until != 0 && old.until <= now.0 / 1000;
            due.then(|| Packed { trial: true, until: now.after(TRIAL).0 / 1000, ..old }.into())
        };
        self.0.fetch_update(Relaxed, Relaxed, claim).is_ok()
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
            assert!(!ejection.succeeded());
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
        assert!(ejection.claim_trial(now) && ejection.succeeded());
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
}
