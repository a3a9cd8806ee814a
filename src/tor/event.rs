//! What tor tells us unasked: circuits, streams, bootstrap, directory, connections. Pure.
//!
//! Field order differs between versions of tor, fields are absent when empty, and new ones appear: so the few words
//! whose place the specification fixes are read by place, all else by its key, and what is not known is
//! [`Event::Other`], never an error. A controller that trips over a new word is down the day tor is upgraded.
//!
//! What is said of circuits and streams, their words and their reasons, is in rooms of its own; here is the event and
//! what concerns the engine as a whole.
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
    /// What a circuit carried since the last such event; only circuits that carried something have one.
    CircBw(CircBw),
    /// What the engine as a whole carried in the last second.
    Bw {
        /// Bytes received.
        read: u64,
        /// Bytes sent.
        written: u64,
    },
    /// Bootstrap went on, or is stuck.
    Bootstrap(Bootstrap),
    /// Whether the directory suffices to build circuits.
    DirInfo(bool),
    /// A new consensus was fetched. Small, unlike [`Event::NewConsensus`].
    ConsensusArrived,
    /// tor believes that the network is there, or is not.
    Liveness(bool),
    /// A new consensus, with every relay in it: megabytes, so that nobody asks for it by default.
    NewConsensus,
    /// A connection to a relay changed.
    OrConn(OrConn),
    /// tor's own opinion of a guard changed.
    Guard {
        /// Which.
        relay: Fingerprint,
        /// `UP`, `DOWN`, `NEW`, `DROPPED`, `BAD_L2`, …
        status: Box<str>,
    },
    /// Something else, by its first word.
    Other(Box<str>),
}

/// How far bootstrap is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// 0 to 100. With predicted circuits off it rests at 75 once the directory is there.
    pub percent: u8,
    /// tor's short word for the phase.
    pub tag: Box<str>,
    /// One line for people.
    pub summary: Box<str>,
    /// What is in the way, if something is.
    pub warning: Option<Box<str>>,
}

/// A connection to a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrConn {
    /// Which relay, once that is known.
    pub relay: Option<Fingerprint>,
    /// How it stands.
    pub status: OrStatus,
    /// Why it ended.
    pub reason: Option<Box<str>>,
}

/// States of a connection to a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrStatus {
    /// It is being made.
    Launched,
    /// It works.
    Connected,
    /// It could not be made.
    Failed,
    /// It was closed.
    Closed,
    /// Something else.
    Other,
}

impl Event {
    /// Reads an event out of a reply.
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

/// Reads the fields of a bootstrap status: of the event, and of `GETINFO status/bootstrap-phase`.
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

/// What people will be shown, by whoever listens at a control port.
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
