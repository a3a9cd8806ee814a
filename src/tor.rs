//! Controls tor. An engine is a tor process that we start, watch and command. A circuit is a path through the Tor
//! network. We choose the path, and an engine builds the circuit.
//!
//! Other gateways run one tor process per exit. Each process costs 20 MB of memory and two seconds to start. Here a few
//! engines carry circuits to any number of exits: tor leaves new streams unattached, and we attach each stream to a
//! circuit that leads to the exit chosen for the stream. So we must do what tor would do by itself: keep a guard,
//! choose middle relays, limit the rate of circuit builds, keep clients on separate circuits, and replace circuits that
//! die.
//!
//! [`Tor`] is the handle to this room. A dial first gets a [`circuit::Lease`] from [`Tor`], the right to put one stream
//! on one circuit. The dial then connects to the SOCKS port of the engine with a username that identifies the stream
//! ([`stream`]). The circuits to keep ready are listed in [`CircuitDemand`], a plain value on a watch channel. This room
//! knows nothing about routes and pools of exits.
//!
//! The modules from the bottom up: [`reply`] (bytes to replies), [`event`] (replies to events), [`control`] (a control
//! connection), [`torrc`] (an engine's configuration), [`netdir`] (the directory of relays), [`guard`] and [`path`]
//! (which relays to use), [`circuit`] (which circuit to lend), [`engine`] (a tor process that is restarted when it
//! ends). Next: `dial/tor.rs` calls this room.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, timeout_at};

use crate::exit::Fingerprint;
use crate::lifecycle::Tasks;
use crate::route::{CircuitDemand, Isolation, OwnEngine, SpareCircuits};

pub mod circuit;
pub mod control;
mod directory;
pub mod engine;
mod engine_id;
pub mod event;
pub mod fault;
pub mod guard;
mod liveness;
pub mod netdir;
mod own;
pub mod path;
mod preflight;
mod queue;
mod recommended;
pub mod reply;
pub mod settings;
mod shared_state;
mod spares;
pub mod stream;
pub mod torrc;
pub mod version;

pub use circuit::build_rate::BuildClass;
pub use circuit::{CircuitStatus, Lease, Way};
pub use engine::{EngineState, EngineStatus};
pub use engine_id::EngineId;
pub use fault::{LeaseFault, StreamFault};
pub use preflight::{Preflight, PreflightError, preflight};
pub use settings::{Attach, Settings};
pub use shared_state::Alert;

use circuit::pool::Key;
use engine::Engine;
use netdir::Netdir;
pub use netdir::clients::Recommendation;
use own::Owned;
use path::{NoPath, Port};
use shared_state::SharedState;
use spares::Share;
use stream::Username;

/// The longest time that a request waits for any engine to become ready. A restart of an engine takes a second or two.
/// After ten seconds an error is more useful to the client than more waiting.
const READY_WAIT: Duration = Duration::from_secs(10);

/// How long a request waits for a circuit from one engine before it tries the next engine. The reason for a limit: the
/// guard of the first engine may hang, and the gateway cannot tell a guard that hangs from a slow one. Any value from 4
/// to 10 s works. With 6 s, the first engine has time to start a second build after 3 s, and to run both builds for
/// another 3 s.
const ENGINE_WAIT: Duration = Duration::from_secs(6);

/// The SOCKS port and the username to use for a stream to an onion service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnionPort {
    /// The engine that will carry the stream.
    pub engine: EngineId,
    /// The SOCKS port for onion services of this engine.
    pub addr: control::Addr,
    /// The SOCKS username. tor lets streams to onion services share circuits only if their usernames are equal.
    pub username: String,
}

/// Who opens a stream to an onion service. This value decides which engine carries the stream, and which streams share
/// circuits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The isolation key: streams with the same key may share circuits.
    pub isolation: Isolation,
    /// The engine of the caller's route, if that route has an engine of its own. `None` if the route shares engines
    /// with others.
    pub own: Option<OwnEngine>,
}

/// The handle to all engines. Cloning a handle is cheap.
#[derive(Clone, Debug)]
pub struct Tor {
    shared: Arc<SharedState>,
    engines: Arc<[Arc<Engine>]>,
    owned: Arc<Owned>,
}

impl Tor {
    /// Starts the engines in the background and returns immediately.
    pub fn start(settings: Settings, tasks: Tasks, wanted: watch::Receiver<CircuitDemand>) -> Self {
        let (started, attach) = (settings.started_engines(), settings.attach.clone());
        let shared = Arc::new(SharedState::new(settings, tasks.clone()));
        let attached = attach.into_iter().flat_map(Attach::engines);
        let kinds = (0..started).map(|_| None).chain(attached.map(Some));
        // An engine's id is one byte, so there are at most 256 engines. More would be a mistake anyway, because each
        // engine enters the Tor network through a guard of its own.
        let engines: Arc<[_]> = (0..=u8::MAX)
            .zip(kinds)
            .map(|(id, attach)| Arc::new(Engine::new(EngineId(id), attach, shared.clone())))
            .collect();
        for engine in engines.iter() {
            tasks.spawn("engine", engine::run(engine.clone()));
        }
        let owned = Arc::new(Owned::new(engines.len()));
        let tor = Self { shared, engines, owned };
        tasks.spawn("spares", tor.clone().reconcile(wanted, tasks.clone()));
        tor
    }

    /// Returns the status of each engine, in the order of the engine ids.
    pub fn status(&self) -> Vec<EngineStatus> {
        let there = |status: &EngineStatus| status.state != EngineState::Absent;
        self.all().iter().map(|engine| engine.status()).filter(there).collect()
    }

    /// Returns a counter that grows when the state of any engine changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Returns true if at least one engine is usable and its guard is not known to be silent. Otherwise a request for a
    /// circuit is certain to fail.
    pub fn is_up(&self) -> bool {
        self.engines.iter().any(|engine| engine.state().borrow().usable() && !engine.is_silent())
    }

    /// Returns true while the guard (the first relay of all circuits) of at least one engine answers. While no guard
    /// answers, a failed connection says nothing about an exit.
    pub fn first_hop_proven(&self) -> bool {
        self.shared.liveness().is_proven()
    }

    /// Subscribes to the alerts for the operator.
    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "tests/it reads it"))]
    pub fn alerts(&self) -> broadcast::Receiver<Alert> {
        self.shared.alerts.subscribe()
    }

    /// Returns the newest directory that any engine has.
    pub fn directory(&self) -> watch::Receiver<Option<Arc<Netdir>>> {
        self.shared.directory.subscribe()
    }

    /// Returns the status of every circuit of every engine.
    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "tests/it reads it"))]
    pub fn circuits(&self) -> Vec<CircuitStatus> {
        let views = |engine: &Arc<Engine>| {
            let id = engine.id();
            let status = move |view: circuit::pool::View| CircuitStatus {
                engine: id,
                id: view.id,
                path: view.path,
                state: view.state,
                streams: view.streams,
                age: view.age,
            };
            engine.views().into_iter().map(status).collect::<Vec<_>>()
        };
        self.all().iter().flat_map(views).collect()
    }

    /// Resolves once at least one engine is ready.
    pub async fn ready(&self) {
        let mut changes = self.changes();
        while !self.engines.iter().any(|engine| engine.state().borrow().usable()) {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await; // all engines are gone, so wait until the caller's deadline
            }
        }
    }

    /// Returns true if the first relay of a circuit of any engine has answered after the time `since`.
    pub fn first_hop_answered(&self, since: Instant) -> bool {
        self.all().iter().any(|engine| engine.first_hop_answered(since))
    }

    /// Applies new settings without ending a stream. Returns the names of the settings that take effect only after a
    /// restart of the gateway.
    pub async fn reload(&self, settings: Settings) -> Result<Vec<&'static str>, PreflightError> {
        let settings = settings.without_missing().await;
        preflight(&settings).await?;
        let old = self.shared.settings.load_full();
        let changed = [
            ("tor.binary", old.binary != settings.binary),
            ("tor.engines", old.started_engines() != settings.started_engines()),
            ("data_dir", old.data_dir != settings.data_dir),
            ("tor.attach", old.attach != settings.attach),
        ];
        let restart = changed.iter().filter(|(_, changed)| *changed).map(|(name, _)| *name).collect();
        let (binary, engines) = (old.binary.clone(), old.engines);
        let (data_dir, attach) = (old.data_dir.clone(), old.attach.clone());
        self.shared.settings.store(Arc::new(Settings { binary, engines, data_dir, attach, ..settings }));
        self.all().iter().for_each(|engine| engine.reload());
        self.shared.changed(); // the number of spares may have changed
        Ok(restart)
    }

    /// Returns the right to put one stream on a circuit to `way.exit`. `port` is the port of the target, or `None` if
    /// the request has no port (a name look-up). `failed` is an engine that just failed for this request: that engine
    /// is tried last.
    pub async fn lease(
        &self,
        way: Way,
        port: Option<Port>,
        failed: Option<EngineId>,
        deadline: Instant,
    ) -> Result<Lease, LeaseFault> {
        let listed = self.shared.netdir().map_or(Ok(()), |dir| path::exit(&dir, &way.exit, port).map(drop));
        if let Err(why) = listed
            && why != NoPath::ExitUnknown
        {
            return Err(engine::no_path(why));
        }
        let (key, who) = (key(&way, port), way.requester());
        let mut engines = self.engines_for(way, deadline).await?;
        engines.retain(|engine| !engine.is_silent());
        engines.sort_by_key(|engine| Some(engine.id()) == failed);
        if let Some(lease) = engines.iter().find_map(|engine| engine.lend(key, who)) {
            return Ok(lease);
        }
        // There was no existing circuit, so a circuit must be built. If the newest consensus does not list the exit,
        // this fails: tor builds no circuits to such a relay, although existing circuits to it still work.
        listed.map_err(engine::no_path)?;
        // The engine with the shortest queue builds the circuit first.
        engines.sort_by_cached_key(|engine| {
            let state = engine.state().borrow().clone();
            (Some(engine.id()) == failed, state != EngineState::Ready, engine.queue_wait(key, way.isolation))
        });
        // While all guards are known to be silent, there is no engine to ask, and the request gets its error
        // immediately.
        let mut fault = LeaseFault::FirstHop;
        let mut may_move = way.own.is_none() && way.class == BuildClass::Live;
        let mut engines = VecDeque::from(engines);
        while let Some(engine) = engines.pop_front() {
            let patience = Some(ENGINE_WAIT).filter(|_| engines.iter().any(|other| !other.is_silent()));
            let answer = tokio::select! {
                biased;
                answer = engine.ask(key, who, patience, deadline) => answer,
                sooner = self.sooner(&engine, key, way.isolation, failed), if may_move => {
                    may_move = false;
                    engines.retain(|other| other.id() != sooner.id());
                    engines.extend([engine]);
                    engines.push_front(sooner);
                    continue;
                }
            };
            match answer {
                Ok(lease) => return Ok(lease),
                Err(why) if why.is_before_the_exit() || why == LeaseFault::Busy => fault = why,
                Err(why @ LeaseFault::Deadline) if patience.is_some() => fault = why,
                Err(why) => return Err(why),
            }
        }
        Err(fault)
    }

    /// Returns the port and username for a stream to an onion service. All streams with the same isolation key use the
    /// same engine as long as that engine runs.
    pub async fn onion(&self, who: Caller, deadline: Instant) -> Result<OnionPort, LeaseFault> {
        let Caller { isolation, own } = who;
        let way = Way { exit: Fingerprint([0; 20]), hops: 3, isolation, class: BuildClass::Live, own };
        let engines = self.engines_for(way, deadline).await?;
        let (engine, live) = engines.iter().find_map(|e| Some((e.id(), e.live()?))).ok_or(LeaseFault::NotReady)?;
        Ok(OnionPort { engine, addr: live.onion.clone(), username: Username::Onion(isolation).write() })
    }

    /// Returns the engines that may carry a stream with the requirements `way`.
    async fn engines_for(&self, way: Way, deadline: Instant) -> Result<Vec<Arc<Engine>>, LeaseFault> {
        let Some(own) = way.own else { return self.usable(way, deadline).await };
        let engine = self.owned.get(own, &self.shared);
        let until = deadline.min(Instant::now() + READY_WAIT);
        let mut state = engine.state();
        let ready = async { state.wait_for(EngineState::usable).await.is_ok() };
        match timeout_at(until, ready).await {
            Ok(true) => Ok(vec![engine]),
            _ => Err(LeaseFault::NotReady),
        }
    }

    /// Returns the engines that many routes share, followed by the engines that belong to one route each.
    fn all(&self) -> Vec<Arc<Engine>> {
        self.engines.iter().cloned().chain(self.owned.list()).collect()
    }

    /// Returns the engines that can carry streams. The first is the best for a stream with the requirements `way`. If
    /// no engine can carry streams, this function waits until one can.
    async fn usable(&self, way: Way, deadline: Instant) -> Result<Vec<Arc<Engine>>, LeaseFault> {
        let mut engines = self.ranked(way.exit);
        if engines.is_empty() {
            let until = deadline.min(Instant::now() + READY_WAIT);
            timeout_at(until, self.ready()).await.map_err(|_| LeaseFault::NotReady)?;
            engines = self.ranked(way.exit);
        }
        // An exit's spare circuits are kept on its first two engines. The isolation key decides which of the two is
        // tried first, so requests use the spares of both.
        if engines.len() > 1 && hash(&way.isolation) % 2 == 1 {
            engines.swap(0, 1);
        }
        // A degraded engine comes last. The sort is stable, so engines in the same state keep their order.
        engines.sort_by_key(|engine| *engine.state().borrow() != EngineState::Ready);
        Ok(engines)
    }

    /// Returns the engines that can carry streams, in an order that depends on the exit (rendezvous hashing). When an
    /// engine stops, only those exits get another first engine that had this engine as their first.
    fn ranked(&self, exit: Fingerprint) -> Vec<Arc<Engine>> {
        let mut engines: Vec<_> = self.engines.iter().filter(|engine| engine.live().is_some()).cloned().collect();
        engines.sort_by_key(|engine| std::cmp::Reverse(hash(&(exit, engine.id()))));
        engines
    }

    /// Keeps the wanted spare circuits ready. Half of an exit's spares are on one engine, half on another.
    fn reconcile(self, mut wanted: watch::Receiver<CircuitDemand>, tasks: Tasks) -> impl Future<Output = ()> + Send {
        let mut changes = self.changes();
        async move {
            loop {
                let now = wanted.borrow_and_update().clone();
                changes.borrow_and_update();
                self.spread(&now);
                tokio::select! {
                    changed = wanted.changed() => if changed.is_err() { return },
                    changed = changes.changed() => if changed.is_err() { return },
                    () = tasks.stopping() => return,
                }
            }
        }
    }

    fn spread(&self, wanted: &CircuitDemand) {
        let mut shares: BTreeMap<EngineId, Vec<Share>> = BTreeMap::new();
        let settings = self.shared.settings.load();
        let share = |exit: &Fingerprint, want: &SpareCircuits| Share::new(*exit, want, settings.spare_circuits);
        self.owned.follow(wanted, &self.shared);
        for (own, exits) in &wanted.own {
            let engine = self.owned.get(*own, &self.shared).id();
            shares.insert(engine, exits.iter().map(|(exit, want)| share(exit, want)).collect());
        }
        for (exit, want) in &wanted.exits {
            let engines = self.ranked(*exit);
            let halves = share(exit, want).halves(engines.len());
            for (engine, half) in engines.iter().zip(halves) {
                shares.entry(engine.id()).or_default().push(half);
            }
        }
        for engine in self.all().into_iter().filter(|engine| engine.live().is_some()) {
            let share = shares.remove(&engine.id()).unwrap_or_default();
            let kept = spares::bounded(share, settings.max_spare_circuits);
            engine.act(|circuits, now| circuits.want(kept, now));
        }
    }
}

/// Returns the kind of circuit that a stream needs: the exit, the number of hops, and the port if its streams last
/// long.
fn key(way: &Way, port: Option<Port>) -> Key {
    let lasting = port.map(|port| port.number).filter(|port| path::is_long_lived(*port));
    Key { exit: way.exit, hops: if way.hops == 2 { 2 } else { 3 }, lasting }
}

/// Returns a hash of the value. Equal values have the same hash in every run of the gateway.
fn hash(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
