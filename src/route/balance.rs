//! Load balancing: draws two exits at random and takes the better one.
//!
//! If every connection took the best of all exits, all connections that open at the same time would go to one exit and
//! overload that exit. If a connection took any exit, load and latency would be ignored. Two random choices spread
//! connections nearly evenly without sorting. The cost of an exit is its number of tunnels times its peak average
//! latency, as in linkerd, with one difference: latencies that are nearly equal count as equal. Otherwise random
//! differences of latencies would decide nearly every comparison on a quiet gateway, and an exit that was lucky once
//! would get two connections in three.
//!
//! Next: `route/choose/free.rs` calls this file for each connection. `exit/load.rs` measures tunnels and latencies.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use rand::{Rng, RngExt};

use crate::exit::{Exit, Moment};

/// Latencies below this value count as equal, in µs. A stream through Tor takes some hundreds of ms to open, and then
/// the difference between 20 ms and 90 ms does not matter.
const FLOOR: u64 = 100_000;

/// Two latencies count as equal if the larger latency is less than `BAND` times the smaller latency. Not tuned: dials
/// of one exit through different circuits differ by about that factor.
const BAND: u64 = 2;

/// Returns true if `one` is the better exit of the two. The result is random if the two are equally good.
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

/// Shortens the list to `count` exits, best first. Each place goes to the better of two random exits among those that
/// have no place yet.
pub fn lead<R: Rng + ?Sized>(exits: &mut Vec<&Arc<Exit>>, count: usize, now: Moment, rng: &mut R) {
    let count = count.min(exits.len());
    for at in 0..count {
        let left = exits.len() - at;
        let one = at + rng.random_range(0..left);
        let mut best = one;
        if left > 1 {
            // Picks an exit other than `one`. Each other exit has the same probability.
            let other = at + (one - at + 1 + rng.random_range(0..left - 1)) % left;
            best = if prefers(exits[one], exits[other], now, rng) { one } else { other };
        }
        exits.swap(at, best);
    }
    exits.truncate(count);
}

/// Returns a hash of the value. The hash is the same at every start of the process.
pub(crate) fn seed(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Mixes two numbers into one, with the last step of splitmix64. Rendezvous hashing ranks exits by the result.
pub(crate) fn stir(one: u64, other: u64) -> u64 {
    let mut x = one ^ other.rotate_left(32);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}
