//! A byte rate that all connections of one key or one address share.
//!
//! The bucket stores one time: the time at which all bytes of all connections so far would have been moved at exactly
//! the allowed rate. A connection first moves bytes and then reports their number to the bucket, which makes the stored
//! time later. Every connection that wants to move more bytes first waits until the stored time, so the connections
//! alternate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// After a pause, a connection may move without a wait as many bytes as the rate allows in this time. With one second,
/// a web page loads without delay, and the rate is still kept over a few seconds. Not tuned.
const BURST: Duration = Duration::from_secs(1);

/// The minimum and the maximum number of bytes that a connection moves between two checks of the bucket. Smaller pieces
/// would cost too many calls, and larger pieces save nothing more. Not tuned.
const CHUNK: (u64, u64) = (1 << 10, 64 << 10);

/// A shared byte rate. It needs no lock.
#[derive(Debug)]
pub struct Bucket {
    start: Instant,
    rate: AtomicU64,
    /// The time at which all charged bytes would have been sent at the rate, in nanoseconds after `start`.
    paid_until: AtomicU64,
}

impl Bucket {
    /// Makes a bucket of `rate` bytes per second (at least 1), which begins at `now`.
    pub fn new(rate: u64, now: Instant) -> Self {
        Self { start: now, rate: AtomicU64::new(rate.max(1)), paid_until: AtomicU64::new(0) }
    }

    /// Changes the rate of bytes that are charged from now on, also for open connections.
    pub fn set_rate(&self, rate: u64) {
        self.rate.store(rate.max(1), Ordering::Relaxed);
    }

    /// Returns the maximum number of bytes that a connection may move before the next check of the bucket. This is
    /// about the number of bytes that the rate allows in a tenth of a second.
    pub fn chunk(&self) -> usize {
        (self.rate.load(Ordering::Relaxed) / 10).clamp(CHUNK.0, CHUNK.1) as usize
    }

    /// Charges bytes that were moved.
    pub fn charge(&self, bytes: usize, now: Instant) {
        let rate = self.rate.load(Ordering::Relaxed);
        let cost = (bytes as u128 * 1_000_000_000).div_ceil(u128::from(rate)) as u64;
        let now = self.nanos(now);
        let _ = self
            .paid_until
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid| Some(paid.max(now).saturating_add(cost)));
    }

    /// Returns the time at which more bytes may move. `None` means that bytes may move now.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let paid = self.paid_until.load(Ordering::Relaxed);
        let wait = Duration::from_nanos(paid.saturating_sub(self.nanos(now))).checked_sub(BURST)?;
        (!wait.is_zero()).then(|| now + wait)
    }

    fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_nanos() as u64 // overflows after 584 years
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns how many bytes the bucket allows within `span`.
    fn moved(bucket: &Bucket, start: Instant, span: Duration) -> u64 {
        let (mut now, mut sum) = (start, 0);
        while now < start + span {
            match bucket.next(now) {
                Some(later) => now = later,
                None => {
                    bucket.charge(bucket.chunk(), now);
                    sum += bucket.chunk() as u64;
                }
            }
        }
        sum
    }

    #[test]
    fn over_time_the_rate_is_met() {
        let start = Instant::now();
        for rate in [1, 1_000, 100_000, 10_000_000, 1_000_000_000] {
            let bucket = Bucket::new(rate, start);
            let (got, chunk) = (moved(&bucket, start, Duration::from_secs(100)), bucket.chunk() as u64);
            let want = rate * 101; // the bytes of 100 seconds at this rate, and of one second of burst
            assert!(got >= (want - want / 1000).saturating_sub(chunk) && got <= want + 2 * chunk, "{rate}: {got}");
        }
    }

    #[test]
    fn a_pause_saves_up_one_burst_at_most() {
        let start = Instant::now();
        let bucket = Bucket::new(100_000, start);
        let later = start + Duration::from_secs(1000);
        let got = moved(&bucket, later, Duration::from_secs(1));
        assert!((200_000..=220_000).contains(&got), "{got}");
    }

    #[test]
    fn a_new_rate_holds_for_open_connections() {
        let start = Instant::now();
        let bucket = Bucket::new(1_000_000, start);
        moved(&bucket, start, Duration::from_secs(10));
        bucket.set_rate(10_000);
        let got = moved(&bucket, start + Duration::from_secs(20), Duration::from_secs(10));
        assert!((100_000..=112_000).contains(&got), "{got}");
    }
}
