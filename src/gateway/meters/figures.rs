//! The counts of one route since the gateway started, for the API. The API needs its own counts, because a metric's
//! handle can be written but not read.

use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::exit::ExitId;

/// The counts of one route and its present throughput. In each array of two numbers, the first number is for bytes to
/// targets and the second is for bytes from targets.
#[derive(Debug, Default)]
pub struct Figures {
    open: AtomicI64,
    requests: AtomicU64,
    failed: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    last: Mutex<Option<(ExitId, Option<IpAddr>)>>,
    throughput: Mutex<Option<Throughput>>,
}

/// The throughput in bytes per second, and the byte counts at the last measurement. The next throughput is computed
/// from these byte counts.
#[derive(Clone, Copy, Debug)]
struct Throughput {
    at: Instant,
    bytes: [u64; 2],
    per_second: [u64; 2],
}

impl Figures {
    /// Returns the number of streams that are open now.
    pub fn open(&self) -> u64 {
        u64::try_from(self.open.load(Relaxed)).unwrap_or_default()
    }

    /// Returns the number of requests that have ended, successful or not.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Returns the number of requests that failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    pub fn bytes(&self) -> [u64; 2] {
        [self.up.load(Relaxed), self.down.load(Relaxed)]
    }

    /// Returns the exit that was used last, with its address.
    pub fn last(&self) -> Option<(ExitId, Option<IpAddr>)> {
        lock(&self.last).clone()
    }

    /// Returns the bytes per second (to targets, from targets), as computed by the last call of [`Figures::measure`].
    pub fn per_second(&self) -> [u64; 2] {
        lock(&self.throughput).map_or([0; 2], |throughput| throughput.per_second)
    }

    /// Computes the throughput since the last call of this function. Must be called every few seconds.
    pub fn measure(&self, now: Instant) {
        let bytes = self.bytes();
        let mut throughput = lock(&self.throughput);
        let per_second = match *throughput {
            None => [0; 2],
            Some(before) => {
                let millis = u64::try_from((now - before.at).as_millis()).unwrap_or(u64::MAX).max(1);
                [0, 1].map(|way| (bytes[way] - before.bytes[way]).saturating_mul(1000) / millis)
            }
        };
        *throughput = Some(Throughput { at: now, bytes, per_second });
    }

    pub(in super::super) fn opened(&self, exit: &ExitId, ip: Option<IpAddr>) {
        self.open.fetch_add(1, Relaxed);
        let mut last = lock(&self.last);
        if last.as_ref().is_none_or(|(before, _)| before != exit) {
            *last = Some((exit.clone(), ip));
        }
    }

    pub(in super::super) fn closed(&self) {
        self.open.fetch_sub(1, Relaxed);
    }

    pub(in super::super) fn moved_up(&self, bytes: u64) {
        self.up.fetch_add(bytes, Relaxed);
    }

    pub(in super::super) fn moved_down(&self, bytes: u64) {
        self.down.fetch_add(bytes, Relaxed);
    }

    pub(in super::super) fn ended(&self, failed: bool) {
        self.requests.fetch_add(1, Relaxed);
        if failed {
            self.failed.fetch_add(1, Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn throughput_is_what_moved_since_the_last_measurement() {
        let (figures, began) = (Figures::default(), Instant::now());
        figures.moved_down(500);
        figures.measure(began);
        assert_eq!(figures.per_second(), [0, 0], "one measurement is no throughput");
        figures.moved_up(100);
        figures.moved_down(3000);
        figures.measure(began + Duration::from_secs(2));
        assert_eq!((figures.per_second(), figures.bytes()), ([50, 1500], [100, 3500]));
        figures.measure(began + Duration::from_secs(3));
        assert_eq!(figures.per_second(), [0, 0]);
    }

    #[test]
    fn a_failed_request_counts_as_a_request_and_as_failed() {
        let figures = Figures::default();
        [false, false, true].into_iter().for_each(|failed| figures.ended(failed));
        assert_eq!((figures.requests(), figures.failed()), (3, 1));
    }
}
