//! The capacity of an exit, as a weight: an exit of twice the capacity is chosen twice as often.
//!
//! Tor's own clients choose exits by consensus weight. A client that chooses all exits equally often sends most of its
//! traffic through small exits: on the public network the slower half of the exits has a tenth of the capacity. The
//! weight here differs from the consensus weight in three points:
//!
//! - Every exit gets [`FLOOR`] on top. So exits that the authorities have hardly measured yet are used now and then,
//!   and the gateway finds out how good they are.
//! - The weight is rounded to a power of √2. Consensus weights change a little every hour, but rounded weights rarely
//!   change. So a route or session that computes its order of exits again gets the same exits.
//! - Public proxies and this machine's own address have no consensus weight. Each of them counts as a Tor exit of
//!   [`TYPICAL`] weight. Only their latencies make a difference between them.
//!
//! Next: `exit/catalog/draw.rs` draws exits by capacity at random. `Exit::rank` is for choices that must always come
//! out the same way.

use super::Source;

/// The weight that every exit gets on top of its own weight. The value is 5 % of the mean consensus weight of exits
/// (19,800 in September 2026), so about one choice in twenty does not depend on the exit's own weight.
const FLOOR: u32 = 1_000;

/// The weight of an exit that has no consensus weight. It is the median consensus weight of Tor exits in September 2026.
const TYPICAL: u32 = 14_000;

/// A larger weight counts as this weight. The largest relay of the public network has a quarter of it. The limit
/// prevents that a mistake of the authorities sends all traffic through one exit.
const MOST: u32 = 1_000_000;

/// Returns the capacity of an exit. `weight` is the consensus weight of a Tor exit, and does not matter for other exits.
pub(super) fn of(source: Source, weight: u32) -> u32 {
    let weight = if source == Source::Tor { weight.min(MOST) } else { TYPICAL };
    rounded(weight + FLOOR)
}

/// Returns the power of √2 that is nearest to the weight by ratio. The weight must not be 0.
fn rounded(weight: u32) -> u32 {
    let power = 1 << weight.ilog2();
    // The powers of √2 around this weight are 1, 1.414 and 2 times `power`. Which one is nearest changes at 2^(1/4) =
    // 1.189 and 2^(3/4) = 1.682 times `power`.
    match u64::from(weight) * 10_000 / u64::from(power) {
        0..11_892 => power,
        11_892..16_818 => (u64::from(power) * 14_142 / 10_000) as u32,
        _ => power * 2,
    }
}

/// Returns the rank of an exit for the holder of `seed`, for example a session or a route. The exit with the smallest
/// rank is the first. This is weighted rendezvous hashing: over all seeds, an exit of twice the capacity is the first
/// twice as often. If another exit comes, goes or changes its capacity, the ranks of all other exits stay the same.
pub(super) fn rank(seed: u64, (exit_seed, capacity): (u64, u32)) -> f64 {
    exponential(stir(seed, exit_seed)) / f64::from(capacity)
}

/// Mixes two numbers into one, with the last step of splitmix64.
pub(crate) fn stir(one: u64, other: u64) -> u64 {
    let mut x = one ^ other.rotate_left(32);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Turns a number whose bits are random into a random number above 0 with an exponential distribution of mean 1. This
/// serves to choose among exits by weight: each exit gets such a number, divided by its weight, and the exit with the
/// smallest result is chosen. So an exit of twice the weight is chosen twice as often.
pub(super) fn exponential(random: u64) -> f64 {
    // An f64 holds the upper 52 bits and the half exactly, so the fraction is never 0 and never 1.
    -(((random >> 12) as f64 + 0.5) / (1u64 << 52) as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Exit, ExitId, Fingerprint, Known, Listing, Slot};

    fn relay(n: u8, weight: u32) -> Listing {
        Listing { weight, ..Listing::new(ExitId::Tor(Fingerprint([n; 20]))) }
    }

    fn exit(n: u8, weight: u32) -> Exit {
        Exit::new(Slot(0), relay(n, weight).into(), Known::default(), std::sync::Arc::default())
    }

    #[test]
    fn a_weight_is_rounded_to_the_nearest_power_of_the_root_of_two() {
        for (weight, want) in [
            (1, 1),
            (2, 2),
            (3, 2), // the nearest power of √2 is 2.83, which is stored as 2
            (16_384, 16_384),
            (19_483, 16_384),
            (19_485, 23_170),
            (23_170, 23_170),
            (27_554, 23_170),
            (27_556, 32_768),
            (32_767, 32_768),
            (1_001_000, 1_048_576),
        ] {
            assert_eq!(rounded(weight), want, "{weight}");
        }
        // Rounding changes a weight by at most the factor 2^(1/4). A small change of a weight rarely changes the
        // rounded weight.
        let off = |weight: u32| f64::from(rounded(weight)) / f64::from(weight);
        assert!((1_000..300_000).step_by(7).all(|weight| (0.84..1.19).contains(&off(weight))));
        let changed = (1_000..300_000).filter(|weight| rounded(*weight) != rounded(weight + weight / 100)).count();
        assert!(changed < 299_000 * 4 / 100, "a change of 1 % moves {changed} of 299,000 to another weight");
    }

    #[test]
    fn capacity_follows_the_weight_and_nobody_has_none() {
        let capacity = |weight| of(Source::Tor, weight);
        assert_eq!([0, 1, 100].map(capacity), [1_024; 3], "a relay that nobody has measured is used now and then");
        assert_eq!([15_384, 31_768, 260_000].map(capacity), [16_384, 32_768, 262_144]);
        assert_eq!([999_000, 1_000_000, u32::MAX].map(capacity), [1_048_576; 3], "there is a largest weight");
        let direct = of(Source::Direct, 1_000_000);
        assert_eq!(direct, capacity(14_000), "what has no consensus weight counts as a typical Tor exit");
        assert_eq!(direct, 16_384);
    }

    #[test]
    fn an_exponential_number_is_above_zero_finite_and_falls() {
        assert!(exponential(u64::MAX) > 0.0 && exponential(u64::MAX) < 1e-15);
        assert!((36.0..38.0).contains(&exponential(0)));
        assert!((exponential(1 << 63) - std::f64::consts::LN_2).abs() < 1e-9);
        let mean = (0..100_000).map(|n| exponential(stir(7, n))).sum::<f64>() / 1e5;
        assert!((0.98..1.02).contains(&mean), "{mean} is not the mean of 1, within 2 %");
    }

    #[test]
    fn a_mixed_number_is_the_same_at_every_start() {
        // The first number of splitmix64 for the seed 0.
        assert_eq!(stir(0x9e37_79b9_7f4a_7c15, 0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(stir(0, 0x7f4a_7c15_9e37_79b9), 0xe220_a839_7b1d_cdaf);
        assert_ne!(stir(1, 2), stir(2, 1));
    }

    #[test]
    fn ranks_place_by_capacity_and_move_only_what_they_must() {
        // Capacities 1024, 2048, 4096 and 8192 of 15,360 in all.
        let mut exits = [(0, 0), (1, 1_048), (2, 3_096), (3, 7_192)].map(|(n, weight)| exit(n, weight));
        assert_eq!([0, 1, 2, 3].map(|n: usize| exits[n].capacity()), [1_024, 2_048, 4_096, 8_192]);
        let first = |exits: &[Exit], seed| {
            let ranks = exits.iter().map(|exit| exit.rank(seed)).enumerate();
            ranks.min_by(|one, other| one.1.total_cmp(&other.1)).unwrap().0
        };
        let before: Vec<usize> = (0..15_000).map(|seed| first(&exits, seed)).collect();
        let count = |placed: &[usize], n| placed.iter().filter(|at| **at == n).count();
        for (n, want) in [(0, 1_000), (1, 2_000), (2, 4_000), (3, 8_000)] {
            let got = count(&before, n);
            // The standard deviation is at most 61.
            assert!(got.abs_diff(want) < 250, "exit {n} was first {got} times, not {want}, within 4 deviations");
        }
        // Exit 2 gains capacity. If the first exit of a seed is another one than before, it must be exit 2.
        exits[2] = exit(2, 6_000);
        assert!(exits[2].capacity() > 4_096);
        let after: Vec<usize> = (0..15_000).map(|seed| first(&exits, seed)).collect();
        assert!(before.iter().zip(&after).all(|(old, new)| old == new || *new == 2));
        assert!(count(&after, 2) > count(&before, 2) + 500);
    }
}
