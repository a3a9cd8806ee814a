//! Lends circuits to dials, and carries out the effects of the pool of circuits.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::nudge::Nudges;
use super::{Engine, EngineId};
use crate::exit::Fingerprint;
use crate::route::Isolation;
use crate::telemetry::trace_id::{Kind, TraceId};
use crate::tor::circuit::Lease;
use crate::tor::circuit::pool::{BuildId, Effect, Key, LeaseAnswer, Limits, Pool, WaiterId};
use crate::tor::control::Command;
use crate::tor::event::CircuitId;
use crate::tor::fault::LeaseFault;
use crate::tor::path::{self, Entry, Hops, IpVersion, NoPath, Path, Port, Want};

/// The pool and what belongs to it, under one lock.
pub(in crate::tor) struct Circuits {
    pub(super) pool: Pool,
    /// The run that the circuits belong to.
    pub(super) run: u64,
    /// The guard or bridge that paths begin at.
    pub(super) entry: Option<Entry>,
    waiters: HashMap<WaiterId, oneshot::Sender<Result<Lease, LeaseFault>>>,
    /// Builds before tor has given them a circuit id, and after.
    asked: HashMap<BuildId, PlannedBuild>,
    launched: HashMap<CircuitId, PlannedBuild>,
    pub(super) nudges: Nudges,
}

impl Circuits {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            pool: Pool::new(limits, Instant::now()),
            run: 0,
            entry: None,
            waiters: HashMap::new(),
            asked: HashMap::new(),
            launched: HashMap::new(),
            nudges: Nudges::default(),
        }
    }

    /// The pool's effects, to be carried out without the lock.
    fn jobs(&mut self) -> VecDeque<Job> {
        let effects = self.pool.effects();
        let job = |effect| match effect {
            Effect::Build { build, key } => Job::Build { build, key },
            Effect::Close(circuit) => Job::Close(circuit),
            Effect::Refuse { waiter, fault } => Job::Refuse { waiter: self.waiters.remove(&waiter), fault },
            Effect::Grant { waiter, circuit, path } => {
                Job::Grant { waiter: self.waiters.remove(&waiter), run: self.run, circuit, path }
            }
        };
        effects.into_iter().map(job).collect()
    }

    /// Sets the spares to keep.
    pub(in crate::tor) fn want(&mut self, wanted: std::collections::BTreeMap<Key, u8>, now: Instant) {
        self.pool.want(wanted, now);
    }

    /// When the circuit was completed, if it still exists.
    pub(in crate::tor) fn built_at(&self, circuit: CircuitId) -> Option<Instant> {
        self.pool.built_at(circuit)
    }

    /// Takes the path of a circuit whose build has ended, and logs `how` it ended.
    pub(super) fn finish(&mut self, circuit: CircuitId, how: impl std::fmt::Debug) -> Option<Path> {
        let build = self.launched.remove(&circuit)?;
        build.span.in_scope(|| tracing::debug!(%circuit, result = ?how, "the build of a circuit ended"));
        Some(build.path)
    }
}

/// A build that tor was asked for.
struct PlannedBuild {
    path: Path,
    /// Its debug lines have an id in common. The span is disabled, and has no id, unless debug lines are on.
    span: tracing::Span,
}

impl PlannedBuild {
    fn new(path: Path, engine: EngineId) -> Self {
        let span = tracing::debug_span!("build", id = %TraceId::next(Kind::Build), engine = engine.0);
        span.in_scope(|| tracing::debug!(%path, "building a circuit"));
        Self { path, span }
    }
}

/// An effect of the pool with what is needed to carry it out.
enum Job {
    Build {
        build: BuildId,
        key: Key,
    },
    Close(CircuitId),
    Refuse {
        waiter: Option<oneshot::Sender<Result<Lease, LeaseFault>>>,
        fault: LeaseFault,
    },
    Grant {
        waiter: Option<oneshot::Sender<Result<Lease, LeaseFault>>>,
        run: u64,
        circuit: CircuitId,
        path: Arc<[Fingerprint]>,
    },
}

/// A request that waits for a circuit. Dropping it gives up.
pub(in crate::tor) struct Pending {
    engine: Arc<Engine>,
    waiter: WaiterId,
    told: oneshot::Receiver<Result<Lease, LeaseFault>>,
}

impl Pending {
    async fn wait(&mut self, deadline: Instant) -> Result<Lease, LeaseFault> {
        match timeout_at(deadline, &mut self.told).await {
            Ok(Ok(told)) => told,
            Ok(Err(_)) => Err(LeaseFault::Lost),
            Err(_) => Err(LeaseFault::Deadline),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.engine.act(|circuits, _| {
            circuits.waiters.remove(&self.waiter);
            circuits.pool.forget(self.waiter);
        });
    }
}

impl Engine {
    /// A lease on a complete circuit that is not busy, if there is one.
    pub(in crate::tor) fn lend(self: &Arc<Self>, key: Key, isolation: Isolation) -> Option<Lease> {
        self.live()?;
        let (run, asked) = self.act(|circuits, now| (circuits.run, circuits.pool.lend(key, isolation, now)));
        match asked? {
            LeaseAnswer::Lent(circuit, path) => Some(Lease { engine: self.clone(), run, circuit, path }),
            LeaseAnswer::Wait(_) => None,
        }
    }

    /// A lease on a circuit, at once or after a build.
    pub(in crate::tor) async fn ask(
        self: &Arc<Self>,
        key: Key,
        isolation: Isolation,
        deadline: Instant,
    ) -> Result<Lease, LeaseFault> {
        self.live().ok_or(LeaseFault::NotReady)?;
        let (tell, told) = oneshot::channel();
        let (run, asked) = self.act(|circuits, now| {
            let asked = circuits.pool.ask(key, isolation, now);
            if let LeaseAnswer::Wait(waiter) = asked {
                circuits.waiters.insert(waiter, tell);
            }
            (circuits.run, asked)
        });
        match asked {
            LeaseAnswer::Lent(circuit, path) => Ok(Lease { engine: self.clone(), run, circuit, path }),
            LeaseAnswer::Wait(waiter) => {
                self.bell.notify_one();
                Pending { engine: self.clone(), waiter, told }.wait(deadline).await
            }
        }
    }

    /// Takes back the place of a dropped lease.
    pub(in crate::tor) fn release(self: &Arc<Self>, run: u64, circuit: CircuitId) {
        self.act(|circuits, now| {
            if circuits.run == run {
                circuits.pool.release(circuit, now);
            }
        });
    }

    /// Drops a circuit that tor says does not exist.
    pub(in crate::tor) fn missing(self: &Arc<Self>, run: u64, circuit: CircuitId) {
        self.act(|circuits, now| {
            if circuits.run == run {
                circuits.pool.gone(circuit, LeaseFault::Unreachable, now);
            }
        });
    }

    /// Runs `work` on the circuits under their lock, then carries out the effects.
    pub(in crate::tor) fn act<T>(self: &Arc<Self>, work: impl FnOnce(&mut Circuits, Instant) -> T) -> T {
        let mut circuits = self.circuits();
        let result = work(&mut circuits, Instant::now());
        let mut jobs = circuits.jobs();
        drop(circuits);
        while let Some(job) = jobs.pop_front() {
            jobs.extend(self.carry_out(job));
        }
        result
    }

    fn carry_out(self: &Arc<Self>, job: Job) -> VecDeque<Job> {
        match job {
            Job::Build { build, key } => return self.begin(build, key),
            Job::Close(circuit) => {
                if let Some(live) = self.live() {
                    // The answer does not matter: the circuit may be gone already.
                    drop(live.control.start(&Command::new("CLOSECIRCUIT").arg(circuit)));
                }
            }
            Job::Refuse { waiter, fault } => {
                if let Some(waiter) = waiter {
                    drop(waiter.send(Err(fault)));
                }
            }
            Job::Grant { waiter, run, circuit, path } => {
                // If the request has given up, dropping the lease gives the place back.
                let lease = Lease { engine: self.clone(), run, circuit, path };
                if let Some(waiter) = waiter {
                    drop(waiter.send(Ok(lease)));
                }
            }
        }
        VecDeque::new()
    }

    /// Chooses a path and has tor build it.
    fn begin(self: &Arc<Self>, build: BuildId, key: Key) -> VecDeque<Job> {
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

    fn choose(&self, key: Key, rules: crate::tor::netdir::Rules) -> Result<Path, LeaseFault> {
        let dir = self.fleet.netdir().ok_or(LeaseFault::NotReady)?;
        let entry = self.circuits().entry.ok_or(LeaseFault::NotReady)?;
        let avoid = self.fleet.avoided();
        let hops = if key.hops == 2 { Hops::Two } else { Hops::Three };
        let target = key.lasting.map(|number| Port { number, over: IpVersion::Either });
        let mut want = Want { entry, exit: key.exit, target, hops, avoid: &avoid, rules };
        let none = HashSet::new();
        let mut chosen = path::choose(&dir, &want, &mut rand::rng());
        if chosen == Err(NoPath::NoMiddle) {
            want.avoid = &none; // no other path exists, so use a middle that failed a minute ago
            chosen = path::choose(&dir, &want, &mut rand::rng());
        }
        chosen.map_err(|why| {
            tracing::debug!(engine = self.id.0, exit = %key.exit, %why, "no path");
            no_path(why)
        })
    }

    /// Takes tor's answer to a build: the circuit's id, or `None` if tor refused.
    pub(super) fn answered(self: &Arc<Self>, build: BuildId, circuit: Option<CircuitId>) {
        self.act(|circuits, now| {
            let planned = circuits.asked.remove(&build);
            match circuit {
                Some(circuit) => {
                    circuits.pool.launched(build, circuit, now);
                    // A build that was given up meanwhile is closed, which says nothing about its relays.
                    let wanted = circuits.pool.knows(circuit);
                    circuits.launched.extend(planned.filter(|_| wanted).map(|planned| (circuit, planned)));
                }
                None => circuits.pool.build_failed(build, LeaseFault::Unreachable, now),
            }
        });
    }

    /// Ends the run: drops its circuits and streams, and gives waiting requests an error.
    pub(super) fn lost(self: &Arc<Self>) {
        self.live.store(None);
        self.streams.lost();
        self.act(|circuits, _| {
            circuits.run += 1;
            circuits.asked.clear();
            circuits.launched.clear();
            circuits.nudges = Nudges::default();
            circuits.pool.lost();
        });
    }
}

/// Maps the reason why no path was found.
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
