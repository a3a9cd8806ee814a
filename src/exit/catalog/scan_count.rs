//! Counts how many exits a thread looks at. Tests use the count to prove that no choice looks at every exit.

use std::cell::Cell;

thread_local! {
    static LOOKUPS: Cell<usize> = const { Cell::new(0) };
}

pub(super) fn count() {
    LOOKUPS.set(LOOKUPS.get() + 1);
}

/// Runs `work`. Returns its result and the number of exits that `work` looked at.
pub(crate) fn during<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LOOKUPS.get();
    let done = work();
    (done, LOOKUPS.get() - before)
}
