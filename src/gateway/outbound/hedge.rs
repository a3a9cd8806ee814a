//! Second dials beside a slow first one, and the budget that keeps them few.
//!
//! A dial that takes longer than nineteen in twenty do is probably going to take much longer; a second dial through
//! another exit then usually wins. But when everything is slow, hedging everything would double the load exactly when
//! there is none to spare, so the share of extra dials is bounded. One dial in twenty is slower than nineteen in twenty
//! on the best of days, and would use the whole budget up: so half of what is saved is kept for those that take twice
//! as long.

use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

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

    /// Takes one hedge, if so many are left then.
    fn spend(&self, left: i64) -> bool {
        let take = |held: i64| (held >= WHOLE * (1 + left)).then_some(held - WHOLE);
        self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Waits for a dial, and beside it for a second one that begins when patience is over: at once where hedges are
    /// plenty, after twice the patience where they are few. An error that `another_may` do better after ends one of the
    /// two; any other ends both.
    pub(super) async fn race<T, E>(
        &self,
        first: impl Future<Output = Result<T, E>>,
        second: impl Future<Output = Result<T, E>>,
        patience: Duration,
        another_may: impl Fn(&E) -> bool,
    ) -> Raced<T, E> {
        let mut first = pin!(first);
        for left in [SAVED / 2, 0] {
            tokio::select! {
                biased;
                done = &mut first => return done.map_or_else(Raced::Failed, Raced::First),
                () = sleep(patience) => {}
            }
            if self.spend(left) {
                return side_by_side(first, second, another_may).await;
            }
        }
        first.await.map_or_else(Raced::Failed, Raced::First)
    }
}

/// Who won, and against whom.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Raced<T, E> {
    /// The first.
    First(T),
    /// The second, though it began later.
    Outrun(T),
    /// The second, because the first failed.
    Beside(T),
    /// Nobody.
    Failed(E),
}

async fn side_by_side<T, E>(
    mut first: impl Future<Output = Result<T, E>> + Unpin,
    second: impl Future<Output = Result<T, E>>,
    another_may: impl Fn(&E) -> bool,
) -> Raced<T, E> {
    let mut second = pin!(second);
    tokio::select! {
        biased;
        won = &mut first => match won {
            Err(error) if another_may(&error) => second.await.map_or_else(Raced::Failed, Raced::Beside),
            won => won.map_or_else(Raced::Failed, Raced::First),
        },
        won = &mut second => match won {
            Ok(won) => Raced::Outrun(won),
            Err(_) => first.await.map_or_else(Raced::Failed, Raced::First),
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
    fn hedges_stay_within_their_share() {
        let budget = Budget::new(0.05);
        let mut hedged = 0;
        for _ in 0..10_000 {
            budget.earn();
            hedged += i32::from(budget.spend(0));
        }
        assert!((490..=500).contains(&hedged), "{hedged}");
    }

    #[test]
    fn what_is_saved_up_is_bounded_and_zero_is_never() {
        let budget = Budget::new(0.5);
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.spend(0)).count() as i64, SAVED);
        let none = Budget::new(0.5);
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
    async fn who_is_first_wins_and_a_fault_of_the_target_ends_both() {
        // The first's time and end, the second's, what comes of it. `true` is an error after which another exit may do better.
        type Dial = (u32, Result<u8, bool>);
        let cases: [(Dial, Dial, Raced<u8, bool>); 9] = [
            ((5, Ok(1)), (5, Ok(2)), Raced::First(1)),
            ((5, Err(true)), (5, Ok(2)), Raced::Failed(true)),
            ((50, Ok(1)), (5, Ok(2)), Raced::Outrun(2)),
            ((14, Ok(1)), (5, Ok(2)), Raced::First(1)),
            ((12, Err(true)), (5, Ok(2)), Raced::Beside(2)),
            ((12, Err(false)), (5, Ok(2)), Raced::Failed(false)),
            ((50, Ok(1)), (5, Err(true)), Raced::First(1)),
            ((50, Ok(1)), (5, Err(false)), Raced::First(1)),
            ((12, Err(true)), (5, Err(false)), Raced::Failed(false)),
        ];
        let budget = Budget::new(0.5);
        for (first, second, want) in cases {
            (0..100).for_each(|_| budget.earn());
            let (one, other) = (after(first.0 * MS, first.1), after(second.0 * MS, second.1));
            assert_eq!(budget.race(one, other, 10 * MS, |again| *again).await, want, "{first:?} {second:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_hedges_are_few_only_the_slowest_get_one() {
        let budget = Budget::new(0.5);
        let race = async |first: u32| budget.race(after(first * MS, Ok(1)), after(MS, Ok(2)), 10 * MS, |_| true).await;
        assert_eq!(race(50).await, Raced::First(1), "there is none");
        (0..4).for_each(|_| budget.earn());
        assert_eq!(race(15).await, Raced::First(1), "it is kept for worse");
        assert_eq!(
            (race(50).await, race(50).await, race(50).await),
            (Raced::Outrun(2), Raced::Outrun(2), Raced::First(1))
        );
    }
}
