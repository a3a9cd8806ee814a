//! The connections that are open: `GET /connections` lists them, and an operator can cut one.
//!
//! The [`record`](super::record) of a connection adds its entry and removes it by being dropped, so the table never names a
//! connection that is gone. Connections write here a few times each while it is rarely read: the map is sharded, and each
//! entry has a lock of its own.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use super::protocol::Protocol;
use super::relay::Traffic;
use crate::exit::ExitId;
use crate::lifecycle::Cut;
use crate::telemetry::trace_id::{Kind, TraceId};

/// Every open connection, by its number.
#[derive(Debug, Default)]
pub struct ConnectionTable {
    /// No guard of an entry outlives the statement that took it: a second call of the map would deadlock.
    entries: DashMap<u64, Arc<ConnectionEntry>>,
    last: AtomicU64,
}

/// One open connection.
#[derive(Debug)]
pub struct ConnectionEntry {
    /// Its number in the API; not used twice in one run.
    pub id: u64,
    /// Its id in logs and in error answers.
    pub trace: TraceId,
    /// The label of the listener that accepted it.
    pub listener: Arc<str>,
    begun: Instant,
    traffic: Arc<Traffic>,
    cut: Cut,
    state: Mutex<ConnectionState>,
}

/// The part of a connection that changes.
#[derive(Clone, Debug)]
pub struct ConnectionState {
    /// The client's address: from a trusted peer's PROXY header, else the socket's.
    pub client: SocketAddr,
    /// The client connected over TLS.
    pub tls: bool,
    /// `None` until the first bytes show it.
    pub protocol: Option<Protocol>,
    /// The name of the client's key, if it needed one.
    pub key: Option<Arc<str>>,
    /// Username and target, where `log.targets` allows to keep them.
    pub named: Option<(String, String)>,
    /// The exit that serves it, or served it last.
    pub served_by: Option<ServedBy>,
    /// A stream to its target is open.
    pub streaming: bool,
    /// Requests that it has made so far.
    pub requests: u32,
}

/// The route and exit of a connection.
#[derive(Clone, Debug)]
pub struct ServedBy {
    /// The route's name, or `implicit`.
    pub label: Arc<str>,
    /// The route's name or the canonical selector, narrowed by the username.
    pub scope: Arc<str>,
    pub exit: ExitId,
    /// The address that targets see, if a check has seen it.
    pub ip: Option<IpAddr>,
}

/// Keeps an entry in the table until it is dropped.
#[derive(Debug)]
pub(super) struct TableEntry {
    table: Arc<ConnectionTable>,
    entry: Arc<ConnectionEntry>,
}

impl ConnectionTable {
    /// Every connection, oldest first.
    pub fn list(&self) -> Vec<Arc<ConnectionEntry>> {
        let mut all: Vec<_> = self.entries.iter().map(|entry| entry.value().clone()).collect();
        all.sort_unstable_by_key(|entry| entry.id);
        all
    }

    /// The connection with this number, if it is still open.
    pub fn get(&self, id: u64) -> Option<Arc<ConnectionEntry>> {
        self.entries.get(&id).map(|entry| entry.value().clone())
    }

    pub(super) fn enter(
        self: &Arc<Self>,
        listener: Arc<str>,
        client: SocketAddr,
        traffic: Arc<Traffic>,
        cut: Cut,
    ) -> TableEntry {
        let state = ConnectionState {
            client,
            tls: false,
            protocol: None,
            key: None,
            named: None,
            served_by: None,
            streaming: false,
            requests: 0,
        };
        let entry = Arc::new(ConnectionEntry {
            id: self.last.fetch_add(1, Ordering::Relaxed) + 1,
            trace: TraceId::next(Kind::Connection),
            listener,
            begun: Instant::now(),
            traffic,
            cut,
            state: Mutex::new(state),
        });
        self.entries.insert(entry.id, entry.clone());
        TableEntry { table: self.clone(), entry }
    }
}

impl ConnectionEntry {
    /// A copy of the part that changes.
    pub fn state(&self) -> ConnectionState {
        lock(&self.state).clone()
    }

    /// How long it has been open.
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Its byte counts, which go on counting.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Ends the connection.
    pub fn cut(&self) {
        self.cut.cut();
    }
}

impl TableEntry {
    pub(super) fn trace(&self) -> TraceId {
        self.entry.trace
    }

    pub(super) fn key(&self) -> Option<Arc<str>> {
        lock(&self.entry.state).key.clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut ConnectionState)) {
        change(&mut lock(&self.entry.state));
    }
}

impl Drop for TableEntry {
    fn drop(&mut self) {
        self.table.entries.remove(&self.entry.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_lasts_as_long_as_its_connection_and_can_cut_it() {
        let table = Arc::new(ConnectionTable::default());
        let enter = || {
            let cut = Cut::new();
            (table.enter("shared".into(), "192.0.2.1:9".parse().unwrap(), Arc::default(), cut.clone()), cut)
        };
        let ((first, cut), (second, _)) = (enter(), enter());
        second.update(|state| state.requests = 3);
        let listed: Vec<_> = table.list().iter().map(|entry| (entry.id, entry.state().requests)).collect();
        assert_eq!(listed, [(1, 0), (2, 3)]);
        table.get(1).unwrap().cut();
        assert!(cut.is_cut());
        drop(first);
        assert!(table.get(1).is_none() && table.list().len() == 1);
        let (third, _) = enter();
        assert_eq!((third.entry.id, table.list().len()), (3, 2), "no number is used twice");
        assert_ne!(third.trace().to_string(), second.trace().to_string());
        drop((second, third));
        assert!(table.list().is_empty());
    }
}
