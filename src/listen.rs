//! Ports and the only accept loop: take a permit, accept, pause after an error, spawn the connection.
//!
//! A [`Reservation`] is a port that is bound and does not listen yet. A change that needs a port reserves it first, and frees
//! it by dropping the reservation if it fails. [`start`] turns a reservation into a [`Listener`].
//!
//! The loop takes a permit before it accepts a connection, so a flood stays outside: the excess waits in the kernel's queue,
//! where it takes no descriptor and no memory of the gateway. A loop without a waiting connection returns its permit before
//! it sleeps; otherwise a thousand idle ports would hold a thousand permits.
//!
//! Only [`Listener::close`] and the shutdown end the loop. A failed accept is one lost connection, which is skipped, or a lack
//! of a resource, after which the loop pauses (`listen/accept.rs`). Connections outlive the port: those of a closed listener
//! go on until they end or are cut (`listen/connection_set.rs`).
//!
//! Next: `gateway/connection.rs` handles the connections of the data path.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::lifecycle::{Cut, Tasks};

mod accept;
mod connection_set;

use accept::Acceptor;
use connection_set::ConnectionSet;

/// How many connections may wait in the kernel's queue. The kernel caps it at `net.core.somaxconn` (4,096 by default).
const BACKLOG: i32 = 4096;

/// A port that is bound and does not listen: a connection to it is refused. Dropping it frees the port.
#[derive(Debug)]
pub struct Reservation {
    socket: Socket,
    addr: SocketAddr,
}

/// A port that accepts. Dropping it closes the port and leaves its connections alone.
#[derive(Debug)]
pub struct Listener {
    addr: SocketAddr,
    connections: Arc<ConnectionSet>,
    closing: CancellationToken,
    closed: CancellationToken,
}

/// One accepted connection, for the handler.
#[derive(Debug)]
pub struct Arrival {
    /// The client's socket; `TCP_NODELAY` is on.
    pub stream: TcpStream,
    /// The other end's address; a v4-mapped IPv6 address as IPv4.
    pub peer: SocketAddr,
    /// Ends this connection. The handler must watch it.
    pub cut: Cut,
}

/// A limit of connections at once, for all listeners that share it. Clones share one count.
#[derive(Clone, Debug)]
pub struct Permits(Arc<Semaphore>);

impl Permits {
    pub fn new(total: usize) -> Self {
        Self(Arc::new(Semaphore::new(total.min(Semaphore::MAX_PERMITS))))
    }

    /// How many more connections may be accepted now.
    #[cfg(test)]
    fn free(&self) -> usize {
        self.0.available_permits()
    }
}

impl Reservation {
    /// The bound address, whose port is never 0.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Listener {
    /// Binds `addr` without listening on it. Port 0 takes any free one.
    ///
    /// The first try is without `SO_REUSEADDR`, because two sockets that both set it can both be bound, and a reservation must
    /// be exclusive. The second try sets it: the first also fails while connections of an earlier run are in TIME_WAIT.
    pub fn bind(addr: SocketAddr) -> io::Result<Reservation> {
        let socket = match bound(addr, false) {
            Err(fault) if fault.kind() == io::ErrorKind::AddrInUse => bound(addr, true)?,
            other => other?,
        };
        let addr = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        Ok(Reservation { socket, addr })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops accepting; the port is free when this returns. Its connections go on.
    pub async fn close(&self) {
        self.closing.cancel();
        self.closed.cancelled().await;
    }

    /// Stops accepting and ends every connection now.
    pub async fn cut(&self) {
        self.close().await;
        self.connections.cut();
    }

    /// Stops accepting, gives the connections `grace` to end, then cuts the rest and returns how many those were.
    pub async fn drain(&self, grace: Duration) -> usize {
        self.close().await;
        match tokio::time::timeout(grace, self.connections.emptied()).await {
            Ok(()) => 0,
            Err(_) => self.connections.cut(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// Listens on a reserved port and calls `handler` for every connection; each of its futures becomes a task.
///
/// At most `own` connections at once come from this port, and at most `permits` from all ports; a connection holds its
/// permits until its future ends. To end a connection, its [`Cut`] is used, also by the shutdown: the future is never
/// dropped from outside.
pub fn start<H, F>(
    reservation: Reservation,
    permits: &Permits,
    own: usize,
    tasks: &Tasks,
    handler: H,
) -> io::Result<Listener>
where
    H: Fn(Arrival) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let Reservation { socket, addr } = reservation;
    // Accepted sockets inherit this. Then the next run can bind the port while they are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.listen(BACKLOG)?;
    let acceptor = TcpListener::from_std(socket.into())?;
    let listener = Listener {
        addr,
        connections: Arc::default(),
        closing: CancellationToken::new(),
        closed: CancellationToken::new(),
    };
    let accept_loop = AcceptLoop {
        connections: listener.connections.clone(),
        all: permits.0.clone(),
        own: Arc::new(Semaphore::new(own.min(Semaphore::MAX_PERMITS))),
        closing: listener.closing.clone(),
        tasks: tasks.clone(),
        handler,
    };
    let closed = listener.closed.clone().drop_guard();
    tasks.spawn("listener", async move {
        accept_loop.accept_until_closed(acceptor).await;
        drop(closed); // the call above has dropped the acceptor, so the port is free
        accept_loop.wait_for_connections().await;
    });
    Ok(listener)
}

fn bound(addr: SocketAddr, reuse: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?; // `[::]` accepts IPv4 too, whatever the machine's default is
    }
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(reuse)?;
    socket.set_tcp_nodelay(true)?; // accepted sockets inherit it, which saves a call for each connection
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// Resolves when the task is next woken, by anything that has its waker now.
async fn woken() {
    let mut polled = false;
    poll_fn(|_| if std::mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// The state of one accept loop.
struct AcceptLoop<H> {
    connections: Arc<ConnectionSet>,
    all: Arc<Semaphore>,
    own: Arc<Semaphore>,
    closing: CancellationToken,
    tasks: Tasks,
    handler: H,
}

/// A connection's two permits, returned on drop. `None` only for a closed semaphore, which these never are.
struct Permit {
    _all: Option<OwnedSemaphorePermit>,
    _own: Option<OwnedSemaphorePermit>,
}

pin_project! {
    /// A handler's future, and what its connection holds until its end. A type of its own, because an `async` block would
    /// store the future twice.
    struct Connection<F> {
        #[pin]
        connection: F,
        _permit: Permit,
        _member: connection_set::Member,
    }
}

impl<F: Future<Output = ()>> Future for Connection<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().connection.poll(cx)
    }
}

/// How many connections are accepted in a row before other tasks run. Not tuned: a burst is taken at once, and at about 3 µs
/// each no other task waits a millisecond.
const BATCH: usize = 64;

impl<H, F> AcceptLoop<H>
where
    H: Fn(Arrival) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    async fn accept_until_closed(&self, mut acceptor: impl Acceptor) {
        let mut backoff = accept::AcceptBackoff::default();
        let mut closing = std::pin::pin!(async {
            tokio::select! {
                () = self.closing.cancelled() => {}
                () = self.tasks.stopping() => {}
            }
        });
        loop {
            let pause = tokio::select! {
                biased;
                () = &mut closing => return,
                pause = self.accept_some(&mut acceptor, &mut backoff) => pause,
            };
            match pause {
                None => tokio::task::yield_now().await,
                Some(pause) => tokio::select! {
                    () = &mut closing => return,
                    () = tokio::time::sleep(pause) => {}
                },
            }
        }
    }

    /// Accepts up to a batch of connections, and waits while there are none. `Some`: pause this long first.
    async fn accept_some(&self, acceptor: &mut impl Acceptor, backoff: &mut accept::AcceptBackoff) -> Option<Duration> {
        for _ in 0..BATCH {
            let permit = self.permit().await;
            match poll_fn(|cx| Poll::Ready(acceptor.poll_accept(cx))).await {
                Poll::Ready(Ok((stream, peer))) => {
                    backoff.succeeded();
                    self.admit(stream, peer, permit);
                }
                Poll::Ready(Err(fault)) => {
                    let pause = self.failed(&fault, backoff);
                    if pause.is_some() {
                        return pause;
                    }
                }
                Poll::Pending => {
                    drop(permit);
                    woken().await;
                }
            }
        }
        None
    }

    async fn permit(&self) -> Permit {
        // The port's own first: a port that is full must not hold a shared permit while it waits.
        let own = self.own.clone().acquire_owned().await.ok();
        let all = self.all.clone().acquire_owned().await.ok();
        Permit { _all: all, _own: own }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr, permit: Permit) {
        let cut = Cut::new();
        let member = self.connections.enter(cut.clone());
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let connection = (self.handler)(Arrival { stream, peer, cut });
        self.tasks.spawn("connection", Connection { connection, _permit: permit, _member: member });
    }

    fn failed(&self, fault: &io::Error, backoff: &mut accept::AcceptBackoff) -> Option<Duration> {
        let pause = backoff.failed(fault);
        if let Some(pause) = pause {
            tracing::warn!(%fault, ?pause, "cannot accept connections; they wait in the kernel's queue");
        }
        pause
    }

    /// Waits for the connections that outlive the port, and cuts them when the shutdown's grace period is over.
    async fn wait_for_connections(&self) {
        tokio::select! {
            () = self.connections.emptied() => {}
            () = self.tasks.killed() => {
                self.connections.cut();
            }
        }
    }
}

#[cfg(test)]
mod tests;
