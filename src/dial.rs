//! Opens streams to exits and targets. Except for connections to tor and to guards (room `tor`), no other room (folder
//! in `src`) opens sockets to the outside.
//!
//! For every kind of exit the caller of a dial gets one of two results: a [`Stream`] that is already connected to the
//! target, or a [`DialError`]. A stream is a bare socket, because the code that relays bytes works on bare sockets.
//!
//! A [`DialError`] tells the caller whose fault the failure was. After a fault of the exit, the caller tries another
//! exit. A fault of the target would be the same through every exit, so the client gets the error. A fault of the
//! engine (a tor process) means that this gateway itself failed.
//!
//! Next: `dial/tor.rs` (a Tor circuit that the gateway chose), `dial/public.rs` (a public proxy), `dial/upstream.rs`
//! (a proxy of one's own), `dial/direct.rs` (no exit).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

pub mod direct;
pub mod public;
mod socks_address;
pub mod tor;
pub mod upstream;

/// A connection over which the caller can exchange bytes with the target.
#[derive(Debug)]
pub enum Stream {
    /// A TCP connection to the target itself or to a public proxy.
    Tcp(TcpStream),
    /// A connection to the SOCKS port of an engine (a tor process), or to the task that encrypts the connection to a
    /// proxy.
    Unix(UnixStream),
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// Why no stream was opened. The variants say whose fault the failure was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DialError {
    /// A fault of this gateway: an engine (tor process) failed, or something else between the gateway and the exit.
    #[error("the engine failed: {0}")]
    Engine(#[from] EngineFault),
    /// A fault of the exit: another exit may succeed.
    #[error("the exit failed: {0}")]
    Exit(#[from] ExitFault),
    /// A fault of the target: every exit would fail in the same way.
    #[error("the target failed: {0}")]
    Target(#[from] TargetFault),
    /// The caller's deadline passed before the fault was known.
    #[error("the deadline passed")]
    Deadline,
}

/// A failure between the gateway and the exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum EngineFault {
    /// No engine is ready: every engine is starting, bootstrapping or waiting for its restart.
    #[error("no engine is ready")]
    NotReady,
    /// The engine stopped while the dial waited for its answer.
    #[error("the engine was lost")]
    Lost,
    /// No guard answers: the first relay of a circuit, or the connection of this machine to the internet, is down.
    #[error("no guard of the Tor network answers")]
    FirstHop,
    /// The guard answers, but no circuit could be completed over the relays after the guard. Nothing is known about the
    /// exit.
    #[error("no relay before the exit answers")]
    Middle,
    /// The queue of circuit builds is so long that this circuit could not be built in the time that a client waits.
    #[error("too many circuits are wanted at the same time")]
    Busy,
    /// The engine's answer violates the protocol.
    #[error("the engine gave an unusable answer")]
    Protocol,
    /// This machine has no file descriptor, port or memory left.
    #[error("out of a local resource")]
    Exhausted,
    /// The provider of an exit of one's own refuses the account: the login is wrong, or nothing is left to spend.
    #[error("the provider refuses the account")]
    Account,
}

/// A failure at the exit, or on the way to the exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ExitFault {
    /// The exit is not listed in the directory of Tor relays, or not any more.
    #[error("the exit is not known")]
    Unknown,
    /// No path through the Tor network to the exit could be chosen: the guard and the exit are related, or no guard is
    /// usable.
    #[error("this exit cannot be used with the present guard or settings")]
    NoPath,
    /// No circuit to the exit could be built.
    #[error("no circuit to the exit could be built")]
    Unreachable,
    /// The circuit to the exit was closed while it was in use.
    #[error("the circuit to the exit died")]
    Died,
    /// The exit policy of the exit does not allow the target.
    #[error("the exit's policy refuses the target")]
    Policy,
    /// The exit refuses because its capacity is exhausted: bandwidth, streams per circuit, or hibernation.
    #[error("the exit is overloaded")]
    Overloaded,
    /// The exit accepted the request and never answered.
    #[error("the exit does not answer")]
    Hung,
    /// A public proxy asks for a password, answers with invalid bytes or refuses this kind of target.
    #[error("the exit refused")]
    Refused,
    /// A public proxy reports that the target failed, or the connection to the proxy failed on the way. The gateway
    /// cannot find out whether the proxy is at fault. So the caller tries another exit and does not count this failure
    /// against the proxy.
    #[error("the exit says that the target failed, which cannot be verified")]
    Unclear,
}

/// A failure between the exit and the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TargetFault {
    /// No program listens at the target's port.
    #[error("connection refused")]
    Refused,
    /// The target's host name does not exist.
    #[error("the name does not resolve")]
    NoSuchName,
    /// The DNS resolver failed. The host name may exist.
    #[error("the name could not be resolved")]
    NameFailed,
    /// The exit has no network route to the target.
    #[error("the target cannot be reached")]
    Unreachable,
    /// The target did not answer in time.
    #[error("the target did not answer")]
    Timeout,
    /// The target closed the connection before any data came.
    #[error("the target closed the connection")]
    Reset,
    /// The target is an onion service without a descriptor, or its onion address is invalid.
    #[error("the onion service cannot be reached")]
    Onion,
    /// The rules of this gateway forbid the target: a private, loopback or cloud metadata address, or one of the
    /// gateway's own listeners.
    #[error("the target is not allowed")]
    Forbidden,
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // a socket has no buffer in this process, so there is nothing to flush
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
