//! Computes the weight of a relay in a position of a path, and chooses randomly by weight.
//!
//! The bandwidth of a relay is multiplied by a factor from the footer of the consensus. The factor depends on the
//! position and on whether the relay has the Guard flag, the Exit flag, both or neither. For example, `Wmg` is the
//! factor of relays with the Guard flag in the middle position. With these factors, few clients use exits and guards in
//! other positions, so these scarce relays have capacity left for the positions that only they can have.
//!
//! The arithmetic is that of tor, but with whole numbers: sums are exact, and a relay of weight 0 is never chosen.

use rand::{Rng, RngExt};

use super::Flags;

/// A position in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    Guard,
    Middle,
}

/// Factors are whole numbers: the factor 1 is stored as one million. The consensus usually writes the factor 1 as
/// 10,000, so its factors are stored exactly. A relay that serves the directory has two factors. The product of the two
/// is rounded down.
const UNIT: u64 = 1_000_000;

/// The largest bandwidth, in kB/s. This is tor's limit: a bandwidth is a signed 32-bit number of bytes.
const MAX_BANDWIDTH: u32 = i32::MAX as u32 / 1000;

/// The factors of one position in a path, for four kinds of relays: no flag, Guard, Exit, both flags. Each kind has two
/// factors: without and with the V2Dir flag.
type Factors = [[u64; 2]; 4];

/// The factors of all positions, from the consensus.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    guard: Factors,
    middle: Factors,
}

impl Weights {
    /// Computes the factors from the pairs of the line `bandwidth-weights` and the parameter `bwweightscale`. If a
    /// factor of a position is missing or negative, relays in that position are weighted by bandwidth alone, as in tor.
    pub(crate) fn new<'a>(pairs: impl Iterator<Item = (&'a str, i32)> + Clone, scale: i32) -> Self {
        let scale = scale.max(1) as u64;
        let read = |name: &str| {
            let found = pairs.clone().find(|(key, _)| *key == name);
            found.and_then(|(_, value)| u64::try_from(value).ok()).map(|value| value.min(scale))
        };
        let position = |names: [Option<&str>; 4]| {
            let mut factors = [[UNIT; 2]; 4];
            for (place, (name, serving)) in names.iter().zip(["Wmb", "Wgb", "Web", "Wdb"]).enumerate() {
                // `name` is `None` only for the guard position and relays that have the flag Exit but not the flag
                // Guard. Such a relay is never a guard, so its factor is 0.
                let (factor, serving) = (name.map_or(Some(0), read)?, read(serving)?);
                let plain = factor * UNIT / scale;
                factors[place] = [plain, plain * serving / scale];
            }
            Some(factors)
        };
        let even = [[UNIT; 2]; 4];
        Self {
            guard: position([Some("Wgm"), Some("Wgg"), None, Some("Wgd")]).unwrap_or(even),
            middle: position([Some("Wmm"), Some("Wmg"), Some("Wme"), Some("Wmd")]).unwrap_or(even),
        }
    }

    /// Returns the weight of a relay with these flags and this bandwidth in a position.
    pub(crate) fn of(&self, position: Position, flags: Flags, bandwidth: u32) -> u64 {
        let factors = match position {
            Position::Guard => &self.guard,
            Position::Middle => &self.middle,
        };
        let exit = flags.has(Flags::EXIT) && !flags.has(Flags::BAD_EXIT);
        let place = usize::from(flags.has(Flags::GUARD)) + 2 * usize::from(exit);
        u64::from(bandwidth.min(MAX_BANDWIDTH)) * factors[place][usize::from(flags.has(Flags::V2DIR))]
    }
}

/// The running sums of a list of weights. With these sums a random choice by weight takes O(log n) time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cumulative(Box<[u64]>);

impl Cumulative {
    /// Computes the running sums. They cannot overflow 64 bits: there are at most 65,536 weights, each below 2^31 /
    /// 1000 × 1,000,000.
    pub(crate) fn new(weights: impl Iterator<Item = u64>) -> Self {
        let mut sum = 0u64;
        Self(
            weights
                .map(|weight| {
                    sum = sum.saturating_add(weight);
                    sum
                })
                .collect(),
        )
    }

    /// Returns a random index, chosen by weight. Returns `None` if all weights are 0.
    pub(crate) fn pick<R: Rng + ?Sized>(&self, rng: &mut R) -> Option<usize> {
        let total = self.0.last().copied().filter(|total| *total > 0)?;
        let point = rng.random_range(0..total);
        Some(self.0.partition_point(|sum| *sum <= point))
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

/// Returns a random index, chosen by weight. If all weights are 0, every index is equally likely, as in tor on networks
/// without bandwidth measurements.
pub(crate) fn pick<R: Rng + ?Sized>(weights: &[u64], rng: &mut R) -> Option<usize> {
    if weights.is_empty() {
        return None;
    }
    let weighted = Cumulative::new(weights.iter().copied()).pick(rng);
    Some(weighted.unwrap_or_else(|| rng.random_range(0..weights.len())))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    const FULL: &str =
        "Wgb=10000 Wgd=2000 Wgg=6000 Wgm=6000 Wmb=10000 Wmd=0 Wme=500 Wmg=4000 Wmm=10000 Web=10000 Wdb=5000";

    fn weights(text: &str, scale: i32) -> Weights {
        let pairs: Vec<_> = super::super::text::key_values(text).collect();
        Weights::new(pairs.iter().copied(), scale)
    }

    #[test]
    fn a_weight_is_the_bandwidth_times_the_factor_of_the_flags() {
        let both = Flags::GUARD.and(Flags::EXIT);
        let weights = weights(FULL, 10_000);
        for (flags, guard, middle) in [
            (Flags::default(), 600_000, 1_000_000),
            (Flags::GUARD, 600_000, 400_000),
            (Flags::EXIT, 0, 50_000),
            (Flags::EXIT.and(Flags::BAD_EXIT), 600_000, 1_000_000),
            (both, 200_000, 0),
            (both.and(Flags::V2DIR), 100_000, 0),
        ] {
            assert_eq!(weights.of(Position::Guard, flags, 7), 7 * guard, "{flags:?}");
            assert_eq!(weights.of(Position::Middle, flags, 7), 7 * middle, "{flags:?}");
        }
        let capped = weights.of(Position::Middle, Flags::default(), u32::MAX);
        assert_eq!(capped, u64::from(MAX_BANDWIDTH) * UNIT);
    }

    #[test]
    fn without_its_factors_a_position_weighs_by_bandwidth() {
        for text in ["", &FULL.replace("Wmg=4000", "Wmg=-1"), &FULL.replace("Wmg=4000", "")] {
            let weights = weights(text, 10_000);
            assert_eq!(weights.of(Position::Middle, Flags::EXIT, 3), 3 * UNIT, "{text}");
        }
        let too_large = weights(&FULL.replace("Wmm=10000", "Wmm=99999"), 10_000);
        assert_eq!(too_large.of(Position::Middle, Flags::default(), 3), 3 * UNIT);
        assert_eq!(weights(FULL, -5).of(Position::Middle, Flags::GUARD, 3), 3 * UNIT);
    }

    #[test]
    fn what_weighs_nothing_is_not_picked_unless_nothing_weighs_anything() {
        let mut rng = SmallRng::seed_from_u64(1);
        for _ in 0..1000 {
            assert_eq!(pick(&[0, 0, 5, 0], &mut rng), Some(2));
        }
        let mut seen = [false; 3];
        (0..100).for_each(|_| seen[pick(&[0; 3], &mut rng).unwrap()] = true);
        assert_eq!(seen, [true; 3]);
        assert_eq!(pick(&[], &mut rng), None);
        assert_eq!(Cumulative::new([0, 0].into_iter()).pick(&mut rng), None);
    }
}
