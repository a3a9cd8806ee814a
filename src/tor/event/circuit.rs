//! Events of circuits: status, path, reason of the end, traffic. Pure.
//!
//! The path is kept as far as it was built, because only its length shows which hop failed.

use std::convert::Infallible;
use std::str::FromStr;

use super::super::reply::{pairs, word};
use super::{CircuitId, long_name};
use crate::exit::Fingerprint;

/// A CIRC event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circ {
    pub id: CircuitId,
    pub status: CircStatus,
    /// The relays that it reaches so far. If it failed, the length shows which hop failed.
    pub path: Vec<Fingerprint>,
    /// True for circuits that a controller built (`PURPOSE=CONTROLLER`).
    pub ours: bool,
    /// tor's reason for its end.
    pub reason: Option<CircReason>,
    /// The reason that the relay gave which ended it.
    pub remote_reason: Option<CircReason>,
}

/// States of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircStatus {
    /// It has an id, and is being built.
    Launched,
    /// Ready for streams.
    Built,
    /// Complete, held back by tor until its guard is known to work.
    GuardWait,
    /// It was extended by one relay.
    Extended,
    /// It ended before it was built.
    Failed,
    /// It ended.
    Closed,
    /// A state that we do not know.
    Other,
}

/// Why a circuit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CircReason {
    /// We closed it.
    Requested,
    /// It was not built in time.
    Timeout,
    /// A relay could not connect to the next.
    ConnectFailed,
    /// The connection under it was closed.
    ConnectionClosed,
    /// A relay closed it without a reason.
    Destroyed,
    /// A relay has no memory, sockets or circuits left, or its flood defence refuses us.
    ResourceLimit,
    /// A relay is hibernating.
    Hibernating,
    /// It expired.
    Finished,
    /// Something else.
    Other,
}

/// Traffic of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircBw {
    pub id: CircuitId,
    /// Bytes received.
    pub read: u64,
    /// Bytes sent.
    pub written: u64,
    /// The congestion window in cells, if tor reports it.
    pub window: Option<u64>,
}

/// Parses a CIRC event, which has the format of a line of `GETINFO circuit-status`.
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

/// Parses a CIRC_BW event.
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
