//! Moments as the API writes them: RFC 3339 in UTC, with milliseconds.

use std::fmt;

use serde::{Serialize, Serializer};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};
use utoipa::ToSchema;

use crate::exit::Moment;

/// RFC 3339 allows any number of digits for the fraction of a second. Here there are always three, so sorting the texts
/// sorts the moments.
const FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A moment that is serialized as a date. Moments after the year 9999 are written as its last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(as = When, value_type = String, format = DateTime, example = "2026-09-02T02:00:00.000Z")]
pub(super) struct Timestamp(pub(super) Moment);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i128::from(self.0.0) * 1000;
        let date = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(PrimitiveDateTime::MAX.assume_utc());
        f.write_str(&date.format(FORMAT).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
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
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp(Moment(micros)).to_string(), want);
        }
    }
}
