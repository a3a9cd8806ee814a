//! One way of a tunnel: reads one side, writes the other, and keeps the half-close.
//!
//! A way is always in one of three places: bytes in hand that the writer must take first, an end that the writer must
//! be told, or nothing in hand and the reader to ask. It never reads while it holds, so a slow writer holds the reader
//! back through the reader's own socket, and a reader that breaks takes no bytes with it.
//!
//! Next: `relay/splice.rs` is the same without copying.

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
use super::{Meter, Way};
use crate::limit::Bucket;

/// Chunks that a way moves before others get a turn. Arbitrary: half a MiB, about 0.1 ms.
const TURNS: u32 = 8;

/// The side that a way reads from is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// What both ways of a tunnel share.
pub(super) struct Tools<'a, M> {
    pub(super) rate: Option<&'a Bucket>,
    pub(super) meter: &'a M,
}

/// One way.
#[derive(Debug)]
pub(super) struct Pump {
    way: Way,
    flow: Flow,
    held: Option<Buffer>,
    #[cfg(target_os = "linux")]
    splice: Splice,
    /// The writer has bytes that it has not passed on (TLS).
    unflushed: bool,
    /// The writer would not take what it was given when it was last asked.
    blocked: bool,
    moved: u64,
    touched: Instant,
    pause: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// The reader may say more.
    Open,
    /// The reader has said all; the writer does not know yet.
    Ending,
    /// The writer knows.
    Done,
    /// The writer takes nothing any more. The other way may still carry what it said before.
    GivenUp,
}

impl Pump {
    /// A way that begins with `first`.
    pub(super) fn new(way: Way, first: &[u8], now: Instant) -> Self {
        Self {
            way,
            flow: Flow::Open,
            held: (!first.is_empty()).then(|| Buffer::of(first)),
            #[cfg(target_os = "linux")]
            splice: Splice::default(),
            unflushed: false,
            blocked: false,
            moved: 0,
            touched: now,
            pause: None,
        }
    }

    /// Nothing will move on it any more.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.flow, Flow::Done | Flow::GivenUp)
    }

    /// Its writer went away while there was something to write.
    pub(super) fn is_given_up(&self) -> bool {
        self.flow == Flow::GivenUp
    }

    /// It waits for its writer.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Bytes written.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// When bytes last moved.
    pub(super) fn touched(&self) -> Instant {
        self.touched
    }

    /// Counts as movement.
    pub(super) fn touch(&mut self, now: Instant) {
        self.touched = now;
    }

    /// Moves what can be moved now. `last`: the other way is done, so that the end of this one is the end of both.
    pub(super) fn poll<R: Side, W: Side, M: Meter>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        tools: &Tools<'_, M>,
        last: bool,
    ) -> Result<(), Gone> {
        if self.is_done() {
            return Ok(());
        }
        let before = self.moved;
        let outcome = self.turns(cx, from, to, tools, last);
        if self.moved > before {
            self.touched = Instant::now();
        }
        outcome
    }

    fn turns<R: Side, W: Side, M: Meter>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        tools: &Tools<'_, M>,
        last: bool,
    ) -> Result<(), Gone> {
        for _ in 0..TURNS {
            match self.write(cx, to, tools, last) {
                Poll::Ready(Ok(())) => self.blocked = false,
                Poll::Pending => {
                    self.blocked = true;
                    return Ok(());
                }
                Poll::Ready(Err(_)) => {
                    self.held = None;
                    self.blocked = false;
                    self.flow = Flow::GivenUp;
                }
            }
            if self.is_done() || self.is_paused(cx, tools) {
                return Ok(());
            }
            match self.read(cx, from, to, tools) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => self.flow = Flow::Ending,
                Poll::Ready(Err(_)) => return Err(Gone),
                Poll::Pending => return Ok(()),
            }
        }
        cx.waker().wake_by_ref(); // there may be more: after the others
        Ok(())
    }

    /// Ready when nothing is in hand and the writer knows all that we know.
    fn write<W: Side, M: Meter>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
        tools: &Tools<'_, M>,
        last: bool,
    ) -> Poll<io::Result<()>> {
        while let Some(held) = &mut self.held {
            let len = ready!(Pin::new(&mut *to).poll_write(cx, held.rest()))?;
            if len == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            held.written(len);
            if held.rest().is_empty() {
                self.held = None;
            }
            self.unflushed = to.bare().is_none();
            self.count(len, tools);
        }
        #[cfg(target_os = "linux")]
        if let Some(bare) = to.bare() {
            while self.splice.holds() {
                let len = ready!(self.splice.pour(cx, bare))?;
                self.count(len, tools);
            }
        }
        if self.flow == Flow::Ending {
            // The last end needs no word of its own on a bare socket: both are closed in a moment.
            if !(last && to.bare().is_some()) {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
            }
            self.flow = Flow::Done;
        } else if self.unflushed {
            ready!(Pin::new(&mut *to).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// `true` = something is in hand now, `false` = the reader has said all.
    fn read<R: Side, W: Side, M: Meter>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &W,
        tools: &Tools<'_, M>,
    ) -> Poll<io::Result<bool>> {
        let limit = tools.rate.map_or(usize::MAX, Bucket::chunk);
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

    /// True while the bucket makes this way wait; the task is woken when it is over.
    fn is_paused<M>(&mut self, cx: &mut Context<'_>, tools: &Tools<'_, M>) -> bool {
        let Some(rate) = tools.rate else { return false };
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

    fn count<M: Meter>(&mut self, len: usize, tools: &Tools<'_, M>) {
        self.moved += len as u64;
        tools.meter.moved(self.way, len as u64);
        if let Some(rate) = tools.rate {
            rate.charge(len, Instant::now().into_std());
        }
    }
}
