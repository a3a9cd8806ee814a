//! The load of an exit: how busy, how fast and how reliable the exit is now. The load changes with every connection.
//!
//! The catalog of exits is immutable, so the load cannot be part of the catalog. The load consists of a few atomics
//! behind one `Arc`, which all editions of an exit share. So the data path reaches the atomics without a look-up or a
//! lock. If a tunnel stays open after its exit has left the catalog, the tunnel still decrements the right counter at
//! its end.
//!
//! The load has four signals, because each one alone misses failures that another one detects. The number of tunnels
//! detects an exit that accepts connections and never finishes them. The average of latencies (which rises immediately
//! and falls slowly) detects an exit that has become slow. A run of late dials detects an exit that is always slower
//! than others. A run of failures detects an exit that fails fast.
//!
//! While nobody uses an exit, its average of latencies returns to the latency that checks measured. If the average
//! returned to zero, every slow exit would get a burst of connections after a while.
//!
//! Next: `exit/load/ejection.rs` (ejection, trial, return). [`crate::route::balance`] compares the loads of two exits.

mod ejection;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

pub use ejection::{DialEffect, DialSpeed, Ejected, State};

use ejection::Ejection;

use super::moment::{Moment, micros};

/// The time after which a latency peak has the weight 1/e in the average. This is linkerd's default for its peak EWMA.
const DECAY: Duration = Duration::from_secs(10);

/// The latency that is assumed for an exit before any latency is measured. This is linkerd's default round-trip time.
const UNTIMED: Duration = Duration::from_secs(1);

/// A failed dial counts in the average of latencies as a dial that took this long, which is slow for a stream through
/// Tor. So after one failure, the exit gets hardly any connections for about twenty seconds. A run of failures ejects
/// the exit. Not tuned.
const FAILURE: Duration = Duration::from_secs(2);

/// The number of dials before [`Load::p95`] returns a value. `p95` estimates the latency that one dial in twenty
/// exceeds.
const TAIL_WARM: u32 = 20;

/// The step by which the estimate of the 95th percentile of latencies changes after a dial, as a share of the estimate.
/// Not tuned: the estimate settles within about 50 dials and then varies by a tenth, which is exact enough for a time
/// limit.
const TAIL_STEP: f32 = 0.2;

/// The load of one exit. All editions of the exit and all its tunnels share this object.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: AtomicU32,
    /// The latency that checks measured, in µs. 0 if no check measured the latency.
    baseline: AtomicU32,
    /// The upper 32 bits are the average latency in µs. The lower 32 bits are the time of the last update in ms, which
    /// wraps every 49 days.
    average: AtomicU64,
    /// The estimated 95th percentile of latencies in µs, as the bits of an `f32`.
    tail: AtomicU32,
    /// The number of dials so far, counted up to [`TAIL_WARM`].
    seen: AtomicU32,
    /// When a dial last succeeded, as a [`Moment`]. 0 if no dial did since the process started.
    succeeded_at: AtomicU64,
    ejection: Ejection,
}

impl Load {
    /// Counts one more tunnel, from before its dial until the returned guard is dropped.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(self.clone())
    }

    /// Records that a dial through the exit reached its target after `took`.
    pub fn succeeded(&self, took: Duration, speed: DialSpeed, now: Moment) -> DialEffect {
        self.average_in(took, now);
        self.tail_in(took);
        self.succeeded_at.store(now.0, Relaxed);
        self.ejection.succeeded(speed, now)
    }

    /// Records that a dial was given up after `waited`, because another exit was faster.
    pub fn outrun(&self, waited: Duration, now: Moment) -> DialEffect {
        self.average_in(waited, now);
        // The dial would have taken longer than `waited`, but nobody knows how much longer. If `waited` is below the
        // estimate of the 95th percentile, the dial gives no information about that percentile.
        if self.p95().is_none_or(|tail| waited > tail) {
            self.tail_in(waited);
        }
        self.ejection.succeeded(DialSpeed::Late, now)
    }

    /// Records that the exit worked but the target failed. The exit is alive, but this dial measures no latency of the
    /// exit.
    pub fn answered(&self, now: Moment) -> DialEffect {
        self.ejection.succeeded(DialSpeed::Unknown, now)
    }

    /// Records that a dial failed through the fault of the exit. Returns `Some` if this failure ejected the exit.
    pub fn failed(&self, now: Moment) -> Option<Ejected> {
        self.average_in(FAILURE, now);
        self.ejection.failed(now)
    }

    /// Returns when a client's dial through the exit last reached its target. The tester then needs no check of its own.
    /// `None` if no dial did since the process started.
    pub fn last_success(&self) -> Option<Moment> {
        Some(Moment(self.succeeded_at.load(Relaxed))).filter(|at| at.0 > 0)
    }

    /// Sets the latency that checks measured. The average returns to this latency while nobody uses the exit.
    pub fn set_baseline(&self, latency: Option<Duration>) {
        self.baseline.store(latency.map_or(0, |latency| short(latency).max(1)), Relaxed);
    }

    /// The number of tunnels that are open or being opened.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Returns true if the exit carries a tunnel now, or if a dial through it ended less than `span` ago.
    pub fn carried_within(&self, span: Duration, now: Moment) -> bool {
        let average = self.average.load(Relaxed);
        // Another thread may have written a slightly later time, so the age may be negative, which counts as zero.
        let age = (millis(now).wrapping_sub(average as u32) as i32).max(0);
        self.in_flight() > 0 || (average != 0 && u128::from(age.unsigned_abs()) < span.as_millis())
    }

    /// The expected latency of a dial now. The value rises immediately after a slow dial and falls slowly.
    pub fn latency(&self, now: Moment) -> Duration {
        let average = self.average.load(Relaxed);
        Duration::from_micros(u64::from(self.decayed(average, now)))
    }

    /// The estimated latency that one dial in twenty exceeds. `None` before [`TAIL_WARM`] dials.
    pub fn p95(&self) -> Option<Duration> {
        let warm = self.seen.load(Relaxed) >= TAIL_WARM;
        warm.then(|| Duration::from_micros(f32::from_bits(self.tail.load(Relaxed)) as u64))
    }

    /// Returns whether new connections may choose the exit now.
    pub fn state(&self, now: Moment) -> State {
        self.ejection.state(now)
    }

    /// Returns true if the exit is ejected because it was slow, and false if it is ejected because of failures.
    pub fn is_slow(&self) -> bool {
        self.ejection.is_slow()
    }

    /// Claims the trial of an ejected exit: one connection that tests whether the exit works again. Returns false if no
    /// trial is due, or if another connection has claimed the trial.
    pub fn claim_trial(&self, now: Moment) -> bool {
        self.ejection.claim_trial(now)
    }

    fn average_in(&self, took: Duration, now: Moment) {
        let took = short(took).max(1);
        let next = |average| {
            let old = self.decayed_from(average, took, now);
            Some(u64::from(took.max(old)) << 32 | u64::from(millis(now)))
        };
        let _ = self.average.fetch_update(Relaxed, Relaxed, next);
    }

    fn decayed(&self, average: u64, now: Moment) -> u32 {
        let baseline = match self.baseline.load(Relaxed) {
            0 if average == 0 => short(UNTIMED),
            baseline => baseline,
        };
        self.decayed_from(average, baseline, now)
    }

    /// Returns the average latency at the time `now`, in µs. The average has moved towards `rest` (a latency in µs)
    /// since the last update.
    fn decayed_from(&self, average: u64, rest: u32, now: Moment) -> u32 {
        let (value, written) = ((average >> 32) as u32, average as u32);
        if value == 0 {
            return rest;
        }
        // Another thread may have written a slightly later time, so the age may be negative, which counts as zero.
        let age = (millis(now).wrapping_sub(written) as i32).max(0);
        let weight = (-(age as f32) / DECAY.as_millis() as f32).exp();
        let (value, rest) = (value as f32, rest as f32);
        (rest + (value - rest) * weight) as u32
    }

    /// Updates the estimate of the 95th percentile with the method "frugal streaming". If a dial exceeds the estimate,
    /// the estimate rises by 19 small steps. Otherwise the estimate falls by one small step. So the estimate settles
    /// where one dial in twenty exceeds it. An update that is lost between two threads makes an error of only one
    /// update.
    fn tail_in(&self, took: Duration) {
        let took = short(took).max(1) as f32;
        let seen = self.seen.load(Relaxed);
        let tail = f32::from_bits(self.tail.load(Relaxed));
        let next = match seen {
            0 => took,
            _ if took > tail => tail * (1.0 + 0.95 * TAIL_STEP),
            _ => tail * (1.0 - 0.05 * TAIL_STEP),
        };
        self.tail.store(next.to_bits(), Relaxed);
        if seen < TAIL_WARM {
            self.seen.store(seen + 1, Relaxed);
        }
    }
}

/// Counts one tunnel in [`Load::in_flight`] until this guard is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Load>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// Converts a latency to µs. The largest result is 71 minutes.
fn short(span: Duration) -> u32 {
    u32::try_from(micros(span)).unwrap_or(u32::MAX)
}

fn millis(now: Moment) -> u32 {
    (now.0 / 1000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_in_use_while_it_carries_and_for_a_while_after() {
        let (load, span) = (Arc::new(Load::default()), Duration::from_secs(600));
        load.set_baseline(Some(Duration::from_millis(50)));
        assert!(!load.carried_within(span, START), "only checks used it");
        let tunnel = load.begin();
        assert!(load.carried_within(span, START));
        drop(tunnel);
        load.succeeded(Duration::from_millis(20), DialSpeed::Unknown, START);
        assert!(load.carried_within(span, Moment(START.0 - 5_000)), "the clock of another thread");
        assert!(load.carried_within(span, START.after(span - Duration::from_millis(1))));
        assert!(!load.carried_within(span, START.after(span)));
    }

    const START: Moment = Moment(1_788_314_400_000_000);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_average_rises_at_once_and_falls_slowly() {
        let load = Load::default();
        assert_eq!(load.latency(START), UNTIMED);
        load.succeeded(100 * MS, DialSpeed::Kept, START);
        load.succeeded(900 * MS, DialSpeed::Kept, START);
        assert_eq!(load.latency(START), 900 * MS);
        load.succeeded(100 * MS, DialSpeed::Kept, START.after(DECAY));
        let fallen = load.latency(START.after(DECAY)).as_millis();
        assert!((380..410).contains(&fallen), "{fallen} ms is not 100 + 800/e");
    }

    #[test]
    fn an_unused_exit_returns_to_the_latency_of_checks() {
        let load = Load::default();
        load.set_baseline(Some(2000 * MS));
        assert_eq!(load.latency(START), 2000 * MS);
        load.succeeded(20 * MS, DialSpeed::Kept, START);
        assert_eq!(load.latency(START).as_millis(), 20);
        let later = load.latency(START.after(5 * DECAY)).as_millis();
        assert!(later > 1900, "{later}");
        // A thread may pass in a time that is slightly earlier than that of the last update. The result is the same.
        assert_eq!(load.latency(Moment(START.0 - 50_000)).as_millis(), 20);
    }

    #[test]
    fn the_tail_rests_where_one_in_twenty_exceeds_it() {
        let load = Load::default();
        load.succeeded(100 * MS, DialSpeed::Kept, START);
        assert_eq!(load.p95(), None);
        // The latencies 1 … 1000 ms in a random-like order. Their 95th percentile is 950 ms.
        let mut x = 1u64;
        for _ in 0..5000 {
            x = x * 7919 % 1009;
            load.succeeded(x.min(1000) as u32 * MS, DialSpeed::Kept, START);
        }
        let p95 = load.p95().unwrap().as_millis();
        assert!((800..1100).contains(&p95), "{p95}");
    }

    #[test]
    fn tunnels_are_counted_while_they_live() {
        let load = Arc::new(Load::default());
        let (one, two) = (load.begin(), load.begin());
        assert_eq!(load.in_flight(), 2);
        drop((one, two));
        assert_eq!(load.in_flight(), 0);
    }
}
