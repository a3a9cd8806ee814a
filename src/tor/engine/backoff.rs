//! How long an engine pauses before it starts its tor again. Pure.

use std::time::Duration;

/// The pause before the first restart of tor. Not tuned: the pause keeps a tor that always dies from using a whole
/// core.
const PAUSE: Duration = Duration::from_millis(500);

/// The longest pause between two restarts of tor. Not tuned: an operator who repairs the cause waits at most this long.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The pauses between restarts: they double with each failure and have a random part (jitter).
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Returns the pause after one more failure. `jitter` is a random number from 0 to 1.
    pub(super) fn next(&mut self, jitter: f64) -> Duration {
        let full = PAUSE.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MAX);
        self.failures += 1;
        full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0) // the random part makes engines restart at different times
    }

    /// Makes the next pause as short as the first. Called after tor has run for some minutes without a failure.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_start_anew() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..10).map(|_| backoff.next(1.0)).collect();
        assert_eq!(pauses[..3], [PAUSE, PAUSE * 2, PAUSE * 4]);
        assert_eq!(pauses[9], PAUSE_MAX);
        backoff.reset();
        assert_eq!((backoff.next(0.0), backoff.next(0.0)), (PAUSE / 2, PAUSE));
    }
}
