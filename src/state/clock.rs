//! The clock of everything that is stored: wall time that never steps back while the process runs.

use std::time::{Instant, SystemTime};

use crate::exit::Moment;

/// The wall time at the start, continued by the monotonic clock: when the machine's clock is corrected, no expired ban
/// returns and no session ends.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Moment,
    since: Instant,
}

impl Clock {
    /// A clock that begins with the machine's time.
    pub fn start() -> Self {
        Self { began: SystemTime::now().into(), since: Instant::now() }
    }

    pub fn now(&self) -> Moment {
        self.began.after(self.since.elapsed())
    }
}
