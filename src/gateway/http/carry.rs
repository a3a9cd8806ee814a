//! Moves the bytes of one exchange: measured, metered, paced, and never for longer than a silence may last.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep_until, timeout};

use crate::gateway::client::Inbox;
use crate::gateway::relay::{Idle, Meter, Way};
use crate::limit::Bucket;

/// One read of a body. Arbitrary: two TLS records, and little enough that a connection at work costs two of them.
const ROOM: usize = 32 * 1024;

/// Why nothing moves any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The other side said nothing for as long as it may, or took nothing.
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
    /// Bytes either way: a long upload is no silence to whoever waits for the answer.
    moved: AtomicU64,
}

impl<'a, M: Meter> Carrier<'a, M> {
    /// Carries under these limits.
    pub fn new(meter: &'a M, idle: Idle, rate: Option<&'a Bucket>) -> Self {
        Self { meter, idle, rate, moved: AtomicU64::new(0) }
    }

    /// Reads what is there, or waits for it. `false` is the end.
    pub async fn read(&self, inbox: &mut Inbox, from: &mut (impl AsyncRead + Unpin)) -> Result<bool, Stopped> {
        self.read_for(self.idle.open, inbox, from).await
    }

    /// The same for the first byte of an answer.
    pub async fn read_answer(&self, inbox: &mut Inbox, from: &mut (impl AsyncRead + Unpin)) -> Result<bool, Stopped> {
        let patience = if inbox.is_empty() { self.idle.answer } else { self.idle.open };
        self.read_for(patience, inbox, from).await
    }

    /// True where an answer that does not begin is given up before other silences are.
    pub fn expects_answers(&self) -> bool {
        self.idle.answer < self.idle.open
    }

    async fn read_for(
        &self,
        patience: Duration,
        inbox: &mut Inbox,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Result<bool, Stopped> {
        loop {
            let before = self.moved.load(Ordering::Relaxed);
            match timeout(patience, inbox.read(from, ROOM)).await {
                Ok(read) => return Ok(read? > 0),
                Err(_) if self.moved.load(Ordering::Relaxed) != before => {}
                Err(_) => return Err(Stopped::Silent),
            }
        }
    }

    /// Writes all of it, then waits for as long as the rate asks.
    pub async fn write(&self, to: &mut (impl AsyncWrite + Unpin), bytes: &[u8], way: Way) -> Result<(), Stopped> {
        let write = async {
            to.write_all(bytes).await?;
            to.flush().await
        };
        timeout(self.idle.stalled, write).await.map_err(|_| Stopped::Silent)??;
        self.moved.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.meter.moved(way, bytes.len() as u64);
        if let Some(rate) = self.rate {
            let now = Instant::now();
            rate.charge(bytes.len(), now);
            if let Some(later) = rate.next(now) {
                sleep_until(later.into()).await;
            }
        }
        Ok(())
    }
}
