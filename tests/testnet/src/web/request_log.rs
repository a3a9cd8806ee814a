//! What the web saw.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use http::{HeaderMap, Method};

/// How many requests are remembered: enough for any test, and a bench cannot fill the memory.
const CAPACITY: usize = 100_000;

/// One request.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When its head had arrived.
    pub at: Instant,
    /// Whom it came from, as the web saw it.
    pub source: SocketAddr,
    /// Whether it came over TLS.
    pub tls: bool,
    /// The method.
    pub method: Method,
    /// The `Host` header, as sent.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// All headers.
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
