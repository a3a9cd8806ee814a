//! Moves bytes both ways between a client and its target, counts them, and ends on EOF, silence or a cut.
//!
//! One task polls both ways, so that a tunnel costs one task and its two ways need no lock between them. What a tunnel
//! holds while nothing moves is what ten thousand tunnels cost, so a way takes a buffer (`relay/buffer.rs`) only when
//! it reads, and keeps it only when the bytes in it cannot be written yet. On Linux, a way that has proven bulky stops
//! copying and moves pages from socket to socket through a pipe (`relay/splice.rs`).
//!
//! How it ends is a [`Reason`], never an error: a reset in an open tunnel is how many conversations are over. A reset
//! is passed on as a reset, because a clean EOF would tell the other side that it has everything.
//!
//! Next: `relay/pump.rs` is one way; `gateway/record.rs` writes the [`End`] down.

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

/// The client's end of a tunnel.
#[derive(Debug)]
pub enum Client {
    /// A bare socket.
    Tcp(TcpStream),
    /// TLS to the proxy.
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

/// What a tunnel is granted and who watches it.
#[derive(Debug)]
pub struct Terms<'a, M> {
    /// What the client sent behind its handshake: the target gets it before anything else.
    pub first_up: &'a [u8],
    /// What the target's side sent behind its handshake: the client gets it before anything else.
    pub first_down: &'a [u8],
    /// How long silence may last.
    pub idle: &'a Idle,
    /// Bytes a second, shared with whoever holds the same bucket.
    pub rate: Option<Arc<Bucket>>,
    /// Told of bytes while they move.
    pub meter: &'a M,
    /// Ends the tunnel from outside.
    pub cut: &'a Cut,
}

/// How long a tunnel may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Both ways open, and no byte on either.
    pub open: Duration,
    /// The target has been told something and has never said anything. As long as `open` where that is nothing special.
    pub answer: Duration,
    /// One way at its end, and no byte on the other.
    pub half: Duration,
    /// Bytes for a side that takes none of them.
    pub stalled: Duration,
}

impl Default for Idle {
    /// Arbitrary, after what proxies in the field do: long polls and idle WebSockets live; a client that closed its
    /// side, or takes nothing, is given up sooner.
    fn default() -> Self {
        let (hour, minutes) = (Duration::from_secs(3600), Duration::from_secs(300));
        Self { open: hour, answer: hour, half: minutes, stalled: minutes }
    }
}

/// A way through the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// Client to target.
    Up,
    /// Target to client.
    Down,
}

/// Told of bytes while they move; called for every write, so it must be cheap: atomics, no lock.
pub trait Meter {
    /// `bytes` were written to the other side.
    fn moved(&self, way: Way, bytes: u64);
}

/// The plain meter: two counters that anybody may read at any time.
#[derive(Debug, Default)]
pub struct Traffic {
    up: AtomicU64,
    down: AtomicU64,
}

impl Traffic {
    /// Bytes that the target was given.
    pub fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    /// Bytes that the client was given.
    pub fn down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }
}

impl Meter for Traffic {
    fn moved(&self, way: Way, bytes: u64) {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
        .fetch_add(bytes, Ordering::Relaxed);
    }
}

/// How a tunnel ended, and what it carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub reason: Reason,
    /// Bytes that the target was given.
    pub up: u64,
    /// Bytes that the client was given.
    pub down: u64,
}

/// Why a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Both sides said all they had to say.
    Finished,
    /// The client reset or vanished.
    ClientGone,
    /// The target, or the exit in front of it, reset or vanished.
    TargetGone,
    /// Silence on every way that was still open.
    Idle,
    /// The target was told something and never said anything.
    Unanswered,
    /// Bytes on this way that nobody took.
    Stalled(Way),
    /// Somebody cut it: an operator, a drained route, shutdown.
    Cut,
}

impl Reason {
    /// The word for it in the access line and as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::ClientGone => "client_gone",
            Self::TargetGone => "target_gone",
            Self::Idle => "idle",
            Self::Unanswered => "unanswered",
            Self::Stalled(Way::Up) => "stalled_up",
            Self::Stalled(Way::Down) => "stalled_down",
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
        up: Pump::new(Way::Up, terms.first_up, now),
        down: Pump::new(Way::Down, terms.first_down, now),
        idle: terms.idle,
        rate: terms.rate,
        meter: terms.meter,
        cut: terms.cut,
    };
    Relay { alarm: sleep_until(tunnel.silent_until().0), tunnel: Some(tunnel) }
}

pin_project! {
    /// What [`relay`] returns. A type and not an `async fn`: what an idle tunnel holds is held once.
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
        let tools = pump::Tools { rate: self.rate.as_deref(), meter: self.meter };
        let was_open = !self.up.is_done() && !self.down.is_done();
        let up = self.up.poll(cx, &mut self.client, &mut self.target, &tools, self.down.is_done());
        let down = self.down.poll(cx, &mut self.target, &mut self.client, &tools, self.up.is_done());
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
            let now = Instant::now(); // the way that is left gets its whole time from here
            self.up.touch(now);
            self.down.touch(now);
        }
        // Bytes move the deadline without touching the timer: it fires early now and then, and is set anew.
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

    /// When silence has lasted too long if nothing moves from now on, and what to call it then.
    fn silent_until(&self) -> (Instant, Reason) {
        let (up, down) = (&self.up, &self.down);
        let unanswered = self.idle.answer < self.idle.open && up.moved() > 0 && down.moved() == 0;
        let silent = match (up.is_done(), down.is_done()) {
            (false, false) if unanswered => (up.touched() + self.idle.answer, Reason::Unanswered),
            (false, false) => (up.touched().max(down.touched()) + self.idle.open, Reason::Idle),
            (true, _) => (down.touched() + self.idle.half, Reason::Idle),
            (_, true) => (up.touched() + self.idle.half, Reason::Idle),
        };
        let stalled = [(up, Way::Up), (down, Way::Down)]
            .into_iter()
            .filter(|(pump, _)| pump.is_blocked())
            .map(|(pump, way)| (pump.touched() + self.idle.stalled, Reason::Stalled(way)));
        stalled.fold(silent, |soonest, next| if next.0 < soonest.0 { next } else { soonest })
    }

    fn end(&mut self, reason: Reason) -> End {
        if !matches!(reason, Reason::Finished | Reason::Idle) {
            // Nobody may take what he has for the whole: an end in the middle is a reset on both sides.
            self.client.abort();
            self.target.abort();
        }
        End { reason, up: self.up.moved(), down: self.down.moved() }
    }
}

#[cfg(test)]
mod tests;
