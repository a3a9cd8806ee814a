//! Moving pages from socket to socket through a pipe, instead of copying bytes out of the kernel and back in.
//!
//! A copy of a small message is cheaper than what surrounds it, and two splices are two calls more than none; so a way
//! copies until it has proven bulky, and copies again once it moves little at a time. What it has moved in all says
//! nothing: a terminal that is open all day moves much, in the smallest of pieces. A pipe is two descriptors, so pipes are few and pooled: a way takes one when there are
//! bytes to move and gives it back as soon as it is empty. The calls are safe ones (`rustix`), so nothing here is not.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;

use super::side::Bare;

/// A way that has moved this much in large pieces goes on without copying. Measured: see `benches/README.md`.
const BULKY: usize = 512 << 10;

/// A piece of this size is a large one. Arbitrary, between what was measured: pieces of 64 bytes take six times the
/// system calls when they are spliced, pieces of 64 KiB and more take less CPU.
const LARGE: usize = 16 << 10;

/// What a pipe is asked to hold. Measured: see `benches/README.md`. The kernel may give less, and then does.
const PIPE: usize = 512 << 10;

/// Pipes that a thread keeps for later. Arbitrary: what a pipe holds is only what is under way.
const STOCK: usize = 16;

thread_local! {
    static FREE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    fn take() -> io::Result<Self> {
        if let Some(pipe) = FREE.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let _ = fcntl_setpipe_size(&write, PIPE); // beyond a user's share of pages it stays at the default
        Ok(Self { read, write })
    }

    /// Only of an empty pipe: its next taker must not find another tunnel's bytes in it.
    fn give_back(self) {
        FREE.with_borrow_mut(|free| {
            if free.len() < STOCK {
                free.push(self);
            }
        });
    }
}

/// The pipe of one way, if it has one now, and how much is in it.
#[derive(Debug, Default)]
pub(super) struct Splice {
    pipe: Option<Pipe>,
    held: usize,
    /// Bytes moved in large pieces lately: what a small piece halves.
    bulk: usize,
    /// The system refused once: this way copies.
    refused: bool,
}

impl Splice {
    /// True of a way that is bulky and may splice.
    pub(super) fn pays(&self) -> bool {
        self.bulk >= BULKY && !self.refused
    }

    /// A piece of this size was read, by whatever means. Two small ones among large ones change nothing yet: a reader
    /// that is faster than its writer sees some.
    pub(super) fn saw(&mut self, piece: usize) {
        self.bulk = if piece < LARGE { self.bulk / 2 } else { (self.bulk + piece).min(4 * BULKY) };
    }

    /// Bytes are in the pipe.
    pub(super) fn holds(&self) -> bool {
        self.held > 0
    }

    /// Fills the empty pipe with up to `limit` bytes of `from`; 0 is its end.
    pub(super) fn fill(&mut self, cx: &mut Context<'_>, from: Bare<'_>, limit: usize) -> Poll<io::Result<usize>> {
        debug_assert_eq!(self.held, 0, "a full pipe and an empty socket would look the same");
        loop {
            ready!(from.poll_read_ready(cx))?;
            let pipe = match self.pipe.take().map_or_else(Pipe::take, Ok) {
                Ok(pipe) => pipe,
                Err(_) => {
                    self.refused = true; // no descriptor left for it: copying needs none
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            };
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            let len = PIPE.min(limit);
            match from.try_io(Interest::READABLE, |fd| Ok(splice(fd, None, &pipe.write, None, len, flags)?)) {
                Ok(0) => {
                    pipe.give_back();
                    return Poll::Ready(Ok(0));
                }
                Ok(len) => {
                    self.pipe = Some(pipe);
                    self.held = len;
                    self.saw(len);
                    return Poll::Ready(Ok(len));
                }
                Err(fault) => {
                    pipe.give_back();
                    if fault.kind() != io::ErrorKind::WouldBlock {
                        return Poll::Ready(Err(fault));
                    }
                }
            }
        }
    }

    /// Writes some of what is in the pipe.
    pub(super) fn pour(&mut self, cx: &mut Context<'_>, to: Bare<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(to.poll_write_ready(cx))?;
            let Some(pipe) = &self.pipe else { return Poll::Ready(Err(io::ErrorKind::WriteZero.into())) };
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            match to.try_io(Interest::WRITABLE, |fd| Ok(splice(&pipe.read, None, fd, None, self.held, flags)?)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(len) => {
                    self.held -= len;
                    if self.held == 0
                        && let Some(pipe) = self.pipe.take()
                    {
                        pipe.give_back();
                    }
                    return Poll::Ready(Ok(len));
                }
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {}
                Err(fault) => return Poll::Ready(Err(fault)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pieces: impl IntoIterator<Item = usize>) -> bool {
        let mut splice = Splice::default();
        pieces.into_iter().for_each(|piece| splice.saw(piece));
        splice.pays()
    }

    #[test]
    fn only_large_pieces_are_worth_a_pipe() {
        let bulk = || std::iter::repeat_n(64 << 10, 100);
        assert!(!after([64 << 10]));
        assert!(after(bulk()));
        assert!(!after(std::iter::repeat_n(64, 1_000_000)), "much, but a terminal");
        assert!(!after(std::iter::repeat_n(4 << 10, 10_000)), "much, but cells");
        assert!(after(bulk().chain([100, 100])), "a hiccup");
        assert!(!after(bulk().chain([100, 100, 100])), "the download is over, the conversation goes on");
    }
}
