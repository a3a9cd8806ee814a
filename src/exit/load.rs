//! What changes about an exit with every connection: how busy, how quick and how reliable it is at this moment.
//!
//! A catalog is immutable and is replaced as a whole; this is what must not be. It is a handful of atomics behind one
//! `Arc` that every edition of an exit carries along, so the data path reaches it without a table, a lock or a hash,
//! and a tunnel that outlives its exit's place in the catalog still counts down the right number.
//!
//! Each signal alone misses failures that another catches. The number of tunnels sees an exit that takes work and never
//! finishes it; the peak average of latencies sees one that has become slow; a run of late dials sees one that is slower
//! than its neighbours for good; a run of failures sees one that is quick at failing. The latency found by checks is where
//! the average returns to when nobody uses the exit: decaying towards zero instead would send a burst to every slow exit
//! as soon as it was forgotten.
//!
//! Next: `exit/load/ejection.rs` (out, trial, back); [`crate::route::balance`] compares two of these.

mod ejection;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

pub use ejection::{DialEffect, DialSpeed, Ejected, State};

use ejection::Ejection;

use super::moment::{Moment, micros};

/// How fast the average forgets: after this long a peak weighs 1/e. linkerd's default for its peak EWMA.
const DECAY: Duration = Duration::from_secs(10);

/// What an exit that nobody has timed is taken for; linkerd's default round trip.
const UNTIMED: Duration = Duration::from_secs(1);

/// What a failed dial counts as. Arbitrary: slow for a stream through Tor, so that one failure keeps connections off an
/// exit for some twenty seconds before a run of them ejects it.
const FAILURE: Duration = Duration::from_secs(2);

/// Dials that must have been seen before [`Load::p95`] says anything: one in twenty is what it estimates.
const TAIL_WARM: u32 = 20;

/// The step of the tail's estimate, as a share of it. Arbitrary: it settles within some 50 dials and then wanders by a
/// tenth, which is closer than a deadline needs.
const TAIL_STEP: f32 = 0.2;

/// The moving facts of one exit. Shared: the catalog's editions of the exit and every tunnel through it hold it.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: AtomicU32,
    /// What checks found, in µs; 0 if none did.
    baseline: AtomicU32,
    /// High half: the average in µs; low half: when it was written, in ms, wrapping every 49 days.
    average: AtomicU64,
    /// The 95th percentile in µs, as the bits of an `f32`.
    tail: AtomicU32,
    /// Dials seen, counted up to [`TAIL_WARM`].
    seen: AtomicU32,
    ejection: Ejection,
}

impl Load {
    /// Counts a tunnel in, from before its dial until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(self.clone())
    }

    /// A dial through the exit reached its target after `took`.
    pub fn succeeded(&self, took: Duration, speed: DialSpeed, now: Moment) -> DialEffect {
        self.average_in(took, now);
        self.tail_in(took);
        self.ejection.succeeded(speed, now)
    }

    /// A dial was given up after `waited`, because another exit was there first.
    pub fn outrun(&self, waited: Duration, now: Moment) -> DialEffect {
        self.average_in(waited, now);
        // It would have taken longer; how much longer, nobody knows, and a tail that has been there says nothing.
        if self.p95().is_none_or(|tail| waited > tail) {
            self.tail_in(waited);
        }
        self.ejection.succeeded(DialSpeed::Late, now)
    }

    /// The exit did its part and the target did not: that says nothing of its latency, and that it lives.
    pub fn answered(&self, now: Moment) -> DialEffect {
        self.ejection.succeeded(DialSpeed::Unknown, now)
    }

    /// A dial failed by the exit's own fault. `Some` if this failure ejected it.
    pub fn failed(&self, now: Moment) -> Option<Ejected> {
        self.average_in(FAILURE, now);
        self.ejection.failed(now)
    }

    /// What checks found a stream's opening to take: where the average returns to.
    pub fn set_baseline(&self, latency: Option<Duration>) {
        self.baseline.store(latency.map_or(0, |latency| short(latency).max(1)), Relaxed);
    }

    /// Tunnels open or being opened through it.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// The latency to expect of a dial now: quick to rise, slow to fall.
    pub fn latency(&self, now: Moment) -> Duration {
        let average = self.average.load(Relaxed);
        Duration::from_micros(u64::from(self.decayed(average, now)))
    }

    /// The latency that one dial in twenty exceeds; `None` until enough were seen.
    pub fn p95(&self) -> Option<Duration> {
        let warm = self.seen.load(Relaxed) >= TAIL_WARM;
        warm.then(|| Duration::from_micros(f32::from_bits(self.tail.load(Relaxed)) as u64))
    }

    /// Whether it takes part in choosing.
    pub fn state(&self, now: Moment) -> State {
        self.ejection.state(now)
    }

    /// True if it is out of choosing for being slow, and not for failing.
    pub fn is_slow(&self) -> bool {
        self.ejection.is_slow()
    }

    /// Claims the one trial that an ejected exit is due; false if it is not due or somebody else has it.
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

    /// The average on its way to `rest`, as far as it has come by now.
    fn decayed_from(&self, average: u64, rest: u32, now: Moment) -> u32 {
        let (value, written) = ((average >> 32) as u32, average as u32);
        if value == 0 {
            return rest;
        }
        // Threads write with clocks that they read a moment ago: a step back is no time at all.
        let age = (millis(now).wrapping_sub(written) as i32).max(0);
        let weight = (-(age as f32) / DECAY.as_millis() as f32).exp();
        let (value, rest) = (value as f32, rest as f32);
        (rest + (value - rest) * weight) as u32
    }

    /// Frugal streaming: up by 19 steps when exceeded, down by one when not, rests where one in twenty exceeds it. A
    /// lost update between two threads moves it by a step.
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

/// One tunnel that counts; dropping it ends the count.
#[derive(Debug)]
pub struct InFlight(Arc<Load>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// A latency in µs that fits: 71 minutes are for ever.
fn short(span: Duration) -> u32 {
    u32::try_from(micros(span)).unwrap_or(u32::MAX)
}

fn millis(now: Moment) -> u32 {
    (now.0 / 1000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn an_unused_exit_returns_to_what_checks_found() {
        let load = Load::default();
        load.set_baseline(Some(2000 * MS));
        assert_eq!(load.latency(START), 2000 * MS);
        load.succeeded(20 * MS, DialSpeed::Kept, START);
        assert_eq!(load.latency(START).as_millis(), 20);
        let later = load.latency(START.after(5 * DECAY)).as_millis();
        assert!(later > 1900, "{later}");
        // A clock that another thread read earlier changes nothing.
        assert_eq!(load.latency(Moment(START.0 - 50_000)).as_millis(), 20);
    }

    #[test]
    fn the_tail_rests_where_one_in_twenty_exceeds_it() {
        let load = Load::default();
        load.succeeded(100 * MS, DialSpeed::Kept, START);
        assert_eq!(load.p95(), None);
        // 1 … 1000 ms in an order without a pattern: the 95th percentile is 950.
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
