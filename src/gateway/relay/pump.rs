//! A pump is one direction of a tunnel. It reads from one connection (the reader), writes to the other connection (the
//! writer), and forwards a half-close.
//!
//! A pump is in one of three states. It holds bytes that must be written first, or it has an EOF to forward, or it
//! holds nothing and reads. A pump never reads while it holds bytes. So if the writer is slow, bytes stay in the socket
//! of the reader, and the program at the other end of this socket must send more slowly.
//!
//! Next: `relay/splice.rs` does the same without copying.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;
use tokio::time::{Instant, Sleep, sleep_until};

use super::buffer::Buffer;
use super::side::Side;
#[cfg(target_os = "linux")]
use super::splice::Splice;
use super::{Direction, Meter};
use crate::limit::{Bucket, Spend};

/// The number of full buffers that a pump moves before other tasks run: half a MiB, which takes about 0.1 ms. Not
/// tuned.
const BUFFERS_PER_POLL: u32 = 8;

/// The error that the connection from which a pump reads was reset or has disappeared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// The state that both pumps of a tunnel share.
pub(super) struct Shared<'a, M> {
    pub(super) rate: Option<&'a Bucket>,
    pub(super) spend: Option<&'a Spend>,
    pub(super) meter: &'a M,
}

impl<M> Shared<'_, M> {
    /// Reserves up to `want` bytes of the budgets of the client's key, and returns how many may be written.
    fn take(&self, want: usize) -> usize {
        self.spend.map_or(want, |spend| spend.take(want))
    }

    /// Gives back reserved bytes that were not written.
    fn give_back(&self, bytes: usize) {
        if let Some(spend) = self.spend {
            spend.give_back(bytes);
        }
    }
}

/// Returns how many bytes a write has written.
fn written(polled: &Poll<io::Result<usize>>) -> usize {
    if let Poll::Ready(Ok(len)) = polled { *len } else { 0 }
}

/// One direction of a tunnel.
#[derive(Debug)]
pub(super) struct Pump {
    direction: Direction,
    state: PumpState,
    /// Bytes that were read and not written yet.
    held: Option<Buffer>,
    #[cfg(target_os = "linux")]
    splice: Splice,
    /// True if the TLS session of the writer may still hold bytes that must be sent. Always false without TLS.
    unflushed: bool,
    /// True if the last write could not continue because the writer's socket accepted no more bytes.
    blocked: bool,
    /// True after a write was stopped because a budget of the client's key was used up.
    over_budget: bool,
    moved: u64,
    touched: Instant,
    /// A timer while the byte rate makes this direction wait. `None` at all other times.
    pause: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PumpState {
    Open,
    /// The connection to read from has ended, and the connection to write to has not been closed yet.
    Ending,
    Done,
    /// The writer accepts no more bytes. The other direction may still carry bytes that the same connection sent
    /// before.
    GivenUp,
}

impl Pump {
    /// Makes a pump that first writes the bytes in `first`.
    pub(super) fn new(direction: Direction, first: &[u8], now: Instant) -> Self {
        Self {
            direction,
            state: PumpState::Open,
            held: (!first.is_empty()).then(|| Buffer::of(first)),
            #[cfg(target_os = "linux")]
            splice: Splice::default(),
            unflushed: false,
            blocked: false,
            over_budget: false,
            moved: 0,
            touched: now,
            pause: None,
        }
    }

    /// Returns true if no more bytes will move in this direction.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, PumpState::Done | PumpState::GivenUp)
    }

    /// Returns true if the writer disappeared while there were bytes to write.
    pub(super) fn is_given_up(&self) -> bool {
        self.state == PumpState::GivenUp
    }

    /// Returns true if this direction waits because the writer accepts no bytes.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Returns true if a budget of the client's key stopped this direction.
    pub(super) fn is_over_budget(&self) -> bool {
        self.over_budget
    }

    /// Returns the number of bytes written in this direction so far.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Returns the time at which bytes last moved in this direction.
    pub(super) fn touched(&self) -> Instant {
        self.touched
    }

    /// Restarts the time limits for silence of this direction at `now`.
    pub(super) fn touch(&mut self, now: Instant) {
        self.touched = now;
    }

    /// Moves all bytes that can be moved now. `last` is true if the other direction has ended, so the end of this
    /// direction ends the tunnel.
    pub(super) fn poll<R: Side, W: Side, M: Meter>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        shared: &Shared<'_, M>,
        last: bool,
    ) -> Result<(), Gone> {
        if self.is_done() {
            return Ok(());
        }
        let before = self.moved;
        let outcome = self.move_buffers(cx, from, to, shared, last);
        if self.moved > before {
            self.touched = Instant::now();
        }
        outcome
    }

    fn move_buffers<R: Side, W: Side, M: Meter>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        shared: &Shared<'_, M>,
        last: bool,
    ) -> Result<(), Gone> {
        for _ in 0..BUFFERS_PER_POLL {
            match self.write(cx, to, shared, last) {
                Poll::Ready(Ok(())) => self.blocked = false,
                Poll::Pending => {
                    self.blocked = true;
                    return Ok(());
                }
                Poll::Ready(Err(_)) => {
                    self.held = None;
                    self.blocked = false;
                    self.state = PumpState::GivenUp;
                }
            }
            if self.is_done() || self.is_paused(cx, shared) {
                return Ok(());
            }
            match self.read(cx, from, to, shared) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => self.state = PumpState::Ending,
                Poll::Ready(Err(_)) => return Err(Gone),
                Poll::Pending => return Ok(()),
            }
        }
        cx.waker().wake_by_ref(); // there may be more bytes, but other tasks run first
        Ok(())
    }

    /// Writes the bytes that the pump holds, and forwards an EOF of the reader. The result is ready when the pump holds
    /// no more bytes.
    fn write<W: Side, M: Meter>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
        shared: &Shared<'_, M>,
        last: bool,
    ) -> Poll<io::Result<()>> {
        while let Some(held) = &mut self.held {
            let granted = shared.take(held.rest().len());
            if granted == 0 {
                self.over_budget = true;
                return Poll::Pending;
            }
            let polled = Pin::new(&mut *to).poll_write(cx, &held.rest()[..granted]);
            shared.give_back(granted - written(&polled));
            let len = ready!(polled)?;
            if len == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            held.written(len);
            if held.rest().is_empty() {
                self.held = None;
            }
            self.unflushed = to.bare().is_none();
            self.count(len, shared);
        }
        #[cfg(target_os = "linux")]
        if let Some(bare) = to.bare() {
            while self.splice.holds() {
                let granted = shared.take(self.splice.held());
                if granted == 0 {
                    self.over_budget = true;
                    return Poll::Pending;
                }
                let polled = self.splice.pour(cx, bare, granted);
                shared.give_back(granted - written(&polled));
                let len = ready!(polled)?;
                self.count(len, shared);
            }
        }
        if self.state == PumpState::Ending {
            // If the other direction has already ended, a socket without TLS needs no shutdown, because both sockets
            // are closed immediately afterwards.
            if !(last && to.bare().is_some()) {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
            }
            self.state = PumpState::Done;
        } else if self.unflushed {
            ready!(Pin::new(&mut *to).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads bytes. Returns `true` if the pump holds bytes now, and `false` if the reader has ended.
    fn read<R: Side, W: Side, M: Meter>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &W,
        shared: &Shared<'_, M>,
    ) -> Poll<io::Result<bool>> {
        let limit = shared.rate.map_or(usize::MAX, Bucket::chunk);
        #[cfg(target_os = "linux")]
        if let (Some(from), Some(_)) = (from.bare(), to.bare())
            && self.splice.pays()
        {
            let len = ready!(self.splice.fill(cx, from, limit))?;
            return Poll::Ready(Ok(len > 0));
        }
        let mut buffer = Buffer::take();
        let mut room = ReadBuf::new(buffer.room(limit));
        ready!(Pin::new(from).poll_read(cx, &mut room))?;
        let len = room.filled().len();
        buffer.filled(len);
        #[cfg(target_os = "linux")]
        self.splice.saw(len);
        self.held = (len > 0).then_some(buffer);
        Poll::Ready(Ok(len > 0))
    }

    /// Returns true while the byte rate makes this direction wait. The task is woken when the wait is over.
    fn is_paused<M>(&mut self, cx: &mut Context<'_>, shared: &Shared<'_, M>) -> bool {
        let Some(rate) = shared.rate else { return false };
        if self.pause.is_none() {
            let now = Instant::now();
            let Some(until) = rate.next(now.into_std()) else { return false };
            self.pause = Some(Box::pin(sleep_until(until.into())));
        }
        let paused = self.pause.as_mut().is_some_and(|pause| pause.as_mut().poll(cx).is_pending());
        if !paused {
            self.pause = None;
        }
        paused
    }

    fn count<M: Meter>(&mut self, len: usize, shared: &Shared<'_, M>) {
        self.moved += len as u64;
        shared.meter.moved(self.direction, len as u64);
        if let Some(rate) = shared.rate {
            rate.charge(len, Instant::now().into_std());
        }
    }
}
