//! Load balancing: draw two exits at random and take the better one.
//!
//! Taking the best of all exits would send every connection of a moment to one exit and make it the worst. Taking any
//! would ignore load and latency. Two random choices spread connections nearly evenly without sorting. The cost of an
//! exit is its number of tunnels times its peak average latency, as in linkerd, with one difference: latencies that are
//! nearly equal count as equal. Otherwise their noise would decide nearly every comparison on a quiet gateway, and the
//! exit that was lucky once would get two connections in three.
//!
//! Next: `route/choose/free.rs` calls this for each connection; `exit/load.rs` measures.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use rand::{Rng, RngExt};

use crate::exit::{Exit, Moment};

/// Latencies below this count as equal, in µs: a stream through Tor takes some hundreds of ms to open, and the difference
/// between 20 and 90 does not matter then.
const FLOOR: u64 = 100_000;

/// Latencies whose ratio is below this count as equal. Not tuned: dials of one exit through different circuits differ by
/// about that much.
const BAND: u64 = 2;

/// True if `one` is the better of the two; random if they are equal.
pub fn prefers<R: Rng + ?Sized>(one: &Exit, other: &Exit, now: Moment, rng: &mut R) -> bool {
    let cost = |exit: &Exit| {
        let latency = u64::try_from(exit.load().latency(now).as_micros()).unwrap_or(u64::MAX);
        (u64::from(exit.load().in_flight()) + 1, latency.max(FLOOR))
    };
    let (mine, theirs) = (cost(one), cost(other));
    let alike = mine.1.max(theirs.1) < mine.1.min(theirs.1).saturating_mul(BAND);
    let weigh = |(tunnels, latency): (u64, u64)| if alike { tunnels } else { tunnels.saturating_mul(latency) };
    match weigh(mine).cmp(&weigh(theirs)) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Greater => false,
        std::cmp::Ordering::Equal => rng.random_bool(0.5),
    }
}

/// Keeps the `count` exits that repeated choices between two random ones prefer, best first.
pub fn lead<R: Rng + ?Sized>(exits: &mut Vec<&Arc<Exit>>, count: usize, now: Moment, rng: &mut R) {
    let count = count.min(exits.len());
    for at in 0..count {
        let left = exits.len() - at;
        let one = at + rng.random_range(0..left);
        let mut best = one;
        if left > 1 {
            // Any exit but `one`, each with the same probability.
            let other = at + (one - at + 1 + rng.random_range(0..left - 1)) % left;
            best = if prefers(exits[one], exits[other], now, rng) { one } else { other };
        }
        exits.swap(at, best);
    }
    exits.truncate(count);
}

/// A hash of a value that is the same at every start.
pub(crate) fn seed(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Mixes two numbers into one (the finaliser of splitmix64): rendezvous hashing ranks exits by it.
pub(crate) fn stir(one: u64, other: u64) -> u64 {
    let mut x = one ^ other.rotate_left(32);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}
