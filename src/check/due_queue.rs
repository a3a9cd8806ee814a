//! Records when each exit is due for its next check, and which checks run. Pure: the caller passes the time.
//!
//! Each exit belongs to a class, except while its check runs. The classes are ordered from the most urgent to the least
//! urgent. Within a class, exits are ordered by the time at which their checks are due. So the choice of the next exit
//! looks only at the first exit of each class, and never at the thousands of other exits.
//!
//! Each user of this queue defines its classes, and how many checks of each class may run: `check/schedule.rs` for Tor
//! exits, `check/public/schedule.rs` for public proxies.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::exit::{ExitId, Moment};
use crate::lifecycle::yielding;

/// How a check ended. This decides when the next check of the exit is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The exit works.
    Good,
    /// The exit does not work.
    Bad,
    /// The check shows nothing about the exit, because the gateway itself (for example, a Tor engine) caused the
    /// failure.
    Open,
    /// The check shows nothing about the exit, because the page that the check requested is down.
    TargetDown,
}

/// The data that a user of the queue keeps for each exit.
pub(super) trait Entry {
    /// Returns the index of the exit's class. Class 0 is served first.
    fn class(&self) -> usize;

    /// Returns the time at which the next check of the exit is due.
    fn due(&self) -> Moment;
}

/// A check that runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    /// The class of the exit when its check began.
    pub(super) class: usize,
    /// True if the exit must be checked once more when this check ends.
    pub(super) again: bool,
}

/// For each class, the time from which another check may begin. `None` if a running check must end first.
pub(super) type Gates<const CLASSES: usize> = [Option<Moment>; CLASSES];

/// The queue of all exits that one tester checks.
#[derive(Debug)]
pub(super) struct DueQueue<E, const CLASSES: usize> {
    entries: HashMap<ExitId, E>,
    classes: [BTreeSet<(Moment, ExitId)>; CLASSES],
    running: HashMap<ExitId, Running>,
    running_by_class: [usize; CLASSES],
}

impl<E: Entry, const CLASSES: usize> DueQueue<E, CLASSES> {
    pub(super) fn new() -> Self {
        Self {
            entries: HashMap::new(),
            classes: std::array::from_fn(|_| BTreeSet::new()),
            running: HashMap::new(),
            running_by_class: [0; CLASSES],
        }
    }

    /// Makes `exits` the set of exits that are checked. A new exit gets the entry that `make` returns, and the other
    /// exits keep their entries. If an exit is removed while its check runs, the check continues, and is counted as
    /// running until it ends.
    pub(super) fn list<T>(&mut self, exits: impl IntoIterator<Item = (ExitId, T)>, make: impl Fn(T) -> E) {
        let mut listed = HashSet::with_capacity(self.entries.len());
        for (id, facts) in exits {
            yielding::yield_if_due(); // there may be tens of thousands of exits
            if !self.entries.contains_key(&id) {
                self.entries.insert(id.clone(), make(facts));
                self.enqueue(&id);
            }
            listed.insert(id);
        }
        let gone: Vec<_> = self.entries.keys().filter(|id| !listed.contains(*id)).cloned().collect();
        gone.iter().for_each(|id| self.forget(id));
    }

    pub(super) fn forget(&mut self, id: &ExitId) {
        self.dequeue(id);
        self.entries.remove(id);
    }

    pub(super) fn get(&self, id: &ExitId) -> Option<&E> {
        self.entries.get(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ExitId, &E)> {
        self.entries.iter()
    }

    /// Changes the entry of an exit, and moves the exit to its new place in the queue. Returns false if there is no
    /// such exit.
    pub(super) fn change(&mut self, id: &ExitId, change: impl FnOnce(&mut E)) -> bool {
        self.dequeue(id);
        let Some(entry) = self.entries.get_mut(id) else { return false };
        change(entry);
        self.enqueue(id);
        true
    }

    /// Changes the entry of an exit like [`Self::change`], to make its check come sooner. If a check of this exit runs
    /// already, nothing is changed, because the caller can use the result of that check. Returns false if there is no
    /// such exit.
    pub(super) fn hasten(&mut self, id: &ExitId, change: impl FnOnce(&mut E)) -> bool {
        if self.running.contains_key(id) { self.entries.contains_key(id) } else { self.change(id, change) }
    }

    /// Marks an exit whose check runs, so the exit is checked once more afterwards. Returns false if no check of the
    /// exit runs.
    pub(super) fn again(&mut self, id: &ExitId) -> bool {
        let running = self.running.get_mut(id);
        running.map(|running| running.again = true).is_some()
    }

    /// Takes the first exit that is due, from the first class in which a check may begin. The check of this exit counts
    /// as running until [`Self::end`] is called.
    pub(super) fn take(&mut self, now: Moment, gates: &Gates<CLASSES>) -> Option<(ExitId, usize)> {
        let class = (0..CLASSES).find(|class| self.opens(*class, gates).is_some_and(|at| at <= now))?;
        let (_, id) = self.classes[class].pop_first()?;
        self.running.insert(id.clone(), Running { class, again: false });
        self.running_by_class[class] += 1;
        Some((id, class))
    }

    /// Returns the time at which [`Self::take`] will return an exit. `None` if a running check must end first.
    pub(super) fn wake(&self, gates: &Gates<CLASSES>) -> Option<Moment> {
        (0..CLASSES).filter_map(|class| self.opens(class, gates)).min()
    }

    fn opens(&self, class: usize, gates: &Gates<CLASSES>) -> Option<Moment> {
        let (due, _) = self.classes[class].first()?;
        gates[class].map(|gate| gate.max(*due))
    }

    /// Ends a check: changes the entry of the exit, and puts the exit back into its class. Returns `None` if no check
    /// of the exit was running.
    pub(super) fn end(&mut self, id: &ExitId, change: impl FnOnce(&mut E, Running)) -> Option<()> {
        let running = self.running.remove(id)?;
        self.running_by_class[running.class] -= 1;
        self.change(id, |entry| change(entry, running));
        Some(())
    }

    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    pub(super) fn running_of(&self, class: usize) -> usize {
        self.running_by_class[class]
    }

    /// Returns how many exits of the first `classes` classes are due and wait for their check.
    pub(super) fn waiting(&self, classes: usize, now: Moment) -> usize {
        // The count visits every due exit, so at most 100,000 exits of a class are counted. This limit is not tuned.
        let due = |class: &BTreeSet<_>| class.iter().take(100_000).take_while(|(due, _)| *due <= now).count();
        self.classes.iter().take(classes).map(due).sum()
    }

    fn enqueue(&mut self, id: &ExitId) {
        if let Some(entry) = self.entries.get(id).filter(|_| !self.running.contains_key(id)) {
            self.classes[entry.class()].insert((entry.due(), id.clone()));
        }
    }

    fn dequeue(&mut self, id: &ExitId) {
        if let Some(entry) = self.entries.get(id) {
            self.classes[entry.class()].remove(&(entry.due(), id.clone()));
        }
    }

    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.classes.iter().map(BTreeSet::len).sum()
    }
}
