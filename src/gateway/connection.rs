//! The life of one connection, top to bottom. Start reading here.
//!
//! `listen` accepts a connection and passes it to [`serve`], which sees it to its end. The first byte shows the protocol: 4
//! and 5 are SOCKS, 0x16 is a TLS handshake with one of the others inside, and everything else is HTTP or an error. From there
//! `connection/socks.rs` or `connection/http.rs` goes on: read a request, let the client in, open a stream to the target, and
//! only then send the success reply. The result is a `Tunnel`: two sockets, and no protocol any more.
//!
//! One deadline covers the time from accept to a complete request. A client that sends one byte a second gets no more time
//! than a client that sends nothing. However the connection ends, its [`Record`] is dropped and writes the access line.
//!
//! Next: [`super::gate`] is the interface to the way out; [`super::relay`] carries an open tunnel.

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
use crate::limit::Bucket;

/// Serves one accepted connection to its end.
pub async fn serve<G: Gate>(
    stream: TcpStream,
    peer: SocketAddr,
    cut: Cut,
    listener: Arc<ListenerConfig>,
    gate: Arc<G>,
) {
    let mut record = Record::begin(listener.clone(), peer, &cut);
    let context = ConnectionContext { gate: &*gate, listener: &listener, peer };
    // Puts the id into every debug line up to an open tunnel, also into those of the dial. Without the level it costs nothing.
    let span = tracing::debug_span!("connection", id = %record.id());
    // Boxed, and freed before the tunnel is carried: an opening is large and short, a tunnel is small and long, and a task is
    // copied whole when it is spawned and when it ends.
    let opening = Box::pin(open(stream, context, &mut record).instrument(span));
    let Some(Some(tunnel)) = cut.race(opening).await else { return };
    let Tunnel { client, stream, first_up, first_down, idle, rate, lease } = tunnel;
    let meter = record.byte_meter();
    let terms = Terms { first_up: &first_up, first_down: &first_down, idle: &idle, rate, meter: &meter, cut: &cut };
    let end = relay(client, stream, terms).await;
    drop(lease);
    record.ended(Outcome::Ended(end.reason));
}

/// A client and an open stream to its target. Holds only what a tunnel needs, because it lasts as long as the tunnel.
struct Tunnel<L> {
    client: ClientStream,
    stream: Stream,
    /// What the client has sent for the target already.
    first_up: Vec<u8>,
    first_down: Vec<u8>,
    idle: Idle,
    rate: Option<Arc<Bucket>>,
    lease: L,
}

/// The part of a connection that never changes.
struct ConnectionContext<'c, G> {
    gate: &'c G,
    listener: &'c ListenerConfig,
    peer: SocketAddr,
}

/// A connection whose protocol is known.
struct Connection<'c, G> {
    context: ConnectionContext<'c, G>,
    record: &'c mut Record,
    stream: ClientStream,
    inbox: Inbox,
    client: SocketAddr,
    /// When the request that is being read must be complete.
    deadline: Instant,
}

/// From the first byte to an open tunnel; `None` if the connection ends without one.
async fn open<'c, G: Gate>(
    stream: TcpStream,
    context: ConnectionContext<'c, G>,
    record: &'c mut Record,
) -> Option<Tunnel<G::Lease>> {
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
        // Boxed: HTTP needs more memory than SOCKS, whose connections should not pay for it.
        None => Box::pin(connection.http()).await,
    }
}

impl<'c, G: Gate> Connection<'c, G> {
    /// Reads more bytes before the deadline.
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

    /// Lets the client in or refuses it. A listener that demands a key or a username refuses before the gate is asked.
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

    /// Opens a stream to the target, unless the client closes first: a client that gave up must not hold an exit.
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

    fn into_tunnel(self, opened: Opened<G::Lease>) -> Tunnel<G::Lease> {
        let Opened { stream, first_down, idle, rate, lease, .. } = opened;
        Tunnel { client: self.stream, stream, first_up: self.inbox.into_rest(), first_down, idle, rate, lease }
    }
}

#[cfg(test)]
mod tests;
