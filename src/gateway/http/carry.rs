//! Moves the bytes of one exchange: metered, held to a byte rate, and given up after too long a silence.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep_until, timeout};

use crate::gateway::client::Inbox;
use crate::gateway::relay::{Direction, Idle, Meter};
use crate::limit::Bucket;

/// Bytes read from a body at once: two TLS records. A busy connection holds two such buffers. Not tuned.
const READ_SIZE: usize = 32 * 1024;

/// Why nothing moves any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The other side sent or took nothing for longer than [`Idle`] allows.
    Silent,
    /// The connection broke.
    Broken,
}

impl From<io::Error> for Stopped {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// What both directions of an exchange share.
#[derive(Debug)]
pub struct Carrier<'a, M> {
    meter: &'a M,
    idle: Idle,
    rate: Option<&'a Bucket>,
    /// Bytes in both directions: during a long upload, the missing answer is no silence.
    moved: AtomicU64,
}

impl<'a, M: Meter> Carrier<'a, M> {
    pub fn new(meter: &'a M, idle: Idle, rate: Option<&'a Bucket>) -> Self {
        Self { meter, idle, rate, moved: AtomicU64::new(0) }
    }

    /// Waits for bytes and reads them. `false` is the end of the stream.
    pub async fn read(&self, inbox: &mut Inbox, from: &mut (impl AsyncRead + Unpin)) -> Result<bool, Stopped> {
        self.read_within(self.idle.open, inbox, from).await
    }

    /// The same for an answer's head, whose first byte has a time limit of its own.
    pub async fn read_answer(&self, inbox: &mut Inbox, from: &mut (impl AsyncRead + Unpin)) -> Result<bool, Stopped> {
        let patience = if inbox.is_empty() { self.idle.answer } else { self.idle.open };
        self.read_within(patience, inbox, from).await
    }

    /// True where an answer that does not begin is given up sooner than other silences.
    pub fn expects_answers(&self) -> bool {
        self.idle.answer < self.idle.open
    }

    async fn read_within(
        &self,
        patience: Duration,
        inbox: &mut Inbox,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Result<bool, Stopped> {
        loop {
            let before = self.moved.load(Ordering::Relaxed);
            match timeout(patience, inbox.read(from, READ_SIZE)).await {
                Ok(read) => return Ok(read? > 0),
                Err(_) if self.moved.load(Ordering::Relaxed) != before => {}
                Err(_) => return Err(Stopped::Silent),
            }
        }
    }

    /// Waits until the byte rate allows more, then writes all bytes. The wait comes first: with a wait after the last write,
    /// a client that has everything and closes would look like one that left in the middle.
    pub async fn write(&self, to: &mut (impl AsyncWrite + Unpin), bytes: &[u8], way: Direction) -> Result<(), Stopped> {
        if let Some(later) = self.rate.and_then(|rate| rate.next(Instant::now())) {
            sleep_until(later.into()).await;
        }
        let write = async {
            to.write_all(bytes).await?;
            to.flush().await
        };
        timeout(self.idle.stalled, write).await.map_err(|_| Stopped::Silent)??;
        self.count(bytes.len(), way);
        Ok(())
    }

    /// Counts bytes that were written.
    pub fn count(&self, bytes: usize, way: Direction) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
        self.meter.moved(way, bytes as u64);
        if let Some(rate) = self.rate {
            rate.charge(bytes, Instant::now());
        }
    }
}
