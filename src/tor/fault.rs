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
    /// tor or the exit gave this reason.
    #[error("the stream ended: {0:?}")]
    Ended(EndReason),
}

impl StreamFault {
    /// What a stream's end means.
    pub fn of(reason: Option<EndReason>) -> Self {
        match reason {
            Some(EndReason::Destroy) => Self::CircuitGone,
            Some(reason) => Self::Ended(reason),
            None => Self::Ended(EndReason::Other),
        }
    }
}
