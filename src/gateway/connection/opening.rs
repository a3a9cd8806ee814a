//! What comes before the client's protocol: the first read, a PROXY header from trusted peers, a TLS handshake.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::gateway::client::{ClientStream, Inbox};
use crate::gateway::failure::{ClientFault, Failure};
use crate::gateway::listener::ListenerConfig;
use crate::gateway::proxy_protocol::{self, Header};

/// The first byte of a TLS record that holds a handshake message.
const HANDSHAKE: u8 = 0x16;

/// A fatal TLS alert `handshake_failure`, for a client that uses TLS on a port without it: the client then fails at once and
/// does not wait for a ServerHello.
const NO_TLS: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 40];

/// A connection whose first bytes have been read.
pub(super) struct Opening {
    pub(super) stream: ClientStream,
    pub(super) inbox: Inbox,
    pub(super) client: SocketAddr,
    pub(super) tls: bool,
}

impl Opening {
    /// Reads until the first byte of the client's protocol is there, before the deadline.
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
        // Boxed: a handshake is large, and most connections have none.
        Box::pin(opening.tls_handshake(listener, deadline)).await
    }

    async fn first_byte(&mut self, deadline: Instant) -> Result<(), Failure> {
        within(deadline, self.inbox.begin(&mut self.stream)).await
    }

    async fn more(&mut self, deadline: Instant) -> Result<(), Failure> {
        within(deadline, self.inbox.fill(&mut self.stream)).await
    }

    /// Reads the PROXY header, which a trusted peer must send and any other peer must not.
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
            // Sent or not, the connection ends.
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

/// Waits for a read that must bring bytes before the deadline.
async fn within(deadline: Instant, read: impl Future<Output = std::io::Result<usize>>) -> Result<(), Failure> {
    match timeout_at(deadline, read).await {
        Err(_) => Err(Failure::Client(ClientFault::Slow)),
        Ok(Ok(0) | Err(_)) => Err(Failure::Client(ClientFault::Left)),
        Ok(Ok(_)) => Ok(()),
    }
}
