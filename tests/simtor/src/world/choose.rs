//! Chance: relays by their weight, times by their distribution.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::{BRIDGE, World};
use crate::fault::chance;
use crate::model::Relay;

/// A number of the normal distribution (Box and Muller's method).
fn normal(rng: &mut StdRng) -> f64 {
    let (one, other): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - one).ln()).sqrt() * (std::f64::consts::TAU * other).cos()
}

/// A time of a lognormal distribution with this median.
pub(super) fn lognormal(rng: &mut StdRng, median_ms: f64, sigma: f64) -> Duration {
    Duration::from_secs_f64(median_ms / 1000.0 * (sigma * normal(rng)).exp())
}

impl World {
    /// The round trip between a relay and the one before it: the same each time.
    pub(super) fn round_trip(&self, relay: usize) -> Duration {
        let times = &self.settings.times;
        let number = if relay == BRIDGE { u64::MAX } else { relay as u64 };
        let (one, other) = (chance(number, self.settings.seed), chance(number, self.settings.seed ^ 0x5EED));
        let normal = (-2.0 * (1.0 - one).ln()).sqrt() * (std::f64::consts::TAU * other).cos();
        Duration::from_secs_f64(times.relay_ms / 1000.0 * (times.relay_sigma * normal).exp())
    }

    /// The round trip to the end of a path.
    pub(super) fn round_trips(&self, path: &[usize]) -> Duration {
        path.iter().map(|relay| self.round_trip(*relay)).sum()
    }

    /// A relay for which this is true, by weight.
    pub(super) fn any(&self, rng: &mut StdRng, is: impl Fn(usize, &Relay) -> bool) -> Option<usize> {
        let fit = |place: &usize| is(*place, &self.model.relays()[*place]);
        let total: u64 = (0..self.model.relays().len()).filter(fit).map(|place| self.weight(place)).sum();
        if total == 0 {
            return None;
        }
        let mut left = rng.random_range(0..total);
        (0..self.model.relays().len()).filter(fit).find(|place| {
            let weight = self.weight(*place);
            let found = left < weight;
            left = left.saturating_sub(weight);
            found
        })
    }

    fn weight(&self, place: usize) -> u64 {
        u64::from(self.model.relays()[place].weight)
    }

    /// A path that tor would choose for itself: guard, middle, exit.
    pub(super) fn any_path(&self, rng: &mut StdRng) -> Vec<usize> {
        let exit = self.any(rng, |_, relay| relay.flags.exit && !relay.flags.bad_exit);
        let guard = self.any(rng, |_, relay| relay.flags.guard && !relay.flags.exit);
        let middle = self.any(rng, |place, _| Some(place) != exit && Some(place) != guard);
        guard.into_iter().chain(middle).chain(exit).collect()
    }
}
