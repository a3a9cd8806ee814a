//! Decides what a failed dial says about its exit. Pure.

use crate::dial::{DialError, ExitFault};
use crate::exit::ExitId;

/// Returns true if the request may succeed through another exit. This is so after a fault of the exit. If the time of
/// one attempt is over and nobody is known to be at fault, another exit may have a circuit ready. But a session or a
/// pin (`keeps_exit`) must not move for that reason.
pub(super) fn another_exit_may_help(error: &DialError, keeps_exit: bool) -> bool {
    match error {
        DialError::Exit(_) => true,
        DialError::Deadline => !keeps_exit,
        DialError::Engine(_) | DialError::Target(_) => false,
    }
}

/// Returns true if the failure is the exit's own, so that the exit may be ejected and tested again.
pub(super) fn counts_against_exit(exit: &ExitId, error: &DialError) -> bool {
    match error {
        DialError::Exit(ExitFault::Unclear) => false,
        // The exit works, but refuses this target; or there is no path from our guard; or the directory does not list
        // the exit at the moment.
        DialError::Exit(ExitFault::Policy | ExitFault::NoPath | ExitFault::Unknown) => false,
        // A proxy that waits for a dead target looks the same as a proxy that hangs. So a silent proxy is tested
        // immediately (see `request_retest`), and the result of the test counts.
        DialError::Exit(ExitFault::Hung) => !matches!(exit, ExitId::Public(_) | ExitId::Upstream(_)),
        DialError::Exit(_) => true,
        DialError::Engine(_) | DialError::Target(_) | DialError::Deadline => false,
    }
}
