//! The two connections of a tunnel: the client's connection, and the stream to the target.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::Client;
use crate::dial;

pub(super) trait Side: AsyncRead + AsyncWrite + Unpin {
    /// Returns the socket if the tunnel's bytes are sent on it unchanged. Returns `None` under TLS.
    fn bare(&self) -> Option<Bare<'_>>;

    /// Makes the next close of this connection a reset, if the transport can send a reset.
    fn abort(&mut self);
}

/// A socket on which the tunnel's bytes are sent unchanged, without TLS.
#[derive(Clone, Copy)]
pub(super) enum Bare<'a> {
    Tcp(&'a TcpStream),
    Unix(&'a UnixStream),
}

impl Bare<'_> {
    pub(super) fn poll_read_ready(self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    pub(super) fn poll_write_ready(self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Runs `call`, which must not block. If `call` returns `WouldBlock`, the socket is marked as not ready.
    pub(super) fn try_io(
        self,
        interest: Interest,
        call: impl FnOnce(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_io(interest, || call(stream.as_fd())),
            Self::Unix(stream) => stream.try_io(interest, || call(stream.as_fd())),
        }
    }
}

impl Side for Client {
    fn bare(&self) -> Option<Bare<'_>> {
        match self {
            Self::Tcp(stream) => Some(Bare::Tcp(stream)),
            Self::Tls(_) => None,
        }
    }

    fn abort(&mut self) {
        let stream = match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        let _ = stream.set_zero_linger(); // fails only on a socket that is already closed
    }
}

impl Side for dial::Stream {
    fn bare(&self) -> Option<Bare<'_>> {
        Some(match self {
            Self::Tcp(stream) => Bare::Tcp(stream),
            Self::Unix(stream) => Bare::Unix(stream),
        })
    }

    fn abort(&mut self) {
        if let Self::Tcp(stream) = self {
            let _ = stream.set_zero_linger(); // fails only on a socket that is already closed
        }
    }
}

impl AsyncRead for Client {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Client {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(_) => Poll::Ready(Ok(())), // a plain socket has no buffer to flush
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
