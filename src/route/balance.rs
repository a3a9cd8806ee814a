//! Load balancing: draws two exits at random and takes the better one.
//!
//! If every connection took the best of all exits, all connections that open at the same time would go to one exit and
//! overload that exit. If each connection took one exit at random, load and latency would be ignored. The better one of
//! two random exits spreads connections nearly evenly, and no list has to be sorted.
//!
//! The better exit is the one with the lower cost. The cost of an exit is its number of tunnels, divided by its
//! capacity, times its average latency. The product is used because both a busy exit and a slow exit make a client
//! wait.
//!
//! The proxy linkerd computes the cost in a similar way, with two differences: linkerd does not know capacities, and
//! here nearly equal latencies count as equal. Otherwise random differences of latencies would decide nearly every
//! comparison on a quiet gateway, and an exit that was lucky once would get two connections in three.
//!
//! The number of tunnels is divided by the capacity, because a large exit with ten tunnels may give each tunnel more
//! bandwidth than a small exit with two tunnels. Two exits without tunnels are equally good, whatever their capacities,
//! because any exit can carry a single connection. So a client that opens one connection after another sees all
//! addresses of its pool.
//!
//! Next: `route/choose/free.rs` calls this file for each connection. Sessions go to the exit that [`first`] returns.
//! `exit/load.rs` measures tunnels and latencies.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use rand::{Rng, RngExt};

use crate::exit::{Exit, Moment};

/// Latencies below this value count as equal, in µs. A stream through Tor takes some hundreds of ms to open, and then
/// the difference between 20 ms and 90 ms does not matter.
const FLOOR: u64 = 100_000;

/// Two latencies count as equal if the larger one is less than `BAND` times the smaller one. Not tuned: the latencies
/// of one exit over different circuits differ by about this factor.
const BAND: u64 = 2;

/// Returns true if `one` is the better exit of the two. The result is random if the two are equally good.
pub fn prefers<R: Rng + ?Sized>(one: &Exit, other: &Exit, now: Moment, rng: &mut R) -> bool {
    let latency = |exit: &Exit| u64::try_from(exit.load().latency(now).as_micros()).unwrap_or(u64::MAX).max(FLOOR);
    let (mine, theirs) = (latency(one), latency(other));
    let alike = mine.max(theirs) < mine.min(theirs).saturating_mul(BAND);
    let (my_capacity, their_capacity) = (u64::from(one.capacity()), u64::from(other.capacity()));
    // To compare tunnels divided by capacity without a division, the tunnels of each exit are multiplied by the
    // capacity of the other exit. The tunnel that is about to begin is added with the same value for both exits.
    let next = my_capacity.max(their_capacity);
    let load = |exit: &Exit, capacity: u64| u64::from(exit.load().in_flight()) * capacity + next;
    let weigh = |load: u64, latency: u64| if alike { load } else { load.saturating_mul(latency) };
    let mine = weigh(load(one, their_capacity), mine);
    let theirs = weigh(load(other, my_capacity), theirs);
    match mine.cmp(&theirs) {
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

/// Returns the exit that comes first for the holder (for example, a session) with this seed. The result is the same
/// each time, until this exit goes or an exit with a better rank comes.
pub(super) fn first<'a>(seed: u64, exits: impl Iterator<Item = &'a Arc<Exit>>) -> Option<&'a Arc<Exit>> {
    let ranked = exits.map(|exit| (exit.rank(seed), exit));
    ranked.min_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, exit)| exit)
}

/// Returns the exits sorted by their rank for this seed. If the first exit goes, [`first`] returns the second, and so
/// on.
pub(super) fn in_order<'a>(seed: u64, exits: impl Iterator<Item = &'a Arc<Exit>>) -> Vec<&'a Arc<Exit>> {
    let mut ranked: Vec<_> = exits.map(|exit| (exit.rank(seed), exit)).collect();
    ranked.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
    ranked.into_iter().map(|(_, exit)| exit).collect()
}
