//! Cooperative yielding: background threads (the tester of public proxies, the store's writer) give the processor to the
//! threads that carry traffic.
//!
//! A low priority is not enough. It decides how much of a processor a thread gets in the long run, not how soon another
//! thread gets it: the kernel lets a running thread use its time slice, and checks 250 times a second. Beside a busy
//! background thread one request in a hundred waited four milliseconds for a processor, whatever the priority. So a
//! background thread calls `sched_yield` itself, ten thousand times a second: between two polls of a task, and inside
//! longer loops.
//!
//! A yield may take long. Some kernels take the rest of the slice from the thread, which is thirty times what it has used.
//! So after a long wait the thread runs longer before it yields again, which gives it a tenth of a busy processor, about
//! what its priority would.
//!
//! Next: [`super::Tasks::background`] starts such threads.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

/// How long a background thread runs before it yields: far below the kernel's tick of 4 ms, far above the cost of a yield.
/// Not tuned.
const RUN: Duration = Duration::from_micros(100);

/// After a wait, the thread runs for at least the waited time divided by this.
const WAIT_DIVISOR: u32 = 9;

thread_local! {
    /// When this thread must yield; `None` on threads that carry traffic.
    static YIELD_AT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Makes the current thread a background thread: from now on [`yield_if_due`] yields.
pub fn mark_background() {
    YIELD_AT.set(Some(Instant::now() + RUN));
}

/// Yields the processor if this is a background thread and it has run long enough. The caller must not hold a lock that
/// other threads wait for.
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

/// How long the thread may run after it waited for `waited`.
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
