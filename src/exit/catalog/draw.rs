//! Draws exits of a set by capacity, without a look at the exits themselves.
//!
//! A set of the catalog has up to ten thousand exits, and a connection must not wait while the capacities of all of
//! them are summed up. So each catalog has a table of the capacities of all its exits. The table is made when exits
//! come, go or change their capacity (about once an hour). [`Weights::draw`] draws from the table until the drawn exits
//! are in the set.
//!
//! For a set that has little of the whole capacity, this method would take too many attempts. Only then are the
//! capacities of the set summed up.
//!
//! [`Weights::first`] is the draw that always comes out the same way: the exits that come first in the ranks of one
//! seed ([`super::super::capacity::rank`]).

use rand::{Rng, RngExt};

use super::super::capacity::{exponential, stir};
use super::super::facts::Exit;
use super::{Bits, Slot};

/// In a small set, most draws from the table would hit exits that were drawn already. So if the set has fewer exits
/// than this factor times the number of exits to draw, the table is not used: every exit of the set gets a random
/// number instead. Not tuned.
const SMALL: usize = 4;

/// If fewer than one in `SPARSE` of all exits are in a set, most draws from the table would not hit the set. So the
/// table is not used, and the capacities of the set are summed up immediately. Not tuned: one draw from the table takes
/// some 5 ns, and adding one exit to the sum takes about as long.
const SPARSE: usize = 16;

/// To draw `n` exits of a set, at most `n` times `ATTEMPTS` plus [`MORE_ATTEMPTS`] draws from the table are made,
/// because many of them do not hit the set. After that the capacities of the set are summed up. Not tuned: for a set
/// with an eighth of the whole capacity, this number of draws is nearly always enough.
const ATTEMPTS: usize = 16;
const MORE_ATTEMPTS: usize = 32;

/// The weights of all exits of one catalog.
#[derive(Clone, Debug, Default)]
pub(super) struct Weights {
    /// By slot: the capacity of the exit, or 0 if the slot has no exit.
    capacities: Vec<u32>,
    /// By slot: the hash of the exit's id.
    seeds: Vec<u64>,
    /// A table for draws in constant time (the alias method): a random entry is drawn, and then either its own slot or
    /// its other slot.
    table: Vec<Alias>,
    /// The mean capacity of an exit.
    mean: u32,
}

/// One entry of the table. An entry belongs to the slot with the same index.
#[derive(Clone, Copy, Debug)]
struct Alias {
    /// The probability that the entry's own slot is drawn, in units of 1/2³².
    own: u32,
    /// The slot that is drawn otherwise.
    other: u32,
}

impl Weights {
    /// Makes the table of weights for these exits, each with its slot.
    pub(super) fn of<'a>(exits: impl Iterator<Item = &'a Exit>) -> Self {
        let (mut capacities, mut seeds) = (Vec::new(), Vec::new());
        let (mut sum, mut count) = (0, 0);
        for exit in exits {
            let at = exit.slot().0 as usize;
            if at >= capacities.len() {
                capacities.resize(at + 1, 0);
                seeds.resize(at + 1, 0);
            }
            (capacities[at], seeds[at]) = (exit.capacity(), exit.seed());
            (sum, count) = (sum + u64::from(exit.capacity()), count + 1);
        }
        let table = aliases(&capacities, sum);
        Self { capacities, seeds, table, mean: (sum / u64::max(count, 1)) as u32 }
    }

    /// The mean capacity of all exits.
    pub(super) fn mean(&self) -> u32 {
        self.mean
    }

    fn capacity(&self, slot: Slot) -> u32 {
        self.capacities.get(slot.0 as usize).copied().unwrap_or(0)
    }

    /// Draws `count` different exits of the set one after the other, each by its part of the capacity of those that are
    /// left. Returns all exits of the set, in random order by capacity, if the set has no more than `count`.
    pub(super) fn draw<R: Rng + ?Sized>(&self, from: &Bits, count: usize, rng: &mut R) -> Vec<Slot> {
        let all = from.count();
        if count == 0 {
            return Vec::new();
        }
        if all <= count * SMALL {
            return self.in_random_order(from.iter(), count, rng);
        }
        let mut drawn = Drawn { slots: Vec::with_capacity(count), set: Bits::default(), count };
        if all * SPARSE >= self.table.len() {
            for _ in 0..count * ATTEMPTS + MORE_ATTEMPTS {
                let slot = self.any(rng);
                if from.has(slot) && drawn.is_full_with(slot) {
                    return drawn.slots;
                }
            }
        }
        let mut sum = 0;
        let sums = from.iter().map(|slot| {
            sum += u64::from(self.capacity(slot));
            (sum, slot)
        });
        let sums: Vec<(u64, Slot)> = sums.collect();
        for _ in 0..count * SMALL {
            let at = rng.random_range(0..sum.max(1));
            let Some((_, slot)) = sums.get(sums.partition_point(|(sum, _)| *sum <= at)) else { break };
            if drawn.is_full_with(*slot) {
                return drawn.slots;
            }
        }
        // The attempts found too few different exits: a few exits have nearly all of the set's capacity, so they were
        // drawn again and again. The missing exits are drawn in another way: each exit that is left gets a random
        // number.
        let left = from.iter().filter(|slot| !drawn.set.has(*slot));
        let rest = self.in_random_order(left, count - drawn.slots.len(), rng);
        drawn.slots.into_iter().chain(rest).collect()
    }

    /// Draws one of all exits by its capacity. The table must not be empty.
    fn any<R: Rng + ?Sized>(&self, rng: &mut R) -> Slot {
        let random = rng.random::<u64>();
        // The upper half of the random number chooses the entry of the table, and the lower half chooses between the
        // two slots of the entry.
        let at = ((random >> 32) * self.table.len() as u64) >> 32;
        let Alias { own, other } = self.table[at as usize];
        Slot(if (random as u32) < own { at as u32 } else { other })
    }

    fn in_random_order<R: Rng + ?Sized>(
        &self,
        slots: impl Iterator<Item = Slot>,
        count: usize,
        rng: &mut R,
    ) -> Vec<Slot> {
        let ranked = slots.map(|slot| (exponential(rng.random()) / f64::from(self.capacity(slot)), slot)).collect();
        let mut ranked = smallest(ranked, count);
        ranked.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
        ranked.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Returns the `count` exits of the set that come first in the ranks of this seed, each with its rank, in no
    /// particular order.
    pub(super) fn first(&self, from: &Bits, seed: u64, count: usize) -> Vec<(f64, Slot)> {
        smallest(self.candidates(from, seed, count), count)
    }

    /// Returns at least the `count` exits of the set with the lowest ranks, and somewhat more. The rank of each returned
    /// exit was computed, which needs a logarithm. So there should be few of them.
    fn candidates(&self, from: &Bits, seed: u64, count: usize) -> Vec<(f64, Slot)> {
        let mut sum = 0;
        let all = from.iter().map(|slot| sum += u64::from(self.capacity(slot))).count();
        // The expected number of exits with a rank below this bound is the numerator. It exceeds `count` by so much that
        // a second attempt is nearly never needed.
        let mut bound = (count as f64 + 6.0 * (count as f64).sqrt() + 16.0) / (sum.max(1) as f64);
        loop {
            let ranked = self.below(from, seed, if all <= count { f64::INFINITY } else { bound });
            if ranked.len() >= count.min(all) {
                return ranked;
            }
            bound *= 2.0;
        }
    }

    /// Returns the exits of the set whose ranks are below the bound.
    fn below(&self, from: &Bits, seed: u64, bound: f64) -> Vec<(f64, Slot)> {
        // Pairs of a capacity, and the smallest random number for which an exit of this capacity has a rank below the
        // bound. There are only a few dozen different capacities, so each of these numbers is computed only once.
        let mut bars: Vec<(u32, u64)> = Vec::new();
        let mut ranked = Vec::new();
        for slot in from.iter() {
            let (capacity, own) = (self.capacity(slot), self.seeds.get(slot.0 as usize).copied().unwrap_or(0));
            let bar = match bars.iter().find(|(of, _)| *of == capacity) {
                Some((_, bar)) => *bar,
                None => {
                    let bar = ((-bound * f64::from(capacity)).exp() * u64::MAX as f64) as u64;
                    bars.push((capacity, bar));
                    bar
                }
            };
            let random = stir(seed, own);
            if random >= bar {
                ranked.push((exponential(random) / f64::from(capacity), slot));
            }
        }
        ranked
    }
}

/// The exits that were drawn so far.
struct Drawn {
    slots: Vec<Slot>,
    set: Bits,
    count: usize,
}

impl Drawn {
    /// Adds the slot, unless it was drawn before. Returns true if no more slots are to be drawn.
    fn is_full_with(&mut self, slot: Slot) -> bool {
        if !self.set.has(slot) {
            self.set.set(slot, true);
            self.slots.push(slot);
        }
        self.slots.len() == self.count
    }
}

/// Shortens the list to the `count` slots with the smallest ranks, in no particular order.
fn smallest(mut ranked: Vec<(f64, Slot)>, count: usize) -> Vec<(f64, Slot)> {
    if count < ranked.len() {
        ranked.select_nth_unstable_by(count, |one, other| one.0.total_cmp(&other.0));
        ranked.truncate(count);
    }
    ranked
}

/// Makes the table of the alias method. An entry whose weight is below the mean of all entries is filled up with a part
/// of an entry whose weight is above the mean.
fn aliases(weights: &[u32], sum: u64) -> Vec<Alias> {
    const WHOLE: f64 = (1u64 << 32) as f64;
    let scale = weights.len() as f64 / (sum.max(1) as f64);
    let mut parts: Vec<f64> = weights.iter().map(|weight| f64::from(*weight) * scale).collect();
    let mut table: Vec<Alias> = (0..).zip(weights).map(|(other, _)| Alias { own: u32::MAX, other }).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..parts.len()).partition(|at| parts[*at] < 1.0);
    while let (Some(least), Some(most)) = (small.pop(), large.pop()) {
        table[least] = Alias { own: (parts[least] * WHOLE) as u32, other: most as u32 };
        parts[most] -= 1.0 - parts[least];
        if parts[most] < 1.0 { small.push(most) } else { large.push(most) }
    }
    table
}

#[cfg(test)]
mod tests;
