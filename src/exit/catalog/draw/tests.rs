//! Tests of draws: each exit is drawn as often as its capacity says, in every way in which a set may be drawn from.
//!
//! Frequencies are compared with the sum of (observed - expected)² / expected, over all exits. For true draws this sum
//! (chi-square) has about the mean `k - 1` and the variance `2 (k - 1)` for `k` exits. The bound is five standard
//! deviations above the mean. All seeds are fixed.

use std::collections::BTreeMap;
use std::convert::Infallible;

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{SeedableRng, TryRng};

use super::super::Catalog;
use super::*;
use crate::exit::{ExitId, Fingerprint, Listing};

fn id(n: usize) -> ExitId {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    ExitId::Tor(Fingerprint(bytes))
}

/// Makes a catalog in which the exit with the slot `n` has the weight `weights[n]`.
fn catalog(weights: &[u32]) -> Catalog {
    let mut edit = Catalog::default().edit();
    for (n, weight) in weights.iter().enumerate() {
        assert_eq!(edit.list(Listing { weight: *weight, ..Listing::new(id(n)) }), Slot(n as u32));
    }
    edit.finish()
}

fn set(slots: impl IntoIterator<Item = u32>) -> Bits {
    slots.into_iter().map(Slot).collect()
}

/// Draws many times, and compares how often each exit comes first with the exit's share of the capacity.
fn compare(what: &str, catalog: &Catalog, from: &Bits, count: usize) {
    const ROUNDS: u32 = 40_000;
    let mut rng = SmallRng::seed_from_u64(11);
    let mut seen: BTreeMap<Slot, u32> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let drawn = catalog.draw(from, count, &mut rng);
        assert_eq!(drawn.len(), count.min(from.count()), "{what}");
        *seen.entry(drawn[0]).or_default() += 1;
    }
    let capacity = |slot: Slot| f64::from(catalog.at(slot).unwrap().capacity());
    let whole: f64 = from.iter().map(capacity).sum();
    let part = |slot| f64::from(ROUNDS) * capacity(slot) / whole;
    let off = |slot: Slot| (f64::from(seen.get(&slot).copied().unwrap_or(0)) - part(slot)).powi(2) / part(slot);
    let chi_square: f64 = from.iter().map(off).sum();
    let free = (from.count() - 1) as f64;
    assert!(chi_square < free + 5.0 * (2.0 * free).sqrt(), "{what}: chi-square {chi_square:.0} of {free} degrees");
    assert!(seen.keys().all(|slot| from.has(*slot)), "{what}: an exit outside the set was drawn");
}

#[test]
fn each_exit_is_drawn_by_its_capacity() {
    // Capacities from 1,024 to 131,072. The last ones are large.
    let weights: Vec<u32> = (0..200).map(|n| (n % 8) * (n % 8) * 2_500 + n * 20).collect();
    let all = catalog(&weights);
    compare("all exits", &all, &set(0..200), 3);
    compare("half of the exits", &all, &set((0..200).filter(|n| n % 2 == 0)), 3);
    compare("a small set", &all, &set([3, 50, 90, 122, 199]), 3);
    compare("as many as there are", &all, &set([3, 7, 199]), 3);
    compare("one of many", &all, &set(0..200), 1);
}

#[test]
fn a_set_with_little_capacity_is_drawn_by_capacity_too() {
    let mut weights = vec![100_000; 3_000];
    (0..40).for_each(|n| weights[n * 70] = 1_000 * n as u32);
    let all = catalog(&weights);
    compare("a sparse set", &all, &set((0..40).map(|n| n * 70)), 2);
    // The set has a third of the slots, but so little of the capacity that a draw from the table hardly ever hits the
    // set.
    let mut weights = vec![260_000; 300];
    (0..100).for_each(|n| weights[n * 3] = 40 * n as u32);
    let all = catalog(&weights);
    compare("a dense set of small exits", &all, &set((0..100).map(|n| n * 3)), 2);
}

/// Random numbers from a fixed seed, with a counter. A draw costs about as much time as it takes random numbers.
struct Counting {
    rng: SmallRng,
    taken: usize,
}

impl TryRng for Counting {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.taken += 1;
        self.rng.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.taken += 1;
        self.rng.try_next_u64()
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.taken += 1;
        self.rng.try_fill_bytes(bytes)
    }
}

/// Returns how many random numbers a draw takes.
fn cost(catalog: &Catalog, from: &Bits, count: usize) -> usize {
    let mut rng = Counting { rng: SmallRng::seed_from_u64(4), taken: 0 };
    assert_eq!(catalog.draw(from, count, &mut rng).len(), count.min(from.count()));
    rng.taken
}

#[test]
fn a_draw_looks_at_every_exit_only_if_the_set_is_small() {
    let all = catalog(&[9_000; 3_000]);
    assert_eq!(cost(&all, &set(0..12), 3), 12, "four times as many as are drawn: each exit gets a number");
    assert!(cost(&all, &set(0..3_000), 3) < 8, "a few draws from the table");
    let small = catalog(&[9_000; 13]);
    assert!(cost(&small, &set(0..13), 3) < 8, "one more than four times as many");
}

#[test]
fn the_table_is_not_used_for_a_sparse_set() {
    let of = |exits: usize| cost(&catalog(&vec![9_000; exits]), &set(0..20), 2);
    assert!(of(320) > 8, "one exit in 16 is in the set: most draws from the table hit another exit");
    assert!(of(321) <= 8, "the capacities of the set are summed up");
}

#[test]
fn a_draw_gives_up_the_table_and_then_the_sums() {
    // The set has a third of the exits, and nearly nothing of the capacity.
    let mut weights = vec![u32::MAX; 300];
    (0..100).for_each(|n| weights[n * 3] = 0);
    let rare = cost(&catalog(&weights), &set((0..100).map(|n| n * 3)), 2);
    assert!((64 + 2..=64 + 8).contains(&rare), "two exits: 64 attempts with the table, and a few more: {rare}");
    // One exit has nearly all the capacity of the set, so the draws find the other exits too seldom.
    let weights: Vec<u32> = std::iter::once(u32::MAX).chain([0; 20]).collect();
    let lopsided = cost(&catalog(&weights), &set(0..21), 5);
    let other_exits = 17..=20;
    let tries = 112 + 20;
    assert!(other_exits.contains(&(lopsided - tries)), "112 attempts with the table, 20 with the sums: {lopsided}");
}

#[test]
fn few_ranks_are_computed_to_find_the_first() {
    let weights: Vec<u32> = (0..10_000).map(|n| (n % 7) * 4_000).collect();
    let (all, from) = (catalog(&weights), set(0..10_000));
    let candidates = |seed, count| all.weights.candidates(&from, seed, count).len();
    let counts: Vec<usize> = (0..60).map(|seed| candidates(seed, 100)).collect();
    let mean = counts.iter().sum::<usize>() / counts.len();
    // The expected number is 100 + 60 + 16 = 176, with a standard deviation of 13. So that of the mean is 1.7.
    assert!((169..=183).contains(&mean) && counts.iter().all(|count| *count >= 100), "{mean} {counts:?}");
    assert_eq!(candidates(1, 10_000), 10_000);
}

#[test]
fn the_exits_below_a_bound_are_those_whose_rank_is_below_it() {
    let weights: Vec<u32> = (0..500).map(|n| (n % 9) * 9_000).collect();
    let (all, from) = (catalog(&weights), set(0..500));
    for bound in [1e-7, 1e-6, 1e-5, 1e-4] {
        let mut found: Vec<Slot> = all.weights.below(&from, 8, bound).into_iter().map(|(_, slot)| slot).collect();
        found.sort_unstable();
        let want: Vec<Slot> = from.iter().filter(|slot| all.at(*slot).unwrap().rank(8) < bound).collect();
        assert_eq!(found, want, "{bound}");
    }
}

#[test]
fn a_slot_without_an_exit_comes_last() {
    let all = catalog(&[9_000; 3]);
    let found = all.first(&set(0..30), 1, 10);
    assert_eq!(found.len(), 10);
    assert_eq!(found.iter().filter(|(rank, _)| rank.is_finite()).count(), 3);
}

#[test]
fn what_is_drawn_second_is_drawn_from_what_is_left() {
    // One exit has the capacity 8192, one has 4096, and five have 2048 each. The largest is nearly always among the
    // first three exits, and the small ones share the other places.
    let all = catalog(&[7_192, 3_096, 1_048, 1_048, 1_048, 1_048, 1_048]);
    let mut rng = SmallRng::seed_from_u64(3);
    let mut second = 0;
    for _ in 0..20_000 {
        let drawn = all.draw(&set(0..7), 2, &mut rng);
        second += u32::from(drawn[0] == Slot(0) && drawn[1] == Slot(1));
    }
    // The expected number is 20,000 × 8192/22528 × 4096/14336 = 2,078, with a standard deviation of 43.
    assert!(second.abs_diff(2_078) < 215, "{second}");
}

#[test]
fn one_exit_with_nearly_all_capacity_leaves_places_for_others() {
    let weights: Vec<u32> = std::iter::once(u32::MAX).chain([0; 20]).collect();
    let (all, from) = (catalog(&weights), set(0..21));
    let mut rng = SmallRng::seed_from_u64(5);
    for _ in 0..200 {
        let drawn = all.draw(&from, 5, &mut rng);
        assert_eq!(drawn.iter().collect::<std::collections::BTreeSet<_>>().len(), 5);
    }
    compare("one large exit", &all, &from, 5);
}

#[test]
fn a_table_follows_exits_that_come_go_and_change() {
    let before = catalog(&[9_000; 10]);
    assert_eq!(before.mean_capacity(), before.at(Slot(0)).unwrap().capacity());
    let mut edit = before.edit();
    edit.remove(&id(9));
    edit.list(Listing { weight: 500_000, ..Listing::new(id(3)) });
    let after = edit.finish();
    let share = |catalog: &Catalog, n| {
        let mut rng = SmallRng::seed_from_u64(1);
        (0..1_000).filter(|_| catalog.draw(&set(0..9), 1, &mut rng) == [Slot(n)]).count()
    };
    assert!((60..170).contains(&share(&before, 3)) && share(&after, 3) > 800);
    let mean = (u64::from(after.at(Slot(3)).unwrap().capacity()) + 8 * u64::from(before.mean_capacity())) / 9;
    assert_eq!(u64::from(after.mean_capacity()), mean);
    // A check result changes no capacity, so the table is shared.
    let mut edit = after.edit();
    edit.learn(&id(2), |known| known.verdict = crate::exit::Verdict::Good);
    let learnt = edit.finish();
    assert!(std::sync::Arc::ptr_eq(&after.weights, &learnt.weights));
    assert!(Catalog::default().draw(&Bits::default(), 5, &mut SmallRng::seed_from_u64(1)).is_empty());
}

#[test]
fn an_entry_of_the_table_is_filled_by_another() {
    let drawn = |weights: &[u32]| {
        let table = aliases(weights, weights.iter().map(|weight| u64::from(*weight)).sum());
        let mut parts = vec![0.0; weights.len()];
        for (at, Alias { own, other }) in table.iter().enumerate() {
            let own = f64::from(*own) / f64::from(u32::MAX);
            parts[at] += own;
            parts[*other as usize] += 1.0 - own;
        }
        parts
    };
    for weights in [&[1, 2, 3, 10][..], &[5, 5], &[7], &[0, 1, 0, 3], &[100, 1, 1, 1, 1, 1]] {
        let sum: u32 = weights.iter().sum();
        for (part, weight) in drawn(weights).into_iter().zip(weights) {
            let want = f64::from(*weight) * weights.len() as f64 / f64::from(sum);
            assert!((part - want).abs() < 1e-6, "{weights:?}: {part} is not {want}");
        }
    }
}

proptest! {
    #[test]
    fn a_draw_is_a_subset_without_repeats(
        weights in prop::collection::vec(0u32..300_000, 1..150),
        part in 1u32..9,
        count in 0usize..60,
        seed: u64,
    ) {
        let all = catalog(&weights);
        let from = set((0..weights.len() as u32).filter(|n| n % part == 0));
        let drawn = all.draw(&from, count, &mut SmallRng::seed_from_u64(seed));
        prop_assert_eq!(drawn.len(), count.min(from.count()));
        prop_assert_eq!(drawn.iter().copied().collect::<Bits>().count(), drawn.len(), "none twice");
        prop_assert!(drawn.iter().all(|slot| from.has(*slot)));
    }

    #[test]
    fn the_first_by_rank_are_those_of_a_full_sort(
        weights in prop::collection::vec(0u32..300_000, 1..200),
        part in 1u32..5,
        count in 0usize..40,
        seed: u64,
    ) {
        let all = catalog(&weights);
        let from = set((0..weights.len() as u32).filter(|n| n % part == 0));
        let mut found = all.first(&from, seed, count);
        found.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
        let rank = |slot: Slot| (all.at(slot).unwrap().rank(seed), slot);
        let mut want: Vec<_> = from.iter().map(rank).collect();
        want.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
        want.truncate(count);
        prop_assert_eq!(found, want);
    }
}
