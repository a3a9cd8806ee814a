//! Callers that wait for checks, and results that they have not been sent yet.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::CheckedSite;
use super::results::Checked;
use crate::exit::{ExitId, Verdict};

/// Where a result goes.
#[derive(Debug)]
pub(super) enum Waiter {
    /// To a caller that asked for this exit.
    One(oneshot::Sender<Checked>),
    /// To a caller that asked for many exits, and perhaps for a page to be asked through each.
    Many(mpsc::UnboundedSender<(ExitId, Option<Checked>)>, Option<Arc<CheckedSite>>),
}

impl Waiter {
    /// The page that must have been asked before this waiter is answered.
    fn extra(&self) -> Option<&Arc<CheckedSite>> {
        if let Self::Many(_, extra) = self { extra.as_ref() } else { None }
    }

    /// True if this check is the answer. Through an exit that does not work no page is asked.
    fn is_answered_by(&self, checked: &Checked) -> bool {
        let asked = |extra: &Arc<CheckedSite>| checked.sites.iter().any(|(name, _)| *name == extra.name);
        checked.verdict != Verdict::Good || self.extra().is_none_or(asked)
    }

    /// A caller that has gone meanwhile is not an error. One that waits for a single exit learns from the closed channel
    /// that there is no result.
    fn send(self, exit: ExitId, checked: Option<Checked>) {
        match (self, checked) {
            (Self::One(answer), Some(checked)) => _ = answer.send(checked),
            (Self::One(_), None) => {}
            (Self::Many(results, _), checked) => _ = results.send((exit, checked)),
        }
    }
}

/// All callers that wait, and the results to send them once the state has them.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_exit: HashMap<ExitId, Vec<Waiter>>,
    done: Vec<(Waiter, ExitId, Option<Checked>)>,
}

impl Waiting {
    pub(super) fn add(&mut self, exit: ExitId, waiter: Waiter) {
        self.by_exit.entry(exit).or_default().push(waiter);
    }

    /// The exit cannot be checked.
    pub(super) fn refuse(&mut self, exit: ExitId, waiter: Waiter) {
        self.done.push((waiter, exit, None));
    }

    /// The pages that callers want to have asked through an exit, each once.
    pub(super) fn extra(&self, exit: &ExitId) -> Vec<Arc<CheckedSite>> {
        let mut pages: Vec<Arc<CheckedSite>> = Vec::new();
        for extra in self.by_exit.get(exit).into_iter().flatten().filter_map(Waiter::extra) {
            if pages.iter().all(|page| page.name != extra.name) {
                pages.push(extra.clone());
            }
        }
        pages
    }

    /// A check ended. True if a caller still waits: it asked for a page when the check had already begun.
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

    /// Callers that wait for other exits than these get no result.
    pub(super) fn keep(&mut self, is_kept: impl Fn(&ExitId) -> bool) {
        for (exit, waiters) in self.by_exit.extract_if(|exit, _| !is_kept(exit)) {
            self.done.extend(waiters.into_iter().map(|waiter| (waiter, exit.clone(), None)));
        }
    }

    /// Sends the results.
    pub(super) fn answer(&mut self) {
        self.done.drain(..).for_each(|(waiter, exit, checked)| waiter.send(exit, checked));
    }
}
