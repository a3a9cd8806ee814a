//! The clock for all stored times: wall time that never goes back while the process runs.

use std::time::{Instant, SystemTime};

use crate::exit::Moment;

/// The wall time at the start, continued with the monotonic clock. So if the machine's clock is corrected, expired bans
/// do not come back, and sessions do not end early.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Moment,
    since: Instant,
}

impl Clock {
    /// Returns a clock that begins with the machine's current time.
    pub fn start() -> Self {
        Self { began: SystemTime::now().into(), since: Instant::now() }
    }

    pub fn now(&self) -> Moment {
        self.began.after(self.since.elapsed())
    }
}
