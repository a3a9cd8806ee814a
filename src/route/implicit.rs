//! Implicit routes: the pools of usernames that name no route.
//!
//! `us-session-7` needs a pool of US exits that outlives the connection, without an API call first. So the first use
//! makes an implicit route, and it ends when it has been unused for `gateway.implicit_idle`. Only the pool ends: pins and
//! sessions are stored elsewhere, under the text of the selector, and find their exits again. The number of implicit
//! routes is bounded, because a client can write any username.
//!
//! The first connection that uses an implicit route after a change of the catalog brings its pool up to date.

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

/// The pool of one selector, made by its first use.
#[derive(Debug)]
pub struct Implicit {
    scope: Arc<str>,
    selector: Selector,
    policy: Arc<Policy>,
    used: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The revision of the catalog that the pool was last refreshed with.
    revision: Option<u64>,
    /// How often the whole pool was exchanged.
    rotations: u64,
    pool: Arc<Pool>,
}

impl Implicit {
    /// The canonical selector, or `route:selector` for a named route that a username narrows.
    pub fn scope(&self) -> &Arc<str> {
        &self.scope
    }

    pub fn pool(&self) -> Arc<Pool> {
        open(&self.state).pool.clone()
    }

    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// The last use.
    pub fn used(&self) -> Moment {
        Moment(self.used.load(Relaxed))
    }

    fn current(&self, view: View<'_>) -> Arc<Pool> {
        let revision = Some(view.catalog.revision());
        let mut state = open(&self.state);
        if state.revision != revision {
            let need =
                Need { scope: &self.scope, selector: &self.selector, policy: &self.policy, epoch: state.rotations };
            // Under the lock of this one route: it takes a few µs, once per catalog, and those that wait need the result.
            if let Some(pool) = state.pool.refreshed(&need, view.catalog, view.routes.uses()) {
                state.pool = Arc::new(pool);
            }
            state.revision = revision;
        }
        state.pool.clone()
    }
}

impl Implicits {
    pub(super) fn new(bound: usize, idle: Duration) -> Self {
        Self { table: Sharded::new(bound), idle }
    }

    /// Every implicit route, in any order.
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

    /// The pool of this scope, made if there is none; true beside it if it was made.
    pub(super) fn pool(&self, scope: &Arc<str>, wish: &Wish, view: View<'_>, now: Moment) -> (Arc<Pool>, bool) {
        let hash = self.table.hash(scope);
        let found = self.table.lock(hash).get(hash, |key| key == scope).cloned();
        let kept = found.filter(|route| Arc::ptr_eq(&route.policy, &wish.policy) || *route.policy == *wish.policy);
        let new = kept.is_none();
        let route = kept.unwrap_or_else(|| self.make(hash, scope, wish));
        route.used.fetch_max(now.0, Relaxed);
        (route.current(view), new)
    }

    /// The pool of this scope, if there is one. Does not count as a use.
    pub(super) fn peek(&self, scope: &Arc<str>) -> Option<Arc<Pool>> {
        let hash = self.table.hash(scope);
        let found = self.table.lock(hash).peek(hash, |key| key == scope).cloned();
        found.map(|route| route.pool())
    }

    /// Exchanges the exits of a pool for others, as far as there are others. False if there is no such pool.
    pub(super) fn rotate(&self, scope: &Arc<str>) -> bool {
        let hash = self.table.hash(scope);
        let found = self.table.lock(hash).peek(hash, |key| key == scope).cloned();
        found.is_some_and(|route| {
            let mut state = open(&route.state);
            (state.rotations, state.revision) = (state.rotations + 1, None);
            true
        })
    }

    fn make(&self, hash: u64, scope: &Arc<str>, wish: &Wish) -> Arc<Implicit> {
        let made = Arc::new(Implicit {
            scope: scope.clone(),
            selector: wish.selector.pooled(),
            policy: wish.policy.clone(),
            used: AtomicU64::default(),
            state: Mutex::default(),
        });
        let mut shard = self.table.lock(hash);
        match shard.get(hash, |key| key == scope) {
            // Another connection was quicker; or the policy has changed, and the new route takes over the pool.
            Some(other) if *other.policy == *made.policy => return other.clone(),
            Some(other) => {
                open(&made.state).pool = other.pool();
                *other = made.clone();
            }
            None => drop(shard.insert(hash, scope.clone(), made.clone())),
        }
        made
    }

    /// Removes idle routes and brings the pools of the others up to date. True if any pool has changed or is gone.
    pub(super) fn tidy(&self, view: View<'_>, now: Moment) -> bool {
        let mut changed = false;
        for mut shard in self.table.each() {
            changed |= !shard.take_if(|_, route| now.since(route.used()) >= self.idle).is_empty();
        }
        for route in self.list() {
            let before = route.pool();
            changed |= !Arc::ptr_eq(&before, &route.current(view));
        }
        changed
    }
}
