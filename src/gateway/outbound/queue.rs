//! How long requests wait in the queue of circuit builds, and how they avoid a long wait.
//!
//! Each engine (tor process) builds about one circuit a second, so a request may wait until the build of its circuit
//! begins. This wait is no fault of an exit, and does not count as time of an attempt. [`crate::tor`] estimates the
//! wait, and refuses a request if the build of its circuit could not begin before the request's deadline.

use std::time::Duration;

use super::Outbound;
use super::attempt::{Attempt, way};
use crate::dial::{DialError, EngineFault};
use crate::exit::{Exit, ExitId};
use crate::route::choose::Plan;
use crate::route::selector::Mode;
use crate::tor::path::{IpVersion, Port};

/// If the build of a circuit to the plan's first exit would wait at least this long in the queue, the request uses
/// another exit of the plan that has a circuit already. If the wait is shorter, the request waits, because the first
/// exit is the best one. Not tuned.
const LONG_QUEUE: Duration = Duration::from_secs(1);

impl Outbound {
    /// Changes the order of the plan's exits if the build of a circuit to the first exit would wait long in the queue:
    /// an exit that needs no wait becomes the first. The plans of sessions, pins and rotating usernames do not change.
    pub(super) fn prefer_ready(&self, attempt: &Attempt<'_>, plan: &mut Plan) {
        if plan.hedge && attempt.wish.selector.mode == Mode::Flexible {
            let first = ready(plan.exits.iter().map(|exit| self.queue_wait(attempt, exit)));
            plan.exits[..=first].rotate_right(1);
        }
    }

    /// Returns the shortest time that a dial through this exit waits until the build of its circuit can begin. Zero if
    /// no build is needed.
    pub(super) fn queue_wait(&self, attempt: &Attempt<'_>, exit: &Exit) -> Duration {
        let (ExitId::Tor(relay), Ok(tor)) = (exit.id(), self.tor()) else { return Duration::ZERO };
        let port = Port { number: attempt.request.target.port, over: IpVersion::V4 };
        tor.queue_wait(&way(*relay, attempt), Some(port))
    }

    /// Returns how long a client should wait before it tries again, if its request failed because too many circuit
    /// builds are queued. `None` for other errors.
    pub(super) fn retry_after(&self, attempt: &Attempt<'_>, error: DialError) -> Option<Duration> {
        let busy = error == DialError::Engine(EngineFault::Busy);
        self.tor().ok().filter(|_| busy).map(|tor| tor.retry_after(attempt.wish.own_engine()))
    }
}

/// Returns the index of the exit of a plan to dial first. `waits` are the waits of the plan's exits in the queue, in
/// the order of the plan. If the first exit would wait long, the result is the first exit that would not wait at all.
/// If there is no such exit, the result is 0.
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
