//! Sets the gauges every few seconds from the current state: pools, exits, engines, pins and sessions. Counters are not
//! set here: each is increased where the counted event happens.

use std::collections::{BTreeMap, BTreeSet};

use metrics::{Gauge, gauge};

use crate::exit::{Exit, Verdict};
use crate::route::pool::Pool;
use crate::state::{Snapshot, State};
use crate::telemetry::ephemeral_series::NAMES;
use crate::telemetry::metrics as names;
use crate::tor::{EngineStatus, Tor};

/// The labels of an exit gauge: source, country and state.
type Kind = (&'static str, String, &'static str);

/// The gauges, and the labels that the last update has set. If labels no longer occur, their gauge is set to zero.
#[derive(Default)]
pub(super) struct Gauges {
    pools: BTreeMap<String, PoolGauges>,
    exits: BTreeSet<Kind>,
    engines: BTreeSet<(u8, &'static str)>,
}

struct PoolGauges {
    wanted: Gauge,
    have: Gauge,
    unique_ips: Gauge,
}

impl PoolGauges {
    fn new(route: &str) -> Self {
        let gauge = |name: &'static str| gauge!(name, "route" => route.to_owned());
        Self { wanted: gauge(names::POOL_WANTED), have: gauge(names::POOL_EXITS), unique_ips: gauge(names::POOL_IPS) }
    }

    fn set(&self, pool: &Pool) {
        self.wanted.set(pool.wanted() as f64);
        self.have.set(pool.have() as f64);
        self.unique_ips.set(pool.unique_ips() as f64);
    }
}

impl Gauges {
    /// Sets all gauges from the current state.
    pub(super) fn update(&mut self, state: &State, tor: Option<&Tor>) {
        let snapshot = state.snapshot();
        self.pools(&snapshot);
        self.exits(&snapshot);
        self.engines(&tor.map(Tor::status).unwrap_or_default());
        let memory = state.memory();
        gauge!(names::ROUTES).set(snapshot.routes.len() as f64);
        gauge!(names::SESSIONS).set(memory.sessions().len() as f64);
        gauge!(names::PINS).set(memory.pins().len() as f64);
        gauge!(names::IMPLICIT).set(memory.implicit().len() as f64);
    }

    fn pools(&mut self, snapshot: &Snapshot) {
        let entries: BTreeMap<&str, _> =
            snapshot.routes.iter().map(|entry| (entry.route.name.as_str(), entry)).take(NAMES).collect();
        self.pools.retain(|name, _| entries.contains_key(name.as_str()));
        for (name, entry) in entries {
            if let Some(pool) = self.pools.get(name) {
                pool.set(&entry.pool);
            } else {
                let pool = PoolGauges::new(name);
                pool.set(&entry.pool);
                self.pools.insert(name.to_owned(), pool);
            }
        }
    }

    fn exits(&mut self, snapshot: &Snapshot) {
        let mut counts: BTreeMap<Kind, u32> = BTreeMap::new();
        for exit in snapshot.catalog.iter() {
            let kind = (exit.id().source().as_str(), exit.country().to_string(), state_label(exit));
            *counts.entry(kind).or_default() += 1;
        }
        let gone = std::mem::take(&mut self.exits).into_iter().filter(|kind| !counts.contains_key(kind));
        let gone: Vec<_> = gone.map(|kind| (kind, 0)).collect();
        self.exits = counts.keys().cloned().collect();
        for ((source, country, state), count) in counts.into_iter().chain(gone) {
            gauge!(names::EXITS, "source" => source, "country" => country, "state" => state).set(count);
        }
    }

    fn engines(&mut self, engines: &[EngineStatus]) {
        let now: BTreeSet<_> = engines.iter().map(|engine| (engine.id.0, engine.state.as_str())).collect();
        for (id, state) in self.engines.difference(&now) {
            gauge!(names::ENGINE_STATE, "engine" => id.to_string(), "state" => *state).set(0.0);
        }
        self.engines = now;
        for engine in engines {
            let id = || engine.id.0.to_string();
            let percent = match &engine.state {
                crate::tor::EngineState::Bootstrapping { percent, .. } => f64::from(*percent),
                state if state.usable() => 100.0,
                _ => 0.0,
            };
            gauge!(names::ENGINE_STATE, "engine" => id(), "state" => engine.state.as_str()).set(1.0);
            gauge!(names::ENGINE_GUARD_UP, "engine" => id()).set(f64::from(u8::from(engine.guard_answers)));
            gauge!(names::ENGINE_BOOTSTRAP, "engine" => id()).set(percent / 100.0);
            gauge!(names::ENGINE_STREAMS, "engine" => id()).set(engine.streams as f64);
            gauge!(names::ENGINE_OUTDATED, "engine" => id())
                .set(f64::from(u8::from(engine.recommendation.needs_update())));
            gauge!(names::ENGINE_RESTARTS, "engine" => id()).set(f64::from(engine.restarts));
            for (kind, count) in [("open", engine.circuits), ("building", engine.building), ("spare", engine.spares)] {
                gauge!(names::ENGINE_CIRCUITS, "engine" => id(), "kind" => kind).set(count as f64);
            }
        }
    }
}

/// Returns the value of the metric label `state` for an exit.
fn state_label(exit: &Exit) -> &'static str {
    match exit.known().verdict {
        _ if !exit.alive() => "down",
        Verdict::Good if exit.usable() => "usable",
        Verdict::Untested => "untested",
        Verdict::Good | Verdict::Bad => "bad",
    }
}
