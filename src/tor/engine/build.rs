//! Builds circuits: chooses a path, sends tor the command to build the circuit, and records how the build ended.
//!
//! Next: `engine/lend.rs` calls [`Engine::begin`] when the pool of circuits wants a build; `tor/path.rs` chooses the
//! path; `engine/session.rs` receives tor's events about the circuit.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::lend::Job;
use super::{Engine, EngineId};
use crate::telemetry::trace_id::{Kind, TraceId};
use crate::tor::circuit::pool::{BuildId, Key};
use crate::tor::event::CircuitId;
use crate::tor::fault::LeaseFault;
use crate::tor::netdir::Rules;
use crate::tor::path::{self, Hops, IpVersion, NoPath, Path, Port, Want};

/// A circuit build for which the command was sent to tor.
pub(super) struct PlannedBuild {
    path: Path,
    /// The span of the debug lines about this build. It adds the same id to all these lines. If debug lines are off,
    /// the span is disabled and has no id.
    span: tracing::Span,
}

impl PlannedBuild {
    fn new(path: Path, engine: EngineId) -> Self {
        let span = tracing::debug_span!("build", id = %TraceId::next(Kind::Build), engine = engine.0);
        span.in_scope(|| tracing::debug!(%path, "building a circuit"));
        Self { path, span }
    }

    /// Logs the result `how` of the build, and returns the path of the build.
    pub(super) fn end(self, circuit: CircuitId, how: impl fmt::Debug) -> Path {
        self.span.in_scope(|| tracing::debug!(%circuit, result = ?how, "the build of a circuit ended"));
        self.path
    }
}

impl Engine {
    /// Chooses a path and sends tor the command to build a circuit over that path. Returns what the engine must do
    /// next.
    pub(super) fn begin(self: &Arc<Self>, build: BuildId, key: Key) -> VecDeque<Job> {
        let live = self.live();
        let path = match &live {
            Some(live) => self.choose(key, live.rules),
            None => Err(LeaseFault::NotReady),
        };
        let mut circuits = self.circuits();
        let begun = path.and_then(|path| {
            circuits.asked.insert(build, PlannedBuild::new(path, self.id));
            let control = live.as_ref().map(|live| &live.control).ok_or(LeaseFault::NotReady)?;
            control.extend_circuit(path.hops(), build.0).map_err(|_| LeaseFault::Lost)
        });
        if let Err(fault) = begun {
            circuits.asked.remove(&build);
            circuits.pool.build_failed(build, fault, Instant::now());
        }
        circuits.jobs()
    }

    fn choose(&self, key: Key, rules: Rules) -> Result<Path, LeaseFault> {
        let dir = self.shared.netdir().ok_or(LeaseFault::NotReady)?;
        let entry = self.circuits().entry.ok_or(LeaseFault::NotReady)?;
        let avoid = self.shared.avoided();
        let hops = if key.hops == 2 { Hops::Two } else { Hops::Three };
        let target = key.lasting.map(|number| Port { number, over: IpVersion::Either });
        let mut want = Want { entry, exit: key.exit, target, hops, avoid: &avoid, rules };
        let none = HashSet::new();
        let mut chosen = path::choose(&dir, &want, &mut rand::rng());
        if chosen == Err(NoPath::NoMiddle) {
            want.avoid = &none; // no path avoids middle relays that failed recently, so these are allowed
            chosen = path::choose(&dir, &want, &mut rand::rng());
        }
        chosen.map_err(|why| {
            tracing::debug!(engine = self.id.0, exit = %key.exit, %why, "no path");
            no_path(why)
        })
    }

    /// Records tor's answer to the command that builds a circuit. `circuit` is the id of the circuit, or `None` if tor
    /// refused the command.
    pub(super) fn answered(self: &Arc<Self>, build: BuildId, circuit: Option<CircuitId>) {
        self.act(|circuits, now| {
            let planned = circuits.asked.remove(&build);
            match circuit {
                Some(circuit) => {
                    circuits.pool.launched(build, circuit, now);
                    // If the pool gave up this build before tor answered, the circuit is closed. The end of such a
                    // circuit says nothing about its relays, so its path is not kept.
                    let wanted = circuits.pool.knows(circuit);
                    circuits.launched.extend(planned.filter(|_| wanted).map(|planned| (circuit, planned)));
                }
                None => circuits.pool.build_failed(build, LeaseFault::Unreachable, now),
            }
        });
    }
}

/// Maps the reason why no path was found to the error for the waiting request.
pub(in crate::tor) fn no_path(why: NoPath) -> LeaseFault {
    match why {
        NoPath::ExitPolicy { .. } => LeaseFault::Policy,
        NoPath::ExitUnknown
        | NoPath::ExitNotRunning
        | NoPath::ExitNotValid
        | NoPath::ExitBad
        | NoPath::ExitMiddleOnly
        | NoPath::ExitNoDescriptor => LeaseFault::UnknownExit,
        NoPath::GuardUnknown
        | NoPath::GuardUnusable
        | NoPath::GuardIsExit
        | NoPath::GuardInExitFamily
        | NoPath::GuardInExitSubnet
        | NoPath::NoMiddle => LeaseFault::NoPath,
    }
}
