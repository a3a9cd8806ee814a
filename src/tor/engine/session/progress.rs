//! What the log is told of a bootstrap. Pure.
//!
//! A first start fetches the whole directory, and whoever waits wants to see it go on. One that does not get on
//! is most often behind a firewall, or has a clock that is wrong, so that is said where it is noticed, with what to do.

use std::time::{Duration, Instant};

/// Between two lines of one engine about how far it is. Arbitrary: a reader sees it move, and a log is not filled.
const STEP: Duration = Duration::from_secs(5);

/// How long nothing is said of failures: the first relays that are tried are often not the ones that answer. Arbitrary.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two lines about what keeps it. tor itself warns every few seconds.
const REMINDER: Duration = Duration::from_secs(60);

/// What is worth a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It is further than it was.
    Further,
    /// tor says what keeps it.
    Kept,
}

/// How far the log knows.
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

    /// Whether this look is worth a line.
    pub(super) fn look(&mut self, percent: u8, kept: bool, now: Instant) -> Option<Line> {
        let due = now - self.began >= PATIENCE && self.warned.is_none_or(|last| now - last >= REMINDER);
        if kept && due {
            self.warned = Some(now);
            return Some(Line::Kept);
        }
        if percent > self.percent && now - self.spoke >= STEP {
            (self.percent, self.spoke) = (percent, now);
            return Some(Line::Further);
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
            (1, 5, false, None), // fast ones need no line
            (2, 5, true, None),  // nor a first failure
            (5, 10, false, Some(Line::Further)),
            (8, 14, false, None),
            (10, 14, false, Some(Line::Further)),
            (15, 14, false, None), // no further
            (16, 14, true, Some(Line::Kept)),
            (20, 14, true, None),
            (75, 14, true, None),
            (76, 14, true, Some(Line::Kept)),
            (77, 30, false, Some(Line::Further)),
        ] {
            let said = progress.look(percent, kept, began + Duration::from_secs(second));
            assert_eq!(said, want, "at second {second}");
        }
    }
}
