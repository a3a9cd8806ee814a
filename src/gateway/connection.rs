//! The life of one client connection, from the first byte to the end. Start reading here.
//!
//! `listen` accepts a connection and calls [`serve`], which handles the connection until its end. The first byte shows
//! the protocol: 4 and 5 mean SOCKS, 0x16 means a TLS handshake with SOCKS or HTTP inside, and every other byte means
//! HTTP or an error. After that, `connection/socks.rs` or `connection/http.rs` reads a request, checks the client's
//! key, opens a stream to the target, and only then sends the success reply. The result is a `Tunnel`: two sockets
//! between which bytes are copied without any protocol.
//!
//! One deadline covers the time from the accept to a complete request. A client that sends one byte per second gets no
//! more time than a client that sends nothing. When the connection ends, for any reason, its [`Record`] is dropped and
//! the drop writes the access line.
//!
//! Next: [`super::gate`] is the interface to the exits; [`super::relay`] carries an open tunnel.

mod builtin_host;
mod http;
mod opening;
mod plain;
mod plan;
mod request;
mod socks;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;

use self::opening::Opening;
use super::client::{ClientStream, Inbox};
use super::failure::{AuthFault, ClientFault, Failure};
use super::gate::{Caller, Gate, OpenRequest, Opened, Refusal};
use super::listener::ListenerConfig;
use super::protocol::Protocol;
use super::record::{Outcome, Record};
use super::relay::{Idle, Terms, relay};
use super::socks::Socks;
use crate::dial::Stream;
use crate::lifecycle::Cut;
use crate::limit::{Bucket, Spend};

/// Serves one accepted connection until its end. `listen` calls this function once for each connection.
pub async fn serve<G: Gate>(
    stream: TcpStream,
    peer: SocketAddr,
    cut: Cut,
    listener: Arc<ListenerConfig>,
    gate: Arc<G>,
) {
    let mut record = Record::begin(listener.clone(), peer, &cut);
    let context = ConnectionContext { gate: &*gate, listener: &listener, peer };
    // The span adds the connection's id to every debug line until the tunnel is open, also to the lines of the dial.
    // When the debug level is off, the span costs nothing.
    let span = tracing::debug_span!("connection", id = %record.id());
    // The opening of a connection needs a large future for a short time, and a tunnel needs a small future for a long
    // time. Therefore the future of the opening is boxed, and the box is freed before the tunnel begins. A task is
    // copied whole when it is spawned and when it ends, so the task must stay small.
    let opening = Box::pin(open(stream, context, &mut record).instrument(span));
    let Some(Some(tunnel)) = cut.race(opening).await else { return };
    let meter = record.byte_meter();
    // The fields stay in `tunnel`, because variables of their own would take the same memory a second time.
    let terms = Terms {
        first_up: &tunnel.first_up,
        first_down: &tunnel.first_down,
        idle: &tunnel.idle,
        rate: tunnel.rate,
        spend: tunnel.spend,
        meter: &meter,
        cut: &cut,
    };
    let end = relay(tunnel.client, tunnel.stream, terms).await;
    drop((tunnel.lease, tunnel.admitted));
    record.ended(Outcome::Ended(end.reason));
}

/// A client and an open stream to the client's target. This struct lives as long as the tunnel, so it has no field that
/// only the opening needs.
struct Tunnel<G: Gate> {
    client: ClientStream,
    stream: Stream,
    /// Bytes for the target that the client sent before the tunnel was open.
    first_up: Vec<u8>,
    first_down: Vec<u8>,
    idle: Idle,
    rate: Option<Arc<Bucket>>,
    spend: Option<Spend>,
    lease: G::Lease,
    /// Counts the tunnel for the limits of the client's key and address. The lease cannot do this: the lease of a kept
    /// stream waits for the next request, and would then count one connection for the client besides that request.
    admitted: G::Admitted,
}

/// The parts of a connection that stay the same from its first byte to its end.
struct ConnectionContext<'c, G> {
    gate: &'c G,
    listener: &'c ListenerConfig,
    peer: SocketAddr,
}

/// A client connection whose protocol (SOCKS or HTTP) is known.
struct Connection<'c, G> {
    context: ConnectionContext<'c, G>,
    record: &'c mut Record,
    stream: ClientStream,
    inbox: Inbox,
    client: SocketAddr,
    /// The time at which the client's present request must have been read completely.
    deadline: Instant,
}

/// Reads the client's request and opens the tunnel. Returns `None` if the connection ends without a tunnel.
async fn open<'c, G: Gate>(
    stream: TcpStream,
    context: ConnectionContext<'c, G>,
    record: &'c mut Record,
) -> Option<Tunnel<G>> {
    let deadline = Instant::now() + context.listener.opening;
    let read = Opening::read(stream, context.peer, context.listener, deadline).await;
    let Opening { stream, inbox, client, tls } = match read {
        Ok(opening) => opening,
        Err(failure) => {
            record.refused(&failure.into());
            return None;
        }
    };
    record.client_known(client, tls);
    let socks = Socks::begin(*inbox.bytes().first()?, context.listener.demands_key || context.listener.demands_name);
    let connection = Connection { context, record, stream, inbox, client, deadline };
    match socks {
        Some(socks) => connection.socks(socks).await,
        // The HTTP future is boxed because it needs more memory than the SOCKS future. Without the box, every SOCKS
        // connection would use that memory too.
        None => Box::pin(connection.http()).await,
    }
}

impl<'c, G: Gate> Connection<'c, G> {
    /// Reads more bytes from the client. Fails if no bytes arrive before the deadline.
    async fn more(&mut self) -> Result<(), Failure> {
        match timeout_at(self.deadline, self.inbox.fill(&mut self.stream)).await {
            Err(_) => Err(Failure::Client(ClientFault::Slow)),
            Ok(Ok(0) | Err(_)) => Err(Failure::Client(ClientFault::Left)),
            Ok(Ok(_)) => Ok(()),
        }
    }

    fn caller<'a>(&self, protocol: Protocol, username: &'a str) -> Caller<'a>
    where
        'c: 'a,
    {
        let ConnectionContext { listener, peer, .. } = self.context;
        Caller { listener, protocol, peer, client: self.client, username }
    }

    /// Checks the client's key and the limits. If the listener requires a key or a username and the client sent none,
    /// this function refuses the client and does not call the gate.
    fn admit(&self, caller: &Caller<'_>, password: Option<&[u8]>) -> Result<G::Admitted, Refusal> {
        if self.context.listener.demands_key && password.is_none() {
            return Err(Failure::Auth(AuthFault::Missing).into());
        }
        if self.context.listener.demands_name && caller.username.is_empty() {
            return Err(Failure::Auth(AuthFault::Nameless).into());
        }
        let admitted = self.context.gate.admit(caller, password)?;
        self.record.key_known(G::key_name(&admitted));
        Ok(admitted)
    }

    /// Opens a stream to the target. If the client closes first, the dial is cancelled: a client that has left must not
    /// occupy an exit.
    async fn open(
        &mut self,
        caller: &Caller<'_>,
        admitted: &G::Admitted,
        request: OpenRequest<'_>,
    ) -> Result<Opened<G::Lease>, Refusal> {
        let opened = tokio::select! {
            biased;
            opened = self.context.gate.open(caller, admitted, request) => opened?,
            () = self.stream.closed(&mut self.inbox) => return Err(Failure::Client(ClientFault::Left).into()),
        };
        self.record.opened(&opened.exit);
        Ok(opened)
    }

    fn into_tunnel(self, opened: Opened<G::Lease>, admitted: G::Admitted) -> Tunnel<G> {
        let Opened { stream, first_down, idle, rate, spend, lease, .. } = opened;
        Tunnel {
            client: self.stream,
            stream,
            first_up: self.inbox.into_rest(),
            first_down,
            idle,
            rate,
            spend,
            lease,
            admitted,
        }
    }
}

#[cfg(test)]
mod tests;
