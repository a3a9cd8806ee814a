//! Lends circuits to dials. Also carries out the actions that the pool of circuits requests (its effects).
//!
//! Next: `engine/build.rs` builds circuits.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::Engine;
use super::build::PlannedBuild;
use super::nudge::Nudges;
use crate::exit::Fingerprint;
use crate::route::Isolation;
use crate::tor::circuit::Lease;
use crate::tor::circuit::pool::{BuildId, Effect, Key, LeaseAnswer, Limits, Pool, Requester, WaiterId};
use crate::tor::control::Command;
use crate::tor::event::CircuitId;
use crate::tor::fault::LeaseFault;
use crate::tor::path::{Entry, Path};

/// The pool of circuits and the data that belongs to it. All of this data is behind one lock.
pub(in crate::tor) struct Circuits {
    pub(super) pool: Pool,
    /// The number of the run of tor that the circuits belong to.
    pub(super) run: u64,
    /// The guard or bridge where new paths begin. `None` until the guard or bridge is chosen.
    pub(super) entry: Option<Entry>,
    waiters: HashMap<WaiterId, oneshot::Sender<Result<Lease, LeaseFault>>>,
    /// The build id → a build for which tor has not sent a circuit id yet. After that, the build moves to `launched`.
    pub(super) asked: HashMap<BuildId, PlannedBuild>,
    pub(super) launched: HashMap<CircuitId, PlannedBuild>,
    pub(super) nudges: Nudges,
    /// The first relay of circuits (a guard or bridge) → when it last answered, in this run of tor.
    first_hops: HashMap<Fingerprint, Instant>,
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
            first_hops: HashMap::new(),
        }
    }

    /// Records that this first relay of a circuit answered at the time `at`. An answer is an extended circuit or data
    /// from the network.
    pub(super) fn first_hop_answers(&mut self, relay: Fingerprint, at: Instant) {
        let last = self.first_hops.entry(relay).or_insert(at);
        *last = at.max(*last);
    }

    /// Returns the actions that the pool requests, together with the data for them. The caller must release the lock
    /// before it carries out the actions.
    pub(super) fn jobs(&mut self) -> VecDeque<Job> {
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

    /// Sets how many spare circuits to keep ready for each kind of circuit.
    pub(in crate::tor) fn want(&mut self, wanted: std::collections::BTreeMap<Key, u8>, now: Instant) {
        self.pool.want(wanted, now);
    }

    /// Returns true if the circuit exists in the pool of this engine.
    pub(in crate::tor) fn has(&self, circuit: CircuitId) -> bool {
        self.pool.has(circuit)
    }

    /// Removes and returns the planned path of a circuit whose build has ended, and logs the result `how`. Returns
    /// `None` if no such build is known.
    pub(super) fn finish(&mut self, circuit: CircuitId, how: impl std::fmt::Debug) -> Option<Path> {
        let build = self.launched.remove(&circuit)?;
        Some(build.end(circuit, how))
    }
}

/// An action that the pool requests, with the data that is needed to carry it out.
pub(super) enum Job {
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

/// A request that waits for a circuit. If this value is dropped, the request stops waiting.
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
    /// Returns a lease on a complete circuit that is not busy. Returns `None` if there is none.
    pub(in crate::tor) fn lend(self: &Arc<Self>, key: Key, who: Requester) -> Option<Lease> {
        self.live()?;
        let (run, asked) = self.act(|circuits, now| (circuits.run, circuits.pool.lend(key, who, now)));
        match asked? {
            LeaseAnswer::Lent(circuit, path) => Some(Lease { engine: self.clone(), run, circuit, path }),
            LeaseAnswer::Wait(_) | LeaseAnswer::Busy => None,
        }
    }

    /// Returns a lease on a circuit, either immediately or after the build of a circuit. The request is refused
    /// immediately if its build could not begin before the client's `deadline`. The wait for the circuit ends at
    /// `deadline`, or when the time `patience` has passed since the build could have begun.
    pub(in crate::tor) async fn ask(
        self: &Arc<Self>,
        key: Key,
        who: Requester,
        patience: Option<Duration>,
        deadline: Instant,
    ) -> Result<Lease, LeaseFault> {
        self.live().ok_or(LeaseFault::NotReady)?;
        let (tell, told) = oneshot::channel();
        let (run, until, asked) = self.act(|circuits, now| {
            // The guard may have fallen silent since the caller chose this engine. All requests that waited then were
            // refused, and a request that came later would wait in vain.
            if self.is_silent() {
                return (circuits.run, deadline, Err(LeaseFault::FirstHop));
            }
            let queued = circuits.pool.queue_wait(key, who.isolation, now);
            let until = patience.map_or(deadline, |patience| deadline.min(now + queued + patience));
            let asked = circuits.pool.ask(key, who, deadline, now);
            if let LeaseAnswer::Wait(waiter) = asked {
                circuits.waiters.insert(waiter, tell);
            }
            (circuits.run, until, Ok(asked))
        });
        match asked? {
            LeaseAnswer::Lent(circuit, path) => Ok(Lease { engine: self.clone(), run, circuit, path }),
            LeaseAnswer::Wait(waiter) => {
                self.bell.notify_one();
                Pending { engine: self.clone(), waiter, told }.wait(until).await
            }
            LeaseAnswer::Busy => Err(LeaseFault::Busy),
        }
    }

    /// Returns how long a client's request waits, in the best case, until the build of its circuit can begin.
    pub(in crate::tor) fn queue_wait(&self, key: Key, isolation: Isolation) -> Duration {
        self.circuits().pool.queue_wait(key, isolation, Instant::now())
    }

    /// Returns how long a refused client should wait before it tries again.
    pub(in crate::tor) fn retry_after(&self) -> Duration {
        self.circuits().pool.retry_after(Instant::now())
    }

    /// Returns a lease for one more stream on a circuit that already carries a stream of the caller. Returns `None` if
    /// the circuit does not exist any more.
    pub(in crate::tor) fn lend_again(self: &Arc<Self>, run: u64, circuit: CircuitId) -> Option<Lease> {
        let path = self.act(|circuits, now| match circuits.run == run {
            true => circuits.pool.lend_again(circuit, now),
            false => None,
        })?;
        Some(Lease { engine: self.clone(), run, circuit, path })
    }

    /// Returns true if the first relay of a circuit has answered after the time `since`.
    pub(in crate::tor) fn first_hop_answered(&self, since: Instant) -> bool {
        self.circuits().first_hops.values().any(|at| *at > since)
    }

    /// Returns true if the first relay of this circuit has answered after the time `since`. If the circuit does not
    /// exist any more, any first relay counts.
    pub(in crate::tor) fn first_hop_of_answered(&self, run: u64, circuit: CircuitId, since: Instant) -> bool {
        let circuits = self.circuits();
        let first = circuits.pool.link(circuit).filter(|_| circuits.run == run).map(|[first, _]| first);
        match first {
            Some(first) => circuits.first_hops.get(&first).is_some_and(|at| *at > since),
            None => circuits.first_hops.values().any(|at| *at > since),
        }
    }

    /// Frees the place on a circuit after its lease was dropped. Does nothing if the circuit belongs to an earlier run
    /// of tor.
    pub(in crate::tor) fn release(self: &Arc<Self>, run: u64, circuit: CircuitId) {
        self.act(|circuits, now| {
            if circuits.run == run {
                circuits.pool.release(circuit, now);
            }
        });
    }

    /// Removes a circuit from the pool after tor reported that the circuit does not exist. Does nothing if the circuit
    /// belongs to an earlier run of tor.
    pub(in crate::tor) fn missing(self: &Arc<Self>, run: u64, circuit: CircuitId) {
        self.act(|circuits, now| {
            if circuits.run == run {
                circuits.pool.gone(circuit, LeaseFault::Unreachable, now);
            }
        });
    }

    /// Runs `work` on the circuits under their lock. After that, releases the lock and carries out the actions that the
    /// pool requests.
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
                    // tor's answer does not matter, because the circuit may already be closed.
                    drop(live.control.start(&Command::new("CLOSECIRCUIT").arg(circuit)));
                }
            }
            Job::Refuse { waiter, fault } => {
                if let Some(waiter) = waiter {
                    drop(waiter.send(Err(fault)));
                }
            }
            Job::Grant { waiter, run, circuit, path } => {
                // If the request has given up, the lease is dropped here, which frees the place on the circuit.
                let lease = Lease { engine: self.clone(), run, circuit, path };
                if let Some(waiter) = waiter {
                    drop(waiter.send(Ok(lease)));
                }
            }
        }
        VecDeque::new()
    }

    /// Ends the run of tor: removes its circuits and streams, and gives waiting requests an error.
    pub(super) fn lost(self: &Arc<Self>) {
        self.live.store(None);
        self.set_silent(false);
        self.shared.liveness().forget(self.id);
        self.streams.lost();
        self.act(|circuits, _| {
            circuits.run += 1;
            circuits.asked.clear();
            circuits.launched.clear();
            circuits.nudges = Nudges::default();
            circuits.first_hops.clear();
            circuits.pool.lost();
        });
    }
}
