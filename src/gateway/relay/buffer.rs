//! Read buffers, from a small stock of each thread.
//!
//! A pump takes a buffer to read, and returns it in the same poll unless the writer is slower. So a thread that serves ten
//! thousand tunnels works mostly with one buffer, which stays in the processor's cache.

use std::cell::RefCell;

/// Bytes read at a time. Measured on loopback with 4 streams (`benches/README.md`): larger buffers gain nothing.
pub(super) const SIZE: usize = 64 << 10;

/// Buffers that a thread keeps for later; more are freed. 1 MiB per thread; not tuned.
const STOCK: usize = 16;

thread_local! {
    static FREE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that were read and not written yet.
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

    /// One that holds `bytes` and will not go into the stock.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into(), from: 0, to: bytes.len() }
    }

    /// Space for at most `limit` bytes; call [`Buffer::filled`] after filling it.
    pub(super) fn room(&mut self, limit: usize) -> &mut [u8] {
        let limit = limit.min(self.bytes.len());
        &mut self.bytes[..limit]
    }

    /// `len` bytes were put into the space.
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
