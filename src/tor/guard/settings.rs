//! The numbers of the guard specification. The consensus may change each of them.

use rand::{Rng, RngExt};

use super::super::netdir::Netdir;
use super::bias::Limits;

const DAY: u64 = 86_400;

/// The consensus' values, or the specification's defaults.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// How long a guard stays in the sample, in seconds.
    pub(super) lifetime: u64,
    /// How long a confirmed guard stays at least, in seconds.
    pub(super) confirmed_lifetime: u64,
    /// How long a guard stays that is no longer listed, in seconds.
    pub(super) unlisted_lifetime: u64,
    /// The largest sample.
    pub(super) max_sample: usize,
    /// The largest sample, as a part of all guards in percent.
    pub(super) max_sample_percent: usize,
    /// How many members of the sample should be usable and not down.
    pub(super) min_fit: usize,
    /// How many of the best guards are tried again sooner.
    pub(super) primary_guards: usize,
    /// After how many seconds without success the fault is taken to be ours.
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

    /// A moment up to a tenth of a lifetime before `now`. So the time at which a guard is dropped does not show when it was
    /// added.
    pub(super) fn blur<R: Rng + ?Sized>(&self, now: u64, rng: &mut R) -> u64 {
        past(now, self.lifetime / 10, rng)
    }

    /// How many guards the sample may hold when the directory lists this many.
    pub(super) fn largest_sample(&self, listed: usize) -> usize {
        (listed * self.max_sample_percent / 100).min(self.max_sample).max(self.min_fit)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::read(|_, default, _| default as u64, Limits::default())
    }
}

/// A random moment up to `interval` before `now`.
pub(super) fn past<R: Rng + ?Sized>(now: u64, interval: u64, rng: &mut R) -> u64 {
    now.saturating_sub(rng.random_range(0..=interval))
}
