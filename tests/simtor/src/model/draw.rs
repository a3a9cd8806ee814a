//! Random numbers that are the same on every machine and with every version of every crate.
//!
//! The generator is SplitMix64 (Steele, Lea and Flood, 2014): one addition and three multiplications, and any 64-bit
//! number will do as its state. A model's bytes are compared across runs, so the crate `rand`, which may change its
//! generators between versions, is not used here.

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(super) struct Draw(u64);

impl Draw {
    /// The stream of a seed for one purpose; streams of different purposes have nothing to do with each other.
    pub(super) fn new(seed: u64, purpose: &str) -> Self {
        let start = purpose.bytes().fold(seed ^ 0xCBF2_9CE4_8422_2325, |hash, byte| mix(hash ^ u64::from(byte)));
        Self(start)
    }

    /// Any 64-bit number.
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number from 0 up to, not including, 1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with this probability.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A whole number below `end`; 0 if `end` is 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.unit() * end as f64) as usize
    }

    /// Random bytes.
    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.bits() as u8)
    }

    /// One of these, by their shares.
    pub(super) fn pick<T: Copy>(&mut self, shares: &[(T, f64)]) -> T {
        let total: f64 = shares.iter().map(|(_, share)| share).sum();
        let mut left = self.unit() * total;
        for (value, share) in shares {
            left -= share;
            if left < 0.0 {
                return *value;
            }
        }
        shares[shares.len() - 1].0 // only rounding leads here
    }

    /// A number of the normal distribution with mean 0 and deviation 1 (Box and Muller).
    pub(super) fn normal(&mut self) -> f64 {
        let (radius, angle) = (1.0 - self.unit(), self.unit());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }

    /// Brings these into a random order.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// A number that looks random, of three others: for draws that must not depend on what was drawn before.
pub(super) fn hash(seed: u64, a: u64, b: u64) -> f64 {
    let mixed = mix(mix(seed ^ mix(a.wrapping_add(0x9E37_79B9_7F4A_7C15))) ^ b.wrapping_mul(0xD6E8_FEB8_6659_FD93));
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_for_ever() {
        let mut draw = Draw::new(1, "test");
        let first = [draw.bits(), draw.bits()];
        let mut again = Draw::new(1, "test");
        assert_eq!(first, [again.bits(), again.bits()]);
        assert_ne!(first[0], Draw::new(1, "other").bits());
        assert_ne!(first[0], Draw::new(2, "test").bits());
    }

    #[test]
    fn numbers_are_spread_as_they_should_be() {
        let mut draw = Draw::new(7, "spread");
        let count = 20_000;
        let mean = (0..count).map(|_| draw.unit()).sum::<f64>() / f64::from(count);
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        let normals: Vec<f64> = (0..count).map(|_| draw.normal()).collect();
        let variance = normals.iter().map(|value| value * value).sum::<f64>() / f64::from(count);
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
        let picked = (0..count).filter(|_| draw.pick(&[(true, 3.0), (false, 1.0)])).count();
        assert!((14_500..15_500).contains(&picked), "{picked}");
        let hashed = (0..20_000).map(|at| hash(3, at, 9)).sum::<f64>() / 20_000.0;
        assert!((hashed - 0.5).abs() < 0.01, "{hashed}");
    }

    #[test]
    fn shuffling_keeps_every_item() {
        let mut items: Vec<usize> = (0..100).collect();
        Draw::new(1, "shuffle").shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
