//! What tor tells us unasked: circuits, streams, bootstrap, directory, connections. Pure.
//!
//! Field order differs between versions of tor, fields are absent when empty, and new ones appear: so the few words
//! whose place the specification fixes are read by place, all else by its key, and what is not known is
//! [`Event::Other`], never an error. A controller that trips over a new word is down the day tor is upgraded.
//!
//! Next: [`super::control`] delivers events in order; the engine acts on them.

use std::fmt;
use std::str::FromStr;

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

/// A circuit's state, as an event tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circ {
    /// Which.
    pub id: CircuitId,
    /// How it stands.
    pub status: CircStatus,
    /// The relays that it reaches so far: when it fails, the length says which hop failed.
    pub path: Vec<Fingerprint>,
    /// True of circuits that a controller built (`PURPOSE=CONTROLLER`).
    pub ours: bool,
    /// Why it ended, in tor's word.
    pub reason: Option<CircReason>,
    /// Why the relay at its end ended it.
    pub remote_reason: Option<CircReason>,
}

/// States of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircStatus {
    /// Its id was given out.
    Launched,
    /// Ready for streams.
    Built,
    /// Complete, held back by tor until its guard is known to work.
    GuardWait,
    /// One hop longer.
    Extended,
    /// It ended before it was built.
    Failed,
    /// It ended.
    Closed,
    /// Something else.
    Other,
}

/// Why a circuit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CircReason {
    /// We asked for it.
    Requested,
    /// Not built in time.
    Timeout,
    /// A relay could not connect to the next.
    ConnectFailed,
    /// The connection that it ran over is gone.
    ConnectionClosed,
    /// A relay took it down without saying why.
    Destroyed,
    /// A relay is out of memory, sockets or circuits; or its defences think that we ask too much.
    ResourceLimit,
    /// A relay is hibernating.
    Hibernating,
    /// It expired.
    Finished,
    /// Something else.
    Other,
}

/// A stream's state, as an event tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Which.
    pub id: StreamId,
    /// How it stands.
    pub status: StreamStatus,
    /// The circuit it is on; none while it is unattached.
    pub circuit: Option<CircuitId>,
    /// `host:port` as the client asked for it.
    pub target: Box<str>,
    /// The user name given on the SOCKS port.
    pub username: Option<Box<str>>,
    /// True if some client asked for it; tor opens streams for itself as well.
    pub from_client: bool,
    /// Why it ended or was detached.
    pub reason: Option<EndReason>,
    /// The exit's reason, when `reason` is [`EndReason::End`].
    pub remote_reason: Option<EndReason>,
}

impl Stream {
    /// The reason that says most: the exit's if it gave one.
    pub fn cause(&self) -> Option<EndReason> {
        self.remote_reason.or(self.reason)
    }
}

/// States of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamStatus {
    /// A request to connect.
    New,
    /// A request to resolve.
    NewResolve,
    /// The exit was asked to connect.
    SentConnect,
    /// The exit was asked to resolve.
    SentResolve,
    /// It is open.
    Succeeded,
    /// It did not become open.
    Failed,
    /// It is gone.
    Closed,
    /// tor handed it back; it can be attached again, and hangs if nobody does anything.
    Detached,
    /// Something else.
    Other,
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// No more is said; most often the exit could not connect.
    Misc,
    /// The name did not resolve.
    ResolveFailed,
    /// The target refused.
    ConnectRefused,
    /// The exit's policy forbids the target.
    ExitPolicy,
    /// The circuit is gone.
    Destroy,
    /// It ended as it should.
    Done,
    /// It took too long.
    Timeout,
    /// The exit has no route to the target.
    NoRoute,
    /// The exit is hibernating.
    Hibernating,
    /// Something went wrong inside the exit; also what a relay says that may not exit.
    Internal,
    /// The exit is out of something.
    ResourceLimit,
    /// The target reset the connection.
    ConnReset,
    /// Somebody violated Tor's protocol.
    TorProtocol,
    /// The exit ended it: see the remote reason.
    End,
    /// A private address, which exits refuse.
    PrivateAddr,
    /// tor found no circuit for it.
    CantAttach,
    /// tor cannot reach the network.
    NetUnreachable,
    /// Something else.
    Other,
}

impl EndReason {
    /// The number that CLOSESTREAM takes for it.
    pub fn code(self) -> u8 {
        match self {
            Self::ResolveFailed => 2,
            Self::ConnectRefused => 3,
            Self::ExitPolicy => 4,
            Self::Destroy => 5,
            Self::Done => 6,
            Self::Timeout => 7,
            Self::NoRoute => 8,
            Self::Hibernating => 9,
            Self::Internal => 10,
            Self::ResourceLimit => 11,
            Self::ConnReset => 12,
            Self::TorProtocol => 13,
            Self::Misc | Self::End | Self::PrivateAddr | Self::CantAttach | Self::NetUnreachable | Self::Other => 1,
        }
    }
}

/// What a circuit carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircBw {
    /// Which.
    pub id: CircuitId,
    /// Bytes received.
    pub read: u64,
    /// Bytes sent.
    pub written: u64,
    /// Cells that may be in flight (congestion control), if it says so.
    pub window: Option<u64>,
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
            "CIRC_BW" => circ_bw(rest).map(Self::CircBw),
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

/// Reads one line of a CIRC event, which is also one line of `GETINFO circuit-status`.
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

/// Reads one line of a STREAM event, which is also one line of `GETINFO stream-status`.
pub fn stream(text: &str) -> Option<Stream> {
    let (id, rest) = word(text);
    let (status, rest) = word(rest);
    let (circuit, rest) = word(rest);
    let (target, rest) = word(rest);
    let mut stream = Stream {
        id: StreamId(id.parse().ok()?),
        status: status.parse().ok()?,
        circuit: Some(circuit.parse().ok()?).filter(|&id| id != 0).map(CircuitId),
        target: target.into(),
        username: None,
        from_client: true,
        reason: None,
        remote_reason: None,
    };
    for (key, value) in pairs(rest) {
        match key {
            "SOCKS_USERNAME" => stream.username = Some(value.into()),
            "PURPOSE" => stream.from_client = matches!(&*value, "USER" | "DNS_REQUEST"),
            "REASON" => stream.reason = value.parse().ok(),
            "REMOTE_REASON" => stream.remote_reason = value.parse().ok(),
            _ => {}
        }
    }
    Some(stream)
}

fn circ_bw(text: &str) -> Option<CircBw> {
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

impl FromStr for CircStatus {
    type Err = std::convert::Infallible;

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
    type Err = std::convert::Infallible;

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

impl FromStr for StreamStatus {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "NEW" => Self::New,
            "NEWRESOLVE" => Self::NewResolve,
            "SENTCONNECT" => Self::SentConnect,
            "SENTRESOLVE" => Self::SentResolve,
            "SUCCEEDED" => Self::Succeeded,
            "FAILED" => Self::Failed,
            "CLOSED" => Self::Closed,
            "DETACHED" => Self::Detached,
            _ => Self::Other,
        })
    }
}

impl FromStr for EndReason {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "MISC" => Self::Misc,
            "RESOLVEFAILED" => Self::ResolveFailed,
            "CONNECTREFUSED" => Self::ConnectRefused,
            "EXITPOLICY" => Self::ExitPolicy,
            "DESTROY" => Self::Destroy,
            "DONE" => Self::Done,
            "TIMEOUT" => Self::Timeout,
            "NOROUTE" => Self::NoRoute,
            "HIBERNATING" => Self::Hibernating,
            "INTERNAL" => Self::Internal,
            "RESOURCELIMIT" => Self::ResourceLimit,
            "CONNRESET" => Self::ConnReset,
            "TORPROTOCOL" => Self::TorProtocol,
            "END" => Self::End,
            "PRIVATE_ADDR" => Self::PrivateAddr,
            "CANT_ATTACH" => Self::CantAttach,
            "NET_UNREACHABLE" => Self::NetUnreachable,
            _ => Self::Other,
        })
    }
}

#[cfg(test)]
mod tests;
