//! Why a stream, or a circuit for it, did not come about. Closed lists: [`crate::dial`] maps every one of them.

use super::event::EndReason;

/// Why there is no circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LeaseFault {
    /// No engine is ready.
    #[error("no engine is ready")]
    NotReady,
    /// The engine went away meanwhile.
    #[error("the engine was lost")]
    Lost,
    /// The exit is not in the directory, or not usable.
    #[error("the exit is not known, or may not be used")]
    UnknownExit,
    /// The exit's policy forbids the port.
    #[error("the exit's policy refuses the port")]
    Policy,
    /// No engine has a guard from which a path to this exit may begin.
    #[error("no path to the exit")]
    NoPath,
    /// Circuits were tried, none was completed.
    #[error("no circuit to the exit could be built")]
    Unreachable,
    /// The exit, or somebody before it, is short of something.
    #[error("a relay on the way is overloaded")]
    Overloaded,
    /// Nothing came of it in time.
    #[error("the deadline passed")]
    Deadline,
}

/// Why a stream ended before it was open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StreamFault {
    /// The circuit is gone, or was before the stream was attached: another circuit may do.
    #[error("the circuit is gone")]
    CircuitGone,
    /// The engine went away.
    #[error("the engine was lost")]
    EngineLost,
    /// tor refused to attach it.
    #[error("tor would not attach the stream")]
    NotAttached,
    /// The exit never said anything.
    #[error("the exit does not answer")]
    Unanswered,
    /// tor or the exit gave this reason.
    #[error("the stream ended: {0:?}")]
    Ended(EndReason),
}

impl StreamFault {
    /// What a stream's end means: tor's own reason, and the exit's if it gave one.
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
