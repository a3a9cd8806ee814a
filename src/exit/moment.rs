//! A point in time that can be passed in, compared and stored.
//!
//! Choosing reads no clock, so that a test of a thirty-day rule takes no thirty days. What it is given must serve two
//! masters: latencies want a clock that never steps back, pins and bans want one that means the same after a restart.
//! One number does both when its owner reads the wall once, at the start, and counts on from there by the monotonic
//! clock.
//!
//! Next: `exit/load.rs` decays by it, [`crate::route`] lets pins, sessions and bans end by it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// The moment that is `span` later; the end of time if there is none.
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }

    /// How long ago `earlier` was; nothing if it is yet to come.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// A span in whole microseconds, capped at what fits (half a million years).
pub(crate) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

impl From<SystemTime> for Moment {
    /// A time before 1970 is taken for 1970: there are no exits from then.
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
        let time = UNIX_EPOCH + Duration::from_micros(1_788_314_400_000_001);
        assert_eq!(SystemTime::from(Moment::from(time)), time);
        assert_eq!(Moment::from(UNIX_EPOCH - Duration::from_secs(1)), Moment(0));
        let moment = Moment(5_000_000);
        assert_eq!(moment.after(Duration::from_secs(1)).since(moment), Duration::from_secs(1));
        assert_eq!(moment.since(moment.after(Duration::from_secs(1))), Duration::ZERO);
        assert_eq!(moment.after(Duration::MAX), Moment(u64::MAX));
    }
}
