//! Cooperative yielding: background threads (the tester of public proxies, the store's writer) let the threads that
//! carry traffic run first.
//!
//! A low priority of the background threads alone is not enough. The priority decides how much of a CPU core a thread
//! gets in the long run, but not how soon another thread gets the core: the kernel checks only 250 times a second
//! whether another thread should run. In a measurement beside a busy background thread, one request in a hundred waited
//! four milliseconds for a core, whatever the priority.
//!
//! So a background thread calls `sched_yield` itself, ten thousand times a second: between two polls of a task, and
//! inside longer loops.
//!
//! On a busy core a yield may take about thirty times as long as the thread has run before, because on some kernels a
//! thread that yields loses the rest of its time slice. So after a long yield the thread runs longer before the next
//! yield. The thread then gets about a tenth of the time of the core, which is about the share that its priority would
//! give.
//!
//! Next: [`super::Tasks::background`] starts such threads.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

/// How long a background thread runs before it yields. This is far below the kernel's tick of 4 ms and far above the
/// cost of a yield. Not tuned.
const RUN: Duration = Duration::from_micros(100);

/// After a yield that took long, the thread runs for at least the time that the yield took divided by this number.
const WAIT_DIVISOR: u32 = 9;

thread_local! {
    /// The time when this thread must yield next. `None` on threads that carry traffic.
    static YIELD_AT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Makes the current thread a background thread: from now on [`yield_if_due`] yields on this thread.
pub fn mark_background() {
    YIELD_AT.set(Some(Instant::now() + RUN));
}

/// Yields the CPU if this is a background thread that has run long enough. The caller must not hold a lock that other
/// threads wait for.
pub fn yield_if_due() {
    let Some(due) = YIELD_AT.get() else { return };
    let yielded = Instant::now();
    if yielded < due {
        return;
    }
    thread::yield_now();
    let back = Instant::now();
    YIELD_AT.set(Some(back + run_after(back - yielded)));
}

/// Returns how long the thread may run after a yield that took the time `waited`.
fn run_after(waited: Duration) -> Duration {
    RUN.max(waited / WAIT_DIVISOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_background_threads_yield_and_then_run_again() {
        yield_if_due();
        assert_eq!(YIELD_AT.get(), None, "this thread carries traffic");
        mark_background();
        let due = YIELD_AT.get().unwrap();
        while Instant::now() < due {
            assert_eq!(YIELD_AT.get(), Some(due));
            yield_if_due();
        }
        yield_if_due();
        assert!(YIELD_AT.get().unwrap() >= due + RUN);
    }

    #[test]
    fn a_long_wait_is_followed_by_a_longer_run() {
        assert_eq!(run_after(Duration::ZERO), RUN);
        assert_eq!(run_after(Duration::from_millis(27)), Duration::from_millis(3));
    }
}
