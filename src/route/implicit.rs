//! Implicit routes: the pools of selectors that nobody made a route of.
//!
//! `us-session-7` needs a pool of US exits that outlives the connection, and must not need an API call first. So the
//! first use makes one and the last one's idleness ends it. Only the pool goes: pins and sessions are kept elsewhere,
//! by the text of the selector, and find their exits again. Their number is bounded, because user names are free.
//!
//! A pool here is brought up to date by whoever first uses it under a new catalog; between uses nobody needs it to be.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::choose::View;
use super::lru::{Sharded, open};
use super::policy::Policy;
use super::pool::{Need, Pool};
use super::selector::Selector;
use super::table::Wish;
use crate::exit::Moment;

/// The implicit routes of the process.
#[derive(Debug)]
pub struct Implicits {
    table: Sharded<Arc<str>, Arc<Implicit>>,
    idle: Duration,
}

/// One implicit route.
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
    /// The catalog that the pool is up to date with.
    revision: Option<u64>,
    turns: u64,
    pool: Arc<Pool>,
}

impl Implicit {
    /// The canonical selector; `route:selector` for a route's that is narrowed.
    pub fn scope(&self) -> &Arc<str> {
        &self.scope
    }

    /// The exits that it uses.
    pub fn pool(&self) -> Arc<Pool> {
        open(&self.state).pool.clone()
    }

    /// How it chooses.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// When it was last used.
    pub fn used(&self) -> Moment {
        Moment(self.used.load(Relaxed))
    }

    fn current(&self, view: View<'_>) -> Arc<Pool> {
        let revision = Some(view.catalog.revision());
        let mut state = open(&self.state);
        if state.revision != revision {
            let need = Need { scope: &self.scope, selector: &self.selector, policy: &self.policy, epoch: state.turns };
            // Worked out under the lock of this one route: a few µs, once a catalog, and all who wait want the result.
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

    /// Every implicit route, in no order.
    pub fn list(&self) -> Vec<Arc<Implicit>> {
        self.table.each().flat_map(|shard| shard.iter().map(|(_, route)| route.clone()).collect::<Vec<_>>()).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pool for a wish whose pool has this scope. True beside it if the route is new.
    pub(super) fn pool(&self, scope: &Arc<str>, wish: &Wish, view: View<'_>, now: Moment) -> (Arc<Pool>, bool) {
        let hash = self.table.hash(scope);
        let found = self.table.lock(hash).get(hash, |key| key == scope).cloned();
        let kept = found.filter(|route| Arc::ptr_eq(&route.policy, &wish.policy) || *route.policy == *wish.policy);
        let new = kept.is_none();
        let route = kept.unwrap_or_else(|| self.make(hash, scope, wish));
        route.used.fetch_max(now.0, Relaxed);
        (route.current(view), new)
    }

    /// The pool of this scope as it is, without its being used.
    pub(super) fn peek(&self, scope: &Arc<str>) -> Option<Arc<Pool>> {
        let hash = self.table.hash(scope);
        let found = self.table.lock(hash).peek(hash, |key| key == scope).cloned();
        found.map(|route| route.pool())
    }

    /// Exchanges the exits of a pool for others, as far as there are others. False if there is no such pool.
    pub(super) fn turn(&self, scope: &Arc<str>) -> bool {
        let hash = self.table.hash(scope);
        let found = self.table.lock(hash).peek(hash, |key| key == scope).cloned();
        found.is_some_and(|route| {
            let mut state = open(&route.state);
            (state.turns, state.revision) = (state.turns + 1, None);
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
            // Somebody else was quicker, or the policy was changed and the pool goes over to the new one.
            Some(other) if *other.policy == *made.policy => return other.clone(),
            Some(other) => {
                open(&made.state).pool = other.pool();
                *other = made.clone();
            }
            None => drop(shard.insert(hash, scope.clone(), made.clone())),
        }
        made
    }

    /// Brings the pools up to date; forgets what has been idle. True if any is new, other or gone.
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
