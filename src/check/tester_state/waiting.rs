//! People who wait for checks.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{Checked, CheckedSite};
use crate::exit::{ExitId, Verdict};

/// Where a result goes.
#[derive(Debug)]
pub(super) enum Waiter {
    /// To somebody who asked for this one.
    One(oneshot::Sender<Checked>),
    /// To somebody who asked for many, and perhaps for a page of their own.
    Many(mpsc::UnboundedSender<(ExitId, Option<Checked>)>, Option<Arc<CheckedSite>>),
}

impl Waiter {
    /// The page that must have been asked before this is answered.
    fn extra(&self) -> Option<&Arc<CheckedSite>> {
        if let Self::Many(_, extra) = self { extra.as_ref() } else { None }
    }

    /// True if this check is what was waited for. Through an exit that does not work no page is asked.
    fn is_content(&self, checked: &Checked) -> bool {
        let asked = |extra: &Arc<CheckedSite>| checked.sites.iter().any(|(name, _)| *name == extra.name);
        checked.verdict != Verdict::Good || self.extra().is_none_or(asked)
    }

    /// Whoever has gone meanwhile misses nothing.
    fn tell(self, exit: ExitId, checked: Option<Checked>) {
        match (self, checked) {
            (Self::One(answer), Some(checked)) => _ = answer.send(checked),
            (Self::One(_), None) => {}
            (Self::Many(results, _), checked) => _ = results.send((exit, checked)),
        }
    }
}

/// Everybody who waits, and results that are not told yet: a result is told once the state knows it.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_exit: HashMap<ExitId, Vec<Waiter>>,
    done: Vec<(Waiter, ExitId, Option<Checked>)>,
}

impl Waiting {
    /// Somebody waits for a check of this exit.
    pub(super) fn add(&mut self, exit: ExitId, waiter: Waiter) {
        self.by_exit.entry(exit).or_default().push(waiter);
    }

    /// An exit that cannot be tested.
    pub(super) fn refuse(&mut self, exit: ExitId, waiter: Waiter) {
        self.done.push((waiter, exit, None));
    }

    /// The pages that somebody waits to have asked through an exit, each once.
    pub(super) fn extra(&self, exit: &ExitId) -> Vec<Arc<CheckedSite>> {
        let mut pages: Vec<Arc<CheckedSite>> = Vec::new();
        for extra in self.by_exit.get(exit).into_iter().flatten().filter_map(Waiter::extra) {
            if pages.iter().all(|page| page.name != extra.name) {
                pages.push(extra.clone());
            }
        }
        pages
    }

    /// A check ended. True if somebody still waits: for a page that they asked for when the check had begun.
    pub(super) fn ended(&mut self, exit: &ExitId, checked: &Checked) -> bool {
        let waiters = self.by_exit.remove(exit).unwrap_or_default();
        let (content, left): (Vec<_>, Vec<_>) = waiters.into_iter().partition(|waiter| waiter.is_content(checked));
        self.done.extend(content.into_iter().map(|waiter| (waiter, exit.clone(), Some(checked.clone()))));
        let more = !left.is_empty();
        if more {
            self.by_exit.insert(exit.clone(), left);
        }
        more
    }

    /// Who waits for exits that are there no more waits for nothing.
    pub(super) fn keep(&mut self, is_there: impl Fn(&ExitId) -> bool) {
        for (exit, waiters) in self.by_exit.extract_if(|exit, _| !is_there(exit)) {
            self.done.extend(waiters.into_iter().map(|waiter| (waiter, exit.clone(), None)));
        }
    }

    /// Tells what is done.
    pub(super) fn tell(&mut self) {
        self.done.drain(..).for_each(|(waiter, exit, checked)| waiter.tell(exit, checked));
    }
}
