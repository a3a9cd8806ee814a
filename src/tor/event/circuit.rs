//! Parses the events of circuits: status, path, reason of the end, traffic. Pure: no I/O.
//!
//! The path of an event contains only the relays reached so far, because its length shows which hop failed.

use std::convert::Infallible;
use std::str::FromStr;

use super::super::reply::{pairs, word};
use super::{CircuitId, long_name};
use crate::exit::Fingerprint;

/// An event of type CIRC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circ {
    pub id: CircuitId,
    pub status: CircStatus,
    /// The relays that the circuit reaches so far, the guard first. If the circuit failed, the length of this list
    /// shows which hop failed.
    pub path: Vec<Fingerprint>,
    /// True if a controller built the circuit (`PURPOSE=CONTROLLER`).
    pub ours: bool,
    /// tor's reason why the circuit ended. `None` if the event contains no reason.
    pub reason: Option<CircReason>,
    /// The reason from the relay that ended the circuit. `None` if no relay sent a reason.
    pub remote_reason: Option<CircReason>,
}

impl Circ {
    /// Returns the number of relays that had answered when this circuit ended. The number is 0 if the connection
    /// between tor and the guard closed, because then nothing is known about the relays after the guard.
    pub fn reached(&self) -> usize {
        if self.reason == Some(CircReason::ConnectionClosed) { 0 } else { self.path.len() }
    }

    /// Returns true if at least the first relay of the circuit answered, even if it only refused.
    pub fn is_answered(&self) -> bool {
        !self.path.is_empty() || self.reason == Some(CircReason::Destroyed) || self.is_refused()
    }

    /// Returns true if a relay ended the circuit because it has no capacity left.
    pub fn is_refused(&self) -> bool {
        let full = |reason| matches!(reason, Some(CircReason::ResourceLimit | CircReason::Hibernating));
        full(self.reason) || full(self.remote_reason)
    }
}

/// The states of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircStatus {
    /// The circuit has an id and is being built.
    Launched,
    /// The circuit is complete and can carry streams.
    Built,
    /// The circuit is complete, but tor holds it back until its guard is known to work.
    GuardWait,
    /// The circuit was extended by one relay.
    Extended,
    /// The circuit ended before it was complete.
    Failed,
    /// The circuit was closed.
    Closed,
    /// A state that this parser does not know.
    Other,
}

/// The reason why a circuit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CircReason {
    /// We closed the circuit.
    Requested,
    /// The circuit was not complete in time.
    Timeout,
    /// A relay could not connect to the next relay.
    ConnectFailed,
    /// The connection that carries the circuit was closed.
    ConnectionClosed,
    /// A relay closed the circuit without a reason.
    Destroyed,
    /// A relay has no memory, sockets or circuits left, or the relay's protection against floods refuses us.
    ResourceLimit,
    /// A relay is hibernating (it has used up its traffic limit).
    Hibernating,
    /// The circuit was too old.
    Finished,
    /// Any other reason.
    Other,
}

/// An event about the traffic of one circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircBw {
    pub id: CircuitId,
    /// The number of bytes received.
    pub read: u64,
    /// The number of bytes sent.
    pub written: u64,
    /// The congestion window of the circuit in cells. `None` if tor does not report it.
    pub window: Option<u64>,
}

/// Parses a CIRC event. A line of `GETINFO circuit-status` has the same format.
pub fn circ(text: &str) -> Option<Circ> {
    let (id, rest) = word(text);
    let (status, rest) = word(rest);
    let (first, _) = word(rest);
    let mut circ = Circ {
        id: CircuitId(id.parse().ok()?),
        status: status.parse().ok()?,
        path: first.split(',').map_while(long_name).collect(),
        ours: false,
        reason: None,
        remote_reason: None,
    };
    for (key, value) in pairs(rest) {
        match key {
            "PURPOSE" => circ.ours = value == "CONTROLLER",
            "REASON" => circ.reason = value.parse().ok(),
            "REMOTE_REASON" => circ.remote_reason = value.parse().ok(),
            _ => {}
        }
    }
    Some(circ)
}

/// Parses a CIRC_BW event (the traffic of one circuit).
pub(super) fn carried(text: &str) -> Option<CircBw> {
    let (mut id, mut read, mut written, mut window) = (None, None, None, None);
    for (key, value) in pairs(text) {
        match key {
            "ID" => id = value.parse().ok().map(CircuitId),
            "READ" => read = value.parse().ok(),
            "WRITTEN" => written = value.parse().ok(),
            "CWND" => window = value.parse().ok(),
            _ => {}
        }
    }
    Some(CircBw { id: id?, read: read?, written: written?, window })
}

impl FromStr for CircStatus {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "LAUNCHED" => Self::Launched,
            "BUILT" => Self::Built,
            "GUARD_WAIT" => Self::GuardWait,
            "EXTENDED" => Self::Extended,
            "FAILED" => Self::Failed,
            "CLOSED" => Self::Closed,
            _ => Self::Other,
        })
    }
}

impl FromStr for CircReason {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "REQUESTED" => Self::Requested,
            "TIMEOUT" => Self::Timeout,
            "CONNECTFAILED" => Self::ConnectFailed,
            "CHANNEL_CLOSED" | "OR_CONN_CLOSED" => Self::ConnectionClosed,
            "DESTROYED" => Self::Destroyed,
            "RESOURCELIMIT" => Self::ResourceLimit,
            "HIBERNATING" => Self::Hibernating,
            "FINISHED" => Self::Finished,
            _ => Self::Other,
        })
    }
}
