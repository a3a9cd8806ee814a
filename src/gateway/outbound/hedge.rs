//! Hedging: a second dial beside a slow first one, and the budget that keeps second dials few.
//!
//! A dial that takes longer than 19 in 20 do will probably take much longer, and a second dial through another exit usually
//! wins. But when everything is slow, hedging every dial would double the load exactly when there is none to spare, so the
//! share of second dials is bounded. Even on the best day one dial in 20 is that slow, and these would use up the whole
//! budget; so half of what is saved is kept for dials that take twice as long.

use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

/// The cost of one second dial. A first dial earns a share of it.
const WHOLE: i64 = 1_000_000;

/// Second dials that may be saved up in quiet times: enough for a burst that meets one slow exit. Not tuned.
const SAVED: i64 = 20;

/// How many second dials are allowed.
#[derive(Debug)]
pub(super) struct HedgeBudget {
    /// What each first dial earns, in parts of [`WHOLE`].
    share: AtomicI64,
    balance: AtomicI64,
}

impl HedgeBudget {
    /// At most `share` second dials for each first one: 0.05 is one in 20, 0 is none.
    pub(super) fn new(share: f64) -> Self {
        Self { share: AtomicI64::new(parts(share)), balance: AtomicI64::new(0) }
    }

    pub(super) fn change(&self, share: f64) {
        self.share.store(parts(share), Ordering::Relaxed);
    }

    /// Counts a first dial.
    pub(super) fn earn(&self) {
        let earned = self.share.load(Ordering::Relaxed);
        if earned > 0 {
            let cap = SAVED * WHOLE;
            let add = |held: i64| Some((held + earned).min(cap));
            let _ = self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        }
    }

    /// Pays for a second dial, if the budget then has `left` more.
    fn spend(&self, left: i64) -> bool {
        let take = |held: i64| (held >= WHOLE * (1 + left)).then_some(held - WHOLE);
        self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Runs the first dial, and a second one beside it when the first takes longer than `patience`, or twice that where the
    /// budget is low. After an error of the first for which `another_may_help` is true, the second goes on; any other error
    /// of the first ends both.
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

/// How one or two dials ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Race<T, E> {
    /// The first dial succeeded.
    First(T),
    /// The second succeeded before the first, though it began later.
    SecondWasFaster(T),
    /// The second succeeded after the first had failed.
    FirstFailed(T),
    /// The first failed, and a second would not help or was not begun.
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
        // Each dial's time in ms and its end; an error is `true` where another exit may help.
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
