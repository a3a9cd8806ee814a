//! Parses tor's asynchronous events: circuits, streams, bootstrap, directory, connections. Pure: no I/O.
//!
//! The format of events differs between versions of tor: the order of fields changes, empty fields are left out, and
//! new fields appear. So only the few words whose position the specification fixes are read by position, and all other
//! fields are read by their key.
//!
//! An unknown event becomes [`Event::Other`] and never an error. Otherwise the gateway would fail on the day when a new
//! version of tor adds an event.
//!
//! `event/circuit.rs` and `event/stream.rs` parse the events of circuits and streams.
//!
//! Next: [`super::control`] delivers events in order; [`super::engine`] handles them.

mod circuit;
mod stream;

use std::fmt;

pub use circuit::{Circ, CircBw, CircReason, CircStatus, circ};
pub use stream::{EndReason, Stream, StreamStatus, stream};

use super::reply::{Reply, pairs, word};
use crate::exit::Fingerprint;
use crate::net::Printable;

/// The id of a circuit, which tor chose. It is unique within one run of one tor process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CircuitId(pub u32);

/// The id of a stream, which tor chose. It is unique within one run of one tor process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

impl fmt::Display for CircuitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One event that tor sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The status of a circuit changed.
    Circ(Circ),
    /// The status of a stream changed.
    Stream(Stream),
    /// The bytes of one circuit since the last such event for this circuit. tor sends none for circuits without
    /// traffic.
    CircBw(CircBw),
    /// The bytes of all circuits together in the last second.
    Bw { read: u64, written: u64 },
    /// The bootstrap made progress, or has a problem.
    Bootstrap(Bootstrap),
    /// The directory of relays changed its state. The value is true if the directory is complete enough to build
    /// circuits.
    DirInfo(bool),
    /// tor downloaded a new consensus. This event is small, unlike [`Event::NewConsensus`].
    ConsensusArrived,
    /// The value is true if tor believes that its network connection works.
    Liveness(bool),
    /// A new consensus with all its relays. Such an event has megabytes, so we do not subscribe to it.
    NewConsensus,
    /// The connection to a relay changed.
    OrConn(OrConn),
    /// tor changed its status of a guard.
    Guard {
        relay: Fingerprint,
        /// tor's word for the status: `UP`, `DOWN`, `NEW`, `DROPPED`, `BAD_L2`, …
        status: Box<str>,
    },
    /// An event that this parser does not know. The value is the first word of the event.
    Other(Box<str>),
}

/// The progress of tor's bootstrap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// The progress in percent. With predicted circuits off, it stays at 75 once the directory is complete.
    pub percent: u8,
    /// tor's short name of the current phase.
    pub tag: Box<str>,
    /// tor's description of the current phase, for the operator.
    pub summary: Box<str>,
    /// tor's description of the current problem, if there is one.
    pub warning: Option<Box<str>>,
}

/// An event about the connection to a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrConn {
    /// The fingerprint of the relay at the other end of the connection. `None` while it is not known.
    pub relay: Option<Fingerprint>,
    pub status: OrStatus,
    /// The reason why the connection ended. `None` if the event contains no reason.
    pub reason: Option<Box<str>>,
}

impl OrConn {
    /// Returns true if a connection failed because something refused it, which shows that the network works. A time-out
    /// or a missing route shows nothing. The reason `DONE` shows nothing either, because tor also reports it for a
    /// connection that tor itself closed.
    pub fn was_answered(&self) -> bool {
        matches!(self.reason.as_deref(), Some("CONNECTREFUSED" | "CONNECTRESET" | "IDENTITY"))
    }
}

/// The states of a connection to a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrStatus {
    Launched,
    Connected,
    Failed,
    Closed,
    /// A state that this parser does not know.
    Other,
}

impl Event {
    /// Parses an event from a reply of tor.
    pub fn read(reply: &Reply) -> Self {
        let (kind, rest) = word(&reply.lines()[0].text);
        let known = match kind {
            "CIRC" => circ(rest).map(Self::Circ),
            "STREAM" => stream(rest).map(Self::Stream),
            "CIRC_BW" => circuit::carried(rest).map(Self::CircBw),
            "BW" => bw(rest),
            "STATUS_CLIENT" => status_client(rest),
            "NETWORK_LIVENESS" => liveness(rest),
            "NEWCONSENSUS" => Some(Self::NewConsensus),
            "ORCONN" => Some(Self::OrConn(or_conn(rest))),
            "GUARD" => guard(rest),
            _ => None,
        };
        known.unwrap_or_else(|| Self::Other(kind.into()))
    }
}

/// Returns the fingerprint of a relay written as `$FINGERPRINT~nickname`, `$FINGERPRINT=nickname` or `$FINGERPRINT`.
pub fn long_name(text: &str) -> Option<Fingerprint> {
    text.split(['~', '=']).next()?.parse().ok()
}

fn bw(text: &str) -> Option<Event> {
    let (read, rest) = word(text);
    let (written, _) = word(rest);
    Some(Event::Bw { read: read.parse().ok()?, written: written.parse().ok()? })
}

fn status_client(text: &str) -> Option<Event> {
    let (_severity, rest) = word(text);
    let (action, rest) = word(rest);
    match action {
        "BOOTSTRAP" => bootstrap(rest).map(Event::Bootstrap),
        "ENOUGH_DIR_INFO" => Some(Event::DirInfo(true)),
        "NOT_ENOUGH_DIR_INFO" => Some(Event::DirInfo(false)),
        "CONSENSUS_ARRIVED" => Some(Event::ConsensusArrived),
        _ => None,
    }
}

/// Parses a bootstrap status. The event and `GETINFO status/bootstrap-phase` use the same format.
pub fn bootstrap(text: &str) -> Option<Bootstrap> {
    let (mut percent, mut tag, mut summary, mut warning) = (None, Box::default(), Box::default(), None);
    for (key, value) in pairs(text) {
        match key {
            "PROGRESS" => percent = value.parse().ok(),
            "TAG" => tag = value.into(),
            "SUMMARY" => summary = shown(&value),
            "WARNING" => warning = Some(shown(&value)),
            _ => {}
        }
    }
    Some(Bootstrap { percent: percent?, tag, summary, warning })
}

/// Makes a text from tor safe to print, because a fake tor could send control characters.
fn shown(text: &str) -> Box<str> {
    Printable(text).to_string().into()
}

fn liveness(text: &str) -> Option<Event> {
    match word(text).0 {
        "UP" => Some(Event::Liveness(true)),
        "DOWN" => Some(Event::Liveness(false)),
        _ => None,
    }
}

fn or_conn(text: &str) -> OrConn {
    let (relay, rest) = word(text);
    let (status, rest) = word(rest);
    let status = match status {
        "NEW" | "LAUNCHED" => OrStatus::Launched,
        "CONNECTED" => OrStatus::Connected,
        "FAILED" => OrStatus::Failed,
        "CLOSED" => OrStatus::Closed,
        _ => OrStatus::Other,
    };
    let reason = pairs(rest).find(|(key, _)| *key == "REASON").map(|(_, value)| value.into());
    OrConn { relay: long_name(relay), status, reason }
}

fn guard(text: &str) -> Option<Event> {
    let (_kind, rest) = word(text);
    let (relay, rest) = word(rest);
    Some(Event::Guard { relay: long_name(relay)?, status: word(rest).0.into() })
}

#[cfg(test)]
mod tests;
