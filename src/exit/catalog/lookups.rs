//! Counts the exits that a thread looks at, for tests that no choice walks over the catalog.

use std::cell::Cell;

thread_local! {
    static LOOKUPS: Cell<usize> = const { Cell::new(0) };
}

pub(super) fn count() {
    LOOKUPS.set(LOOKUPS.get() + 1);
}

/// The result of `work`, and how many exits it looked at.
pub(crate) fn during<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LOOKUPS.get();
    let done = work();
    (done, LOOKUPS.get() - before)
}
