//! Read buffers. Each thread keeps a small stock of free buffers.
//!
//! A pump (one direction of a tunnel) takes a buffer to read. It writes the bytes and returns the buffer in the same
//! poll, unless the connection to which it writes is slow. Therefore a thread that serves ten thousand tunnels mostly
//! uses one buffer, which stays in the processor's cache.

use std::cell::RefCell;

/// The size of a buffer, in bytes. Measured on loopback with 4 streams (`benches/README.md`): larger buffers are not
/// faster.
pub(super) const SIZE: usize = 64 << 10;

/// How many free buffers a thread keeps. Further buffers are freed. 16 buffers use 1 MiB per thread. Not tuned.
const STOCK: usize = 16;

thread_local! {
    static FREE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of bytes that were read and not written yet.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    from: usize,
    to: usize,
}

impl Buffer {
    /// Takes an empty buffer of [`SIZE`] bytes from the stock, or makes a new one.
    pub(super) fn take() -> Self {
        let bytes = FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; SIZE].into());
        Self { bytes, from: 0, to: 0 }
    }

    /// Makes a buffer that holds `bytes`. This buffer will not be returned to the stock.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into(), from: 0, to: bytes.len() }
    }

    /// Returns free space for at most `limit` bytes. The caller must call [`Buffer::filled`] after it has put bytes
    /// into this space.
    pub(super) fn room(&mut self, limit: usize) -> &mut [u8] {
        let limit = limit.min(self.bytes.len());
        &mut self.bytes[..limit]
    }

    /// Records that `len` bytes were put into the space that [`Buffer::room`] returned.
    pub(super) fn filled(&mut self, len: usize) {
        (self.from, self.to) = (0, len);
    }

    /// Returns the bytes that must still be written.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }

    /// Records that `len` bytes of [`Buffer::rest`] were written.
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
    fn a_returned_buffer_is_used_again_and_a_burst_is_freed() {
        FREE.with_borrow_mut(Vec::clear);
        let burst: Vec<Buffer> = (0..STOCK + 5).map(|_| Buffer::take()).collect();
        let last = burst[STOCK - 1].bytes.as_ptr();
        drop(burst);
        drop(Buffer::of(b"not of the stock"));
        assert_eq!(FREE.with_borrow(Vec::len), STOCK);
        assert_eq!(Buffer::take().bytes.as_ptr(), last);
    }

    #[test]
    fn bytes_are_written_in_order() {
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
