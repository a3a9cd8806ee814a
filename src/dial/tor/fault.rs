//! Maps every failure that tor reports to a fault of the engine, of the exit or of the target.

use crate::dial::{DialError, EngineFault, ExitFault, TargetFault};
use crate::tor::event::EndReason;
use crate::tor::{LeaseFault, StreamFault};

impl From<LeaseFault> for DialError {
    fn from(fault: LeaseFault) -> Self {
        match fault {
            LeaseFault::NotReady => EngineFault::NotReady.into(),
            LeaseFault::Lost => EngineFault::Lost.into(),
            LeaseFault::UnknownExit => ExitFault::Unknown.into(),
            LeaseFault::Policy => ExitFault::Policy.into(),
            LeaseFault::NoPath => ExitFault::NoPath.into(),
            LeaseFault::FirstHop => EngineFault::FirstHop.into(),
            LeaseFault::Middle => EngineFault::Middle.into(),
            LeaseFault::Busy => EngineFault::Busy.into(),
            LeaseFault::Unreachable => ExitFault::Unreachable.into(),
            LeaseFault::Overloaded => ExitFault::Overloaded.into(),
            LeaseFault::Deadline => Self::Deadline,
        }
    }
}

impl From<StreamFault> for DialError {
    fn from(fault: StreamFault) -> Self {
        match fault {
            StreamFault::CircuitGone => ExitFault::Died.into(),
            StreamFault::EngineLost => EngineFault::Lost.into(),
            StreamFault::NotAttached => EngineFault::Protocol.into(),
            StreamFault::FirstHop => EngineFault::FirstHop.into(),
            StreamFault::Middle => EngineFault::Middle.into(),
            StreamFault::Unanswered => ExitFault::Hung.into(),
            StreamFault::Ended(reason) => of_end(reason),
        }
    }
}

/// Maps the reason that tor or the exit gave for the end of a stream that never opened.
fn of_end(reason: EndReason) -> DialError {
    match reason {
        // An exit sends MISC when the target refused, because tor has no other reason for a connect that fails late.
        EndReason::Misc | EndReason::ConnectRefused => TargetFault::Refused.into(),
        EndReason::ResolveFailed => TargetFault::NoSuchName.into(),
        EndReason::Timeout => TargetFault::Timeout.into(),
        // A relay sends INTERNAL for ENETUNREACH. It also sends INTERNAL for ENOTCONN, when the target reset the
        // connection early.
        EndReason::NoRoute | EndReason::Internal => TargetFault::Unreachable.into(),
        EndReason::ConnReset | EndReason::Done => TargetFault::Reset.into(),
        EndReason::PrivateAddr => TargetFault::Forbidden.into(),
        EndReason::ExitPolicy => ExitFault::Policy.into(),
        EndReason::Hibernating | EndReason::ResourceLimit => ExitFault::Overloaded.into(),
        EndReason::Destroy => ExitFault::Died.into(),
        EndReason::TorProtocol | EndReason::End | EndReason::Other => ExitFault::Refused.into(),
        EndReason::CantAttach => EngineFault::Protocol.into(),
        EndReason::NetUnreachable => EngineFault::NotReady.into(),
    }
}

/// Maps a SOCKS reply code. Used only if the control connection delivered no reason.
pub(super) fn of_code(code: u8) -> DialError {
    match code {
        2 => ExitFault::Policy.into(),
        3 => TargetFault::Unreachable.into(),
        4 => TargetFault::NoSuchName.into(),
        5 => TargetFault::Refused.into(),
        6 => TargetFault::Timeout.into(),
        7 | 8 => EngineFault::Protocol.into(),
        // tor uses this code for many causes, and the control connection delivered no reason. So the engine is blamed.
        _ => EngineFault::Lost.into(),
    }
}

/// Maps a SOCKS reply code for an onion service. The codes 0xF0 to 0xF7 are tor's extended errors about descriptors,
/// introduction points and client authorisation.
pub(super) fn of_onion(code: u8) -> DialError {
    match code {
        5 => TargetFault::Refused.into(),
        6 => TargetFault::Timeout.into(),
        7 | 8 => EngineFault::Protocol.into(),
        _ => TargetFault::Onion.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_maps_to_whose_fault_it_is() {
        use DialError::{Engine, Exit, Target};
        for (fault, want) in [
            (StreamFault::Ended(EndReason::Misc), Target(TargetFault::Refused)),
            (StreamFault::Ended(EndReason::ResolveFailed), Target(TargetFault::NoSuchName)),
            (StreamFault::Ended(EndReason::Timeout), Target(TargetFault::Timeout)),
            (StreamFault::Ended(EndReason::Internal), Target(TargetFault::Unreachable)),
            (StreamFault::Unanswered, Exit(ExitFault::Hung)),
            (StreamFault::Ended(EndReason::ExitPolicy), Exit(ExitFault::Policy)),
            (StreamFault::Ended(EndReason::ResourceLimit), Exit(ExitFault::Overloaded)),
            (StreamFault::CircuitGone, Exit(ExitFault::Died)),
            (StreamFault::EngineLost, Engine(EngineFault::Lost)),
            (StreamFault::FirstHop, Engine(EngineFault::FirstHop)),
            (StreamFault::Middle, Engine(EngineFault::Middle)),
        ] {
            assert_eq!(DialError::from(fault), want, "{fault:?}");
        }
        assert_eq!(of_onion(0xf0), Target(TargetFault::Onion));
        assert_eq!(of_code(5), Target(TargetFault::Refused));
        assert_eq!(of_code(1), Engine(EngineFault::Lost), "code 1 blames no exit");
    }

    #[test]
    fn a_lease_that_failed_before_the_exit_is_never_the_exits_fault() {
        use DialError::{Deadline, Engine, Exit};
        for (fault, want) in [
            (LeaseFault::NotReady, Engine(EngineFault::NotReady)),
            (LeaseFault::Lost, Engine(EngineFault::Lost)),
            (LeaseFault::FirstHop, Engine(EngineFault::FirstHop)),
            (LeaseFault::Middle, Engine(EngineFault::Middle)),
            (LeaseFault::Busy, Engine(EngineFault::Busy)),
            (LeaseFault::Deadline, Deadline),
            (LeaseFault::Unreachable, Exit(ExitFault::Unreachable)),
            (LeaseFault::Overloaded, Exit(ExitFault::Overloaded)),
            (LeaseFault::UnknownExit, Exit(ExitFault::Unknown)),
        ] {
            assert_eq!(DialError::from(fault), want, "{fault:?}");
        }
    }
}
