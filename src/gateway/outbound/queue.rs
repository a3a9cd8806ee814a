//! How long requests wait in the queue of circuit builds, and how they avoid a long wait.
//!
//! Each engine (tor process) builds about one circuit a second. The wait for a build is the gateway's own queue, so it
//! is no fault of an exit and does not count as time of an attempt. [`crate::tor`] estimates the wait and refuses
//! requests that would wait for nothing.

use std::time::Duration;

use super::Outbound;
use super::attempt::{Attempt, way};
use crate::dial::{DialError, EngineFault};
use crate::exit::{Exit, ExitId};
use crate::route::choose::Plan;
use crate::route::selector::Mode;
use crate::tor::path::{IpVersion, Port};

/// If the circuit of a plan's first exit would wait this long in the queue of builds, an exit that has a circuit is used
/// instead. A shorter wait is less than the difference between two exits. Not tuned.
const LONG_QUEUE: Duration = Duration::from_secs(1);

impl Outbound {
    /// If the build for the first exit would wait long in the queue, puts an exit first that needs no wait. A session
    /// keeps its exit, and a rotating username keeps the order of its exits.
    pub(super) fn prefer_ready(&self, attempt: &Attempt<'_>, plan: &mut Plan) {
        if plan.hedge && attempt.wish.selector.mode == Mode::Flexible {
            let first = ready(plan.exits.iter().map(|exit| self.queue_wait(attempt, exit)));
            plan.exits[..=first].rotate_right(1);
        }
    }

    /// Returns how long a dial through an exit waits until the build of its circuit can begin, at best.
    pub(super) fn queue_wait(&self, attempt: &Attempt<'_>, exit: &Exit) -> Duration {
        let (ExitId::Tor(relay), Ok(tor)) = (exit.id(), self.tor()) else { return Duration::ZERO };
        let port = Port { number: attempt.request.target.port, over: IpVersion::V4 };
        tor.queue_wait(&way(*relay, attempt), Some(port))
    }

    /// Returns when a client should try again that was refused because too many circuits are wanted. `None` for other
    /// errors.
    pub(super) fn retry_after(&self, attempt: &Attempt<'_>, error: DialError) -> Option<Duration> {
        let busy = error == DialError::Engine(EngineFault::Busy);
        self.tor().ok().filter(|_| busy).map(|tor| tor.retry_after(attempt.wish.own_engine()))
    }
}

/// Returns which exit of a plan to dial first, from the waits of its exits in the queue: the first exit unless it would
/// wait long and another one would not wait at all.
fn ready(mut waits: impl Iterator<Item = Duration>) -> usize {
    if waits.next().is_none_or(|first| first < LONG_QUEUE) {
        return 0;
    }
    waits.position(|wait| wait.is_zero()).map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_with_a_circuit_goes_before_a_long_queue() {
        for (waits, first) in
            [(&[][..], 0), (&[0, 0], 0), (&[999, 0], 0), (&[1000, 0, 0], 1), (&[9000, 1, 0], 2), (&[9000, 1, 1], 0)]
        {
            assert_eq!(ready(waits.iter().map(|wait| Duration::from_millis(*wait))), first, "{waits:?}");
        }
    }
}
