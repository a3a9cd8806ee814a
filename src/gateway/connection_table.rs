//! The table of open connections: `GET /connections` lists the table, and an operator can cut a connection in it.
//!
//! The [`record`](super::record) of a connection adds the table entry and removes the entry when the record is dropped,
//! so the table never contains a connection that has ended. Each connection writes to the table a few times, and the
//! table is rarely read. Therefore the map is sharded, and each entry has its own lock.

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

/// All open connections. The map's key is the number that the API uses for the connection.
#[derive(Debug, Default)]
pub struct ConnectionTable {
    /// A guard of an entry in this map must be dropped in the statement that took the guard. A second call of the map
    /// while a guard is held would deadlock.
    entries: DashMap<u64, Arc<ConnectionEntry>>,
    last: AtomicU64,
}

/// One open connection.
#[derive(Debug)]
pub struct ConnectionEntry {
    /// The connection's number in the API. A number is not used again until the gateway restarts.
    pub id: u64,
    /// The connection's id in the logs and in error answers.
    pub trace: TraceId,
    /// The label of the listener that accepted the connection.
    pub listener: Arc<str>,
    begun: Instant,
    traffic: Arc<Traffic>,
    cut: Cut,
    state: Mutex<ConnectionState>,
}

/// The part of a connection entry that changes while the connection is open.
#[derive(Clone, Debug)]
pub struct ConnectionState {
    /// The client's address: the address in a trusted peer's PROXY header, or the address of the socket if there is no
    /// such header.
    pub client: SocketAddr,
    /// True if the client connected over TLS.
    pub tls: bool,
    /// The client's protocol. `None` until the first bytes of the client have arrived.
    pub protocol: Option<Protocol>,
    /// The name of the client's key. `None` if the client needed no key.
    pub key: Option<Arc<str>>,
    /// The username and the target of the latest request. `None` before the first request, and always if the setting
    /// `log.targets` forbids storing them.
    pub named: Option<(String, String)>,
    /// The exit that serves the connection now, or the last exit that served it. `None` if no exit has served the
    /// connection yet.
    pub served_by: Option<ServedBy>,
    /// True while a stream to the target is open.
    pub streaming: bool,
    /// The number of requests on this connection that have ended.
    pub requests: u32,
}

/// The route and exit of a connection.
#[derive(Clone, Debug)]
pub struct ServedBy {
    /// The route's name, or the word `implicit` for a route without a name.
    pub label: Arc<str>,
    /// The route's name, or the canonical selector if the route has no name, and after it the restrictions that the
    /// username adds.
    pub scope: Arc<str>,
    pub exit: ExitId,
    /// The exit's address as targets see it. `None` if no check has seen this address.
    pub ip: Option<IpAddr>,
    /// The rules of routes that matched the target, such as `shop#2`. `None` if no rule matched.
    pub rule: Option<Arc<str>>,
}

/// Keeps the entry of one connection in the table. Dropping this value removes the entry.
#[derive(Debug)]
pub(super) struct TableEntry {
    table: Arc<ConnectionTable>,
    entry: Arc<ConnectionEntry>,
}

impl ConnectionTable {
    /// Returns all open connections, the oldest first.
    pub fn list(&self) -> Vec<Arc<ConnectionEntry>> {
        let mut all: Vec<_> = self.entries.iter().map(|entry| entry.value().clone()).collect();
        all.sort_unstable_by_key(|entry| entry.id);
        all
    }

    /// Returns the connection with this number. Returns `None` if no open connection has this number.
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
    /// Returns a copy of the part of the entry that changes while the connection is open.
    pub fn state(&self) -> ConnectionState {
        lock(&self.state).clone()
    }

    /// Returns how long the connection has been open.
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Returns the live byte counters of the connection. The counters grow until the connection ends.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Ends the connection. Called when an operator cuts the connection through the API.
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

    /// Returns the rules that matched the latest target, as text.
    pub(super) fn rule(&self) -> Option<Arc<str>> {
        lock(&self.entry.state).served_by.as_ref()?.rule.clone()
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
