//! Percentiles, and how a mark is told.

use std::time::Duration;

/// Times of one thing.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).copied().unwrap_or_default()
    }

    pub fn p50(&self) -> Duration {
        self.percentile(50)
    }

    /// A cell with two percentiles, in milliseconds.
    pub fn cell(&self) -> String {
        format!("{} / {}", ms(self.p50()), ms(self.percentile(95)))
    }
}

pub fn ms(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}

pub fn ratio(ours: Duration, theirs: Duration) -> f64 {
    ours.as_secs_f64() / theirs.as_secs_f64()
}

/// Tells whether a mark is met.
pub fn mark(what: &str, met: bool) -> bool {
    println!("\n{}: {what}", if met { "met" } else { "MISSED" });
    met
}
