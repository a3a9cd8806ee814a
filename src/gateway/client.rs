//! The client's end: its socket, bare or under TLS, and the bytes of it that nobody has used yet.
//!
//! A tunnel's opening is a handful of bytes each way, and at ten thousand tunnels a second each system call shows. So
//! the first read and every short reply go to the socket at once, before the runtime has heard from epoll whether they
//! may: a fresh connection usually has its first bytes waiting, and its send buffer is empty. Only when the kernel says
//! "not now" is the readiness awaited. One read takes whatever is there; what a protocol does not use stays in the
//! [`Inbox`] for the next, which is how one port tells protocols apart without peeking.

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

/// The first read: any SOCKS opening, nearly any CONNECT and nearly any ClientHello fits, so that one read is enough.
const FIRST_READ: usize = 2048;

/// How long a client may leave our reply unread. Replies are short and the buffer behind a socket is not, so this runs
/// out only on a client that is gone.
const REPLY_WAIT: Duration = Duration::from_secs(10);

/// How long, and for how many bytes, a refused client is still listened to, so that closing with its bytes unread does
/// not reset the connection under the reply. Arbitrary; a client that reads its reply hangs up within a round trip.
const FAREWELL_WAIT: Duration = Duration::from_secs(1);
const FAREWELL_BYTES: usize = 256 * 1024;

/// How many bytes are taken in advance from a client that does not wait for its tunnel to be open.
const AHEAD_MAX: usize = 16 * 1024;

/// The client's stream.
#[derive(Debug)]
pub enum ClientStream {
    /// As it was accepted: can be spliced.
    Tcp(TcpStream),
    /// Under TLS.
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
    /// Sends a short reply, whole.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = match self {
            // An error is met again, and told, by the write below.
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

    /// Closes after a refusal, so that the client gets to read it.
    pub async fn farewell(mut self) {
        let listen = async {
            self.shutdown().await?;
            let mut scrap = [0; 512];
            let mut heard = 0;
            while heard < FAREWELL_BYTES {
                match self.read(&mut scrap).await? {
                    0 => break,
                    n => heard += n,
                }
            }
            io::Result::Ok(())
        };
        // Whatever the client does now, it has had its answer.
        let _ = timeout(FAREWELL_WAIT, listen).await;
    }

    /// Closes so that the client sees a loss and not an end.
    pub fn reset(self) {
        if let Self::Tcp(stream) = &self {
            // Where it cannot be set, the client sees an end after all; there is nothing better to do.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
        // Under TLS, closing without a close_notify says the same.
    }

    /// Resolves when the client hangs up. What it sends meanwhile is kept in `inbox`.
    pub async fn departed(&mut self, inbox: &mut Inbox) {
        // No room is made for the bytes of a client that waits, as nearly all do.
        if let Self::Tcp(stream) = self
            && stream.readable().await.is_err()
        {
            return;
        }
        inbox.departed(self).await;
    }

    /// Takes a TLS handshake whose first bytes have been read already. Only a bare stream can; one whose handshake
    /// failed comes back bare, and its client was told why.
    pub async fn secure(mut self, acceptor: &TlsAcceptor, mut hello: &[u8]) -> Result<Self, Self> {
        let Ok(mut session) = ServerConnection::new(acceptor.config().clone()) else { return Err(self) };
        while !hello.is_empty() {
            // Met here and not in the handshake, which would wait for more bytes before it looked at these again.
            if session.read_tls(&mut hello).is_err() || session.process_new_packets().is_err() {
                let mut alert = Vec::new();
                if session.write_tls(&mut alert).is_ok() {
                    // Told or not, it is over.
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

/// Bytes that were read and not used yet.
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
    /// What is there.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// True when nothing is there.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Marks this many bytes as used.
    pub fn consume(&mut self, count: usize) {
        self.bytes.drain(..count.min(self.bytes.len()));
    }

    /// Adds what was read after it.
    pub fn append(&mut self, mut later: Self) {
        self.bytes.append(&mut later.bytes);
    }

    /// What is there, and nothing kept: an idle tunnel holds no buffer for its opening.
    pub fn into_rest(self) -> Vec<u8> {
        if self.bytes.is_empty() { Vec::new() } else { self.bytes.into_boxed_slice().into_vec() }
    }

    /// Gives back what a large head or body made an inbox grow to.
    pub fn relax(&mut self) {
        if self.bytes.capacity() > 2 * FIRST_READ {
            self.bytes.shrink_to(FIRST_READ);
        }
    }

    /// The first read of a connection: what is there at once, or as soon as something is. 0 is the end.
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

    /// Resolves when whoever sends to this hangs up; what it sends until then is kept, up to a bound. Behind the bound
    /// nothing is read, and nothing is learned.
    pub async fn departed(&mut self, stream: &mut (impl AsyncRead + Unpin)) {
        while self.bytes.len() < AHEAD_MAX {
            if matches!(self.fill(stream).await, Ok(0) | Err(_)) {
                return;
            }
        }
        std::future::pending().await
    }

    /// Reads more, up to about `room` bytes. 0 is the end.
    pub async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin), room: usize) -> io::Result<usize> {
        if self.bytes.capacity() - self.bytes.len() < room / 2 {
            self.bytes.reserve(room);
        }
        stream.read_buf(&mut self.bytes).await
    }
}
