//! Divides the wanted spare circuits among engines, and limits the number of spare circuits of each engine. Pure: no
//! I/O.
//!
//! A spare circuit is built before a client needs it. An engine (a tor process) builds only about one circuit a second,
//! and most of them are for clients. So an engine keeps a bounded number of spare circuits, however many routes there
//! are. Exits that were in use lately get their spare circuits first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::circuit::pool::Key;
use crate::exit::Fingerprint;
use crate::route::{Rank, SPARES, SpareCircuits};

/// The spare circuits to one exit that one engine should keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) key: Key,
    pub(super) spares: u8,
    rank: Rank,
}

impl Share {
    /// Returns how many spare circuits to one exit are wanted. `each` is the setting `tor.spare_circuits`: the number
    /// for an exit in use. The numbers of other exits are scaled by the same factor.
    pub(super) fn new(exit: Fingerprint, want: &SpareCircuits, each: u8) -> Self {
        let spares = (u16::from(want.spares) * u16::from(each)).div_ceil(u16::from(SPARES));
        let key = Key { exit, hops: if want.hops == 2 { 2 } else { 3 }, lasting: None };
        Self { key, spares: u8::try_from(spares).unwrap_or(u8::MAX), rank: want.rank }
    }

    /// Divides the spare circuits between the first two of `engines` engines. If one engine crashes, the other has
    /// spares.
    pub(super) fn halves(self, engines: usize) -> [Self; 2] {
        let first = if engines < 2 { self.spares } else { self.spares.div_ceil(2) };
        [Self { spares: first, ..self }, Self { spares: self.spares - first, ..self }]
    }
}

/// Returns, for each kind of circuit, how many spare circuits an engine keeps. The total is at most `most`, and the
/// spares of the highest rank come first. Shares of equal rank have a fixed order, because each change of the order
/// would cost circuit builds.
pub(super) fn bounded(mut shares: Vec<Share>, most: u16) -> BTreeMap<Key, u8> {
    shares.sort_by_key(|share| (Reverse(share.rank), share.key));
    let mut left = most;
    let mut kept = BTreeMap::new();
    for share in shares {
        let spares = share.spares.min(u8::try_from(left).unwrap_or(u8::MAX));
        left -= u16::from(spares);
        if spares > 0 {
            kept.insert(share.key, spares);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(spares: u8, rank: Rank) -> SpareCircuits {
        SpareCircuits { spares, rank, hops: 3 }
    }

    fn share(exit: u8, spares: u8, rank: Rank) -> Share {
        Share::new(Fingerprint([exit; 20]), &want(spares, rank), SPARES)
    }

    fn kept(shares: Vec<Share>, most: u16) -> Vec<(u8, u8)> {
        bounded(shares, most).into_iter().map(|(key, spares)| (key.exit.0[0], spares)).collect()
    }

    #[test]
    fn the_setting_scales_what_is_wanted() {
        for (wanted, each, spares) in [(2, 2, 2), (1, 2, 1), (4, 2, 4), (2, 4, 4), (1, 1, 1), (1, 3, 2), (2, 0, 0)] {
            let share = Share::new(Fingerprint([1; 20]), &want(wanted, Rank::Used), each);
            assert_eq!(share.spares, spares, "{wanted} {each}");
        }
        let short = Share::new(Fingerprint([1; 20]), &SpareCircuits { hops: 2, ..want(1, Rank::Used) }, 2);
        assert_eq!((short.key.hops, share(1, 1, Rank::Used).key.hops), (2, 3));
        assert_eq!(Share::new(Fingerprint([1; 20]), &want(200, Rank::Used), 200).spares, u8::MAX);
    }

    #[test]
    fn two_engines_get_halves_and_a_single_one_all() {
        let halves = |spares, engines| share(1, spares, Rank::Used).halves(engines).map(|half| half.spares);
        assert_eq!((halves(2, 2), halves(3, 5), halves(1, 2)), ([1, 1], [2, 1], [1, 0]));
        assert_eq!((halves(3, 1), halves(3, 0)), ([3, 0], [3, 0]));
    }

    #[test]
    fn what_was_used_lately_comes_first_and_the_sum_is_bounded() {
        let shares = vec![
            share(1, 1, Rank::Fresh),
            share(2, 2, Rank::Used),
            share(3, 1, Rank::First),
            share(4, 2, Rank::Used),
            share(5, 0, Rank::Used),
        ];
        assert_eq!(kept(shares.clone(), 100), [(1, 1), (2, 2), (3, 1), (4, 2)]);
        assert_eq!(kept(shares.clone(), 5), [(2, 2), (3, 1), (4, 2)]);
        assert_eq!(kept(shares.clone(), 3), [(2, 2), (4, 1)]);
        assert_eq!(kept(shares.into_iter().rev().collect(), 3), [(2, 2), (4, 1)], "in whatever order they come");
        assert_eq!(kept(vec![share(1, 2, Rank::Used)], 0), []);
        assert_eq!(kept((0..=255).map(|exit| share(exit, 4, Rank::Used)).collect(), 1000).len(), 250);
    }
}
