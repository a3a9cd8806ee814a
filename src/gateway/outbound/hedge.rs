//! Hedging: a second dial that runs next to a slow first dial, and the budget that limits the number of second dials.
//!
//! A first dial is slow if it takes longer than 95 % of earlier dials took (the patience). A slow dial will probably
//! take much longer still, and a second dial through another exit is usually faster.
//!
//! The budget limits the share of second dials. The reason: if all dials are slow, a second dial for each of them would
//! double the load when the load is already high. Each first dial adds a small amount to the budget, and each second
//! dial takes the cost of one dial from it.
//!
//! The budget saves up at most [`SAVED`] second dials. Half of them are kept for first dials that take more than twice
//! the patience. The reason: 5 % of all dials are slow even on a fast network, and these dials alone would leave the
//! budget empty.

use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

/// The cost of one second dial, in the unit of the budget. Each first dial adds a fraction of this cost to the budget.
const WHOLE: i64 = 1_000_000;

/// The maximum number of second dials (dials through another exit while the first dial is slow) that the budget can
/// save up while dials are fast. With this number, many dials that hang at the same time in one slow exit all get a
/// second dial. Not tuned.
const SAVED: i64 = 20;

/// The budget of second dials.
#[derive(Debug)]
pub(super) struct HedgeBudget {
    /// The amount that each first dial adds to the budget. [`WHOLE`] is the cost of one second dial.
    share: AtomicI64,
    balance: AtomicI64,
}

impl HedgeBudget {
    /// Makes a budget of at most `share` second dials for each first dial: 0.05 allows one second dial for 20 first
    /// dials, 0 allows none.
    pub(super) fn new(share: f64) -> Self {
        Self { share: AtomicI64::new(parts(share)), balance: AtomicI64::new(0) }
    }

    pub(super) fn change(&self, share: f64) {
        self.share.store(parts(share), Ordering::Relaxed);
    }

    /// Adds the share of one first dial to the budget.
    pub(super) fn earn(&self) {
        let earned = self.share.load(Ordering::Relaxed);
        if earned > 0 {
            let cap = SAVED * WHOLE;
            let add = |held: i64| Some((held + earned).min(cap));
            let _ = self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        }
    }

    /// Pays for one second dial. Returns false and pays nothing if less than the cost of `left` second dials would
    /// remain in the budget.
    fn spend(&self, left: i64) -> bool {
        let take = |held: i64| (held >= WHOLE * (1 + left)).then_some(held - WHOLE);
        self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Runs the first dial. If the first dial takes longer than `patience`, a second dial starts, and both run at the
    /// same time. If the budget is low, the second dial starts only after twice `patience`. The first dial may fail
    /// while the second dial runs. The second dial then continues if `another_may_help` returns true for the error, and
    /// is cancelled otherwise.
    pub(super) async fn race<T, E>(
        &self,
        first: impl Future<Output = Result<T, E>>,
        second: impl Future<Output = Result<T, E>>,
        patience: Duration,
        another_may_help: impl Fn(&E) -> bool,
    ) -> Race<T, E> {
        let mut first = pin!(first);
        for left in [SAVED / 2, 0] {
            tokio::select! {
                biased;
                done = &mut first => return done.map_or_else(Race::Failed, Race::First),
                () = sleep(patience) => {}
            }
            if self.spend(left) {
                return side_by_side(first, second, another_may_help).await;
            }
        }
        first.await.map_or_else(Race::Failed, Race::First)
    }
}

/// The result of one or two dials.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Race<T, E> {
    /// The first dial succeeded.
    First(T),
    /// The second dial succeeded before the first, although it began later.
    SecondWasFaster(T),
    /// The second dial succeeded after the first had failed.
    FirstFailed(T),
    /// The first dial failed. A second dial had not begun, or could not help.
    Failed(E),
    BothFailed(E),
}

async fn side_by_side<T, E>(
    mut first: impl Future<Output = Result<T, E>> + Unpin,
    second: impl Future<Output = Result<T, E>>,
    another_may_help: impl Fn(&E) -> bool,
) -> Race<T, E> {
    let mut second = pin!(second);
    tokio::select! {
        biased;
        won = &mut first => match won {
            Err(error) if another_may_help(&error) => second.await.map_or_else(Race::BothFailed, Race::FirstFailed),
            won => won.map_or_else(Race::Failed, Race::First),
        },
        won = &mut second => match won {
            Ok(won) => Race::SecondWasFaster(won),
            Err(_) => first.await.map_or_else(Race::BothFailed, Race::First),
        },
    }
}

fn parts(share: f64) -> i64 {
    (share.clamp(0.0, 1.0) * WHOLE as f64) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_dials_stay_within_their_share() {
        let budget = HedgeBudget::new(0.05);
        let mut hedged = 0;
        for _ in 0..10_000 {
            budget.earn();
            hedged += i32::from(budget.spend(0));
        }
        assert!((490..=500).contains(&hedged), "{hedged}");
    }

    #[test]
    fn what_is_saved_up_is_bounded_and_zero_is_never() {
        let budget = HedgeBudget::new(0.5);
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.spend(0)).count() as i64, SAVED);
        let none = HedgeBudget::new(0.5);
        none.change(0.0);
        (0..10_000).for_each(|_| none.earn());
        assert!(!none.spend(0));
    }

    const MS: Duration = Duration::from_millis(1);

    async fn after(span: Duration, said: Result<u8, bool>) -> Result<u8, bool> {
        sleep(span).await;
        said
    }

    #[tokio::test(start_paused = true)]
    async fn the_faster_dial_wins_and_a_fault_of_the_target_ends_both() {
        // The duration of each dial in ms, and its result. An error is `true` if another exit may help.
        type Dial = (u32, Result<u8, bool>);
        let cases: [(Dial, Dial, Race<u8, bool>); 10] = [
            ((5, Ok(1)), (5, Ok(2)), Race::First(1)),
            ((5, Err(true)), (5, Ok(2)), Race::Failed(true)),
            ((50, Ok(1)), (5, Ok(2)), Race::SecondWasFaster(2)),
            ((14, Ok(1)), (5, Ok(2)), Race::First(1)),
            ((12, Err(true)), (5, Ok(2)), Race::FirstFailed(2)),
            ((12, Err(false)), (5, Ok(2)), Race::Failed(false)),
            ((50, Ok(1)), (5, Err(true)), Race::First(1)),
            ((50, Ok(1)), (5, Err(false)), Race::First(1)),
            ((12, Err(true)), (5, Err(false)), Race::BothFailed(false)),
            ((50, Err(true)), (5, Err(true)), Race::BothFailed(true)),
        ];
        let budget = HedgeBudget::new(0.5);
        for (first, second, want) in cases {
            (0..100).for_each(|_| budget.earn());
            let (one, other) = (after(first.0 * MS, first.1), after(second.0 * MS, second.1));
            assert_eq!(budget.race(one, other, 10 * MS, |again| *again).await, want, "{first:?} {second:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn with_a_low_budget_only_the_slowest_dials_are_hedged() {
        let budget = HedgeBudget::new(0.5);
        let race = async |first: u32| budget.race(after(first * MS, Ok(1)), after(MS, Ok(2)), 10 * MS, |_| true).await;
        assert_eq!(race(50).await, Race::First(1), "the budget is empty");
        (0..4).for_each(|_| budget.earn());
        assert_eq!(race(15).await, Race::First(1), "kept for slower dials");
        assert_eq!(
            (race(50).await, race(50).await, race(50).await),
            (Race::SecondWasFaster(2), Race::SecondWasFaster(2), Race::First(1))
        );
    }
}
