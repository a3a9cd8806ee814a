//! Opens streams to exits and targets. No other room opens sockets to the outside.
//!
//! For every kind of exit a caller gets one of two things: a [`Stream`] that is already connected to the target, or a
//! [`DialError`] that says whose fault the failure was. The caller acts on that. After a fault of the exit, it tries
//! another exit. A fault of the target would be the same through every exit, so the client gets the error. A fault of
//! the engine is our own. A stream is a bare socket, because the relay splices bare sockets.
//!
//! Next: `dial/tor.rs` (a circuit that we chose), `dial/public.rs` (a public proxy), `dial/direct.rs` (no exit).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

mod address;
pub mod direct;
pub mod public;
pub mod tor;

/// A stream that ends at the target.
#[derive(Debug)]
pub enum Stream {
    /// A connection to the target itself or to a public proxy.
    Tcp(TcpStream),
    /// A connection to an engine's SOCKS port.
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

/// Why no stream was opened, split by whose fault it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DialError {
    /// Our fault: the engine, or something else between the gateway and the exit.
    #[error("the engine failed: {0}")]
    Engine(#[from] EngineFault),
    /// The exit's fault: another exit may succeed.
    #[error("the exit failed: {0}")]
    Exit(#[from] ExitFault),
    /// The target's fault: every exit would fail in the same way.
    #[error("the target failed: {0}")]
    Target(#[from] TargetFault),
    /// The caller's deadline passed before the fault was known.
    #[error("the deadline passed")]
    Deadline,
}

/// What went wrong between the gateway and the exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum EngineFault {
    /// No engine is ready: starting, bootstrapping or between restarts.
    #[error("no engine is ready")]
    NotReady,
    /// The engine stopped while we waited for it.
    #[error("the engine was lost")]
    Lost,
    /// The engine's answer breaks the protocol.
    #[error("the engine gave an unusable answer")]
    Protocol,
    /// No file descriptor, port or memory left here.
    #[error("out of a local resource")]
    Exhausted,
}

/// What went wrong at the exit or on the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ExitFault {
    /// It is not in the directory, or not any more.
    #[error("the exit is not known")]
    Unknown,
    /// No path to it could be chosen (family, subnets, no guard).
    #[error("no path to the exit")]
    NoPath,
    /// A circuit to it could not be built.
    #[error("no circuit to the exit could be built")]
    Unreachable,
    /// The circuit to it was closed while it was in use.
    #[error("the circuit to the exit died")]
    Died,
    /// Its exit policy does not allow the target.
    #[error("the exit's policy refuses the target")]
    Policy,
    /// It refuses because it has no capacity left (bandwidth, streams per circuit, hibernation).
    #[error("the exit is overloaded")]
    Overloaded,
    /// It accepted the request and never answered.
    #[error("the exit does not answer")]
    Hung,
    /// A public proxy asks for a password, answers with garbage or refuses this kind of target.
    #[error("the exit refused")]
    Refused,
    /// A public proxy says that the target failed, or the way to the proxy failed. Neither can be verified, so another
    /// exit is tried and this one is not blamed.
    #[error("the exit says that the target failed, which cannot be verified")]
    Unclear,
}

/// What went wrong between the exit and the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TargetFault {
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// The name does not resolve.
    #[error("the name does not resolve")]
    NoSuchName,
    /// The resolver failed. The name may exist.
    #[error("the name could not be resolved")]
    NameFailed,
    /// There is no route to it.
    #[error("the target cannot be reached")]
    Unreachable,
    /// It did not answer in time.
    #[error("the target did not answer")]
    Timeout,
    /// It closed the connection before any data came.
    #[error("the target closed the connection")]
    Reset,
    /// An onion service without a descriptor, or a bad onion address.
    #[error("the onion service cannot be reached")]
    Onion,
    /// Our own rules refuse it: a private, loopback or metadata address, or one of our listeners.
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
        Poll::Ready(Ok(())) // a socket has no buffer of its own to flush
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
