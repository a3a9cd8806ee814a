//! Dates in the formats of the Tor directory and of HTTP, all UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// 1 January 1970 was a Thursday.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `YYYY-MM-DD hh:mm:ss` of seconds since 1970.
pub(crate) fn stamp(seconds: u64) -> String {
    let (year, month, day) = civil(seconds / DAY);
    format!("{year:04}-{month:02}-{day:02} {}", time_of_day(seconds))
}

/// The format of HTTP: `Fri, 04 Sep 2026 03:05:00 GMT`.
pub(crate) fn http_date(seconds: u64) -> String {
    let days = seconds / DAY;
    let (year, month, day) = civil(days);
    let weekday = WEEKDAYS[(days % 7) as usize];
    format!("{weekday}, {day:02} {} {year:04} {} GMT", MONTHS[month as usize - 1], time_of_day(seconds))
}

/// Reads `YYYY-MM-DD hh:mm:ss`.
pub(crate) fn parse(stamp: &str) -> Option<u64> {
    let mut numbers = stamp.trim().split(['-', ' ', ':']).map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    let (year, month, day) = (next()?, next()?, next()?);
    let (hour, minute, second) = (next()?, next()?, next()?);
    Some(days(year, month, day)? * DAY + hour * 3600 + minute * 60 + second)
}

/// Reads the format of HTTP.
pub(crate) fn parse_http_date(date: &str) -> Option<u64> {
    let mut words = date.split_whitespace().skip(1);
    let day = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let year = words.next()?.parse().ok()?;
    let mut time = words.next()?.split(':').map(str::parse::<u64>);
    let mut next = || time.next()?.ok();
    Some(days(year, month, day)? * DAY + next()? * 3600 + next()? * 60 + next()?)
}

fn time_of_day(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

/// Days since 1970 of a date. The year is counted from March, so that the leap day comes last; after H. Hinnant,
/// "chrono-compatible low-level date algorithms".
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    (era * 146_097 + of_era).checked_sub(719_468)
}

/// The date of a day since 1970: the inverse of [`days`].
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        for (seconds, written, http) in [
            (0, "1970-01-01 00:00:00", "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_827_696, "2000-02-29 12:34:56", "Tue, 29 Feb 2000 12:34:56 GMT"),
            (1_788_491_100, "2026-09-04 03:05:00", "Fri, 04 Sep 2026 03:05:00 GMT"),
            (4_107_542_399, "2100-02-28 23:59:59", "Sun, 28 Feb 2100 23:59:59 GMT"),
        ] {
            assert_eq!((stamp(seconds).as_str(), http_date(seconds).as_str()), (written, http));
            assert_eq!((parse(written), parse_http_date(http)), (Some(seconds), Some(seconds)));
        }
    }

    #[test]
    fn nonsense_is_no_date() {
        for text in ["", "2026", "2026-13-01 00:00:00", "a-b-c d:e:f", "1969-12-31 00:00:00"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse_http_date("Fri, 04 Xyz 2026 03:05:00 GMT"), None);
    }
}
