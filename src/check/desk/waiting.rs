//! People who wait for checks.

use std::collections::HashMap;

use tokio::sync::{mpsc, oneshot};

use super::Checked;
use crate::exit::ExitId;

/// Where a result goes.
#[derive(Debug)]
pub(super) enum Waiter {
    /// To somebody who asked for this one.
    One(oneshot::Sender<Checked>),
    /// To somebody who asked for many.
    Many(mpsc::UnboundedSender<(ExitId, Option<Checked>)>),
}

impl Waiter {
    /// Whoever has gone meanwhile misses nothing.
    fn tell(self, exit: ExitId, checked: Option<Checked>) {
        match (self, checked) {
            (Self::One(answer), Some(checked)) => _ = answer.send(checked),
            (Self::One(_), None) => {}
            (Self::Many(results), checked) => _ = results.send((exit, checked)),
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

    /// A check ended.
    pub(super) fn ended(&mut self, exit: &ExitId, checked: &Checked) {
        let waiters = self.by_exit.remove(exit).into_iter().flatten();
        self.done.extend(waiters.map(|waiter| (waiter, exit.clone(), Some(checked.clone()))));
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
