//! Time as everything durable counts it: wall time that never steps back while the process lives.

use std::time::{Instant, SystemTime};

use crate::exit::Moment;

/// The wall time at the start, carried on by the monotonic clock: a correction of the machine's clock neither revives
/// an expired ban nor ends a session.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Moment,
    since: Instant,
}

impl Clock {
    /// A clock that begins with the machine's.
    pub fn start() -> Self {
        Self { began: SystemTime::now().into(), since: Instant::now() }
    }

    /// Now.
    pub fn now(&self) -> Moment {
        self.began.after(self.since.elapsed())
    }
}
