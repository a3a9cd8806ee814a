//! Limits how fast circuits are built through one guard, with a token bucket. Pure: no I/O.
//!
//! Relays count the circuits that each client address builds, and refuse an address that builds too many. tor does not
//! limit circuits that a controller builds, so this gateway must limit them. If a request waits for a build, the build
//! may take the last token. The build of a spare circuit leaves half of the bucket for requests.

use std::time::Duration;

use tokio::time::Instant;

/// A token bucket: one token per circuit build.
#[derive(Clone, Debug)]
pub struct BuildRate {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl BuildRate {
    /// Returns a full bucket. `rate` is in builds per second. The rate is at least one build a minute, because with a
    /// rate of 0 no circuit would ever be built.
    pub fn new(rate: f64, burst: u32, now: Instant) -> Self {
        let burst = f64::from(burst.max(1));
        Self { rate: rate.max(1.0 / 60.0), burst, tokens: burst, at: now }
    }

    /// Changes the rate (builds per second) and the burst (the most tokens in the bucket). Tokens beyond the new burst
    /// are dropped.
    pub fn set(&mut self, rate: f64, burst: u32) {
        self.rate = rate.max(1.0 / 60.0);
        self.burst = f64::from(burst.max(1));
        self.tokens = self.tokens.min(self.burst);
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(self.burst);
        self.at = now;
    }

    fn floor(&self, awaited: bool) -> f64 {
        if awaited { 0.0 } else { (self.burst / 2.0).floor() }
    }

    /// Takes a token for one build and returns true. Returns false if no token may be taken. `awaited` is true if a
    /// request waits for this build. Without a waiting request, half of the burst must stay in the bucket.
    pub fn take(&mut self, awaited: bool, now: Instant) -> bool {
        self.refill(now);
        let enough = self.tokens >= self.floor(awaited) + 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }

    /// Returns how long the caller must wait until [`BuildRate::take`] may succeed. `awaited` is true if a request
    /// waits for the build.
    pub fn wait(&self, awaited: bool) -> Duration {
        let missing = self.floor(awaited) + 1.0 - self.tokens;
        Duration::from_secs_f64((missing / self.rate).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let start = Instant::now();
        let mut pace = BuildRate::new(2.0, 4, start);
        let taken = (0..10).filter(|_| pace.take(true, start)).count();
        assert_eq!(taken, 4);
        assert_eq!(pace.wait(true), Duration::from_millis(500));
        let mut later = 0;
        for step in 1..=100 {
            later += usize::from(pace.take(true, start + Duration::from_millis(100 * step)));
        }
        assert_eq!(later, 20, "two a second for ten seconds");
    }

    #[test]
    fn spares_leave_half_the_burst_to_those_who_wait() {
        let start = Instant::now();
        let mut pace = BuildRate::new(1.0, 10, start);
        assert_eq!((0..20).filter(|_| pace.take(false, start)).count(), 5);
        assert_eq!(pace.wait(false), Duration::from_secs(1));
        assert_eq!((0..20).filter(|_| pace.take(true, start)).count(), 5);
    }

    #[test]
    fn no_rate_at_all_still_builds_now_and_then() {
        let start = Instant::now();
        let mut pace = BuildRate::new(0.0, 0, start);
        assert!(pace.take(true, start) && !pace.take(true, start));
        assert!(pace.take(true, start + Duration::from_secs(60)));
    }
}
