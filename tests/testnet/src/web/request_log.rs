//! The requests that the web has received.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use http::{HeaderMap, Method};

/// How many requests are kept: more than any test sends, and few enough that a bench does not fill the memory.
const CAPACITY: usize = 100_000;

#[derive(Clone, Debug)]
pub struct Seen {
    /// When its head was complete.
    pub at: Instant,
    /// The address from which it came.
    pub source: SocketAddr,
    pub tls: bool,
    pub method: Method,
    /// The `Host` header, as sent.
    pub host: String,
    /// Path and query.
    pub path: String,
    pub headers: HeaderMap,
}

#[derive(Debug, Default)]
pub(super) struct Log(Mutex<VecDeque<Seen>>);

impl Log {
    pub(super) fn add(&self, seen: Seen) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == CAPACITY {
            log.pop_front();
        }
        log.push_back(seen);
    }

    pub(super) fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
