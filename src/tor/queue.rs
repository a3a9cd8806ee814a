//! How long requests wait in the queues of engines until their builds begin, and which queue is shorter.

use std::sync::Arc;
use std::time::Duration;

use super::circuit::pool::Key;
use super::engine::Engine;
use super::path::Port;
use super::{EngineId, EngineState, Tor, Way, key};
use crate::route::{Isolation, OwnEngine};

/// A request that waits in the queue of one engine changes to another engine only if the build of its circuit can begin
/// there at least this much sooner. Not tuned: a build itself takes about as long, so a smaller gain would not be
/// noticed.
const WORTH_A_MOVE: Duration = Duration::from_secs(1);

impl Tor {
    /// Waits until another engine can build the circuit much sooner than `engine`, in whose queue a request waits, and
    /// returns that other engine. This happens when an engine comes back after a crash. An engine that just failed for
    /// this request is never returned: its id is `failed`.
    pub(super) async fn sooner(
        &self,
        engine: &Engine,
        key: Key,
        who: Isolation,
        failed: Option<EngineId>,
    ) -> Arc<Engine> {
        let mut changes = self.changes();
        while changes.changed().await.is_ok() {
            let left = engine.queue_wait(key, who);
            let is_ready = |other: &&Arc<Engine>| {
                let other_than = ![Some(engine.id()), failed].contains(&Some(other.id()));
                other_than && *other.state().borrow() == EngineState::Ready && !other.is_silent()
            };
            let waits = self.engines.iter().filter(is_ready).map(|other| (other.queue_wait(key, who), other));
            let soonest = waits.min_by_key(|(wait, _)| *wait);
            if let Some((_, other)) = soonest.filter(|(wait, _)| *wait + WORTH_A_MOVE <= left) {
                return other.clone();
            }
        }
        std::future::pending().await // all engines are gone
    }

    /// Returns how long a client's request waits, in the best case, until the build of its circuit can begin. Zero if a
    /// circuit exists, or if no engine is ready and so the wait is not known.
    pub fn queue_wait(&self, way: &Way, port: Option<Port>) -> Duration {
        let key = key(way, port);
        self.carriers(way.own).iter().map(|engine| engine.queue_wait(key, way.isolation)).min().unwrap_or_default()
    }

    /// Returns how long a client that was refused as [`super::LeaseFault::Busy`] should wait before it tries again.
    pub fn retry_after(&self, own: Option<OwnEngine>) -> Duration {
        self.carriers(own).iter().map(|engine| engine.retry_after()).min().unwrap_or_default()
    }

    /// Returns the engines that can carry the streams of a route now. `own` is the engine that only this route uses.
    /// `None` if the route shares engines with others.
    fn carriers(&self, own: Option<OwnEngine>) -> Vec<Arc<Engine>> {
        let mut engines =
            own.map_or_else(|| self.engines.to_vec(), |own| self.owned.running(own).into_iter().collect());
        engines.retain(|engine| engine.live().is_some());
        engines
    }
}
