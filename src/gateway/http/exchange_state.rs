//! Reads and writes the bytes of one HTTP exchange, counts them, applies the byte rate, and gives up after too long a
//! silence.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep_until, timeout};

use crate::gateway::client::Inbox;
use crate::gateway::relay::{Direction, Idle, Meter};
use crate::limit::{Bucket, Spend};

/// The maximum number of bytes of a body that one call reads: the size of two TLS records. A busy connection holds two
/// buffers of this size. Not tuned.
const READ_SIZE: usize = 32 * 1024;

/// The reason why the transfer of bytes stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The client or the target sent no bytes, or accepted no bytes, for longer than [`Idle`] allows.
    Silent,
    /// The connection broke.
    Broken,
    /// A budget of the client's key is used up.
    Budget,
}

impl From<io::Error> for Stopped {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// The state that both directions of an exchange share.
#[derive(Debug)]
pub struct ExchangeState<'a, M> {
    meter: &'a M,
    idle: Idle,
    rate: Option<&'a Bucket>,
    spend: Option<&'a Spend>,
    /// The number of bytes moved so far in both directions together. While the bytes of an upload move, a missing
    /// answer does not count as silence.
    moved: AtomicU64,
}

impl<'a, M: Meter> ExchangeState<'a, M> {
    pub fn new(meter: &'a M, idle: Idle, rate: Option<&'a Bucket>, spend: Option<&'a Spend>) -> Self {
        Self { meter, idle, rate, spend, moved: AtomicU64::new(0) }
    }

    /// Waits for bytes and reads them. Returns `false` at the end of the stream.
    pub async fn read(&self, inbox: &mut Inbox, from: &mut (impl AsyncRead + Unpin)) -> Result<bool, Stopped> {
        self.read_within(self.idle.open, inbox, from).await
    }

    /// Reads bytes of an answer's head. For the first byte of the head, the time limit is [`Idle::answer`] in place of
    /// [`Idle::open`].
    pub async fn read_answer(&self, inbox: &mut Inbox, from: &mut (impl AsyncRead + Unpin)) -> Result<bool, Stopped> {
        let patience = if inbox.is_empty() { self.idle.answer } else { self.idle.open };
        self.read_within(patience, inbox, from).await
    }

    /// Returns true if the time limit for the first byte of an answer is shorter than the limit for other silences.
    pub fn expects_answers(&self) -> bool {
        self.idle.answer < self.idle.open
    }

    /// Returns true if a budget of the client's key is used up.
    pub fn is_over_budget(&self) -> bool {
        self.spend.is_some_and(Spend::is_spent)
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

    /// Waits until the byte rate allows more bytes, and then writes all of `bytes`. The wait comes before the write for
    /// a reason. A client may close after it has received everything. If this function waited after the last write,
    /// such a client would look like a client that left too early.
    pub async fn write(&self, to: &mut (impl AsyncWrite + Unpin), bytes: &[u8], way: Direction) -> Result<(), Stopped> {
        if let Some(later) = self.rate.and_then(|rate| rate.next(Instant::now())) {
            sleep_until(later.into()).await;
        }
        let mut rest = bytes;
        loop {
            let granted = self.spend.map_or(rest.len(), |spend| spend.take(rest.len()));
            if granted == 0 && !rest.is_empty() {
                return Err(Stopped::Budget);
            }
            let (part, later) = rest.split_at(granted);
            let mut reserved = Reserved { spend: self.spend, bytes: granted };
            let write = async {
                while reserved.bytes > 0 {
                    match to.write(&part[granted - reserved.bytes..]).await? {
                        0 => return Err(io::ErrorKind::WriteZero.into()),
                        written => reserved.bytes -= written,
                    }
                }
                to.flush().await
            };
            let written = timeout(self.idle.stalled, write).await;
            self.note(granted - reserved.bytes, way);
            written.map_err(|_| Stopped::Silent)??;
            if later.is_empty() {
                return Ok(());
            }
            rest = later;
        }
    }

    /// Counts bytes that were written without [`ExchangeState::write`].
    pub fn count(&self, bytes: usize, way: Direction) {
        if let Some(spend) = self.spend {
            spend.add(bytes);
        }
        self.note(bytes, way);
    }

    fn note(&self, bytes: usize, way: Direction) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
        self.meter.moved(way, bytes as u64);
        if let Some(rate) = self.rate {
            rate.charge(bytes, Instant::now());
        }
    }
}
/// Bytes that were taken from the budgets of a key and are not written yet. They are given back if the write fails, or
/// if its future is dropped because the client has disconnected.
struct Reserved<'a> {
    spend: Option<&'a Spend>,
    bytes: usize,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(spend) = self.spend {
            spend.give_back(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::relay::Traffic;
    use crate::limit::Account;

    #[tokio::test(start_paused = true)]
    async fn bytes_that_were_not_written_are_given_back() {
        let account = Account::limited(100);
        let (spend, meter, idle) = (account.spend("tor"), Traffic::default(), Idle::default());
        let carrier = ExchangeState::new(&meter, idle, None, Some(&spend));
        let (mut to, from) = tokio::io::duplex(10);
        let write =
            async |carrier: &ExchangeState<'_, Traffic>, to: &mut _| carrier.write(to, &[7; 60], Direction::Up).await;
        // The receiver takes 10 bytes and then nothing. The client disconnects, which drops the future.
        let dropped = timeout(Duration::from_secs(1), write(&carrier, &mut to)).await;
        assert!(dropped.is_err());
        assert_eq!(spend.take(200), 90);
        spend.give_back(90);
        // The same, until the gateway gives up; and a receiver that is gone.
        assert_eq!(write(&carrier, &mut to).await, Err(Stopped::Silent));
        drop(from);
        assert_eq!(write(&carrier, &mut to).await, Err(Stopped::Broken));
        assert_eq!(spend.take(200), 90);
        assert_eq!(account.usage(std::time::SystemTime::now().into())[0].ledger.day.used.bytes, 100);
    }
}
