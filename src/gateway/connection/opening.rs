//! The steps before the client's protocol begins: the first read, the PROXY header of trusted peers, the TLS handshake.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::gateway::client::{ClientStream, Inbox};
use crate::gateway::failure::{ClientFault, Failure};
use crate::gateway::listener::ListenerConfig;
use crate::gateway::proxy_protocol::{self, Header};

/// The first byte of a TLS record that contains a handshake message.
const HANDSHAKE: u8 = 0x16;

/// The fatal TLS alert `handshake_failure`. It is sent to a client that uses TLS on a port without TLS. With this alert
/// the client fails immediately and does not wait for a ServerHello.
const NO_TLS: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 40];

/// A client connection from which the first bytes have been read, but no request yet.
pub(super) struct Opening {
    pub(super) stream: ClientStream,
    pub(super) inbox: Inbox,
    pub(super) client: SocketAddr,
    pub(super) tls: bool,
}

impl Opening {
    /// Reads until the first byte of the client's protocol has arrived. Fails if this byte does not arrive before the
    /// deadline.
    pub(super) async fn read(
        stream: TcpStream,
        peer: SocketAddr,
        listener: &ListenerConfig,
        deadline: Instant,
    ) -> Result<Self, Failure> {
        let mut opening = Self { stream: ClientStream::Tcp(stream), inbox: Inbox::default(), client: peer, tls: false };
        opening.first_byte(deadline).await?;
        if !listener.trusted.is_empty() || proxy_protocol::is_header(opening.inbox.bytes()) {
            opening.proxy_header(peer, listener, deadline).await?;
        }
        if opening.inbox.bytes().first() != Some(&HANDSHAKE) {
            return Ok(opening);
        }
        // The handshake's future is boxed because it is large, and most connections have no TLS.
        Box::pin(opening.tls_handshake(listener, deadline)).await
    }

    async fn first_byte(&mut self, deadline: Instant) -> Result<(), Failure> {
        within(deadline, self.inbox.begin(&mut self.stream)).await
    }

    async fn more(&mut self, deadline: Instant) -> Result<(), Failure> {
        within(deadline, self.inbox.fill(&mut self.stream)).await
    }

    /// Reads the PROXY header. A trusted peer must send this header, and any other peer must not send it.
    async fn proxy_header(
        &mut self,
        peer: SocketAddr,
        listener: &ListenerConfig,
        deadline: Instant,
    ) -> Result<(), Failure> {
        const WRONG: Failure = Failure::Client(ClientFault::ProxyHeader);
        if !listener.trusted.iter().any(|net| net.contains(&peer.ip().to_canonical())) {
            return if proxy_protocol::is_header(self.inbox.bytes()) { Err(WRONG) } else { Ok(()) };
        }
        loop {
            match proxy_protocol::parse(self.inbox.bytes()) {
                Err(_) => return Err(WRONG),
                Ok(None) => self.more(deadline).await?,
                Ok(Some(Header { length, client })) => {
                    self.inbox.consume(length);
                    self.client = client.unwrap_or(peer);
                    break;
                }
            }
        }
        if self.inbox.is_empty() { self.more(deadline).await } else { Ok(()) }
    }

    async fn tls_handshake(mut self, listener: &ListenerConfig, deadline: Instant) -> Result<Self, Failure> {
        const WRONG: Failure = Failure::Client(ClientFault::Tls);
        let Some(acceptor) = &listener.tls else {
            // The result is ignored: the connection ends whether or not the alert was sent.
            let _ = self.stream.send(&NO_TLS).await;
            self.stream.close_after_reply().await;
            return Err(WRONG);
        };
        let hello = std::mem::take(&mut self.inbox).into_rest();
        let handshake = timeout_at(deadline, self.stream.secure(acceptor, &hello)).await;
        self.stream = match handshake.map_err(|_| Failure::Client(ClientFault::Slow))? {
            Ok(secured) => secured,
            Err(bare) => {
                bare.close_after_reply().await;
                return Err(WRONG);
            }
        };
        self.tls = true;
        self.more(deadline).await?;
        Ok(self)
    }
}

/// Waits for one read. The read must return at least one byte before the deadline.
async fn within(deadline: Instant, read: impl Future<Output = std::io::Result<usize>>) -> Result<(), Failure> {
    match timeout_at(deadline, read).await {
        Err(_) => Err(Failure::Client(ClientFault::Slow)),
        Ok(Ok(0) | Err(_)) => Err(Failure::Client(ClientFault::Left)),
        Ok(Ok(_)) => Ok(()),
    }
}
