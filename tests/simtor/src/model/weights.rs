//! What relays weigh in the consensus, and who of the operators gets which weight.
//!
//! The weights of exits are a mixture of four log-normal distributions: a few very slow ones, two hills of about the same
//! size (some 4,500 and some 30,000), and a few very fast ones. They are fitted to the percentiles in `README.md`, and then
//! scaled such that their sum is the network's.

use super::draw::Draw;

/// No relay weighs more before scaling; the network's heaviest exit has 260,000.
const CAP: f64 = 300_000.0;

/// Part of the members, mean and deviation of the logarithm.
type Component = (f64, f64, f64);

/// Exits.
pub(super) const EXITS: &[Component] = &[(0.04, 5.9, 0.9), (0.46, 8.45, 0.55), (0.48, 10.33, 0.36), (0.02, 11.8, 0.35)];
/// Guards that are no exits.
pub(super) const GUARDS: &[Component] = &[(1.0, 9.54, 1.35)];
/// Relays that are neither.
pub(super) const REST: &[Component] = &[(1.0, 7.64, 1.96)];

/// Weights of `count` relays with the sum `total`, lightest first. Each component has exactly its part of the members, so
/// that percentiles hardly depend on the seed.
pub(super) fn draw(components: &[Component], count: usize, total: f64, draw: &mut Draw) -> Vec<u32> {
    let mut weights = Vec::with_capacity(count);
    let mut share = 0.0;
    for (part, mean, deviation) in components {
        share += part;
        let end = (share * count as f64).round() as usize;
        while weights.len() < end.min(count) {
            weights.push((mean + deviation * draw.normal()).exp().min(CAP));
        }
    }
    let scale = total / weights.iter().sum::<f64>().max(1.0);
    let mut whole: Vec<u32> = weights.iter().map(|weight| (weight * scale).round().max(1.0) as u32).collect();
    whole.sort_unstable();
    whole
}

/// Deals sorted weights out such that each group gets about its share of the sum. `groups[i]` is the group of member `i`,
/// `shares` what each group should have; the answer is each member's weight.
///
/// Every member has a number, its group's level plus a random part; the heaviest weight goes to the highest number. Levels
/// are moved until the shares fit, which keeps the distribution of all weights exactly as it was drawn.
pub(super) fn deal(sorted: &[u32], groups: &[usize], shares: &[f64], draw: &mut Draw) -> Vec<u32> {
    /// How much a member differs from its group, in the unit of the levels: a group is neither uniform nor like all.
    const SPREAD: f64 = 0.6;
    /// Enough for every share to come within a twentieth of what it should be, in all seeds that were tried.
    const ROUNDS: usize = 60;
    let noise: Vec<f64> = groups.iter().map(|_| SPREAD * draw.normal()).collect();
    let total: f64 = sorted.iter().copied().map(f64::from).sum();
    let wanted: f64 = shares.iter().sum();
    let mut levels = vec![0.0; shares.len()];
    let mut weights = vec![0; groups.len()];
    for _ in 0..ROUNDS {
        let mut order: Vec<usize> = (0..groups.len()).collect();
        order.sort_by(|a, b| (levels[groups[*a]] + noise[*a]).total_cmp(&(levels[groups[*b]] + noise[*b])));
        let mut sums = vec![0.0; shares.len()];
        for (rank, member) in order.into_iter().enumerate() {
            weights[member] = sorted[rank];
            sums[groups[member]] += f64::from(sorted[rank]);
        }
        for ((level, sum), share) in levels.iter_mut().zip(&sums).zip(shares) {
            *level += 0.25 * ((share / wanted) / (sum / total).max(1e-6)).ln().clamp(-2.0, 2.0);
        }
    }
    weights
}

/// What a relay of this weight can carry, in bytes a second. The weight is about kilobytes a second; fast relays are given
/// more weight than they have bandwidth, slow ones less: observed 4.3, 13.9 and 27 MB/s at the weights' percentiles 10, 50
/// and 90 of 2,660, 14,000 and 42,000.
pub(super) fn capacity(weight: u32, draw: &mut Draw) -> u64 {
    let weight = f64::from(weight.max(1));
    let ratio = (weight / 14_000.0).powf(0.3) * (0.27 * draw.normal()).exp();
    (weight * 1000.0 / ratio).max(20_000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_have_the_sum_that_was_asked_for() {
        let weights = draw(EXITS, 1000, 2e7, &mut Draw::new(1, "weights"));
        let sum: f64 = weights.iter().copied().map(f64::from).sum();
        assert_eq!(weights.len(), 1000);
        assert!((sum / 2e7 - 1.0).abs() < 0.001, "{sum}");
        assert!(weights.is_sorted() && weights[0] > 0);
    }

    #[test]
    fn dealing_keeps_the_weights_and_gives_each_group_its_share() {
        let mut numbers = Draw::new(2, "deal");
        let sorted = draw(EXITS, 3000, 6e7, &mut numbers);
        let groups: Vec<usize> = (0..3000).map(|member| usize::from(member % 4 == 0)).collect();
        let weights = deal(&sorted, &groups, &[0.5, 0.5], &mut numbers);
        let of_second: f64 =
            weights.iter().zip(&groups).filter(|(_, group)| **group == 1).map(|(w, _)| f64::from(*w)).sum();
        assert!((of_second / 6e7 - 0.5).abs() < 0.03, "{of_second}");
        let mut again = weights;
        again.sort_unstable();
        assert_eq!(again, sorted);
    }
}
