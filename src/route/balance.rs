//! Which of several good exits: two at random, the better of the two.
//!
//! Taking the best of all would send every connection of the moment to one exit and make it the worst; taking any would
//! ignore what is known. Two random choices are nearly as even as the former and need nothing to be sorted. What is
//! compared is the number of tunnels times the peak average of latency, as linkerd does, with one difference: latencies
//! that are as good as equal are equal. Their noise would otherwise decide nearly every comparison on a quiet gateway,
//! and the exit that was lucky once would take two connections in three.
//!
//! Next: `route/choose/free.rs` asks per connection; `exit/load.rs` measures.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use rand::{Rng, RngExt};

use crate::exit::{Exit, Moment};

/// Latencies below this are one, in µs: a stream through Tor takes some hundreds of ms to open, and nobody tells 20
/// from 90.
const FLOOR: u64 = 100_000;

/// Latencies whose ratio is below this are one. Arbitrary: the spread of one exit's own dials through different
/// circuits is about that.
const BAND: u64 = 2;

/// True if `one` is the better choice of the two; equal ones toss a coin.
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

/// Puts the `count` best, as two random choices find them, in front, and drops the rest.
pub fn lead<R: Rng + ?Sized>(exits: &mut Vec<&Arc<Exit>>, count: usize, now: Moment, rng: &mut R) {
    let count = count.min(exits.len());
    for at in 0..count {
        let left = exits.len() - at;
        let one = at + rng.random_range(0..left);
        let mut best = one;
        if left > 1 {
            // Another than `one`, and each of the others alike.
            let other = at + (one - at + 1 + rng.random_range(0..left - 1)) % left;
            best = if prefers(exits[one], exits[other], now, rng) { one } else { other };
        }
        exits.swap(at, best);
    }
    exits.truncate(count);
}

/// A number for a value that is the same at every start.
pub(crate) fn seed(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Two numbers stirred into one (the finaliser of splitmix64): rendezvous hashing ranks exits by it.
pub(crate) fn stir(one: u64, other: u64) -> u64 {
    let mut x = one ^ other.rotate_left(32);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}
