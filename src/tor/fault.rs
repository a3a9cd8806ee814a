//! Why a circuit or a stream failed. [`crate::dial`] maps each of these values to a fault of engine, exit or target.

use super::event::EndReason;

/// Why a request got no circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LeaseFault {
    /// No engine is ready to carry streams.
    #[error("no engine is ready")]
    NotReady,
    /// The engine stopped while the request waited.
    #[error("the engine was lost")]
    Lost,
    /// The exit is not in the directory of relays, or it must not be used as an exit.
    #[error("the exit is not known, or may not be used")]
    UnknownExit,
    /// The exit's policy does not allow the port of the target.
    #[error("the exit's policy refuses the port")]
    Policy,
    /// No engine has a guard from which a path to this exit can begin.
    #[error("no path to the exit")]
    NoPath,
    /// The guard, which is the first relay of every circuit, did not answer, or refused. This says nothing about the
    /// exit.
    #[error("the guard does not answer")]
    FirstHop,
    /// The guard answered, but no relay between the guard and the exit did. This says nothing about the exit.
    #[error("no relay before the exit answers")]
    Middle,
    /// Too many circuit builds are queued before the build for this request. This says nothing about the exit.
    #[error("too many circuits are wanted at the same time")]
    Busy,
    /// The relay before the exit answered, and the exit did not.
    #[error("no circuit to the exit could be built")]
    Unreachable,
    /// The exit answered that it has no capacity left.
    #[error("the exit is overloaded")]
    Overloaded,
    /// No circuit was ready before the request's deadline.
    #[error("the deadline passed")]
    Deadline,
}

impl LeaseFault {
    /// Returns the fault of a build that ended. `reached` is the number of relays that answered, and `hops` is the
    /// number of relays that the circuit was to have. `full` is true if the last answer was that a relay has no capacity
    /// left. Only the relay before the exit can show anything about the exit.
    pub fn of_build(reached: usize, hops: usize, full: bool) -> Self {
        match reached {
            0 => Self::FirstHop,
            reached if reached + 1 < hops => Self::Middle,
            _ if full => Self::Overloaded,
            _ => Self::Unreachable,
        }
    }

    /// Returns true if the cause is the engine or a relay before the exit, so another engine may succeed.
    pub fn is_before_the_exit(self) -> bool {
        match self {
            Self::NoPath | Self::Lost | Self::NotReady | Self::FirstHop | Self::Middle => true,
            Self::UnknownExit | Self::Policy | Self::Busy | Self::Unreachable | Self::Overloaded | Self::Deadline => {
                false
            }
        }
    }
}

/// Why a stream ended before it was open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StreamFault {
    /// The circuit was closed, perhaps before the stream was attached. So another circuit may work.
    #[error("the circuit is gone")]
    CircuitGone,
    /// The engine stopped.
    #[error("the engine was lost")]
    EngineLost,
    /// tor refused to attach the stream to the circuit.
    #[error("tor would not attach the stream")]
    NotAttached,
    /// The guard of the circuit does not answer. This says nothing about the exit.
    #[error("the guard does not answer")]
    FirstHop,
    /// The guard answers, and the second relay of the circuit does not. This says nothing about the exit.
    #[error("a relay before the exit does not answer")]
    Middle,
    /// The exit did not answer the request to connect.
    #[error("the exit does not answer")]
    Unanswered,
    /// tor or the exit sent this reason.
    #[error("the stream ended: {0:?}")]
    Ended(EndReason),
}

impl StreamFault {
    /// Returns the fault for the end of a stream, from the exit's reason if the exit sent one, otherwise from tor's
    /// reason.
    pub fn of(reason: Option<EndReason>, remote: Option<EndReason>) -> Self {
        match (reason, remote) {
            (_, Some(remote)) => Self::Ended(remote),
            (Some(EndReason::Destroy), None) => Self::CircuitGone,
            (Some(EndReason::Timeout), None) => Self::Unanswered,
            (Some(reason), None) => Self::Ended(reason),
            (None, None) => Self::Ended(EndReason::Other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_blames_the_exit_only_if_the_relay_before_it_answered() {
        use LeaseFault::{FirstHop, Middle, Overloaded, Unreachable};
        for (hops, reached, full, want) in [
            (3, 0, false, FirstHop),
            (3, 0, true, FirstHop), // a guard that has no capacity left
            (3, 1, false, Middle),
            (3, 1, true, Middle),
            (3, 2, false, Unreachable),
            (3, 2, true, Overloaded),
            (3, 3, false, Unreachable), // a complete circuit that was closed before its first use
            (2, 0, true, FirstHop),
            (2, 1, false, Unreachable),
            (2, 1, true, Overloaded),
        ] {
            assert_eq!(LeaseFault::of_build(reached, hops, full), want, "{reached} of {hops}");
            assert_eq!(want.is_before_the_exit(), matches!(want, FirstHop | Middle));
        }
    }

    #[test]
    fn the_exits_word_counts_more_than_tors() {
        for (reason, remote, want) in [
            (Some(EndReason::End), Some(EndReason::Timeout), StreamFault::Ended(EndReason::Timeout)),
            (Some(EndReason::Timeout), None, StreamFault::Unanswered),
            (Some(EndReason::Destroy), None, StreamFault::CircuitGone),
            (None, None, StreamFault::Ended(EndReason::Other)),
        ] {
            assert_eq!(StreamFault::of(reason, remote), want);
        }
    }
}
