//! Moments as the API writes them: RFC 3339 in UTC, to the millisecond.

use std::fmt;

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::exit::Moment;

/// A moment that is written as a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(as = When, value_type = String, format = DateTime, example = "2026-09-02T02:00:00.000Z")]
pub(super) struct Timestamp(pub(super) Moment);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.0.0 / 1_000_000, self.0.0 % 1_000_000);
        let (day, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(day);
        let (hour, minute, second, milli) = (second / 3600, second / 60 % 60, second % 60, micros / 1000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The date of a day since 1970. The years are made to begin in March, so that the leap day comes last, and are
/// counted in eras of 400 years, after which the calendar repeats.
fn civil(day: u64) -> (u64, u64, u64) {
    let shifted = day + 719_468; // days from 0000-03-01 to 1970-01-01
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates() {
        for (micros, want) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_827_696_789_000, "2000-02-29T12:34:56.789Z"),
            (1_788_314_400_000_001, "2026-09-02T02:00:00.000Z"),
            (4_107_542_399_999_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Timestamp(Moment(micros)).to_string(), want);
        }
    }
}
