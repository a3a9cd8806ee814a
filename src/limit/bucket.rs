//! Bytes a second, shared by every tunnel of one key.
//!
//! Who moves bytes is charged for them afterwards, and may have to wait before the next ones. All that is kept is the
//! time at which everything charged so far would have been sent at the rate, so tunnels that share a bucket take turns
//! by themselves: each charge moves that time on, and whoever asks next waits for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How far ahead of its rate a bucket may run: what a pause of that length saved up. Arbitrary: a page loads at once
/// and a rate over a few seconds still is what it says.
const BURST: Duration = Duration::from_secs(1);

/// The least and the most that is moved between two looks at the bucket. Arbitrary: below, calls cost more than they
/// move; above, nothing is gained.
const CHUNK: (u64, u64) = (1 << 10, 64 << 10);

/// A rate that several share. Lock-free.
#[derive(Debug)]
pub struct Bucket {
    start: Instant,
    rate: AtomicU64,
    /// Nanoseconds after `start` at which what was charged would all have been sent.
    paid_until: AtomicU64,
}

impl Bucket {
    /// `rate` bytes a second, at least 1, from `now` on.
    pub fn new(rate: u64, now: Instant) -> Self {
        Self { start: now, rate: AtomicU64::new(rate.max(1)), paid_until: AtomicU64::new(0) }
    }

    /// Changes the rate for what is charged from now on, also to tunnels that run.
    pub fn set_rate(&self, rate: u64) {
        self.rate.store(rate.max(1), Ordering::Relaxed);
    }

    /// The most to move before asking again: a tenth of a second's worth.
    pub fn chunk(&self) -> usize {
        (self.rate.load(Ordering::Relaxed) / 10).clamp(CHUNK.0, CHUNK.1) as usize
    }

    /// `bytes` were moved.
    pub fn charge(&self, bytes: usize, now: Instant) {
        let rate = self.rate.load(Ordering::Relaxed);
        let cost = (bytes as u128 * 1_000_000_000).div_ceil(u128::from(rate)) as u64;
        let now = self.nanos(now);
        let _ = self
            .paid_until
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid| Some(paid.max(now).saturating_add(cost)));
    }

    /// When the next bytes may move; `None` = now.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let paid = self.paid_until.load(Ordering::Relaxed);
        let wait = Duration::from_nanos(paid.saturating_sub(self.nanos(now))).checked_sub(BURST)?;
        (!wait.is_zero()).then(|| now + wait)
    }

    fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_nanos() as u64 // 584 years
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Moves as much as the bucket allows for `span` and returns it.
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
    fn over_time_the_rate_is_what_it_says() {
        let start = Instant::now();
        for rate in [1, 1_000, 100_000, 10_000_000, 1_000_000_000] {
            let bucket = Bucket::new(rate, start);
            let (got, chunk) = (moved(&bucket, start, Duration::from_secs(100)), bucket.chunk() as u64);
            let want = rate * 101; // and the burst
            assert!(got >= (want - want / 1000).saturating_sub(chunk) && got <= want + 2 * chunk, "{rate}: {got}");
        }
    }

    #[test]
    fn a_pause_saves_up_no_more_than_the_burst() {
        let start = Instant::now();
        let bucket = Bucket::new(100_000, start);
        let later = start + Duration::from_secs(1000);
        let got = moved(&bucket, later, Duration::from_secs(1));
        assert!((200_000..=220_000).contains(&got), "{got}");
    }

    #[test]
    fn a_new_rate_holds_for_what_runs() {
        let start = Instant::now();
        let bucket = Bucket::new(1_000_000, start);
        moved(&bucket, start, Duration::from_secs(10));
        bucket.set_rate(10_000);
        let got = moved(&bucket, start + Duration::from_secs(20), Duration::from_secs(10));
        assert!((100_000..=112_000).contains(&got), "{got}");
    }
}
