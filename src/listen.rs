//! Owns a port: permit, accept, pause on error, spawn. The only accept loop.
//!
//! A [`Reservation`] is a port that is bound and does not listen yet: a change that needs a port takes it first, and
//! one that fails gives it back by dropping it. [`start`] makes it a [`Listener`].
//!
//! The order in the loop is what keeps a flood outside: a connection is accepted only by a loop that has a permit for
//! it in hand. Excess waits in the kernel's queue, where it costs no descriptor and no memory of ours. A loop that
//! finds nobody at the door puts its permit back before it sleeps, or a thousand quiet ports would hold a thousand.
//!
//! Nothing ends the loop but [`Listener::close`] and shutdown. An accept that fails is one connection lost, or a
//! resource that ran out: the first is passed over, the second is waited for (`listen/accept.rs`). What was accepted
//! outlives the port: a closed listener's connections go on until they end, or until somebody cuts them
//! (`listen/connection_set.rs`).
//!
//! Next: `gateway/connection.rs` is the handler of the data path's listeners.

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

/// How many connections the kernel holds for us while we do not accept. The kernel caps it at `net.core.somaxconn`
/// (4,096 by default), so this asks for all of it.
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

/// One accepted connection, as the handler gets it.
#[derive(Debug)]
pub struct Arrival {
    /// The client's socket; `TCP_NODELAY` is on.
    pub stream: TcpStream,
    /// Whom it claims to come from, v4-mapped v6 unmapped.
    pub peer: SocketAddr,
    /// Ends this connection: the handler must watch it, everybody else may use it.
    pub cut: Cut,
}

/// Connections at once over every listener that shares it. Clones are the same count.
#[derive(Clone, Debug)]
pub struct Permits(Arc<Semaphore>);

impl Permits {
    /// `total` connections at once.
    pub fn new(total: usize) -> Self {
        Self(Arc::new(Semaphore::new(total.min(Semaphore::MAX_PERMITS))))
    }

    /// How many more connections may be accepted now.
    pub fn free(&self) -> usize {
        self.0.available_permits()
    }
}

impl Reservation {
    /// The address really bound: the port is never 0.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Listener {
    /// Binds `addr` without listening on it. Port 0 takes any free one.
    ///
    /// A port is first asked for without `SO_REUSEADDR`, because two sockets that both set it can both be bound, and a
    /// reservation that somebody else also holds is none. Only when that fails, perhaps because of connections of an
    /// earlier run in TIME_WAIT, is it asked for with it.
    pub fn bind(addr: SocketAddr) -> io::Result<Reservation> {
        let socket = match bound(addr, false) {
            Err(fault) if fault.kind() == io::ErrorKind::AddrInUse => bound(addr, true)?,
            other => other?,
        };
        let addr = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        Ok(Reservation { socket, addr })
    }

    /// The address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections alive now.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Accepts that failed since the start.
    pub fn accept_errors(&self) -> u64 {
        self.connections.accept_errors()
    }

    /// Stops accepting; the port is free when this returns. Connections live on.
    pub async fn close(&self) {
        self.closing.cancel();
        self.closed.cancelled().await;
    }

    /// Stops accepting and ends every connection now.
    pub async fn cut(&self) {
        self.close().await;
        self.connections.cut();
    }

    /// Stops accepting, gives the connections `grace` to end, then cuts. Says how many were cut.
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

/// Listens on a reserved port and hands every connection to `handler`, whose future becomes a task of its own.
///
/// At most `own` connections at once come from this port, and no more than `permits` from all; a connection holds its
/// permits until its future ends. A connection that must end gets its [`Cut`], also from the shutdown's kill: the
/// future is not dropped from outside.
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
    // Accepted sockets inherit this, and with it their TIME_WAIT lets the next run bind the port.
    socket.set_reuse_address(true)?;
    socket.listen(BACKLOG)?;
    let acceptor = TcpListener::from_std(socket.into())?;
    let listener = Listener {
        addr,
        connections: Arc::default(),
        closing: CancellationToken::new(),
        closed: CancellationToken::new(),
    };
    let keeper = Keeper {
        connections: listener.connections.clone(),
        all: permits.0.clone(),
        own: Arc::new(Semaphore::new(own.min(Semaphore::MAX_PERMITS))),
        closing: listener.closing.clone(),
        tasks: tasks.clone(),
        handler,
    };
    let closed = listener.closed.clone().drop_guard();
    tasks.spawn("listener", async move {
        keeper.accept_until_closed(acceptor).await;
        drop(closed); // the door went with the call above: the port is free
        keeper.see_the_crowd_off().await;
    });
    Ok(listener)
}

fn bound(addr: SocketAddr, reuse: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?; // `[::]` means everybody, whatever the machine's default is
    }
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(reuse)?;
    socket.set_tcp_nodelay(true)?; // inherited by what is accepted: saves a call for each connection
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// Resolves when the task is next woken: by whatever it has just left its waker with.
async fn woken() {
    let mut slept = false;
    poll_fn(|_| if std::mem::replace(&mut slept, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// What the accept loop works with.
struct Keeper<H> {
    connections: Arc<ConnectionSet>,
    all: Arc<Semaphore>,
    own: Arc<Semaphore>,
    closing: CancellationToken,
    tasks: Tasks,
    handler: H,
}

/// A connection's two permits; dropping it gives them back. (`None` only of a semaphore that was closed: ours never are.)
struct Permit {
    _all: Option<OwnedSemaphorePermit>,
    _own: Option<OwnedSemaphorePermit>,
}

pin_project! {
    /// A handler's future and what its connection holds until its end. A type, so that it is held once (see
    /// `lifecycle.rs`).
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

/// How many connections are accepted in a row before other tasks get a turn. Arbitrary: large enough that a burst is
/// taken in one go, small enough (some 3 µs each) that nobody waits a millisecond for it.
const BATCH: usize = 64;

impl<H, F> Keeper<H>
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

    /// Accepts what is there, up to a batch, and waits when nobody is. `Some` = rest this long first.
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
        // The port's own first: one that is full must not keep a permit from the others while it waits.
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
        self.connections.count_accept_error();
        let pause = backoff.failed(fault);
        if let Some(pause) = pause {
            tracing::warn!(%fault, ?pause, "cannot accept connections; they wait in the kernel's queue");
        }
        pause
    }

    /// Waits for the connections that outlive the port, and cuts them when the shutdown's grace is over.
    async fn see_the_crowd_off(&self) {
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
