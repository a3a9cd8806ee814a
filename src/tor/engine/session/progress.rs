//! Decides which lines about a bootstrap are written to the log. Pure: no I/O.
//!
//! The first start of tor downloads the whole directory of relays, and an operator who waits wants to see progress. If
//! a bootstrap makes no progress, the usual cause is a firewall or a wrong clock. The log then reports the problem and
//! gives advice.

use std::time::{Duration, Instant};

/// The least time between two log lines about progress. Not tuned.
const STEP: Duration = Duration::from_secs(5);

/// For this time after the start of tor, no failure of the bootstrap is logged, because the first relays that tor tries
/// often do not answer. Not tuned.
const PATIENCE: Duration = Duration::from_secs(10);

/// The least time between two log lines about a failure. tor itself would warn every few seconds.
const REMINDER: Duration = Duration::from_secs(60);

/// The kind of line to write to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The bootstrap has made progress.
    Progress,
    /// tor reports a problem.
    Stuck,
}

/// What was already logged about this bootstrap.
#[derive(Debug)]
pub(super) struct Progress {
    began: Instant,
    percent: u8,
    spoke: Instant,
    warned: Option<Instant>,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, percent: 0, spoke: now, warned: None }
    }

    /// Returns the kind of line to log now. Returns `None` if no line must be logged. `percent` is the progress of the
    /// bootstrap. `kept` is true if tor reports a problem that prevents progress.
    pub(super) fn look(&mut self, percent: u8, kept: bool, now: Instant) -> Option<Line> {
        let due = now - self.began >= PATIENCE && self.warned.is_none_or(|last| now - last >= REMINDER);
        if kept && due {
            self.warned = Some(now);
            return Some(Line::Stuck);
        }
        if percent > self.percent && now - self.spoke >= STEP {
            (self.percent, self.spoke) = (percent, now);
            return Some(Line::Progress);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_now_and_then_and_a_warning_a_minute() {
        let began = Instant::now();
        let mut progress = Progress::new(began);
        for (second, percent, kept, want) in [
            (1, 5, false, None), // a fast bootstrap needs no line
            (2, 5, true, None),  // a problem in the first seconds is not logged
            (5, 10, false, Some(Line::Progress)),
            (8, 14, false, None),
            (10, 14, false, Some(Line::Progress)),
            (15, 14, false, None), // no progress since the last line
            (16, 14, true, Some(Line::Stuck)),
            (20, 14, true, None),
            (75, 14, true, None),
            (76, 14, true, Some(Line::Stuck)),
            (77, 30, false, Some(Line::Progress)),
        ] {
            let said = progress.look(percent, kept, began + Duration::from_secs(second));
            assert_eq!(said, want, "at second {second}");
        }
    }
}
