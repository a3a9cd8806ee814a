//! The life of one connection, top to bottom. Start reading here.
//!
//! A connection is accepted elsewhere and ends here. [`serve`] reads its first byte, and that byte says what it speaks:
//! 4 and 5 are SOCKS, 0x16 is a TLS handshake with any of the others inside, and everything else is HTTP or nothing. The
//! protocol's own page takes it from there (`connection/socks.rs`, `connection/http.rs`): a request, the gate's leave,
//! a stream to the target, the success reply and never before it, and then a `Tunnel`, which is two sockets and no
//! protocol any more.
//!
//! From accept to a complete request there is one deadline, not one a read, so a client that sends a byte a second gets
//! no more time than one that sends none. Whatever happens, the [`Record`] drops at the end and writes it down.
//!
//! Next: [`super::gate`] is what is asked on the way; [`super::relay`] carries an open tunnel.

mod builtin_host;
mod http;
mod opening;
mod plain;
mod socks;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use self::opening::Opening;
use super::client::{ClientStream, Inbox};
use super::failure::{AuthFault, ClientFault, Failure};
use super::gate::{Ask, Caller, Gate, ListenerConfig, Opened, Protocol, Refusal};
use super::record::{Outcome, Record};
use super::relay::{Terms, Traffic, relay};
use super::socks::Socks;
use crate::lifecycle::Cut;

/// Serves one accepted connection to its end.
pub async fn serve<G: Gate>(
    stream: TcpStream,
    peer: SocketAddr,
    cut: Cut,
    listener: Arc<ListenerConfig>,
    gate: Arc<G>,
) {
    let mut record = Record::begin(listener.clone(), peer, &cut);
    let traffic = record.traffic().clone();
    let context = ConnectionContext { gate: &*gate, listener: &listener, cut: &cut, traffic: &traffic, peer };
    // Boxed, and freed before the tunnel is carried: an opening is large and short, a tunnel is small and long, and a
    // task is copied whole when it is spawned and when it ends.
    let Some(Some(tunnel)) = cut.race(Box::pin(open(stream, context, &mut record))).await else { return };
    let Tunnel { client, opened, first_up } = tunnel;
    let Opened { stream, facts, idle, rate, first_down, lease, forwarder, .. } = opened;
    // The record has what it needs of the facts, and a tunnel forwards nothing. What is not taken out here would stay for
    // as long as the tunnel does.
    drop((facts, forwarder));
    let flow = record.flow();
    let terms = Terms { first_up: &first_up, first_down: &first_down, idle: &idle, rate, meter: &flow, cut: &cut };
    let end = relay(client, stream, terms).await;
    drop(lease);
    record.settle(Outcome::Ended(end.reason));
}

/// A client and its target, introduced.
struct Tunnel<L> {
    client: ClientStream,
    opened: Opened<L>,
    /// What the client has sent already.
    first_up: Vec<u8>,
}

/// What stays the same for as long as a connection lives.
struct ConnectionContext<'c, G> {
    gate: &'c G,
    listener: &'c ListenerConfig,
    cut: &'c Cut,
    traffic: &'c Arc<Traffic>,
    peer: SocketAddr,
}

/// A connection whose first byte is there.
struct Connection<'c, G> {
    context: ConnectionContext<'c, G>,
    record: &'c mut Record,
    stream: ClientStream,
    inbox: Inbox,
    client: SocketAddr,
    tls: bool,
    /// Until when the request that is being read must be complete.
    deadline: Instant,
}

/// From the first byte to an open tunnel, or to the end without one.
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
    record.introduced(client, tls);
    let socks = Socks::begin(*inbox.bytes().first()?, context.listener.demands_key || context.listener.demands_name);
    let connection = Connection { context, record, stream, inbox, client, tls, deadline };
    match socks {
        Some(socks) => connection.socks(socks).await,
        // Boxed: HTTP has more to remember, and SOCKS need not pay for it.
        None => Box::pin(connection.http()).await,
    }
}

impl<'c, G: Gate> Connection<'c, G> {
    /// Reads more of what must be complete by the deadline.
    async fn more(&mut self) -> Result<(), Failure> {
        match timeout_at(self.deadline, self.inbox.fill(&mut self.stream)).await {
            Err(_) => Err(Failure::Client(ClientFault::Slow)),
            Ok(Ok(0) | Err(_)) => Err(Failure::Client(ClientFault::Left)),
            Ok(Ok(_)) => Ok(()),
        }
    }

    /// Who asks.
    fn caller<'a>(&self, protocol: Protocol, username: &'a str) -> Caller<'a>
    where
        'c: 'a,
    {
        let ConnectionContext { listener, cut, traffic, peer, .. } = self.context;
        Caller { listener, protocol, peer, client: self.client, tls: self.tls, username, traffic, cut }
    }

    /// May this client come in? A door that demands a key or a name is not opened for none, whatever the gate would say.
    fn admit(&self, caller: &Caller<'_>, password: Option<&[u8]>) -> Result<G::Pass, Refusal> {
        if self.context.listener.demands_key && password.is_none() {
            return Err(Failure::Auth(AuthFault::Missing).into());
        }
        if self.context.listener.demands_name && caller.username.is_empty() {
            return Err(Failure::Auth(AuthFault::Nameless).into());
        }
        self.context.gate.admit(caller, password)
    }

    /// A stream to the target, unless the client hangs up first: a scraper that gave up must not hold an exit.
    async fn open(&mut self, caller: &Caller<'_>, pass: &G::Pass, ask: Ask<'_>) -> Result<Opened<G::Lease>, Refusal> {
        let opened = tokio::select! {
            biased;
            opened = self.context.gate.open(caller, pass, ask) => opened?,
            () = self.stream.departed(&mut self.inbox) => return Err(Failure::Client(ClientFault::Left).into()),
        };
        self.record.opened(&opened.facts);
        Ok(opened)
    }

    /// No protocol any more.
    fn tunnel(self, opened: Opened<G::Lease>) -> Tunnel<G::Lease> {
        Tunnel { client: self.stream, opened, first_up: self.inbox.into_rest() }
    }
}

#[cfg(test)]
mod tests;
