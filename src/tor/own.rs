//! Engines that carry the traffic of one route only.
//!
//! An engine is a tor process. By default routes share engines: many routes use one engine and its guard (the first
//! relay of all circuits). A route with `engine = "own"` gets an engine of its own, with a guard that no other engine
//! uses. The guard stays the same as long as the route exists. An own engine costs the memory of one tor process. While
//! it restarts, no other engine serves the route.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::engine::{self, Engine};
use super::engine_id::EngineId;
use super::shared_state::SharedState;
use crate::route::{CircuitDemand, OwnEngine};

#[derive(Debug, Default)]
struct Inner {
    engines: BTreeMap<OwnEngine, Arc<Engine>>,
    /// The routes that wanted an engine at the last call of [`Owned::follow`]. An engine that [`Owned::get`] started
    /// after that call is not in this set yet, and must not be stopped.
    wanted: BTreeSet<OwnEngine>,
    begun: u8,
}

/// All engines that belong to one route each.
#[derive(Debug)]
pub(super) struct Owned {
    /// The first engine id of these engines. Smaller ids belong to the shared engines.
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

    /// Returns the engines that run now.
    pub(super) fn list(&self) -> Vec<Arc<Engine>> {
        self.inner().engines.values().cloned().collect()
    }

    /// Returns the engine of this route. `None` if the engine does not run yet.
    pub(super) fn running(&self, own: OwnEngine) -> Option<Arc<Engine>> {
        self.inner().engines.get(&own).cloned()
    }

    /// Returns the engine of this route. If the engine does not run yet, starts it.
    pub(super) fn get(&self, own: OwnEngine, shared: &Arc<SharedState>) -> Arc<Engine> {
        let mut inner = self.inner();
        if let Some(engine) = inner.engines.get(&own) {
            return engine.clone();
        }
        // Engine ids wrap after about 200 routes. By then, the engine that had the id before has ended.
        let id = EngineId(self.first.saturating_add(inner.begun));
        inner.begun = if id.0 == u8::MAX { 0 } else { inner.begun + 1 };
        let engine = Arc::new(Engine::own(id, own, shared.clone()));
        inner.engines.insert(own, engine.clone());
        shared.tasks.spawn("engine", engine::run(engine.clone()));
        engine
    }

    /// Starts the engines of wanted routes, and stops the engines of routes that do not exist any more.
    pub(super) fn follow(&self, wanted: &CircuitDemand, shared: &Arc<SharedState>) {
        for own in wanted.own.keys() {
            self.get(*own, shared);
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
