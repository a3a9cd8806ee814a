//! Engines that carry one route each.
//!
//! Routes share engines by default: one guard and one process for many routes. A route with `engine = "own"` gets a tor
//! of its own, with a guard that no other engine has and a folder that keeps it, as long as the route exists. It costs
//! the memory of one tor, and no other engine replaces it while it restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::engine::{self, Engine};
use super::engine_id::EngineId;
use super::fleet::Fleet;
use crate::route::{OwnEngine, WantedExits};

#[derive(Debug, Default)]
struct Inner {
    engines: BTreeMap<OwnEngine, Arc<Engine>>,
    /// The routes wanted at the last [`Owned::follow`]. An engine that [`Owned::get`] started since then is not in it yet
    /// and must not be stopped.
    wanted: BTreeSet<OwnEngine>,
    begun: u8,
}

/// The engines that routes have for themselves.
#[derive(Debug)]
pub(super) struct Owned {
    /// Engine ids from here on belong to these engines.
    first: u8,
    inner: Mutex<Inner>,
}

impl Owned {
    pub(super) fn new(first: usize) -> Self {
        Self { first: u8::try_from(first).unwrap_or(u8::MAX), inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engines that run now.
    pub(super) fn list(&self) -> Vec<Arc<Engine>> {
        self.inner().engines.values().cloned().collect()
    }

    /// The engine of this route. It is started if it does not run yet.
    pub(super) fn get(&self, own: OwnEngine, fleet: &Arc<Fleet>) -> Arc<Engine> {
        let mut inner = self.inner();
        if let Some(engine) = inner.engines.get(&own) {
            return engine.clone();
        }
        // Engine ids wrap after about 200 routes. By then the first of these engines has ended.
        let id = EngineId(self.first.saturating_add(inner.begun));
        inner.begun = if id.0 == u8::MAX { 0 } else { inner.begun + 1 };
        let engine = Arc::new(Engine::own(id, own, fleet.clone()));
        inner.engines.insert(own, engine.clone());
        fleet.tasks.spawn("engine", engine::run(engine.clone()));
        engine
    }

    /// Starts engines of wanted routes, and ends those of routes that are gone.
    pub(super) fn follow(&self, wanted: &WantedExits, fleet: &Arc<Fleet>) {
        for own in wanted.own.keys() {
            self.get(*own, fleet);
        }
        let mut inner = self.inner();
        let now = wanted.own.keys().copied().collect();
        for gone in std::mem::replace(&mut inner.wanted, now) {
            if !wanted.own.contains_key(&gone)
                && let Some(engine) = inner.engines.remove(&gone)
            {
                engine.retire();
            }
        }
    }
}
