//! Why a circuit or a stream failed. Closed lists: [`crate::dial`] maps each value to whose fault it was.

use super::event::EndReason;

/// Why there is no circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LeaseFault {
    /// No engine is ready.
    #[error("no engine is ready")]
    NotReady,
    /// The engine stopped meanwhile.
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
    /// Builds were tried and none was completed.
    #[error("no circuit to the exit could be built")]
    Unreachable,
    /// The exit, or a relay before it, has no capacity left.
    #[error("a relay on the way is overloaded")]
    Overloaded,
    /// No circuit was ready in time.
    #[error("the deadline passed")]
    Deadline,
}

/// Why a stream ended before it was open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StreamFault {
    /// The circuit was closed, perhaps before the stream was attached: another circuit may work.
    #[error("the circuit is gone")]
    CircuitGone,
    /// The engine stopped.
    #[error("the engine was lost")]
    EngineLost,
    /// tor refused to attach it.
    #[error("tor would not attach the stream")]
    NotAttached,
    /// The exit never answered.
    #[error("the exit does not answer")]
    Unanswered,
    /// tor or the exit gave this reason.
    #[error("the stream ended: {0:?}")]
    Ended(EndReason),
}

impl StreamFault {
    /// Maps the end of a stream: the exit's reason if it gave one, otherwise tor's own.
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
