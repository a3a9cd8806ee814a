//! Results of checks that are not published yet: updates that are published together, and callers that wait for them.
//!
//! Each publication makes a new snapshot, and checks end hundreds of times a second, so updates are collected for a
//! moment. A caller that waits for a check is answered after the publication: what it then reads in the snapshot must
//! not contradict its answer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::CheckedSite;
use super::due_queue::Ended;
use super::waiting::{Waiter, Waiting};
use crate::exit::{ExitId, Moment, Verdict};
use crate::state::ExitUpdate;
use crate::store::Timings;

/// How often bans and other decisions that wait for more evidence are looked at again.
pub(super) const SETTLE: Duration = Duration::from_secs(1);

/// The result of one check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Good, bad, or untested if the check says nothing of the exit.
    pub verdict: Verdict,
    /// Why it is not good, in words.
    pub why: String,
    /// The addresses that sites saw in this check.
    pub ips: Vec<IpAddr>,
    /// How long the stages of the last probe took that shows the verdict.
    pub timings: Timings,
    /// The sites that were asked, and why the exit does not pass.
    pub sites: Vec<(Arc<str>, Option<String>)>,
}

/// What a check that runs has found so far.
#[derive(Default)]
pub(super) struct RunningCheck {
    /// How it will have ended; `None` means that it found nothing yet.
    pub(super) ended: Option<Ended>,
    pub(super) checked: Checked,
}

/// Results of one tester on their way to the state.
pub(super) struct Results {
    collect_for: Duration,
    running: HashMap<ExitId, RunningCheck>,
    updates: Vec<ExitUpdate>,
    publish_at: Moment,
    settled: Moment,
    waiting: Waiting,
}

impl Results {
    /// Updates are collected for `collect_for` before they are published.
    pub(super) fn new(collect_for: Duration) -> Self {
        let (publish_at, settled) = (Moment::default(), Moment::default());
        let waiting = Waiting::default();
        Self { collect_for, running: HashMap::new(), updates: Vec::new(), publish_at, settled, waiting }
    }

    /// A check began.
    pub(super) fn begin(&mut self, exit: &ExitId) {
        self.running.insert(exit.clone(), RunningCheck::default());
    }

    /// What the check of an exit has found so far.
    pub(super) fn running(&mut self, exit: &ExitId) -> &mut RunningCheck {
        self.running.entry(exit.clone()).or_default()
    }

    /// A check ended, perhaps without any finding. Returns how, and whether a caller still waits for this exit, because
    /// it asked for a page after the check had begun.
    pub(super) fn end(&mut self, exit: &ExitId) -> (Ended, bool) {
        let RunningCheck { ended, checked } = self.running.remove(exit).unwrap_or_default();
        (ended.unwrap_or(Ended::Open), self.waiting.ended(exit, &checked))
    }

    pub(super) fn add(&mut self, updates: impl IntoIterator<Item = ExitUpdate>, now: Moment) {
        let was_empty = self.updates.is_empty();
        self.updates.extend(updates);
        if was_empty && !self.updates.is_empty() {
            self.publish_at = self.publish_at.max(now);
        }
    }

    /// True if decisions that wait for evidence should be looked at: before each publication, and once a second.
    pub(super) fn is_time_to_settle(&mut self, now: Moment) -> bool {
        let is_time = now.since(self.settled) >= SETTLE || !self.updates.is_empty() && self.publish_at <= now;
        if is_time {
            self.settled = now;
        }
        is_time
    }

    /// The updates to publish now, if any; those that follow are collected again.
    pub(super) fn take(&mut self, now: Moment) -> Vec<ExitUpdate> {
        if self.updates.is_empty() || self.publish_at > now {
            return Vec::new();
        }
        self.publish_at = now.after(self.collect_for);
        std::mem::take(&mut self.updates)
    }

    /// A caller waits for a check of this exit.
    pub(super) fn wait(&mut self, exit: ExitId, waiter: Waiter) {
        self.waiting.add(exit, waiter);
    }

    /// A caller asked for a check of an exit that cannot be checked.
    pub(super) fn refuse(&mut self, exit: ExitId, waiter: Waiter) {
        self.waiting.refuse(exit, waiter);
    }

    /// The pages that callers want to have asked through this exit.
    pub(super) fn extra(&self, exit: &ExitId) -> Vec<Arc<CheckedSite>> {
        self.waiting.extra(exit)
    }

    /// Callers that wait for an exit that is neither listed any more nor being checked get no result.
    pub(super) fn keep(&mut self, is_listed: impl Fn(&ExitId) -> bool) {
        self.waiting.keep(|exit| is_listed(exit) || self.running.contains_key(exit));
    }

    /// Answers the callers whose checks have ended, unless the updates of those checks are still to be published.
    pub(super) fn answer(&mut self) {
        if self.updates.is_empty() {
            self.waiting.answer();
        }
    }

    /// When there is something to publish, or to settle if `unsettled`.
    pub(super) fn wake(&self, unsettled: bool) -> Option<Moment> {
        let publish = (!self.updates.is_empty()).then_some(self.publish_at);
        let settle = unsettled.then(|| self.settled.after(SETTLE));
        publish.into_iter().chain(settle).min()
    }
}
