//! What one route has done, to be read back: a metric's handle can only be written.

use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::super::gate::Facts;
use super::super::relay::Way;
use super::Outcome;
use crate::exit::ExitId;

/// Counts of one route since the gateway started, and its pace now.
#[derive(Debug, Default)]
pub struct Figures {
    open: AtomicI64,
    requests: AtomicU64,
    failed: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    last: Mutex<Option<(ExitId, Option<IpAddr>)>>,
    pace: Mutex<Option<Throughput>>,
}

/// Bytes a second, and what they were reckoned from.
#[derive(Clone, Copy, Debug)]
struct Throughput {
    at: Instant,
    bytes: [u64; 2],
    per_second: [u64; 2],
}

impl Figures {
    /// Streams open now.
    pub fn open(&self) -> u64 {
        u64::try_from(self.open.load(Relaxed)).unwrap_or_default()
    }

    /// Requests that came to an end, well or not.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Requests that did not get what they asked for.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// Bytes to targets and from them.
    pub fn bytes(&self) -> [u64; 2] {
        [self.up.load(Relaxed), self.down.load(Relaxed)]
    }

    /// The exit that was used last, with its address.
    pub fn last(&self) -> Option<(ExitId, Option<IpAddr>)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes a second to targets and from them, as of the last [`Figures::measure`].
    pub fn per_second(&self) -> [u64; 2] {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).map_or([0; 2], |pace| pace.per_second)
    }

    /// Reckons the pace since the last call. Somebody calls it every second or so.
    pub fn measure(&self, now: Instant) {
        let bytes = self.bytes();
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let per_second = match *pace {
            None => [0; 2],
            Some(before) => {
                let millis = u64::try_from((now - before.at).as_millis()).unwrap_or(u64::MAX).max(1);
                [0, 1].map(|way| (bytes[way] - before.bytes[way]).saturating_mul(1000) / millis)
            }
        };
        *pace = Some(Throughput { at: now, bytes, per_second });
    }

    pub(super) fn opened(&self, facts: &Facts) {
        self.open.fetch_add(1, Relaxed);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|(exit, _)| *exit != facts.exit) {
            *last = Some((facts.exit.clone(), facts.ip));
        }
    }

    pub(super) fn closed(&self) {
        self.open.fetch_sub(1, Relaxed);
    }

    pub(super) fn moved(&self, way: Way, bytes: u64) {
        match way {
            Way::Up => self.up.fetch_add(bytes, Relaxed),
            Way::Down => self.down.fetch_add(bytes, Relaxed),
        };
    }

    pub(super) fn settled(&self, outcome: Outcome) {
        self.requests.fetch_add(1, Relaxed);
        if matches!(outcome, Outcome::Failed(_)) {
            self.failed.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::gateway::failure::Failure;

    #[test]
    fn a_pace_is_what_moved_since_the_last_look() {
        let (figures, began) = (Figures::default(), Instant::now());
        figures.moved(Way::Down, 500);
        figures.measure(began);
        assert_eq!(figures.per_second(), [0, 0], "one look is no pace");
        figures.moved(Way::Up, 100);
        figures.moved(Way::Down, 3000);
        figures.measure(began + Duration::from_secs(2));
        assert_eq!((figures.per_second(), figures.bytes()), ([50, 1500], [100, 3500]));
        figures.measure(began + Duration::from_secs(3));
        assert_eq!(figures.per_second(), [0, 0]);
    }

    #[test]
    fn a_refusal_is_an_error_and_an_end_is_none() {
        let figures = Figures::default();
        figures.settled(Outcome::Answered);
        figures.settled(Outcome::Cut);
        figures.settled(Outcome::Failed(Failure::Draining));
        assert_eq!((figures.requests(), figures.failed()), (3, 1));
    }
}
