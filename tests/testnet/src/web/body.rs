//! Bodies that are made while they are sent, so that a gigabyte takes no memory.

use std::convert::Infallible;
use std::ops::Range;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Interval;

/// The period of the pattern. It is prime, so that a lost or repeated block always changes the bytes.
const PERIOD: u64 = 251;

/// The size of one piece: about a socket buffer.
const CHUNK: usize = 64 * 1024;

static TABLE: LazyLock<Bytes> = LazyLock::new(|| (0..CHUNK as u64 + PERIOD).map(|at| (at % PERIOD) as u8).collect());

/// The bytes of `/bytes/N` between two offsets: byte `i` is `i % 251`.
pub fn pattern(range: Range<u64>) -> Vec<u8> {
    range.map(|at| (at % PERIOD) as u8).collect()
}

/// A part of the pattern.
#[derive(Debug)]
pub(super) struct Pattern(pub Range<u64>);

impl Body for Pattern {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let left = self.0.end - self.0.start;
        if left == 0 {
            return Poll::Ready(None);
        }
        let (from, length) = ((self.0.start % PERIOD) as usize, left.min(CHUNK as u64));
        self.0.start += length;
        Poll::Ready(Some(Ok(Frame::data(TABLE.slice(from..from + length as usize)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.end - self.0.start)
    }
}

/// A body of one byte a second.
#[derive(Debug)]
pub(super) struct Drip {
    left: u64,
    ticks: Interval,
}

impl Drip {
    pub(super) fn new(seconds: u64) -> Self {
        Self { left: seconds, ticks: tokio::time::interval(Duration::from_secs(1)) }
    }
}

impl Body for Drip {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        std::task::ready!(self.ticks.poll_tick(cx));
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The part of a body of `length` bytes that a `Range` header asks for. `None`: the whole body. `Err`: there is no such part. A request for
/// several ranges gets the whole body, as RFC 9110 allows.
pub(super) fn range(header: Option<&str>, length: u64) -> Result<Option<Range<u64>>, ()> {
    let Some((first, last)) = header.and_then(|header| header.strip_prefix("bytes=")?.split_once('-')) else {
        return Ok(None);
    };
    let part = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(length),
        (Ok(first), Err(_)) if last.trim().is_empty() => first..length,
        (Err(_), Ok(last)) if first.trim().is_empty() => length.saturating_sub(last)..length,
        _ => return Ok(None),
    };
    if part.is_empty() { Err(()) } else { Ok(Some(part)) }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn the_body_is_the_pattern_wherever_it_starts() {
        for part in [0..0, 0..1, 0..300_000, 250..252, 65_530..200_001] {
            let sent = Pattern(part.clone()).collect().await.unwrap().to_bytes();
            assert!(sent == pattern(part.clone()), "{part:?}");
        }
    }

    #[test]
    fn ranges() {
        for (header, want) in [
            (None, Ok(None)),
            (Some("bytes=0-9"), Ok(Some(0..10))),
            (Some("bytes=90-"), Ok(Some(90..100))),
            (Some("bytes=-10"), Ok(Some(90..100))),
            (Some("bytes=50-1000"), Ok(Some(50..100))),
            (Some("bytes=100-"), Err(())),
            (Some("bytes=0-1,5-6"), Ok(None)),
            (Some("bytes=9-1"), Ok(None)),
            (Some("lines=0-9"), Ok(None)),
        ] {
            assert_eq!(range(header, 100), want, "{header:?}");
        }
    }
}
