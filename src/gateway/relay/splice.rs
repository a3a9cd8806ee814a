//! Moves memory pages from socket to socket through a pipe, so bytes are not copied out of the kernel and back.
//!
//! For small messages copying is cheaper, because a splice needs two more system calls. Therefore a direction of a
//! tunnel copies until it has moved much data in large pieces, and copies again when the pieces become small. The total
//! number of bytes is no good measure: a terminal that is open all day moves many bytes in tiny pieces.
//!
//! A pipe takes two file descriptors. So the tunnels of a thread share a small stock of pipes: a direction takes a pipe
//! when there are bytes to move, and returns the pipe when it is empty. The crate `rustix` offers the system calls for
//! pipes as safe functions.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;

use super::side::Bare;

/// A direction starts to splice after it has moved this many bytes in large pieces. Measured: see `benches/README.md`.
const BULKY: usize = 512 << 10;

/// The size in bytes from which a piece counts as large. Two sizes were measured. With pieces of 64 bytes, splicing
/// takes six times as many system calls as copying. With pieces of 64 KiB and more, splicing takes less CPU than
/// copying. Any value between the two sizes is good.
const LARGE: usize = 16 << 10;

/// The size in bytes that is requested for a pipe. The kernel may give less. Measured: see `benches/README.md`.
const PIPE: usize = 512 << 10;

/// How many empty pipes a thread keeps. An empty pipe holds no memory pages. Not tuned.
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
        let _ = fcntl_setpipe_size(&write, PIPE); // fails above the user's limit of pages; the default stays
        Ok(Self { read, write })
    }

    /// Returns the pipe to the stock. The pipe must be empty, because the next tunnel must not get bytes of this
    /// tunnel.
    fn give_back(self) {
        FREE.with_borrow_mut(|free| {
            if free.len() < STOCK {
                free.push(self);
            }
        });
    }
}

/// The state of splicing in one direction: its pipe, if the direction has a pipe now, and the number of bytes in the
/// pipe.
#[derive(Debug, Default)]
pub(super) struct Splice {
    pipe: Option<Pipe>,
    held: usize,
    /// The number of bytes recently moved in large pieces. Each small piece halves this number.
    bulk: usize,
    /// True after the attempt to make a pipe has failed. This direction then only copies.
    refused: bool,
}

impl Splice {
    /// Returns true if splicing is cheaper than copying now.
    pub(super) fn pays(&self) -> bool {
        self.bulk >= BULKY && !self.refused
    }

    /// Records the size of a piece, in bytes, that was copied or spliced. Two small pieces among many large pieces do
    /// not stop the splicing, because a reader that is faster than its writer gets some small pieces.
    pub(super) fn saw(&mut self, piece: usize) {
        self.bulk = if piece < LARGE { self.bulk / 2 } else { (self.bulk + piece).min(4 * BULKY) };
    }

    /// Returns true if bytes are in the pipe.
    pub(super) fn holds(&self) -> bool {
        self.held > 0
    }

    /// Returns the number of bytes in the pipe.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Fills the empty pipe with up to `limit` bytes from the socket `from`. The result is the number of bytes. The
    /// result 0 means that `from` has ended.
    pub(super) fn fill(&mut self, cx: &mut Context<'_>, from: Bare<'_>, limit: usize) -> Poll<io::Result<usize>> {
        debug_assert_eq!(self.held, 0, "a full pipe and an empty socket would look the same");
        loop {
            ready!(from.poll_read_ready(cx))?;
            let pipe = match self.pipe.take().map_or_else(Pipe::take, Ok) {
                Ok(pipe) => pipe,
                Err(_) => {
                    self.refused = true; // no file descriptors are left; copying needs none
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

    /// Writes up to `limit` of the bytes in the pipe to the socket `to`, and returns their number.
    pub(super) fn pour(&mut self, cx: &mut Context<'_>, to: Bare<'_>, limit: usize) -> Poll<io::Result<usize>> {
        loop {
            ready!(to.poll_write_ready(cx))?;
            let Some(pipe) = &self.pipe else { return Poll::Ready(Err(io::ErrorKind::WriteZero.into())) };
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            match to
                .try_io(Interest::WRITABLE, |fd| Ok(splice(&pipe.read, None, fd, None, self.held.min(limit), flags)?))
            {
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
        assert!(!after(std::iter::repeat_n(64, 1_000_000)), "a terminal: much in tiny pieces");
        assert!(!after(std::iter::repeat_n(4 << 10, 10_000)), "much in pieces of 4 KiB");
        assert!(after(bulk().chain([100, 100])), "two small pieces change nothing");
        assert!(!after(bulk().chain([100, 100, 100])), "the download has ended, and small messages follow");
    }
}
