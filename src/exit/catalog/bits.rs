//! A set of slots as bits. The indexes of the catalog consist of such sets.
//!
//! A set of ten thousand exits takes 157 words. "US, from Tor, usable" is the intersection of three sets and takes a
//! fraction of a microsecond. A loop over ten thousand exits would touch ten thousand cache lines. The next edition of
//! a catalog shares every set that its changes do not touch.

use super::Slot;

/// A set of slots, one bit for each slot.
#[derive(Clone, Debug, Default)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// Adds the slot if `on` is true, and removes the slot otherwise.
    pub fn set(&mut self, slot: Slot, on: bool) {
        let (word, bit) = (slot.0 as usize / 64, slot.0 % 64);
        if on {
            if word >= self.0.len() {
                self.0.resize(word + 1, 0);
            }
            self.0[word] |= 1 << bit;
        } else if let Some(word) = self.0.get_mut(word) {
            *word &= !(1 << bit);
        }
    }

    pub fn has(&self, slot: Slot) -> bool {
        self.0.get(slot.0 as usize / 64).is_some_and(|word| word >> (slot.0 % 64) & 1 == 1)
    }

    /// The number of slots in the set.
    pub fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Iterates over the slots, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.0.iter().zip(0u32..).flat_map(|(word, at)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(Slot(at * 64 + bit))
            })
        })
    }

    /// Intersection: keeps the slots that are in `other`.
    pub fn keep(&mut self, other: &Self) {
        self.0.truncate(other.0.len());
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= other);
    }

    /// Difference: removes the slots that are in `other`.
    pub fn drop(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= !other);
    }

    /// Union: adds the slots that are in `other`.
    pub fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }

    /// Returns true if any slot is in `self` and in `other` but not in `but`.
    pub fn meets(&self, other: &Self, but: &Self) -> bool {
        /// The number of 64-bit words that are combined before the result is tested. One branch for each word would be
        /// slower. Not tuned.
        const BATCH: usize = 16;
        let both = self.0.len().min(other.0.len());
        let (head, tail) = self.0[..both].split_at(both.min(but.0.len()));
        let (other_head, other_tail) = other.0[..both].split_at(head.len());
        let mut batches = head.chunks(BATCH).zip(other_head.chunks(BATCH)).zip(but.0.chunks(BATCH));
        let found = |((mine, other), but): ((&[u64], &[u64]), &[u64])| {
            mine.iter().zip(other).zip(but).fold(0, |sum, ((mine, other), but)| sum | mine & other & !but) != 0
        };
        batches.any(found) || tail.iter().zip(other_tail).any(|(mine, other)| mine & other != 0)
    }

    /// Returns the intersection of the two sets as a new set.
    pub fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.keep(other);
        both
    }
}

impl FromIterator<Slot> for Bits {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut bits = Self::default();
        slots.into_iter().for_each(|slot| bits.set(slot, true));
        bits
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    type Set = BTreeSet<u32>;

    fn bits(set: &Set) -> Bits {
        set.iter().map(|slot| Slot(*slot)).collect()
    }

    fn set(bits: &Bits) -> Set {
        bits.iter().map(|slot| slot.0).collect()
    }

    proptest! {
        #[test]
        fn operations_agree_with_a_tree_set(a in prop::collection::btree_set(0u32..300, 0..80), b in prop::collection::btree_set(0u32..300, 0..80)) {
            let (x, y) = (bits(&a), bits(&b));
            prop_assert_eq!(set(&x), a.clone());
            prop_assert_eq!((x.count(), x.is_empty()), (a.len(), a.is_empty()));
            prop_assert_eq!(set(&x.and(&y)), &a & &b);
            let (mut more, mut less, mut taken) = (x.clone(), x.clone(), x.clone());
            more.add(&y);
            less.drop(&y);
            b.iter().for_each(|slot| taken.set(Slot(*slot), false));
            prop_assert_eq!((set(&more), set(&less), set(&taken)), (&a | &b, &a - &b, &a - &b));
            prop_assert!((0..400).all(|slot| x.has(Slot(slot)) == a.contains(&slot)));
        }

        #[test]
        fn two_sets_meet_where_both_have_a_slot_that_the_third_lacks(
            a in prop::collection::btree_set(0u32..2500, 0..40),
            b in prop::collection::btree_set(0u32..2500, 0..80),
            c in prop::collection::btree_set(0u32..1800, 0..80),
        ) {
            let there = (&a & &b).difference(&c).next().is_some();
            prop_assert_eq!(bits(&a).meets(&bits(&b), &bits(&c)), there);
            prop_assert_eq!(bits(&a).meets(&bits(&a), &bits(&c)), !a.is_subset(&c));
        }
    }
}
