//! Medians and percentiles.

use std::cmp::Ordering;
use std::time::Duration;

/// The value below which `share` (0 to 1) of `values` lie; the default value if there are none. Sorts `values`.
pub fn percentile<T: Copy + Default + PartialOrd>(values: &mut [T], share: f64) -> T {
    values.sort_unstable_by(|one, other| one.partial_cmp(other).unwrap_or(Ordering::Equal));
    let at = ((values.len() as f64 * share) as usize).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or_default()
}

/// See [`percentile`].
pub fn median<T: Copy + Default + PartialOrd>(values: &mut [T]) -> T {
    percentile(values, 0.5)
}

/// How long each repetition of one operation took.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub fn percentile(&self, share: f64) -> Duration {
        percentile(&mut self.0.clone(), share)
    }

    pub fn p50(&self) -> Duration {
        self.percentile(0.5)
    }

    /// Median and 95th percentile in milliseconds, for a table.
    pub fn cell(&self) -> String {
        format!("{} / {}", ms(self.p50()), ms(self.percentile(0.95)))
    }
}

pub fn ms(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}

pub fn ratio(ours: Duration, theirs: Duration) -> f64 {
    ours.as_secs_f64() / theirs.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_few_and_of_no_values() {
        let mut values = [3.0, 1.0, 2.0, 4.0];
        assert_eq!((median(&mut values), percentile(&mut values, 0.99), values[0]), (3.0, 4.0, 1.0));
        assert_eq!(percentile::<Duration>(&mut [], 0.5), Duration::ZERO);
        let mut times = Times::default();
        (1..=100).for_each(|n| times.add(Duration::from_millis(n)));
        assert_eq!(times.cell(), "51.00 / 96.00");
    }
}
