//! Results of checks that are not published yet: the collected updates, and the callers that wait for results.
//!
//! Each publication makes a new snapshot, and hundreds of checks may end per second, so updates are collected for a
//! short time. A caller that waits for a check gets its answer after the publication, because the answer must not
//! contradict the snapshot that the caller reads afterwards.

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

/// The time between two reviews of bans and other decisions that wait for more evidence.
pub(super) const SETTLE: Duration = Duration::from_secs(1);

/// The result of one check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The verdict: good, bad, or untested if the check says nothing about the exit.
    pub verdict: Verdict,
    /// Why the verdict is not good, in words.
    pub why: String,
    /// The addresses of the exit that echo servers saw in this check.
    pub ips: Vec<IpAddr>,
    /// The timings of the last probe that supports the verdict.
    pub timings: Timings,
    /// The sites that were requested. For each site, the reason why the exit does not pass the site, or `None` if the
    /// exit passes.
    pub sites: Vec<(Arc<str>, Option<String>)>,
}

/// What a running check has found so far.
#[derive(Default)]
pub(super) struct RunningCheck {
    /// How the check will end according to its findings so far. `None` if the check has found nothing yet.
    pub(super) ended: Option<Ended>,
    pub(super) checked: Checked,
}

/// The results of one tester that are not published in the state yet.
pub(super) struct Results {
    collect_for: Duration,
    running: HashMap<ExitId, RunningCheck>,
    updates: Vec<ExitUpdate>,
    publish_at: Moment,
    settled: Moment,
    waiting: Waiting,
}

impl Results {
    /// Returns a collection without results. Updates are collected for the time `collect_for` before they are
    /// published.
    pub(super) fn new(collect_for: Duration) -> Self {
        let (publish_at, settled) = (Moment::default(), Moment::default());
        let waiting = Waiting::default();
        Self { collect_for, running: HashMap::new(), updates: Vec::new(), publish_at, settled, waiting }
    }

    /// Records that a check of this exit began.
    pub(super) fn begin(&mut self, exit: &ExitId) {
        self.running.insert(exit.clone(), RunningCheck::default());
    }

    /// Returns what the running check of an exit has found so far.
    pub(super) fn running(&mut self, exit: &ExitId) -> &mut RunningCheck {
        self.running.entry(exit.clone()).or_default()
    }

    /// Records that a check ended, perhaps without any finding. Returns how the check ended. The second value is true
    /// if another check of this exit must follow: a caller requested a page that was not part of this check, because
    /// the check had begun before.
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

    /// Returns true if it is time to review the bans and other decisions that wait for more evidence: before each
    /// publication of results, and once a second.
    pub(super) fn is_time_to_settle(&mut self, now: Moment) -> bool {
        let is_time = now.since(self.settled) >= SETTLE || !self.updates.is_empty() && self.publish_at <= now;
        if is_time {
            self.settled = now;
        }
        is_time
    }

    /// Returns the updates to publish now, if there are any. Updates that arrive afterwards wait for the next
    /// publication.
    pub(super) fn take(&mut self, now: Moment) -> Vec<ExitUpdate> {
        if self.updates.is_empty() || self.publish_at > now {
            return Vec::new();
        }
        self.publish_at = now.after(self.collect_for);
        std::mem::take(&mut self.updates)
    }

    /// Records that a caller waits for a check of this exit.
    pub(super) fn wait(&mut self, exit: ExitId, waiter: Waiter) {
        self.waiting.add(exit, waiter);
    }

    /// Records that a caller requested a check of an exit that cannot be checked.
    pub(super) fn refuse(&mut self, exit: ExitId, waiter: Waiter) {
        self.waiting.refuse(exit, waiter);
    }

    /// Returns the pages that callers want to request through this exit.
    pub(super) fn extra(&self, exit: &ExitId) -> Vec<Arc<CheckedSite>> {
        self.waiting.extra(exit)
    }

    /// Removes the callers that wait for an exit that is no longer listed and whose check does not run. These callers
    /// get no result.
    pub(super) fn keep(&mut self, is_listed: impl Fn(&ExitId) -> bool) {
        self.waiting.keep(|exit| is_listed(exit) || self.running.contains_key(exit));
    }

    /// Answers the callers whose checks have ended. Does nothing while updates of those checks still have to be
    /// published.
    pub(super) fn answer(&mut self) {
        if self.updates.is_empty() {
            self.waiting.answer();
        }
    }

    /// Returns the time of the next publication. `unsettled` is true if decisions wait for evidence. If so, the time of
    /// the next review of these decisions is returned if that time is earlier.
    pub(super) fn wake(&self, unsettled: bool) -> Option<Moment> {
        let publish = (!self.updates.is_empty()).then_some(self.publish_at);
        let settle = unsettled.then(|| self.settled.after(SETTLE));
        publish.into_iter().chain(settle).min()
    }
}
