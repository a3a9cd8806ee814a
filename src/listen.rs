//! Listening ports and their accept loop. The loop takes a permit, accepts a connection, spawns a task for the
//! connection, and pauses after some errors.
//!
//! A [`Reservation`] is a port that is bound and does not listen yet. A change of the configuration that needs a port
//! first reserves the port. If the change fails, the reservation is dropped, which frees the port. [`start`] makes a
//! [`Listener`] from a reservation.
//!
//! The number of permits is the largest number of open connections. The loop takes a permit before it accepts a
//! connection. If there is no permit, further connections wait in the kernel's queue, where they use no file descriptor
//! and no memory of the gateway. If no connection waits, the loop returns its permit before it sleeps. Otherwise a
//! thousand idle ports would hold a thousand permits.
//!
//! An error never ends the loop: only [`Listener::close`] and the shutdown do. If accepting fails because of a single
//! connection, the loop skips this connection. If accepting fails because the process lacks a resource, the loop pauses
//! (`listen/accept.rs`).
//!
//! The parent of the process may pass sockets that already listen (`listen/inherited.rs`).
//!
//! Connections continue after their port was closed, until they end or are cut (`listen/connection_set.rs`).
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
mod inherited;

use accept::Acceptor;
use connection_set::ConnectionSet;
pub use inherited::{InheritError, Inherited};

/// The maximum number of connections that may wait in the kernel's queue. The kernel also limits this number to
/// `net.core.somaxconn` (4,096 by default).
const BACKLOG: i32 = 4096;

/// A port that is bound and does not listen: a connection to this port is refused. Dropping the reservation frees the
/// port. An inherited socket is different: it listens already, and its parent keeps the port.
#[derive(Debug)]
pub struct Reservation {
    socket: Socket,
    addr: SocketAddr,
    /// Marks an inherited socket as used. `None` if this process bound the socket.
    lent: Option<Arc<()>>,
}

/// A port that accepts connections. Dropping the listener closes the port. Open connections are not ended.
#[derive(Debug)]
pub struct Listener {
    addr: SocketAddr,
    connections: Arc<ConnectionSet>,
    closing: CancellationToken,
    closed: CancellationToken,
}

/// One accepted connection. The listener passes this value to the handler.
#[derive(Debug)]
pub struct Arrival {
    /// The client's socket. `TCP_NODELAY` is on.
    pub stream: TcpStream,
    /// The address of the client's socket. An IPv4-mapped IPv6 address is converted to IPv4.
    pub peer: SocketAddr,
    /// The switch that ends this connection. The handler must watch this switch.
    pub cut: Cut,
}

/// A limit for the number of connections that are open at the same time on all listeners that use this limit. Clones
/// share one count.
#[derive(Clone, Debug)]
pub struct Permits(Arc<Semaphore>);

impl Permits {
    pub fn new(total: usize) -> Self {
        Self(Arc::new(Semaphore::new(total.min(Semaphore::MAX_PERMITS))))
    }

    /// Returns how many more connections may be accepted now.
    #[cfg(test)]
    fn free(&self) -> usize {
        self.0.available_permits()
    }
}

impl Reservation {
    /// Returns the bound address. Its port is never 0.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Listener {
    /// Binds `addr` and does not listen on it. For port 0, the kernel chooses a free port.
    ///
    /// The first try is made without `SO_REUSEADDR`, because two sockets with this option can both be bound, and a
    /// reservation must be exclusive. The second try sets the option, because the first try also fails while
    /// connections of an earlier run are in TIME_WAIT.
    pub fn bind(addr: SocketAddr) -> io::Result<Reservation> {
        let socket = match bound(addr, false) {
            Err(fault) if fault.kind() == io::ErrorKind::AddrInUse => bound(addr, true)?,
            other => other?,
        };
        let addr = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        Ok(Reservation { socket, addr, lent: None })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops accepting connections. The port is free when this function returns. Open connections continue.
    pub async fn close(&self) {
        self.closing.cancel();
        self.closed.cancelled().await;
    }

    /// Stops accepting connections and ends all open connections immediately.
    pub async fn cut(&self) {
        self.close().await;
        self.connections.cut();
    }

    /// Stops accepting connections and waits up to `grace` until the open connections have ended. Then cuts the
    /// remaining connections and returns how many were cut.
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

/// Listens on a reserved port and calls `handler` for every connection. Each future that `handler` returns becomes a
/// task.
///
/// At most `own` connections from this port, and at most `permits` connections from all ports, are open at the same
/// time. A connection holds its permits until its future ends. A connection is ended only through its [`Cut`], also at
/// the shutdown. The future of a connection is never dropped from outside.
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
    let Reservation { socket, addr, lent } = reservation;
    // Accepted sockets inherit this option. With this option, the next run of the gateway can bind the port while old
    // connections are in TIME_WAIT.
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
        drop(lent);
        drop(closed); // the call above has dropped the acceptor, so the port is free
        accept_loop.wait_for_connections().await;
    });
    Ok(listener)
}

fn bound(addr: SocketAddr, reuse: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?; // `[::]` accepts IPv4 too, on every machine
    }
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(reuse)?;
    socket.set_tcp_nodelay(true)?; // accepted sockets inherit it, which saves a call for each connection
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// Waits until the task is woken for any reason. The task's waker must already be registered somewhere.
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

/// The two permits of a connection. Dropping this value returns both permits. A field would be `None` only if its
/// semaphore were closed, which never happens.
struct Permit {
    _all: Option<OwnedSemaphorePermit>,
    _own: Option<OwnedSemaphorePermit>,
}

pin_project! {
    /// The future of a handler, and the values that a connection holds until its end. This is a struct, because an
    /// `async` block would store the future twice.
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

/// The maximum number of connections that are accepted in a row before other tasks run. With this number, many
/// simultaneous connections are accepted quickly. One accept takes about 3 µs, so no other task waits a millisecond.
/// Not tuned.
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

    /// Accepts up to [`BATCH`] connections, and waits for a connection if there is none. If the result is `Some`, the
    /// caller must pause for this time before the next call.
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
        // The permit of this port is taken first. Otherwise a port that has reached its own limit would hold a shared
        // permit while it waits.
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

    /// Waits for the connections that are still open after the port was closed. When the grace period of the shutdown
    /// is over, they are cut.
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
