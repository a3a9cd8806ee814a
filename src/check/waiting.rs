//! The callers that wait for checks, and the results that were not sent to them yet.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::CheckedSite;
use super::results::Checked;
use crate::exit::{ExitId, Verdict};

/// Where the result of a check is sent.
#[derive(Debug)]
pub(super) enum Waiter {
    /// To a caller that requested a check of this exit only.
    One(oneshot::Sender<Checked>),
    /// To a caller that requested checks of many exits, and perhaps a page to be requested through each exit.
    Many(mpsc::UnboundedSender<(ExitId, Option<Checked>)>, Option<Arc<CheckedSite>>),
}

impl Waiter {
    /// Returns the page that must have been requested before this waiter gets its answer. Returns `None` if no page is
    /// needed.
    fn extra(&self) -> Option<&Arc<CheckedSite>> {
        if let Self::Many(_, extra) = self { extra.as_ref() } else { None }
    }

    /// Returns true if the result `checked` is what this waiter waits for. If the exit does not work, its result is
    /// enough even if the page was not requested.
    fn is_answered_by(&self, checked: &Checked) -> bool {
        let asked = |extra: &Arc<CheckedSite>| checked.sites.iter().any(|(name, _)| *name == extra.name);
        checked.verdict != Verdict::Good || self.extra().is_none_or(asked)
    }

    /// Sends the result. It is no error if the caller no longer waits. A caller that waits for a single exit sees the
    /// closed channel if there is no result.
    fn send(self, exit: ExitId, checked: Option<Checked>) {
        match (self, checked) {
            (Self::One(answer), Some(checked)) => _ = answer.send(checked),
            (Self::One(_), None) => {}
            (Self::Many(results, _), checked) => _ = results.send((exit, checked)),
        }
    }
}

/// All callers that wait for checks, and the results to send to these callers after the results are published.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_exit: HashMap<ExitId, Vec<Waiter>>,
    done: Vec<(Waiter, ExitId, Option<Checked>)>,
}

impl Waiting {
    pub(super) fn add(&mut self, exit: ExitId, waiter: Waiter) {
        self.by_exit.entry(exit).or_default().push(waiter);
    }

    /// Records that the exit cannot be checked, so the waiter gets no result.
    pub(super) fn refuse(&mut self, exit: ExitId, waiter: Waiter) {
        self.done.push((waiter, exit, None));
    }

    /// Returns the pages that callers want to request through an exit, each page once.
    pub(super) fn extra(&self, exit: &ExitId) -> Vec<Arc<CheckedSite>> {
        let mut pages: Vec<Arc<CheckedSite>> = Vec::new();
        for extra in self.by_exit.get(exit).into_iter().flatten().filter_map(Waiter::extra) {
            if pages.iter().all(|page| page.name != extra.name) {
                pages.push(extra.clone());
            }
        }
        pages
    }

    /// Records that a check ended. Returns true if a caller still waits, because it requested a page after the check
    /// had begun.
    pub(super) fn ended(&mut self, exit: &ExitId, checked: &Checked) -> bool {
        let waiters = self.by_exit.remove(exit).unwrap_or_default();
        let (answered, left): (Vec<_>, Vec<_>) = waiters.into_iter().partition(|waiter| waiter.is_answered_by(checked));
        self.done.extend(answered.into_iter().map(|waiter| (waiter, exit.clone(), Some(checked.clone()))));
        let still_waits = !left.is_empty();
        if still_waits {
            self.by_exit.insert(exit.clone(), left);
        }
        still_waits
    }

    /// Removes the callers that wait for exits which `is_kept` rejects. These callers get no result.
    pub(super) fn keep(&mut self, is_kept: impl Fn(&ExitId) -> bool) {
        for (exit, waiters) in self.by_exit.extract_if(|exit, _| !is_kept(exit)) {
            self.done.extend(waiters.into_iter().map(|waiter| (waiter, exit.clone(), None)));
        }
    }

    /// Sends the collected results.
    pub(super) fn answer(&mut self) {
        self.done.drain(..).for_each(|(waiter, exit, checked)| waiter.send(exit, checked));
    }
}
