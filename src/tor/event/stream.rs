//! Events of streams: status, circuit, username, reasons of the end. Pure.
//!
//! An end has two reasons, tor's own and the exit's. [`Stream::cause`] gives the one that says more.

use std::convert::Infallible;
use std::str::FromStr;

use super::super::reply::{pairs, word};
use super::{CircuitId, StreamId};

/// A STREAM event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    pub id: StreamId,
    pub status: StreamStatus,
    /// The circuit that it is on. `None` while it is unattached.
    pub circuit: Option<CircuitId>,
    /// `host:port` as the client asked for it.
    pub target: Box<str>,
    /// The username that was sent to the SOCKS port.
    pub username: Option<Box<str>>,
    /// True if a client asked for it. tor opens streams for itself too.
    pub from_client: bool,
    /// Why it ended or was detached.
    pub reason: Option<EndReason>,
    /// The exit's reason, when `reason` is [`EndReason::End`].
    pub remote_reason: Option<EndReason>,
}

impl Stream {
    /// The exit's reason if it gave one, otherwise tor's.
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
    Closed,
    /// tor detached it from its circuit. It must be attached again or closed, or it hangs.
    Detached,
    /// Something else.
    Other,
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// No reason; most often the exit could not connect.
    Misc,
    /// The name did not resolve.
    ResolveFailed,
    /// The target refused.
    ConnectRefused,
    /// The exit's policy forbids the target.
    ExitPolicy,
    /// The circuit is gone.
    Destroy,
    /// It ended normally.
    Done,
    /// It took too long.
    Timeout,
    /// The exit has no route to the target.
    NoRoute,
    /// The exit is hibernating.
    Hibernating,
    /// An error inside the exit. A relay that does not allow exits sends this too.
    Internal,
    /// The exit has no capacity left.
    ResourceLimit,
    /// The target reset the connection.
    ConnReset,
    /// A violation of Tor's protocol.
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
