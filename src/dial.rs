//! Opens streams to exits and targets; the only room that does.
//!
//! Whatever the way out is, a caller gets the same two things back: a [`Stream`] that is already connected to the
//! target, or a [`DialError`] that says *whose* fault it was. That split decides everything after it: a fault of the
//! exit is worth another exit, a fault of the target is the same through every exit and is told to the client, a fault
//! of the engine is ours. Both sockets that a stream can be are bare ones, so that the relay may splice them.
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
    /// To the target itself or to a public proxy.
    Tcp(TcpStream),
    /// To an engine's SOCKS port.
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
    /// Ours: the machinery between us and the exit.
    #[error("the engine failed: {0}")]
    Engine(#[from] EngineFault),
    /// The exit's: another exit may do better.
    #[error("the exit failed: {0}")]
    Exit(#[from] ExitFault),
    /// The target's: every exit would see the same.
    #[error("the target failed: {0}")]
    Target(#[from] TargetFault),
    /// The caller's deadline passed before anybody could be blamed.
    #[error("the deadline passed")]
    Deadline,
}

/// What went wrong between us and the exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum EngineFault {
    /// No engine is ready: starting, bootstrapping or between restarts.
    #[error("no engine is ready")]
    NotReady,
    /// The engine went away while we waited for it.
    #[error("the engine was lost")]
    Lost,
    /// The engine said something that we cannot use.
    #[error("the engine gave an unusable answer")]
    Protocol,
    /// No file descriptor, port or memory left here.
    #[error("out of a local resource")]
    Exhausted,
}

/// What went wrong at the exit or on the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ExitFault {
    /// Not in the directory (any more).
    #[error("the exit is not known")]
    Unknown,
    /// No path to it could be chosen (family, subnets, no guard).
    #[error("no path to the exit")]
    NoPath,
    /// A circuit to it could not be built.
    #[error("no circuit to the exit could be built")]
    Unreachable,
    /// It had a circuit, and the circuit died under us.
    #[error("the circuit to the exit died")]
    Died,
    /// Its policy does not allow the target.
    #[error("the exit's policy refuses the target")]
    Policy,
    /// It refuses for lack of something of its own (bandwidth, streams a circuit, hibernation).
    #[error("the exit is overloaded")]
    Overloaded,
    /// It took our request and never answered.
    #[error("the exit does not answer")]
    Hung,
    /// A public proxy that asks for a password, answers nonsense or refuses this kind of target.
    #[error("the exit refused")]
    Refused,
    /// A public proxy that says that the target failed, or what lies before it failed: its word alone. Another exit is
    /// worth a try, and this one is not blamed.
    #[error("the exit says that the target failed, and nobody vouches for that")]
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
    /// The resolver failed; the name may exist.
    #[error("the name could not be resolved")]
    NameFailed,
    /// No route to it.
    #[error("the target cannot be reached")]
    Unreachable,
    /// It did not answer in time.
    #[error("the target did not answer")]
    Timeout,
    /// It closed on us before anything was said.
    #[error("the target closed the connection")]
    Reset,
    /// An onion service without a descriptor, or a bad onion address.
    #[error("the onion service cannot be reached")]
    Onion,
    /// A private, loopback or metadata address, or our own listener: denied by our rules.
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
        Poll::Ready(Ok(())) // sockets hold nothing back
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
