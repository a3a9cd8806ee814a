//! When each exit is due for its next check, and which checks run. Pure: the clock is passed in.
//!
//! Exits stand in classes, from the most urgent to the least. Within a class they are ordered by the moment at which
//! they are due, so that choosing the next one looks at the first of each class and never at the thousands behind it.
//! An exit whose check runs is in no class until that check ends.
//!
//! The two users say what the classes are and how many checks of each may run: `check/schedule.rs` for Tor exits,
//! `check/public/schedule.rs` for public proxies.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::exit::{ExitId, Moment};
use crate::lifecycle::yielding;

/// How a check ended, as far as the time of the next one depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The exit works.
    Good,
    /// The exit does not work.
    Bad,
    /// The check says nothing of the exit: what failed was ours.
    Open,
}

/// What a user of the queue keeps for each exit.
pub(super) trait Entry {
    /// The index of its class: 0 is served first.
    fn class(&self) -> usize;

    /// When its next check is due.
    fn due(&self) -> Moment;
}

/// A check that runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    /// The class that the exit was taken from.
    pub(super) class: usize,
    /// The exit is to be checked once more when this check ends.
    pub(super) again: bool,
}

/// From which moment on another check of each class may begin; `None` if a running check must end first.
pub(super) type Gates<const CLASSES: usize> = [Option<Moment>; CLASSES];

/// All exits of one tester.
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

    /// Makes these the exits that are checked: new ones get the entry that `make` returns, and others keep theirs. The
    /// check of an exit that is removed goes on, and counts until it ends.
    pub(super) fn list<T>(&mut self, exits: impl IntoIterator<Item = (ExitId, T)>, make: impl Fn(T) -> E) {
        let mut listed = HashSet::with_capacity(self.entries.len());
        for (id, facts) in exits {
            yielding::yield_if_due(); // there may be tens of thousands
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

    /// The exits of one class that wait, the first due first.
    pub(super) fn class(&self, class: usize) -> impl Iterator<Item = &ExitId> {
        self.classes[class].iter().map(|(_, id)| id)
    }

    /// Changes an entry and moves it to where it belongs then. False if there is no such exit.
    pub(super) fn change(&mut self, id: &ExitId, change: impl FnOnce(&mut E)) -> bool {
        self.dequeue(id);
        let Some(entry) = self.entries.get_mut(id) else { return false };
        change(entry);
        self.enqueue(id);
        true
    }

    /// Like [`Self::change`], except that a running check is left as it is: its result is what the caller waits for.
    pub(super) fn hasten(&mut self, id: &ExitId, change: impl FnOnce(&mut E)) -> bool {
        if self.running.contains_key(id) { self.entries.contains_key(id) } else { self.change(id, change) }
    }

    /// Marks an exit whose check runs to be checked once more after it. False if no check of it runs.
    pub(super) fn again(&mut self, id: &ExitId) -> bool {
        let running = self.running.get_mut(id);
        running.map(|running| running.again = true).is_some()
    }

    /// Takes the first exit that is due in the first class whose gate is open. Its check counts as running until
    /// [`Self::end`].
    pub(super) fn take(&mut self, now: Moment, gates: &Gates<CLASSES>) -> Option<(ExitId, usize)> {
        let class = (0..CLASSES).find(|class| self.opens(*class, gates).is_some_and(|at| at <= now))?;
        let (_, id) = self.classes[class].pop_first()?;
        self.running.insert(id.clone(), Running { class, again: false });
        self.running_by_class[class] += 1;
        Some((id, class))
    }

    /// When [`Self::take`] will return an exit; `None` if a running check must end first.
    pub(super) fn wake(&self, gates: &Gates<CLASSES>) -> Option<Moment> {
        (0..CLASSES).filter_map(|class| self.opens(class, gates)).min()
    }

    fn opens(&self, class: usize, gates: &Gates<CLASSES>) -> Option<Moment> {
        let (due, _) = self.classes[class].first()?;
        gates[class].map(|gate| gate.max(*due))
    }

    /// A check ended: changes the exit's entry, and puts it back into its class. `None` if no check of it ran.
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

    /// How many exits are due and wait.
    pub(super) fn waiting(&self, now: Moment) -> usize {
        // Counting walks over them; the limit keeps that short. Not tuned.
        let due = |class: &BTreeSet<_>| class.iter().take(100_000).take_while(|(due, _)| *due <= now).count();
        self.classes.iter().map(due).sum()
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
