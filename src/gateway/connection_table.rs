//! The roll of connections that are alive: what `GET /connections` lists, and what cuts one.
//!
//! A row is written by the connection's record and struck off when that drops, so the roll cannot name a connection that
//! is gone. The data path writes here a few times a connection and nobody reads most of the time, so the roll is sharded
//! and a row is written without looking at another.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::gate::{Facts, Protocol};
use super::relay::Traffic;
use crate::exit::ExitId;
use crate::lifecycle::Cut;

/// Arbitrary: more than threads that accept.
const SHARDS: usize = 16;

/// Every connection that is alive.
#[derive(Debug, Default)]
pub struct ConnectionTable {
    shards: [Mutex<HashMap<u64, Arc<ConnectionEntry>>>; SHARDS],
    last: AtomicU64,
}

/// One connection.
#[derive(Debug)]
pub struct ConnectionEntry {
    /// Its number; none is given twice in one run.
    pub id: u64,
    /// Where it came in.
    pub listener: Arc<str>,
    begun: Instant,
    traffic: Arc<Traffic>,
    cut: Cut,
    standing: Mutex<ConnectionState>,
}

/// How a connection stands.
#[derive(Clone, Debug)]
pub struct ConnectionState {
    /// Who it is, as a trusted peer says it or as its socket does.
    pub client: SocketAddr,
    /// It came over TLS.
    pub tls: bool,
    /// How it speaks, once that is known.
    pub protocol: Option<Protocol>,
    /// What it said and wants, where targets may be named.
    pub named: Option<(String, String)>,
    /// Which exit serves it, or served it last.
    pub way: Option<Way>,
    /// A stream to its target is open.
    pub streaming: bool,
    /// Requests that it has made.
    pub requests: u32,
}

/// The way that a connection takes.
#[derive(Clone, Debug)]
pub struct Way {
    /// The route's name, or `implicit`.
    pub label: Arc<str>,
    /// The route's name or the canonical selector, as narrowed.
    pub scope: Arc<str>,
    /// The exit.
    pub exit: ExitId,
    /// The address that targets see, if a check has seen it.
    pub ip: Option<IpAddr>,
}

/// A row that is struck off when this drops.
#[derive(Debug)]
pub(super) struct Entered {
    connections: Arc<ConnectionTable>,
    row: Arc<ConnectionEntry>,
}

impl ConnectionTable {
    /// Every connection, in the order in which they came.
    pub fn list(&self) -> Vec<Arc<ConnectionEntry>> {
        let mut all = Vec::new();
        self.shards.iter().for_each(|shard| all.extend(open(shard).values().cloned()));
        all.sort_unstable_by_key(|row| row.id);
        all
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| open(shard).len()).sum()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The connection with this number, if it is still alive.
    pub fn get(&self, id: u64) -> Option<Arc<ConnectionEntry>> {
        open(self.shard(id)).get(&id).cloned()
    }

    pub(super) fn enter(
        self: &Arc<Self>,
        listener: Arc<str>,
        client: SocketAddr,
        traffic: Arc<Traffic>,
        cut: Cut,
    ) -> Entered {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let standing = ConnectionState {
            client,
            tls: false,
            protocol: None,
            named: None,
            way: None,
            streaming: false,
            requests: 0,
        };
        let row = Arc::new(ConnectionEntry {
            id,
            listener,
            begun: Instant::now(),
            traffic,
            cut,
            standing: Mutex::new(standing),
        });
        open(self.shard(id)).insert(id, row.clone());
        Entered { connections: self.clone(), row }
    }

    fn shard(&self, id: u64) -> &Mutex<HashMap<u64, Arc<ConnectionEntry>>> {
        &self.shards[id as usize % SHARDS]
    }
}

impl ConnectionEntry {
    /// How it stands now.
    pub fn standing(&self) -> ConnectionState {
        open(&self.standing).clone()
    }

    /// How long it has been alive.
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Its bytes, live.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Ends it.
    pub fn cut(&self) {
        self.cut.cut();
    }
}

impl Entered {
    pub(super) fn note(&self, change: impl FnOnce(&mut ConnectionState)) {
        change(&mut open(&self.row.standing));
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        open(self.connections.shard(self.row.id)).remove(&self.row.id);
    }
}

impl Way {
    pub(super) fn of(facts: &Facts) -> Self {
        let Facts { exit, ip, route, meters, .. } = facts;
        Self { label: meters.label().clone(), scope: route.clone(), exit: exit.clone(), ip: *ip }
    }
}

fn open<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_there_as_long_as_its_connection_and_can_be_cut() {
        let connections = Arc::new(ConnectionTable::default());
        let enter = || {
            let cut = Cut::new();
            (connections.enter("shared".into(), "192.0.2.1:9".parse().unwrap(), Arc::default(), cut.clone()), cut)
        };
        let ((first, cut), (second, _)) = (enter(), enter());
        second.note(|standing| standing.requests = 3);
        assert_eq!(
            connections.list().iter().map(|row| (row.id, row.standing().requests)).collect::<Vec<_>>(),
            [(1, 0), (2, 3)]
        );
        connections.get(1).unwrap().cut();
        assert!(cut.is_cut());
        drop(first);
        assert!(connections.get(1).is_none() && connections.len() == 1);
        let (third, _) = enter();
        assert_eq!((third.row.id, connections.len()), (3, 2), "no number is given twice");
        drop((second, third));
        assert!(connections.is_empty());
    }
}
