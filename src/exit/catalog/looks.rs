//! How many exits a thread has looked at: what a test holds on to that says "nobody walks".

use std::cell::Cell;

thread_local! {
    static LOOKS: Cell<usize> = const { Cell::new(0) };
}

/// Notes one look.
pub(super) fn count() {
    LOOKS.set(LOOKS.get() + 1);
}

/// What `work` comes to, and how many exits it looked at.
pub(crate) fn during<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LOOKS.get();
    let done = work();
    (done, LOOKS.get() - before)
}
