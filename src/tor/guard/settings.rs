//! The numbers of Tor's guard specification. The consensus may change each of them.

use rand::{Rng, RngExt};

use super::super::netdir::Netdir;
use super::bias::Limits;

const DAY: u64 = 86_400;

/// The parameters from the consensus for the choice of guards. A parameter that is missing in the consensus has the
/// default of the specification.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// How long a guard stays in the sample (the guards among which an engine chooses), in seconds.
    pub(super) lifetime: u64,
    /// The least time that a confirmed guard stays in the sample, in seconds.
    pub(super) confirmed_lifetime: u64,
    /// How long a guard that is not listed any more stays in the sample, in seconds.
    pub(super) unlisted_lifetime: u64,
    /// The largest number of guards in the sample (the guards among which an engine chooses).
    pub(super) max_sample: usize,
    /// The largest size of the sample, in percent of all guards in the directory.
    pub(super) max_sample_percent: usize,
    /// How many guards of the sample should be usable and not down. If there are fewer, new ones are drawn.
    pub(super) min_fit: usize,
    /// The number of primary guards: the best guards, which are tried again sooner than others.
    pub(super) primary_guards: usize,
    /// The number of seconds without any success of a guard after which this machine's own network counts as down.
    pub(super) internet_likely_down: u64,
    pub(super) bias: Limits,
}

impl Settings {
    pub(super) fn of(dir: &Netdir) -> Self {
        Self::read(|name, default, max| dir.param_or(name, default, 1..=max) as u64, Limits::of(dir))
    }

    fn read(param: impl Fn(&str, i32, i32) -> u64, bias: Limits) -> Self {
        let days = |name, default| param(name, default, 3650) * DAY;
        let count = |name, default, max| param(name, default, max) as usize;
        Self {
            lifetime: days("guard-lifetime-days", 120),
            confirmed_lifetime: days("guard-confirmed-min-lifetime-days", 60),
            unlisted_lifetime: days("guard-remove-unlisted-guards-after-days", 20),
            max_sample: count("guard-max-sample-size", 60, i32::MAX),
            max_sample_percent: count("guard-max-sample-threshold-percent", 20, 100),
            min_fit: count("guard-min-filtered-sample-size", 20, i32::MAX),
            primary_guards: count("guard-n-primary-guards", 3, i32::MAX),
            internet_likely_down: param("guard-internet-likely-down-interval", 600, i32::MAX),
            bias,
        }
    }

    /// Returns a random time between `now` and a tenth of a lifetime earlier. This time is recorded as the time when a
    /// guard was added. With the exact time, an observer who sees when the guard is dropped would know when it was
    /// added.
    pub(super) fn blur<R: Rng + ?Sized>(&self, now: u64, rng: &mut R) -> u64 {
        past(now, self.lifetime / 10, rng)
    }

    /// Returns the largest allowed size of the sample when the directory lists this number of guards.
    pub(super) fn largest_sample(&self, listed: usize) -> usize {
        (listed * self.max_sample_percent / 100).min(self.max_sample).max(self.min_fit)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::read(|_, default, _| default as u64, Limits::default())
    }
}

/// Returns a random time up to `interval` seconds before `now`.
pub(super) fn past<R: Rng + ?Sized>(now: u64, interval: u64, rng: &mut R) -> u64 {
    now.saturating_sub(rng.random_range(0..=interval))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn the_sample_is_a_fifth_of_the_guards_within_bounds() {
        let settings = Settings::default();
        for (listed, largest) in [(0, 20), (50, 20), (100, 20), (150, 30), (299, 59), (300, 60), (9_000, 60)] {
            assert_eq!(settings.largest_sample(listed), largest, "{listed}");
        }
    }

    #[test]
    fn the_time_when_a_guard_was_added_is_blurred_by_up_to_twelve_days() {
        let (settings, now) = (Settings::default(), 1_795_264_200);
        let mut rng = SmallRng::seed_from_u64(1);
        let days: Vec<u64> = (0..200).map(|_| (now - settings.blur(now, &mut rng)) / DAY).collect();
        assert!(days.iter().all(|day| *day <= 12) && days.contains(&0) && days.contains(&11), "{days:?}");
    }
}
