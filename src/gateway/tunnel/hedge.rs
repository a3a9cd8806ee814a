//! Second dials beside a slow first one, and the budget that keeps them few.
//!
//! A dial that takes longer than its exit's own p95 is probably going to take much longer; a second dial through
//! another exit then usually wins. But when everything is slow, hedging everything would double the load exactly when
//! there is none to spare, so the share of extra dials is bounded.

use std::sync::atomic::{AtomicI64, Ordering};

/// One dial earns this many parts of a hedge, and a hedge costs a whole.
const WHOLE: i64 = 1_000_000;

/// Hedges that may be saved up in quiet times. Arbitrary: enough for a burst that meets one slow exit.
const SAVED: i64 = 20;

/// How many extra dials there may be.
#[derive(Debug)]
pub struct Budget {
    share: AtomicI64,
    balance: AtomicI64,
}

impl Budget {
    /// At most `share` extra dials for each dial: 0.05 is one in twenty. 0 is none.
    pub fn new(share: f64) -> Self {
        Self { share: AtomicI64::new(parts(share)), balance: AtomicI64::new(0) }
    }

    /// Another share from now on.
    pub fn change(&self, share: f64) {
        self.share.store(parts(share), Ordering::Relaxed);
    }

    /// Counts a first dial.
    pub fn earn(&self) {
        let earned = self.share.load(Ordering::Relaxed);
        if earned > 0 {
            let cap = SAVED * WHOLE;
            let add = |held: i64| Some((held + earned).min(cap));
            let _ = self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        }
    }

    /// Takes one hedge if there is one to take.
    pub fn spend(&self) -> bool {
        let take = |held: i64| (held >= WHOLE).then_some(held - WHOLE);
        self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

fn parts(share: f64) -> i64 {
    (share.clamp(0.0, 1.0) * WHOLE as f64) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hedges_stay_within_their_share() {
        let budget = Budget::new(0.05);
        let mut hedged = 0;
        for _ in 0..10_000 {
            budget.earn();
            hedged += i32::from(budget.spend());
        }
        assert!((490..=500).contains(&hedged), "{hedged}");
    }

    #[test]
    fn what_is_saved_up_is_bounded_and_zero_is_never() {
        let budget = Budget::new(0.5);
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.spend()).count() as i64, SAVED);
        let none = Budget::new(0.5);
        none.change(0.0);
        (0..10_000).for_each(|_| none.earn());
        assert!(!none.spend());
    }
}
