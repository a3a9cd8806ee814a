//! Copies bytes in both directions between a client and its target, and counts the bytes. The relay ends on EOF, after
//! too long a silence, or when the tunnel is cut.
//!
//! One task polls both directions, so a tunnel costs one task, and its directions need no lock between them.
//!
//! Most tunnels are idle, so an idle tunnel must use little memory. A direction takes a buffer (`relay/buffer.rs`) only
//! to read, and keeps the buffer only while the bytes in it cannot be written. On Linux, a direction with much data
//! does not copy bytes but moves memory pages from socket to socket through a pipe (`relay/splice.rs`).
//!
//! A tunnel ends with a [`Reason`] and never with an error, because many connections normally end with a reset. If the
//! client or the target sends a reset, the other of the two gets a reset too. A normal EOF would look like the end of
//! complete data.
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
use crate::limit::{Bucket, Spend};

mod buffer;
mod pump;
mod side;
#[cfg(target_os = "linux")]
mod splice;

use pump::{Gone, Pump};
use side::Side;

/// The client's connection in a tunnel, with or without TLS.
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

/// The limits of a tunnel, the bytes that were read before the relay began, the byte counter, and the switch that cuts
/// the tunnel.
#[derive(Debug)]
pub struct Terms<'a, M> {
    /// Bytes that the client sent after its handshake. They are sent to the target first.
    pub first_up: &'a [u8],
    /// Bytes that the target sent so early that they were read during the dial. They are sent to the client first.
    pub first_down: &'a [u8],
    /// The time limits for silence in the tunnel.
    pub idle: &'a Idle,
    /// The limit in bytes per second. All tunnels with the same bucket share this limit. `None` means no limit.
    pub rate: Option<Arc<Bucket>>,
    /// Counts the bytes for the client's key, and ends the tunnel when a budget of the key is used up. `None` if the
    /// client needed no key.
    pub spend: Option<Spend>,
    /// Counts the bytes while they are written.
    pub meter: &'a M,
    /// Ends the tunnel from outside, for example when an operator cuts the connection.
    pub cut: &'a Cut,
}

/// Four time limits for silence in a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// The time limit while both directions are open and no byte moves.
    pub open: Duration,
    /// The time limit while the target has received bytes and has not sent any byte yet. If no separate limit is
    /// configured, the value equals `open`.
    pub answer: Duration,
    /// The time limit while one direction has ended and no byte moves in the other direction.
    pub half: Duration,
    /// The time limit while bytes wait because their receiver (the client or the target) accepts none.
    pub stalled: Duration,
}

impl Default for Idle {
    /// The values are similar to those of other proxies. Long polls and idle WebSockets stay open. The limits are
    /// shorter after the client or the target has closed or while one of them accepts no bytes. Not tuned.
    fn default() -> Self {
        let (hour, minutes) = (Duration::from_secs(3600), Duration::from_secs(300));
        Self { open: hour, answer: hour, half: minutes, stalled: minutes }
    }
}

/// The direction of bytes in a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the target.
    Up,
    /// From the target to the client.
    Down,
}

/// Counts bytes while they are written. The relay calls the meter for every write, so an implementation may use atomics
/// but no lock.
pub trait Meter {
    /// Called when `bytes` bytes were written in this direction.
    fn moved(&self, direction: Direction, bytes: u64);
}

/// The byte counts of one connection.
#[derive(Debug, Default)]
pub struct Traffic {
    up: AtomicU64,
    down: AtomicU64,
}

impl Traffic {
    /// Returns the number of bytes written to the target.
    pub fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes written to the client.
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

/// How a tunnel ended, and how many bytes it carried in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub reason: Reason,
    pub up: u64,
    pub down: u64,
}

/// The reason why a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The client and the target both closed normally.
    Finished,
    /// The client reset the connection or disappeared.
    ClientGone,
    /// The target, or the exit before the target, reset the connection or disappeared.
    TargetGone,
    /// No byte moved for too long in the directions that were still open.
    Idle,
    /// The target received bytes and sent none within [`Idle::answer`].
    Unanswered,
    /// The receiver of this direction accepted no bytes for too long.
    Stalled(Direction),
    /// A budget of the client's key was used up.
    Budget,
    /// The tunnel was cut: by an operator, because its route was removed, or by the shutdown.
    Cut,
}

impl Reason {
    /// Returns the text that metric labels and the access line's field `outcome` use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::ClientGone => "client_gone",
            Self::TargetGone => "target_gone",
            Self::Idle => "idle",
            Self::Unanswered => "unanswered",
            Self::Stalled(Direction::Up) => "stalled_up",
            Self::Stalled(Direction::Down) => "stalled_down",
            Self::Budget => "over_budget",
            Self::Cut => "cut",
        }
    }
}

/// Carries a tunnel until it ends. Both sockets are closed when the returned future is ready.
pub fn relay<M: Meter>(client: impl Into<Client>, target: dial::Stream, terms: Terms<'_, M>) -> Relay<'_, M> {
    let now = Instant::now();
    let tunnel = Tunnel {
        client: client.into(),
        target,
        up: Pump::new(Direction::Up, terms.first_up, now),
        down: Pump::new(Direction::Down, terms.first_down, now),
        idle: terms.idle,
        rate: terms.rate,
        spend: terms.spend,
        meter: terms.meter,
        cut: terms.cut,
    };
    Relay { alarm: sleep_until(tunnel.silent_until().0), tunnel: Some(tunnel) }
}

pin_project! {
    /// The future of [`relay`]. It is a struct, because an `async fn` would hold the state of an idle tunnel twice.
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
        let Some(tunnel) = this.tunnel else { return Poll::Pending }; // polled again after its end
        let reason = ready!(tunnel.poll(cx, this.alarm));
        let end = tunnel.end(reason);
        *this.tunnel = None; // closes both sockets
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
    spend: Option<Spend>,
    meter: &'a M,
    cut: &'a Cut,
}

impl<M: Meter> Tunnel<'_, M> {
    fn poll(&mut self, cx: &mut Context<'_>, mut alarm: Pin<&mut Sleep>) -> Poll<Reason> {
        if self.cut.poll_cut(cx).is_ready() {
            return Poll::Ready(Reason::Cut);
        }
        let shared = pump::Shared { rate: self.rate.as_deref(), spend: self.spend.as_ref(), meter: self.meter };
        let was_open = !self.up.is_done() && !self.down.is_done();
        let up = self.up.poll(cx, &mut self.client, &mut self.target, &shared, self.down.is_done());
        let down = self.down.poll(cx, &mut self.target, &mut self.client, &shared, self.up.is_done());
        match (up, down) {
            (Err(Gone), _) => return Poll::Ready(Reason::ClientGone),
            (_, Err(Gone)) => return Poll::Ready(Reason::TargetGone),
            (Ok(()), Ok(())) => {}
        }
        if self.up.is_over_budget() || self.down.is_over_budget() {
            return Poll::Ready(Reason::Budget);
        }
        if self.up.is_done() && self.down.is_done() {
            return Poll::Ready(match (self.up.is_given_up(), self.down.is_given_up()) {
                (false, false) => Reason::Finished,
                (true, _) => Reason::TargetGone,
                (_, true) => Reason::ClientGone,
            });
        }
        if was_open && (self.up.is_done() || self.down.is_done()) {
            let now = Instant::now(); // one direction has ended; the time limit of the other one starts again now
            self.up.touch(now);
            self.down.touch(now);
        }
        // The alarm (a timer for the end of the time limit) is not set anew each time bytes move, because setting a
        // timer is expensive. Therefore the alarm sometimes fires too early, and is then set to the right time.
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

    /// Returns the time at which the tunnel ends because of silence if no byte moves from now on, and the reason for
    /// that end.
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
            // The client and the target both get a reset, because neither may believe that the data it received is
            // complete.
            self.client.abort();
            self.target.abort();
        }
        End { reason, up: self.up.moved(), down: self.down.moved() }
    }
}

#[cfg(test)]
mod tests;
