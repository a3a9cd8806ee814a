//! Parses tor's asynchronous events: circuits, streams, bootstrap, directory, connections. Pure.
//!
//! Between versions of tor the order of fields differs, empty fields are absent, and new ones appear. So the few words
//! whose position the specification fixes are read by position, and all others by their key. An unknown event is
//! [`Event::Other`], never an error: a controller that fails on a new word would fail on the day of tor's upgrade.
//!
//! `event/circuit.rs` and `event/stream.rs` have the details of circuits and streams.
//!
//! Next: [`super::control`] delivers events in order; the engine acts on them.

mod circuit;
mod stream;

use std::fmt;

pub use circuit::{Circ, CircBw, CircReason, CircStatus, circ};
pub use stream::{EndReason, Stream, StreamStatus, stream};

use super::reply::{Reply, pairs, word};
use crate::exit::Fingerprint;
use crate::net::Printable;

/// tor's name for a circuit, unique in one run of one tor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CircuitId(pub u32);

/// tor's name for a stream, unique in one run of one tor.
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

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A circuit changed.
    Circ(Circ),
    /// A stream changed.
    Stream(Stream),
    /// Bytes of a circuit since its last event of this kind. Circuits without traffic have none.
    CircBw(CircBw),
    /// Bytes of all circuits together in the last second.
    Bw { read: u64, written: u64 },
    /// The bootstrap made progress, or has a problem.
    Bootstrap(Bootstrap),
    /// Whether the directory is complete enough to build circuits.
    DirInfo(bool),
    /// A new consensus was fetched. This event is small, unlike [`Event::NewConsensus`].
    ConsensusArrived,
    /// Whether tor believes that the network works.
    Liveness(bool),
    /// A new consensus with all its relays. It has megabytes, so we do not subscribe to it.
    NewConsensus,
    /// A connection to a relay changed.
    OrConn(OrConn),
    /// tor changed the status of a guard.
    Guard {
        relay: Fingerprint,
        /// `UP`, `DOWN`, `NEW`, `DROPPED`, `BAD_L2`, …
        status: Box<str>,
    },
    /// An event that we do not parse, by its first word.
    Other(Box<str>),
}

/// The progress of the bootstrap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// 0 to 100. With predicted circuits off it stays at 75 once the directory is complete.
    pub percent: u8,
    /// tor's short word for the phase.
    pub tag: Box<str>,
    /// A description for the operator.
    pub summary: Box<str>,
    /// The current problem, if there is one.
    pub warning: Option<Box<str>>,
}

/// A connection to a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrConn {
    /// The relay, once it is known.
    pub relay: Option<Fingerprint>,
    pub status: OrStatus,
    /// Why the connection ended.
    pub reason: Option<Box<str>>,
}

/// States of a connection to a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrStatus {
    Launched,
    Connected,
    Failed,
    Closed,
    /// A state that we do not know.
    Other,
}

impl Event {
    /// Parses an event.
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

/// The relay of `$FINGERPRINT~nickname`, `$FINGERPRINT=nickname` or `$FINGERPRINT`.
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

/// Parses a bootstrap status, as it stands in the event and in `GETINFO status/bootstrap-phase`.
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

/// Makes a text of tor safe to print: a fake tor could send control characters.
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
