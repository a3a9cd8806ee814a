//! Giving way: work that is a matter of throughput, on the processors of work that is one of latency.
//!
//! A low priority is not enough. It says how much of a processor a thread gets in the long run, not how soon the others
//! get theirs: the kernel lets whoever runs end its slice, and looks at the clock 250 times a second. So beside a busy
//! judge one request in a hundred waited four milliseconds for a processor, whatever the judge's priority. What helps
//! is that a thread aside offers its processor by itself, ten thousand times a second: between two polls, and within
//! loops that are longer than that.
//!
//! Whoever offers may wait for long: some kernels take what is left of the slice, thirty times what was used. So the
//! next turn is longer by what was waited for, and a thread aside has a tenth of a busy processor, as by its priority.
//!
//! Next: [`super::Tasks::background`] starts such threads; the judge's desk and the store's writer have the long loops.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

/// How long a thread aside runs before it offers its processor. Arbitrary: far below the tick, far above what an offer costs.
const TURN: Duration = Duration::from_micros(100);

/// A turn is at least this part of what was waited for it.
const SHARE: u32 = 9;

thread_local! {
    /// When this thread's turn is over; none on threads that carry traffic.
    static OVER: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// From now on this thread gives way.
pub fn mark_background() {
    OVER.set(Some(Instant::now() + TURN));
}

/// Offers the processor to others if this is a thread aside and its turn is over. Not to be called with a lock held that
/// others wait for.
pub fn yield_if_due() {
    let Some(over) = OVER.get() else { return };
    let offered = Instant::now();
    if offered < over {
        return;
    }
    thread::yield_now();
    let back = Instant::now();
    OVER.set(Some(back + turn(back - offered)));
}

/// The turn after a wait.
fn turn(waited: Duration) -> Duration {
    TURN.max(waited / SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_ends_and_another_begins_on_threads_aside_alone() {
        yield_if_due();
        assert_eq!(OVER.get(), None, "this thread carries traffic");
        mark_background();
        let over = OVER.get().unwrap();
        while Instant::now() < over {
            assert_eq!(OVER.get(), Some(over));
            yield_if_due();
        }
        yield_if_due();
        assert!(OVER.get().unwrap() >= over + TURN);
    }

    #[test]
    fn whoever_waited_for_long_gets_his_tenth() {
        assert_eq!(turn(Duration::ZERO), TURN);
        assert_eq!(turn(Duration::from_millis(27)), Duration::from_millis(3));
    }
}
