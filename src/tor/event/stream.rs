//! Parses the events of streams: status, circuit, username, reasons of the end. Pure: no I/O.
//!
//! The end of a stream may have two reasons: tor's and the exit's. [`Stream::cause`] returns the more exact one.

use std::convert::Infallible;
use std::str::FromStr;

use super::super::reply::{pairs, word};
use super::{CircuitId, StreamId};

/// An event of type STREAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    pub id: StreamId,
    pub status: StreamStatus,
    /// The circuit that carries the stream. `None` while the stream is not attached to a circuit.
    pub circuit: Option<CircuitId>,
    /// The target as `host:port`, as the client sent it.
    pub target: Box<str>,
    /// The username that the client sent to the SOCKS port. `None` if the client sent none.
    pub username: Option<Box<str>>,
    /// True if a client opened the stream. tor also opens streams for itself.
    pub from_client: bool,
    /// tor's reason why the stream ended or was detached. `None` if the event contains no reason.
    pub reason: Option<EndReason>,
    /// The exit's reason. Only present if `reason` is [`EndReason::End`].
    pub remote_reason: Option<EndReason>,
}

impl Stream {
    /// Returns the exit's reason if the exit sent one, otherwise tor's reason.
    pub fn cause(&self) -> Option<EndReason> {
        self.remote_reason.or(self.reason)
    }
}

/// The states of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamStatus {
    /// A client sent a request to connect.
    New,
    /// A client sent a request to resolve a name.
    NewResolve,
    /// tor sent the request to connect to the exit.
    SentConnect,
    /// tor sent the request to resolve a name to the exit.
    SentResolve,
    /// The stream is open.
    Succeeded,
    /// The stream ended before it was open.
    Failed,
    Closed,
    /// tor detached the stream from its circuit. The stream hangs until it is attached again or closed.
    Detached,
    /// A state that this parser does not know.
    Other,
}

/// The reason why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The exit sent no reason. Usually the exit could not connect to the target.
    Misc,
    /// The host name of the target could not be resolved.
    ResolveFailed,
    /// The target refused the connection.
    ConnectRefused,
    /// The exit's policy does not allow the target.
    ExitPolicy,
    /// The circuit of the stream was closed.
    Destroy,
    /// The stream ended normally.
    Done,
    /// The connection took too long.
    Timeout,
    /// The exit has no network route to the target.
    NoRoute,
    /// The exit is hibernating (it has used up its traffic limit).
    Hibernating,
    /// An error inside the exit. A relay that does not allow exit traffic also sends this reason.
    Internal,
    /// The exit has no capacity left.
    ResourceLimit,
    /// The target reset the connection.
    ConnReset,
    /// The Tor protocol was violated.
    TorProtocol,
    /// The exit ended the stream. The field `remote_reason` contains the exit's reason.
    End,
    /// The target is a private address, which exits refuse.
    PrivateAddr,
    /// tor found no circuit for the stream.
    CantAttach,
    /// tor cannot reach the network.
    NetUnreachable,
    /// Any other reason.
    Other,
}

impl EndReason {
    /// Returns the number of this reason for the command CLOSESTREAM.
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

/// Parses one line of a STREAM event. A line of `GETINFO stream-status` has the same format.
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

impl FromStr for StreamStatus {
    type Err = Infallible;

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
    type Err = Infallible;

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
