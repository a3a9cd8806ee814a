//! Buffers that a way borrows while it has bytes in hand, from a small stock of each thread.
//!
//! A way that reads takes one and gives it back in the same poll unless the other side is slower, so a thread that
//! serves ten thousand tunnels mostly works with one buffer that stays in its cache.

use std::cell::RefCell;

/// Bytes read at a time. Measured on loopback with 4 streams: see `benches/README.md`; beyond this nothing is gained.
pub(super) const SIZE: usize = 64 << 10;

/// Buffers that a thread keeps for later; more are freed. Arbitrary: 1 MiB a thread.
const STOCK: usize = 16;

thread_local! {
    static FREE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes in hand: read and not yet written.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    from: usize,
    to: usize,
}

impl Buffer {
    /// An empty one of [`SIZE`].
    pub(super) fn take() -> Self {
        let bytes = FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; SIZE].into());
        Self { bytes, from: 0, to: 0 }
    }

    /// One that holds `bytes` and is not of the stock.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into(), from: 0, to: bytes.len() }
    }

    /// Room for at most `limit` bytes, to be followed by [`Buffer::filled`].
    pub(super) fn room(&mut self, limit: usize) -> &mut [u8] {
        let limit = limit.min(self.bytes.len());
        &mut self.bytes[..limit]
    }

    /// `len` bytes were put into the room.
    pub(super) fn filled(&mut self, len: usize) {
        (self.from, self.to) = (0, len);
    }

    /// What is still to be written.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }

    /// `len` bytes of it were written.
    pub(super) fn written(&mut self, len: usize) {
        self.from += len;
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.len() == SIZE {
            FREE.with_borrow_mut(|free| {
                if free.len() < STOCK {
                    free.push(std::mem::take(&mut self.bytes));
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_taken_again_and_a_burst_is_freed() {
        FREE.with_borrow_mut(Vec::clear);
        let burst: Vec<Buffer> = (0..STOCK + 5).map(|_| Buffer::take()).collect();
        let last = burst[STOCK - 1].bytes.as_ptr();
        drop(burst);
        drop(Buffer::of(b"not of the stock"));
        assert_eq!(FREE.with_borrow(Vec::len), STOCK);
        assert_eq!(Buffer::take().bytes.as_ptr(), last);
    }

    #[test]
    fn what_was_filled_is_written_in_order() {
        let mut buffer = Buffer::take();
        buffer.room(SIZE * 2)[..5].copy_from_slice(b"hello");
        buffer.filled(5);
        assert_eq!(buffer.rest(), b"hello");
        buffer.written(2);
        assert_eq!(buffer.rest(), b"llo");
        buffer.written(3);
        assert!(buffer.rest().is_empty());
        assert_eq!(buffer.room(3).len(), 3);
    }
}
