//! The client's socket, bare or under TLS, and the bytes that were read from it and not used yet.
//!
//! A tunnel's opening is a few bytes each way, and at ten thousand tunnels a second each system call shows. So the first read
//! and every short reply are tried at once, without asking epoll first: a fresh connection usually has its first bytes
//! waiting, and its send buffer is empty. Only after `WouldBlock` is readiness awaited. One read takes all that is there; the
//! [`Inbox`] keeps what a protocol did not use, so one port can tell protocols apart without `MSG_PEEK`.

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

/// Bytes of the first read: any SOCKS opening, nearly any CONNECT and nearly any ClientHello fits.
const FIRST_READ: usize = 2048;

/// How long sending a reply may take. Replies are short and socket buffers are not, so only a client that is gone makes
/// this run out. Not tuned.
const REPLY_WAIT: Duration = Duration::from_secs(10);

/// How long, and for how many bytes, a refused client is still read from: closing with unread bytes would reset the
/// connection, and the client could lose the reply. A client that has read it closes within a round trip. Not tuned.
const DRAIN_WAIT: Duration = Duration::from_secs(1);
const DRAIN_BYTES: usize = 256 * 1024;

/// How many bytes are read in advance from a client that does not wait for its tunnel to be open. Not tuned.
const AHEAD_MAX: usize = 16 * 1024;

/// The client's stream.
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
    /// Sends a whole short reply.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = match self {
            // An error is ignored here: the write below meets it again and returns it.
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

    /// Closes after a reply that the client should get to read.
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
        // The client has its answer; an error or a timeout changes nothing.
        let _ = timeout(DRAIN_WAIT, drain).await;
    }

    /// Closes in a way that the client sees as an error and not as the end of the data.
    pub fn reset(self) {
        if let Self::Tcp(stream) = &self {
            // If this fails, the client sees a clean end after all; nothing better can be done.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
        // Under TLS, closing without a close_notify is an error too.
    }

    /// Resolves when the client closes. What it sends until then goes into `inbox`.
    pub async fn closed(&mut self, inbox: &mut Inbox) {
        // The inbox gets no buffer before there are bytes: nearly all clients wait in silence.
        if let Self::Tcp(stream) = self
            && stream.readable().await.is_err()
        {
            return;
        }
        inbox.closed(self).await;
    }

    /// Does a TLS handshake whose first bytes have been read already. After a failed handshake the bare stream comes back;
    /// its client has been sent an alert.
    pub async fn secure(mut self, acceptor: &TlsAcceptor, mut hello: &[u8]) -> Result<Self, Self> {
        let Ok(mut session) = ServerConnection::new(acceptor.config().clone()) else { return Err(self) };
        while !hello.is_empty() {
            // An error must show here: the handshake below would wait for more bytes before it looks at these again.
            if session.read_tls(&mut hello).is_err() || session.process_new_packets().is_err() {
                let mut alert = Vec::new();
                if session.write_tls(&mut alert).is_ok() {
                    // Sent or not, the connection ends.
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

/// Bytes that were read from a client and not used yet.
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

    /// Marks this many bytes as used.
    pub fn consume(&mut self, count: usize) {
        self.bytes.drain(..count.min(self.bytes.len()));
    }

    /// Adds bytes that were read later.
    pub fn append(&mut self, mut later: Self) {
        self.bytes.append(&mut later.bytes);
    }

    /// The bytes without spare capacity: an idle tunnel must not hold a buffer of its opening.
    pub fn into_rest(self) -> Vec<u8> {
        if self.bytes.is_empty() { Vec::new() } else { self.bytes.into_boxed_slice().into_vec() }
    }

    /// Frees what a large head or body made the inbox grow to.
    pub fn relax(&mut self) {
        if self.bytes.capacity() > 2 * FIRST_READ {
            self.bytes.shrink_to(FIRST_READ);
        }
    }

    /// The first read of a connection: at once if bytes are there, else when they come. 0 is the end.
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

    /// Reads more of an opening. 0 is the end.
    pub async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        self.read(stream, FIRST_READ).await
    }

    /// Resolves when the other end of `stream` closes. What it sends until then is kept, up to [`AHEAD_MAX`] bytes; beyond
    /// them nothing is read, so a close can no longer be noticed.
    pub async fn closed(&mut self, stream: &mut (impl AsyncRead + Unpin)) {
        while self.bytes.len() < AHEAD_MAX {
            if matches!(self.fill(stream).await, Ok(0) | Err(_)) {
                return;
            }
        }
        std::future::pending().await
    }

    /// Reads up to about `room` bytes. 0 is the end.
    pub async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin), room: usize) -> io::Result<usize> {
        if self.bytes.capacity() - self.bytes.len() < room / 2 {
            self.bytes.reserve(room);
        }
        stream.read_buf(&mut self.bytes).await
    }
}
