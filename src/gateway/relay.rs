//! Moves bytes in both directions between a client and its target, counts them, and ends on EOF, silence or a cut.
//!
//! One task polls both directions: a tunnel costs one task, and its directions need no lock between them. Most tunnels are
//! idle, so an idle one must hold little: a direction takes a buffer (`relay/buffer.rs`) only to read, and keeps it only while
//! the bytes in it cannot be written. On Linux, a direction with bulk data stops copying, and moves pages from socket to
//! socket through a pipe (`relay/splice.rs`).
//!
//! A tunnel ends with a [`Reason`], never with an error: many conversations end with a reset. A reset is passed on as a reset,
//! because a clean EOF would look to the other side like the end of complete data.
//!
//! Next: `relay/pump.rs` is one direction; `gateway/record.rs` logs the [`End`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::server::TlsStream;

use crate::dial;
use crate::lifecycle::Cut;
use crate::limit::Bucket;

mod buffer;
mod pump;
mod side;
#[cfg(target_os = "linux")]
mod splice;

use pump::{Gone, Pump};
use side::Side;

/// The client's side of a tunnel.
#[derive(Debug)]
pub enum Client {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl From<TcpStream> for Client {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<TlsStream<TcpStream>> for Client {
    fn from(stream: TlsStream<TcpStream>) -> Self {
        Self::Tls(Box::new(stream))
    }
}

/// The limits of a tunnel, the bytes that were read before it began, and what watches it.
#[derive(Debug)]
pub struct Terms<'a, M> {
    /// Bytes that the client sent behind its handshake; the target gets them first.
    pub first_up: &'a [u8],
    /// Bytes that the target sent with the end of the dial; the client gets them first.
    pub first_down: &'a [u8],
    /// How long the tunnel may be silent.
    pub idle: &'a Idle,
    /// Bytes per second, shared by all tunnels with the same bucket.
    pub rate: Option<Arc<Bucket>>,
    /// Counts bytes while they move.
    pub meter: &'a M,
    /// Ends the tunnel from outside.
    pub cut: &'a Cut,
}

/// How long a tunnel may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Both directions are open, and no byte moves.
    pub open: Duration,
    /// The target got bytes and has never sent any. Equal to `open` where that has no limit of its own.
    pub answer: Duration,
    /// One direction has ended, and no byte moves in the other.
    pub half: Duration,
    /// There are bytes for a side that takes none.
    pub stalled: Duration,
}

impl Default for Idle {
    /// Not tuned; like other proxies: long polls and idle WebSockets stay open, a side that has closed or takes nothing is given
    /// up sooner.
    fn default() -> Self {
        let (hour, minutes) = (Duration::from_secs(3600), Duration::from_secs(300));
        Self { open: hour, answer: hour, half: minutes, stalled: minutes }
    }
}

/// The direction of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Client to target.
    Up,
    /// Target to client.
    Down,
}

/// Counts bytes while they move. Called for every write, so it may use atomics and no lock.
pub trait Meter {
    /// `bytes` were written.
    fn moved(&self, direction: Direction, bytes: u64);
}

/// The byte counts of one connection.
#[derive(Debug, Default)]
pub struct Traffic {
    up: AtomicU64,
    down: AtomicU64,
}

impl Traffic {
    /// Bytes written to the target.
    pub fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    /// Bytes written to the client.
    pub fn down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }
}

impl Meter for Traffic {
    fn moved(&self, direction: Direction, bytes: u64) {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
        .fetch_add(bytes, Ordering::Relaxed);
    }
}

/// How a tunnel ended, and the bytes that it carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub reason: Reason,
    pub up: u64,
    pub down: u64,
}

/// Why a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Both sides closed.
    Finished,
    /// The client reset the connection or vanished.
    ClientGone,
    /// The target, or the exit in front of it, reset the connection or vanished.
    TargetGone,
    /// No byte moved in the directions that were still open.
    Idle,
    /// The target got bytes and never sent any.
    Unanswered,
    /// The receiver of this direction took no bytes.
    Stalled(Direction),
    /// It was cut: by an operator, a drained route or the shutdown.
    Cut,
}

impl Reason {
    /// The value of metric labels and of the access line's field `outcome`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::ClientGone => "client_gone",
            Self::TargetGone => "target_gone",
            Self::Idle => "idle",
            Self::Unanswered => "unanswered",
            Self::Stalled(Direction::Up) => "stalled_up",
            Self::Stalled(Direction::Down) => "stalled_down",
            Self::Cut => "cut",
        }
    }
}

/// Carries a tunnel until it ends. Both sockets are closed when this is ready.
pub fn relay<M: Meter>(client: impl Into<Client>, target: dial::Stream, terms: Terms<'_, M>) -> Relay<'_, M> {
    let now = Instant::now();
    let tunnel = Tunnel {
        client: client.into(),
        target,
        up: Pump::new(Direction::Up, terms.first_up, now),
        down: Pump::new(Direction::Down, terms.first_down, now),
        idle: terms.idle,
        rate: terms.rate,
        meter: terms.meter,
        cut: terms.cut,
    };
    Relay { alarm: sleep_until(tunnel.silent_until().0), tunnel: Some(tunnel) }
}

pin_project! {
    /// The future of [`relay`]. A type and not an `async fn`, which would hold the state of an idle tunnel twice.
    #[must_use = "futures do nothing unless polled"]
    pub struct Relay<'a, M> {
        tunnel: Option<Tunnel<'a, M>>,
        #[pin]
        alarm: Sleep,
    }
}

impl<M: Meter> Future for Relay<'_, M> {
    type Output = End;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = self.project();
        let Some(tunnel) = this.tunnel else { return Poll::Pending }; // polled after its end
        let reason = ready!(tunnel.poll(cx, this.alarm));
        let end = tunnel.end(reason);
        *this.tunnel = None; // closes both
        Poll::Ready(end)
    }
}

struct Tunnel<'a, M> {
    client: Client,
    target: dial::Stream,
    up: Pump,
    down: Pump,
    idle: &'a Idle,
    rate: Option<Arc<Bucket>>,
    meter: &'a M,
    cut: &'a Cut,
}

impl<M: Meter> Tunnel<'_, M> {
    fn poll(&mut self, cx: &mut Context<'_>, mut alarm: Pin<&mut Sleep>) -> Poll<Reason> {
        if self.cut.poll_cut(cx).is_ready() {
            return Poll::Ready(Reason::Cut);
        }
        let shared = pump::Shared { rate: self.rate.as_deref(), meter: self.meter };
        let was_open = !self.up.is_done() && !self.down.is_done();
        let up = self.up.poll(cx, &mut self.client, &mut self.target, &shared, self.down.is_done());
        let down = self.down.poll(cx, &mut self.target, &mut self.client, &shared, self.up.is_done());
        match (up, down) {
            (Err(Gone), _) => return Poll::Ready(Reason::ClientGone),
            (_, Err(Gone)) => return Poll::Ready(Reason::TargetGone),
            (Ok(()), Ok(())) => {}
        }
        if self.up.is_done() && self.down.is_done() {
            return Poll::Ready(match (self.up.is_given_up(), self.down.is_given_up()) {
                (false, false) => Reason::Finished,
                (true, _) => Reason::TargetGone,
                (_, true) => Reason::ClientGone,
            });
        }
        if was_open && (self.up.is_done() || self.down.is_done()) {
            let now = Instant::now(); // the direction that is left gets its whole time limit from here
            self.up.touch(now);
            self.down.touch(now);
        }
        // Moving bytes does not reset the timer, because that costs more: it fires early now and then, and is then reset.
        loop {
            let (until, reason) = self.silent_until();
            if until < alarm.deadline() {
                alarm.as_mut().reset(until);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() >= until {
                return Poll::Ready(reason);
            }
            alarm.as_mut().reset(until);
        }
    }

    /// When the tunnel has been silent too long if nothing moves from now on, and the reason that it then ends with.
    fn silent_until(&self) -> (Instant, Reason) {
        let (up, down) = (&self.up, &self.down);
        let unanswered = self.idle.answer < self.idle.open && up.moved() > 0 && down.moved() == 0;
        let silent = match (up.is_done(), down.is_done()) {
            (false, false) if unanswered => (up.touched() + self.idle.answer, Reason::Unanswered),
            (false, false) => (up.touched().max(down.touched()) + self.idle.open, Reason::Idle),
            (true, _) => (down.touched() + self.idle.half, Reason::Idle),
            (_, true) => (up.touched() + self.idle.half, Reason::Idle),
        };
        let stalled = [(up, Direction::Up), (down, Direction::Down)]
            .into_iter()
            .filter(|(pump, _)| pump.is_blocked())
            .map(|(pump, direction)| (pump.touched() + self.idle.stalled, Reason::Stalled(direction)));
        stalled.fold(silent, |soonest, next| if next.0 < soonest.0 { next } else { soonest })
    }

    fn end(&mut self, reason: Reason) -> End {
        if !matches!(reason, Reason::Finished | Reason::Idle) {
            // A reset on both sides: neither side may take what it has for complete.
            self.client.abort();
            self.target.abort();
        }
        End { reason, up: self.up.moved(), down: self.down.moved() }
    }
}

#[cfg(test)]
mod tests;
