//! The arithmetic of budgets: how much a key has used in the present day and month, and how much is left.
//!
//! Days and months are those of UTC. A period (one day or one month) begins with nothing used, and each period begins
//! only once, even if the machine's clock is set:
//!
//! - If the clock is set back, the later period stays in force until the clock reaches it again. So nobody gets a new
//!   budget by setting the clock.
//! - If the clock is far behind the period in force, the clock was wrong before: it had jumped into the future. The
//!   period of the clock is then in force again, with all that was used in it and since then.
//!
//! This module reads no clock: callers pass in the time.

use std::num::NonZeroU64;
use std::time::Duration;

use time::{Month, UtcDateTime};

use crate::exit::Moment;

const DAY: u64 = 86_400_000_000;

/// How many days the clock may be behind the day in force before the day in force counts as wrong. It is longer than a
/// month, because a person may set the clock to a wrong month. Not tuned.
const DAYS_BEHIND: u32 = 32;

/// How many months the clock may be behind the month in force before the month in force counts as wrong. Not tuned.
const MONTHS_BEHIND: u32 = 1;

/// A key has nearly used its budget when it has used this share of it, in percent.
const NEAR: u64 = 80;

/// How much may be used in a day and in a month. `None` means no limit. The bytes of both directions count together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    pub requests_per_day: Option<NonZeroU64>,
    pub requests_per_month: Option<NonZeroU64>,
    pub bytes_per_day: Option<NonZeroU64>,
    pub bytes_per_month: Option<NonZeroU64>,
}

/// What was used in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub requests: u64,
    pub bytes: u64,
}

impl Used {
    pub(super) fn add(&mut self, more: Self) {
        self.requests = self.requests.saturating_add(more.requests);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

/// A day or a month, and what was used in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Period {
    /// The number of the day since 1970, or of the month since the year 0.
    pub index: u32,
    pub used: Used,
    /// The number of the period that was in force before this one.
    pub before_index: u32,
    pub before: Used,
}

impl Period {
    /// Makes `index`, which is the clock's present period, the period in force. If the clock is behind the period in
    /// force by at most `behind` periods, nothing changes, because the clock was probably set back.
    fn enter(&mut self, index: u32, behind: u32) {
        if index > self.index {
            (self.before_index, self.before) = (self.index, self.used);
            (self.index, self.used) = (index, Used::default());
        } else if self.index - index > behind {
            if self.before_index >= index {
                self.used.add(self.before);
            }
            (self.index, self.before_index, self.before) = (index, 0, Used::default());
        }
    }
}

/// The limit of a budget that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// What the limit counts and for which time, such as `bytes per day`.
    pub what: &'static str,
    pub limit: u64,
    /// The beginning of the next period.
    pub until: Moment,
}

/// How much of a budget is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// There is no budget, or less than 80 % of each of its limits is used.
    #[default]
    Fine,
    /// At least 80 % of one of its limits is used.
    Near,
    /// One of its limits is used up.
    Spent,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Near => "near",
            Self::Spent => "spent",
        }
    }
}

/// What was used in the present day and month, beside the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub budget: Budget,
    pub day: Period,
    pub month: Period,
}

impl Ledger {
    /// Adds what was used since the last call, and then enters the day and the month of `now`.
    pub fn add(&mut self, used: Used, now: Moment) {
        if self.day.index == 0 {
            // The first call: the ledger is new, and `used` belongs to the present day and month.
            (self.day.index, self.month.index) = (day(now), month(now));
        }
        self.day.used.add(used);
        self.month.used.add(used);
        self.day.enter(day(now), DAYS_BEHIND);
        self.month.enter(month(now), MONTHS_BEHIND);
    }

    /// Returns how much may still be used until the next period begins. `u64::MAX` means that there is no limit.
    pub fn left(&self) -> Used {
        let mut left = Used { requests: u64::MAX, bytes: u64::MAX };
        for (limit, used, is_bytes) in self.limits() {
            let Some(limit) = limit else { continue };
            let of = if is_bytes { &mut left.bytes } else { &mut left.requests };
            *of = (*of).min(limit.get().saturating_sub(used));
        }
        left
    }

    /// Returns the limit that is used up. If several are, returns the one that lasts longest.
    pub fn spent(&self) -> Option<Spent> {
        const WHAT: [&str; 4] = ["requests per day", "requests per month", "bytes per day", "bytes per month"];
        let ends = [self.day_ends(), self.month_ends()];
        let all = self.limits().into_iter().zip(WHAT).zip([ends[0], ends[1], ends[0], ends[1]]);
        let spent = all.filter_map(|(((limit, used, _), what), until)| {
            let limit = limit?.get();
            (used >= limit).then_some(Spent { what, limit, until })
        });
        spent.max_by_key(|spent| spent.until)
    }

    /// Returns how much of the budget is used.
    pub fn level(&self) -> Level {
        let shares = self.limits().into_iter().filter_map(|(limit, used, _)| {
            let limit = u128::from(limit?.get());
            Some(match u128::from(used) {
                used if used >= limit => Level::Spent,
                used if used * 100 >= limit * u128::from(NEAR) => Level::Near,
                _ => Level::Fine,
            })
        });
        shares.max().unwrap_or_default()
    }

    /// Returns the beginning of the next day.
    pub fn day_ends(&self) -> Moment {
        Moment(u64::from(self.day.index + 1) * DAY)
    }

    /// Returns the beginning of the next month.
    pub fn month_ends(&self) -> Moment {
        let next = self.month.index + 1;
        let (year, month) = (i32::try_from(next / 12).unwrap_or(i32::MAX), u8::try_from(next % 12 + 1).unwrap_or(1));
        let date = Month::try_from(month).and_then(|month| time::Date::from_calendar_date(year, month, 1));
        let seconds = date
            .map_or(u64::MAX, |date| u64::try_from(date.midnight().assume_utc().unix_timestamp()).unwrap_or_default());
        Moment(seconds.saturating_mul(1_000_000))
    }

    /// Returns each limit with what is used of it, and whether it counts bytes. The order is that of the fields of
    /// [`Budget`].
    fn limits(&self) -> [(Option<NonZeroU64>, u64, bool); 4] {
        let (budget, day, month) = (&self.budget, self.day.used, self.month.used);
        [
            (budget.requests_per_day, day.requests, false),
            (budget.requests_per_month, month.requests, false),
            (budget.bytes_per_day, day.bytes, true),
            (budget.bytes_per_month, month.bytes, true),
        ]
    }
}

impl Spent {
    /// Returns how long the limit stays used up.
    pub fn wait(&self, now: Moment) -> Duration {
        self.until.since(now)
    }
}

fn day(now: Moment) -> u32 {
    u32::try_from(now.0 / DAY).unwrap_or(u32::MAX - 1)
}

fn month(now: Moment) -> u32 {
    let seconds = i64::try_from(now.0 / 1_000_000).unwrap_or(i64::MAX);
    let Ok(date) = UtcDateTime::from_unix_timestamp(seconds) else { return u32::MAX - 1 };
    u32::try_from(date.year()).unwrap_or_default() * 12 + u32::from(u8::from(date.month())) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-30 12:00:00 UTC.
    const NOON: Moment = Moment(1_796_040_000_000_000);

    fn days(now: Moment, days: i64) -> Moment {
        Moment(now.0.checked_add_signed(days * DAY as i64).unwrap())
    }

    fn bytes(bytes: u64) -> Used {
        Used { requests: 0, bytes }
    }

    fn ledger(per_day: u64, per_month: u64) -> Ledger {
        let (bytes_per_day, bytes_per_month) = (NonZeroU64::new(per_day), NonZeroU64::new(per_month));
        let budget = Budget { bytes_per_day, bytes_per_month, ..Budget::default() };
        let mut ledger = Ledger { budget, ..Ledger::default() };
        ledger.add(Used::default(), NOON);
        ledger
    }

    #[test]
    fn days_and_months_are_those_of_utc() {
        let ledger = ledger(1, 1);
        assert_eq!(ledger.day_ends().to_string(), "2026-12-01 00:00:00 UTC");
        assert_eq!(ledger.month_ends().to_string(), "2026-12-01 00:00:00 UTC");
        let mut ledger = ledger;
        ledger.add(Used::default(), days(NOON, 1));
        assert_eq!(ledger.day_ends().to_string(), "2026-12-02 00:00:00 UTC");
        assert_eq!(ledger.month_ends().to_string(), "2027-01-01 00:00:00 UTC");
        let just_before = Moment(ledger.month_ends().0 - 1);
        assert_eq!(month(just_before), ledger.month.index);
        assert_eq!(month(ledger.month_ends()), ledger.month.index + 1);
        assert_eq!((day(Moment(DAY - 1)), day(Moment(DAY))), (0, 1));
        assert_eq!(ledger.day_ends().since(days(NOON, 1)), Duration::from_secs(12 * 3600));
    }

    #[test]
    fn a_day_ends_and_its_month_goes_on() {
        let mut ledger = ledger(100, 150);
        ledger.add(bytes(60), days(NOON, -1));
        assert_eq!(ledger.left(), Used { requests: u64::MAX, bytes: 40 });
        let mut next = Ledger { budget: ledger.budget, ..Ledger::default() };
        next.add(Used::default(), days(NOON, 1));
        next.add(bytes(90), days(NOON, 1));
        assert_eq!(next.left().bytes, 10);
        next.add(bytes(5), days(NOON, 2));
        assert_eq!((next.day.used.bytes, next.month.used.bytes), (0, 95), "the last bytes belong to the day before");
        assert_eq!(next.left().bytes, 55, "the month has less left than the day");
    }

    #[test]
    fn a_limit_is_near_at_80_percent_and_spent_at_100() {
        for (used, level) in
            [(0, Level::Fine), (79, Level::Fine), (80, Level::Near), (99, Level::Near), (100, Level::Spent)]
        {
            let mut ledger = ledger(100, 0);
            ledger.add(bytes(used), NOON);
            assert_eq!(ledger.level(), level, "{used}");
            assert_eq!(ledger.spent().is_some(), level == Level::Spent);
        }
        assert_eq!(ledger(0, 0).level(), Level::Fine, "without a budget");
        let mut huge = ledger(u64::MAX, 0);
        huge.add(bytes(u64::MAX - 1), NOON);
        assert_eq!((huge.level(), huge.left().bytes), (Level::Near, 1));
    }

    #[test]
    fn each_limit_counts_its_own_amount_and_the_longest_wait_is_told() {
        let budget = |at: usize| {
            let limit = |n| (n == at).then(|| NonZeroU64::new(10).unwrap());
            Budget {
                requests_per_day: limit(0),
                requests_per_month: limit(1),
                bytes_per_day: limit(2),
                bytes_per_month: limit(3),
            }
        };
        for (at, what) in
            ["requests per day", "requests per month", "bytes per day", "bytes per month"].into_iter().enumerate()
        {
            let mut ledger = Ledger { budget: budget(at), ..Ledger::default() };
            let now = days(NOON, 2);
            ledger.add(Used::default(), now);
            ledger.add(if at < 2 { Used { requests: 9, bytes: 99 } } else { Used { requests: 99, bytes: 9 } }, now);
            assert_eq!(ledger.spent(), None, "{what}");
            ledger.add(Used { requests: 1, bytes: 1 }, now);
            let until = if at % 2 == 0 { ledger.day_ends() } else { ledger.month_ends() };
            assert_eq!(ledger.spent(), Some(Spent { what, limit: 10, until }));
        }
        let mut both = ledger(10, 10);
        both.add(Used::default(), days(NOON, 2));
        both.add(bytes(10), days(NOON, 2));
        assert_eq!(both.spent().unwrap().what, "bytes per month");
    }

    #[test]
    fn a_clock_that_is_set_back_gives_no_new_budget() {
        let mut ledger = ledger(100, 0);
        ledger.add(bytes(100), NOON);
        for back in [-1, -5, -30] {
            ledger.add(Used::default(), days(NOON, back));
            assert_eq!(ledger.left().bytes, 0, "{back} days");
        }
        ledger.add(Used::default(), NOON);
        assert_eq!(ledger.left().bytes, 0, "the same day again");
        ledger.add(Used::default(), days(NOON, 1));
        assert_eq!(ledger.left().bytes, 100, "the next day");
    }

    #[test]
    fn a_day_that_the_clock_reached_too_early_begins_only_once() {
        let mut ledger = ledger(100, 0);
        ledger.add(bytes(100), days(NOON, 1));
        ledger.add(bytes(70), NOON);
        assert_eq!(ledger.left().bytes, 30, "the clock is back, and the later day stays in force");
        ledger.add(bytes(20), NOON);
        ledger.add(Used::default(), days(NOON, 1));
        assert_eq!(ledger.left().bytes, 10, "the later day came, and is not new");
    }

    #[test]
    fn a_wrong_year_does_not_stop_the_days() {
        for (index_of, forward) in [("day", 20_000), ("month", 20_000)] {
            let mut ledger = if index_of == "day" { ledger(100, 0) } else { ledger(0, 100) };
            ledger.add(bytes(60), NOON);
            ledger.add(Used::default(), days(NOON, forward));
            assert_eq!(ledger.left().bytes, 100, "decades later");
            ledger.add(bytes(10), NOON);
            assert_eq!(ledger.left().bytes, 30, "the right {index_of} again, with all that was used in it and since");
            ledger.add(Used::default(), days(NOON, 1));
            assert_eq!(ledger.left().bytes, 100, "the next {index_of}");
        }
    }
}
