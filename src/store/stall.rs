//! Notices a disk that hangs: a write that has begun and does not end.
//!
//! The thread that writes cannot report this, because it waits for the disk itself. So it only records when a write
//! begins and ends. The callers of the store and the tick of the state look at these times.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge};

use super::fault::Fault;
use crate::telemetry::metrics as names;

/// How long a write may take, and how long the caller of a commit waits for its answer. A write waits two seconds for
/// the lock of another process, and a busy disk needs up to a second. Not tuned beyond this.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What is known about the write that is under way.
#[derive(Debug, Default)]
struct Work {
    /// When the write began. `None` if nothing is being written.
    since: Option<Instant>,
    /// True if this write was reported as hanging.
    hangs: bool,
}

impl Work {
    fn begin(&mut self, now: Instant) {
        *self = Self { since: Some(now), hangs: false };
    }

    /// Ends the write. If the write was reported as hanging, returns how long it took. Otherwise returns `None`.
    fn end(&mut self, now: Instant) -> Option<Duration> {
        let Self { since, hangs } = std::mem::take(self);
        since.filter(|_| hangs).map(|since| now.saturating_duration_since(since))
    }

    /// Returns true if the write hangs and this was not reported before. `late` is true if a commit has waited for
    /// longer than [`PATIENCE`], which proves that the write hangs.
    fn is_newly_hanging(&mut self, now: Instant, late: bool) -> bool {
        let hangs = self.since.is_some_and(|since| late || now.saturating_duration_since(since) >= PATIENCE);
        hangs && !std::mem::replace(&mut self.hangs, true)
    }
}

/// The write that is under way, shared by the thread that writes and the handles of the store.
#[derive(Debug)]
pub(super) struct Stall {
    work: Mutex<Work>,
    failing: Gauge,
    faults: Counter,
}

impl Stall {
    pub(super) fn new() -> Self {
        let faults = metrics::counter!(names::STORE_FAULTS, "reason" => Fault::Hung.as_str());
        Self { work: Mutex::default(), failing: metrics::gauge!(names::STORE_FAILING), faults }
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a write begins.
    pub(super) fn begin(&self) {
        self.work().begin(Instant::now());
    }

    /// Records that the write has ended. `failing` is true if the file still cannot be written for another reason.
    pub(super) fn end(&self, failing: bool) {
        if let Some(took) = self.work().end(Instant::now()) {
            self.failing.set(f64::from(u8::from(failing)));
            tracing::info!(seconds = took.as_secs(), "the disk of the store answers again");
        }
    }

    /// Returns true if a write was reported as hanging and has not ended.
    pub(super) fn hangs(&self) -> bool {
        self.work().hangs
    }

    /// Reports a write that takes longer than [`PATIENCE`], once.
    pub(super) fn look(&self) {
        self.report(false);
    }

    /// Reports the write that is under way, because a commit has waited for longer than [`PATIENCE`].
    pub(super) fn commit_is_late(&self) {
        self.report(true);
    }

    fn report(&self, late: bool) {
        if self.work().is_newly_hanging(Instant::now(), late) {
            self.failing.set(1.0);
            self.faults.increment(1);
            tracing::error!(fault = Fault::Hung.as_str(), "the store does not answer: {}", Fault::Hung);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_hangs_after_five_seconds_and_is_reported_once() {
        let (begun, mut work) = (Instant::now(), Work::default());
        let at = |millis| begun + Duration::from_millis(millis);
        assert!(!work.is_newly_hanging(at(60_000), false), "nothing is being written");
        assert!(!work.is_newly_hanging(at(60_000), true), "a late commit of an idle thread is no hang");
        work.begin(at(0));
        assert!(!work.is_newly_hanging(at(4999), false));
        assert!(work.is_newly_hanging(at(5000), false) && work.hangs);
        assert!(!work.is_newly_hanging(at(9000), false) && work.hangs, "reported once");
        assert_eq!(work.end(at(12_000)), Some(Duration::from_secs(12)));
        assert!(!work.hangs);
        work.begin(at(13_000));
        assert!(!work.is_newly_hanging(at(14_000), false), "each write has its own time");
        assert!(work.is_newly_hanging(at(14_000), true), "a commit that was queued before may be late earlier");
        work.begin(at(15_000));
        assert_eq!(work.end(at(16_000)), None, "a write in time reports nothing");
    }
}
