//! The client's socket, with or without TLS, and the bytes that were read from the socket and not used yet.
//!
//! At ten thousand new tunnels per second, the cost of each system call is noticeable. Therefore the first read and
//! every short reply are tried immediately, without asking epoll first: a new connection usually has its first bytes
//! waiting, and its send buffer is empty. The code waits for readiness only after `WouldBlock`.
//!
//! One read takes all bytes that have arrived. The [`Inbox`] keeps the bytes that a protocol parser did not use, so one
//! port can distinguish several protocols without `MSG_PEEK`.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConnection;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::relay;

/// Size of the first read from a client, in bytes. Every SOCKS opening, nearly every CONNECT request and nearly every
/// TLS ClientHello fits into one such read.
const FIRST_READ: usize = 2048;

/// The time limit for sending one short reply. A reply nearly always fits into the socket's send buffer, so the limit
/// is reached only when the client is gone. Not tuned.
const REPLY_WAIT: Duration = Duration::from_secs(10);

/// After a refusal, the gateway reads from the client for at most this time and this number of bytes, and then closes
/// the connection. The reason: closing a socket with unread bytes resets the connection, and the client could lose the
/// reply. A client that has read the reply closes within one round trip. Not tuned.
const DRAIN_WAIT: Duration = Duration::from_secs(1);
const DRAIN_BYTES: usize = 256 * 1024;

/// The maximum number of bytes that are read in advance from a client that sends data before its tunnel is open. Not
/// tuned.
const AHEAD_MAX: usize = 16 * 1024;

/// The client's socket, with or without TLS.
#[derive(Debug)]
pub enum ClientStream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl From<ClientStream> for relay::Client {
    fn from(stream: ClientStream) -> Self {
        match stream {
            ClientStream::Tcp(stream) => Self::Tcp(stream),
            ClientStream::Tls(stream) => Self::Tls(stream),
        }
    }
}

impl ClientStream {
    /// Sends a whole short reply to the client.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = match self {
            // An error of this write counts as zero bytes written. The next write, of the bytes that remain, then fails
            // with the same error and returns it.
            Self::Tcp(stream) => (&*SockRef::from(&*stream)).write(bytes).unwrap_or(0),
            Self::Tls(_) => 0,
        };
        if sent == bytes.len() {
            return Ok(());
        }
        let rest = async {
            self.write_all(&bytes[sent..]).await?;
            self.flush().await
        };
        timeout(REPLY_WAIT, rest).await?
    }

    /// Closes the connection after a reply, in a way that gives the client time to read the reply.
    pub async fn close_after_reply(mut self) {
        let drain = async {
            self.shutdown().await?;
            let mut scrap = [0; 512];
            let mut drained = 0;
            while drained < DRAIN_BYTES {
                match self.read(&mut scrap).await? {
                    0 => break,
                    n => drained += n,
                }
            }
            io::Result::Ok(())
        };
        // The reply has been sent, so an error or a timeout of this read is ignored.
        let _ = timeout(DRAIN_WAIT, drain).await;
    }

    /// Closes the connection with a reset, so the client sees an error and not a normal end of the data.
    pub fn reset(self) {
        if let Self::Tcp(stream) = &self {
            // If this call fails, the client sees a normal end of the data. The gateway can do nothing better.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
        // Under TLS no reset is needed: a close without a close_notify alert is an error for the client.
    }

    /// Waits until the client closes the connection. Bytes that the client sends meanwhile are stored in `inbox`.
    pub async fn closed(&mut self, inbox: &mut Inbox) {
        // While the gateway waits here, nearly all clients send nothing. So the inbox allocates its buffer only when
        // bytes arrive.
        if let Self::Tcp(stream) = self
            && stream.readable().await.is_err()
        {
            return;
        }
        inbox.closed(self).await;
    }

    /// Does a TLS handshake. `hello` holds the first bytes of the handshake, which have been read already. If the
    /// handshake fails, the client gets a TLS alert and this function returns the stream without TLS.
    pub async fn secure(mut self, acceptor: &TlsAcceptor, mut hello: &[u8]) -> Result<Self, Self> {
        let Ok(mut session) = ServerConnection::new(acceptor.config().clone()) else { return Err(self) };
        while !hello.is_empty() {
            // A malformed ClientHello must be detected here. The handshake below would wait for more bytes before it
            // returns the error.
            if session.read_tls(&mut hello).is_err() || session.process_new_packets().is_err() {
                let mut alert = Vec::new();
                if session.write_tls(&mut alert).is_ok() {
                    // The result is ignored: the connection ends whether or not the alert was sent.
                    let _ = self.send(&alert).await;
                }
                return Err(self);
            }
        }
        let Self::Tcp(stream) = self else { return Err(self) };
        match acceptor.accept_with(stream, |fresh| *fresh = session).into_fallible().await {
            Ok(stream) => Ok(Self::Tls(Box::new(stream))),
            Err((_, stream)) => Err(Self::Tcp(stream)),
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
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

/// Bytes that were read from a client and that no parser has used yet.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
}

impl From<Vec<u8>> for Inbox {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }
}

impl Inbox {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Marks the first `count` bytes as used.
    pub fn consume(&mut self, count: usize) {
        self.bytes.drain(..count.min(self.bytes.len()));
    }

    /// Appends the bytes of `later`, which were read after the bytes of this inbox.
    pub fn append(&mut self, mut later: Self) {
        self.bytes.append(&mut later.bytes);
    }

    /// Returns the unused bytes in a vector without spare capacity. The large buffer is freed, because an idle tunnel
    /// must use little memory.
    pub fn into_rest(self) -> Vec<u8> {
        if self.bytes.is_empty() { Vec::new() } else { self.bytes.into_boxed_slice().into_vec() }
    }

    /// Frees the extra memory that a large HTTP head or a large body needed in this inbox.
    pub fn relax(&mut self) {
        if self.bytes.capacity() > 2 * FIRST_READ {
            self.bytes.shrink_to(FIRST_READ);
        }
    }

    /// Makes the first read of a connection. The function returns immediately if bytes have arrived, and otherwise
    /// waits for bytes. The result is the number of bytes read. The result 0 means that the stream has ended.
    pub async fn begin(&mut self, stream: &mut ClientStream) -> io::Result<usize> {
        if let ClientStream::Tcp(tcp) = stream {
            self.bytes.resize(FIRST_READ, 0);
            let read = (&*SockRef::from(&*tcp)).read(&mut self.bytes);
            self.bytes.truncate(*read.as_ref().unwrap_or(&0));
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
        self.fill(stream).await
    }

    /// Reads more bytes of the client's opening and returns the number of bytes read. The result 0 means that the
    /// stream has ended.
    pub async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        self.read(stream, FIRST_READ).await
    }

    /// Waits until the other end of `stream` closes. Up to [`AHEAD_MAX`] bytes that arrive meanwhile are kept. After
    /// that number of bytes the function reads no more, so it cannot notice a close any more.
    pub async fn closed(&mut self, stream: &mut (impl AsyncRead + Unpin)) {
        while self.bytes.len() < AHEAD_MAX {
            if matches!(self.fill(stream).await, Ok(0) | Err(_)) {
                return;
            }
        }
        std::future::pending().await
    }

    /// Reads up to about `room` bytes and returns the number of bytes read. The result 0 means that the stream has
    /// ended.
    pub async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin), room: usize) -> io::Result<usize> {
        if self.bytes.capacity() - self.bytes.len() < room / 2 {
            self.bytes.reserve(room);
        }
        stream.read_buf(&mut self.bytes).await
    }
}
