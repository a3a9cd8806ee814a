//! Implicit routes: the pools of usernames that contain no route name.
//!
//! A username such as `us-session-7` needs a pool of US exits that lives longer than one connection, but there is no
//! configured route that has such a pool. So the first use of the username makes an implicit route. The number of
//! implicit routes is bounded, because a client can write any username.
//!
//! An implicit route ends when nobody has used it for `gateway.implicit_idle`. Only its pool ends. Pins and sessions
//! keep their exits, because they are in tables of their own (`route/pin.rs`, `route/session.rs`).
//!
//! After a change of the catalog, the first connection that uses an implicit route brings its pool up to date. The first
//! connection after the time `rotate_every` exchanges the exits of the pool.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lru::{Sharded, open};
use super::policy::Policy;
use super::pool::{Need, Pool};
use super::selector::Selector;
use super::table::Wish;
use super::view::View;
use crate::exit::Moment;

/// All implicit routes of the process.
#[derive(Debug)]
pub struct Implicits {
    table: Sharded<Arc<str>, Arc<Implicit>>,
    idle: Duration,
}

/// The pool of one selector. The first use of the selector makes the pool.
#[derive(Debug)]
pub struct Implicit {
    scope: Arc<str>,
    selector: Selector,
    policy: Arc<Policy>,
    /// The time from which `rotate_every` is counted: the creation of the named route, or of this route if there is no
    /// named route. The former makes the pool change also if this implicit route ended and was made again meanwhile.
    since: Moment,
    used: AtomicU64,
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// The revision of the catalog, and the number of rotations so far, at the last refresh of the pool. `None` if the
    /// pool was never refreshed.
    refreshed: Option<(u64, u64)>,
    /// How many times the whole pool was exchanged on request.
    rotations: u64,
    pool: Arc<Pool>,
}

impl Implicit {
    /// Returns the key of this implicit route in the table of implicit routes: the canonical selector, or
    /// `route:selector` if a username narrows a named route.
    pub fn scope(&self) -> &Arc<str> {
        &self.scope
    }

    pub fn pool(&self) -> Arc<Pool> {
        open(&self.state).pool.clone()
    }

    /// Returns the selector of the pool, which has no mode, no session and no exit.
    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// When the implicit route was last used.
    pub fn used(&self) -> Moment {
        Moment(self.used.load(Relaxed))
    }

    /// Brings the pool up to date and returns it. The second value is true if the pool has changed.
    fn current(&self, view: View<'_>, now: Moment) -> (Arc<Pool>, bool) {
        let mut state = open(&self.state);
        let epoch = state.rotations.saturating_add(self.policy.exchanges(self.since, now));
        let present = Some((view.catalog.revision(), epoch));
        let mut changed = false;
        if state.refreshed != present {
            let need = Need { scope: &self.scope, selector: &self.selector, policy: &self.policy, epoch };
            // The lock of this one route is held during the refresh. The refresh takes a few µs, once for each edition
            // of the catalog and each epoch, and the threads that wait for the lock need its result.
            if let Some(pool) = state.pool.refreshed(&need, view.catalog, view.routes.uses()) {
                (state.pool, changed) = (Arc::new(pool), true);
            }
            state.refreshed = present;
        }
        (state.pool.clone(), changed)
    }
}

impl Implicits {
    pub(super) fn new(bound: usize, idle: Duration) -> Self {
        Self { table: Sharded::new(bound), idle }
    }

    /// Returns every implicit route, in no particular order.
    pub fn list(&self) -> Vec<Arc<Implicit>> {
        self.table.each().flat_map(|shard| shard.iter().map(|(_, route)| route.clone()).collect::<Vec<_>>()).collect()
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "clippy wants it beside `len`; tests use it"))]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the pool of this scope, and makes the pool if there is none. The second value is true if the pool was
    /// made or has changed.
    pub(super) fn pool(&self, scope: &Arc<str>, wish: &Wish, view: View<'_>, now: Moment) -> (Arc<Pool>, bool) {
        let hash = self.table.hash(scope);
        let found = self.table.lock(hash).get(hash, |key| key == scope).cloned();
        let kept = found.filter(|route| Arc::ptr_eq(&route.policy, &wish.policy) || *route.policy == *wish.policy);
        let new = kept.is_none();
        let route = kept.unwrap_or_else(|| self.make(hash, scope, wish, now));
        route.used.fetch_max(now.0, Relaxed);
        let (pool, changed) = route.current(view, now);
        (pool, new || changed)
    }

    /// Returns the pool of this scope, if there is one. This does not count as a use of the pool.
    pub(super) fn peek(&self, scope: &Arc<str>) -> Option<Arc<Pool>> {
        let hash = self.table.hash(scope);
        let found = self.table.lock(hash).peek(hash, |key| key == scope).cloned();
        found.map(|route| route.pool())
    }

    /// Exchanges the exits of a pool for other exits, as far as there are any. Returns false if there is no such pool.
    pub(super) fn rotate(&self, scope: &Arc<str>) -> bool {
        let hash = self.table.hash(scope);
        let found = self.table.lock(hash).peek(hash, |key| key == scope).cloned();
        found.is_some_and(|route| {
            open(&route.state).rotations += 1;
            true
        })
    }

    fn make(&self, hash: u64, scope: &Arc<str>, wish: &Wish, now: Moment) -> Arc<Implicit> {
        let made = Arc::new(Implicit {
            scope: scope.clone(),
            selector: wish.selector.pooled(),
            policy: wish.policy.clone(),
            since: wish.entry.as_ref().map_or(now, |entry| entry.route.created),
            used: AtomicU64::default(),
            state: Mutex::default(),
        });
        let mut shard = self.table.lock(hash);
        match shard.get(hash, |key| key == scope) {
            // If the policies are equal, another connection made the pool first. Otherwise the policy has changed, and
            // the new implicit route takes over the exits of the old pool, and its number of exchanges on request.
            // Otherwise the new epoch would differ from that of the old pool, and the exits would be exchanged.
            Some(other) if *other.policy == *made.policy => return other.clone(),
            Some(other) => {
                let old = open(&other.state).clone();
                *open(&made.state) = State { refreshed: None, ..old };
                *other = made.clone();
            }
            None => drop(shard.insert(hash, scope.clone(), made.clone())),
        }
        made
    }

    /// Removes idle implicit routes, and brings the pools of the others up to date. Returns true if any pool has
    /// changed or was removed.
    pub(super) fn tidy(&self, view: View<'_>, now: Moment) -> bool {
        let mut changed = false;
        for mut shard in self.table.each() {
            changed |= !shard.take_if(|_, route| now.since(route.used()) >= self.idle).is_empty();
        }
        for route in self.list() {
            changed |= route.current(view, now).1;
        }
        changed
    }
}
