//! Decides which lines about a bootstrap go into the log. Pure.
//!
//! A first start fetches the whole directory, and an operator who waits wants to see progress. A bootstrap that makes no
//! progress is most often behind a firewall or has a wrong clock. The log says so, with what to do.

use std::time::{Duration, Instant};

/// Least time between two lines about progress. Not tuned.
const STEP: Duration = Duration::from_secs(5);

/// Failures are not logged before this time: the first relays that tor tries often do not answer. Not tuned.
const PATIENCE: Duration = Duration::from_secs(10);

/// Least time between two lines about a failure. tor itself warns every few seconds.
const REMINDER: Duration = Duration::from_secs(60);

/// A line for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The bootstrap has made progress.
    Progress,
    /// tor reports a problem.
    Stuck,
}

/// What was logged so far.
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

    /// The line to log now, if any.
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
            (2, 5, true, None),  // an early failure is not logged
            (5, 10, false, Some(Line::Progress)),
            (8, 14, false, None),
            (10, 14, false, Some(Line::Progress)),
            (15, 14, false, None), // no progress
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
