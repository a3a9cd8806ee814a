//! Engines that carry one route each.
//!
//! Routes share engines, and with them a guard, a process and a fate. A route that asked for none of that gets a tor of
//! its own, with a guard that no other engine has and a folder that remembers it, for as long as the route exists. It
//! costs what a tor costs, and its crash is that route's crash: nobody stands in for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::engine::{self, Engine, EngineId};
use super::fleet::Fleet;
use crate::route::{OwnEngine, WantedExits};

#[derive(Debug, Default)]
struct Inner {
    engines: BTreeMap<OwnEngine, Arc<Engine>>,
    /// What was wanted when it was looked last: what is new since then may be on its way to us still.
    wanted: BTreeSet<OwnEngine>,
    begun: u8,
}

/// The engines that routes have for themselves.
#[derive(Debug)]
pub(super) struct Owned {
    /// Ids from here on are theirs.
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

    /// Those that are wanted now.
    pub(super) fn list(&self) -> Vec<Arc<Engine>> {
        self.inner().engines.values().cloned().collect()
    }

    /// This route's; it is started if it is not there yet.
    pub(super) fn get(&self, own: OwnEngine, fleet: &Arc<Fleet>) -> Arc<Engine> {
        let mut inner = self.inner();
        if let Some(engine) = inner.engines.get(&own) {
            return engine.clone();
        }
        // Ids come round after some two hundred routes: by then the first of them has ended.
        let id = EngineId(self.first.saturating_add(inner.begun));
        inner.begun = if id.0 == u8::MAX { 0 } else { inner.begun + 1 };
        let engine = Arc::new(Engine::own(id, own, fleet.clone()));
        inner.engines.insert(own, engine.clone());
        fleet.tasks.spawn("engine", engine::run(engine.clone()));
        engine
    }

    /// Starts those that are wanted, and ends those that no longer are.
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
