//! A point in time that can be passed in, compared and stored.
//!
//! The code that chooses exits reads no clock: its callers pass in the time. So a test of a thirty-day rule does not
//! take thirty days.
//!
//! The time that callers pass in must never step back, because latencies are computed from it. The time must also mean
//! the same after a restart, because it is stored with pins and bans. So the process reads the wall clock once at the
//! start, and later adds the time that the monotonic clock has measured since then.
//!
//! Next: `exit/load.rs` uses moments for averages that decay. Pins, sessions and bans in [`crate::route`] end at a
//! moment.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::UtcDateTime;
use time::macros::format_description;

/// A point in time, in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// Returns the moment that is `span` later, or the largest possible moment if that would overflow.
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }

    /// Returns the time since `earlier`, or zero if `earlier` is later than `self`.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Moment {
    /// Writes the time in UTC to the second, for people: `2026-09-02 02:40:00 UTC`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
        let seconds = i64::try_from(self.0 / 1_000_000).unwrap_or(i64::MAX);
        let text = UtcDateTime::from_unix_timestamp(seconds).ok().and_then(|time| time.format(format).ok());
        f.write_str(text.as_deref().unwrap_or("never"))
    }
}

/// Converts a duration to whole microseconds. The largest result is about half a million years.
pub(crate) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

impl From<SystemTime> for Moment {
    /// Converts a system time. A time before 1970 becomes 1970.
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, micros))
    }
}

impl From<Moment> for SystemTime {
    fn from(moment: Moment) -> Self {
        UNIX_EPOCH + Duration::from_micros(moment.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_point_on_the_wall_clock() {
        assert_eq!(Moment(1_788_314_400_000_000).to_string(), "2026-09-02 02:00:00 UTC");
        assert_eq!(Moment(u64::MAX).to_string(), "never");
        let time = UNIX_EPOCH + Duration::from_micros(1_788_314_400_000_001);
        assert_eq!(SystemTime::from(Moment::from(time)), time);
        assert_eq!(Moment::from(UNIX_EPOCH - Duration::from_secs(1)), Moment(0));
        let moment = Moment(5_000_000);
        assert_eq!(moment.after(Duration::from_secs(1)).since(moment), Duration::from_secs(1));
        assert_eq!(moment.since(moment.after(Duration::from_secs(1))), Duration::ZERO);
        assert_eq!(moment.after(Duration::MAX), Moment(u64::MAX));
    }
}
