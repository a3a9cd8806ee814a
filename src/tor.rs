//! Engines: tor processes that we start, watch and command; circuits: paths through them that we choose.
//!
//! Elsewhere one tor process stands for one exit, which costs 20 MB and two seconds each. Here a few processes carry
//! circuits to any number of exits: streams are left unattached by tor, and each is put by us on a circuit that we
//! built to the exit that was chosen for it. That makes ours what tor would have done by itself: whom to trust as a
//! guard, which middle, how fast to build, who may share a circuit with whom, and what to do when any of it dies.
//!
//! [`Tor`] is the handle on all of it. A dial asks it for a [`circuit::Lease`], the right to put one stream on one
//! circuit, and gives the stream its ticket ([`stream`]). What must be kept warm comes in as [`WantedExits`], a plain value
//! on a watch: this room knows nothing of routes and pools.
//!
//! From the bottom: [`reply`] (bytes → replies) and [`event`] (replies → events), [`control`] (a connection),
//! [`torrc`] (a configuration), [`netdir`], [`path`] and [`guard`] (who is who in the network, and whom to choose),
//! [`circuit`] (who may use what), [`engine`] (a tor, kept alive). Next: `dial/tor.rs` is who calls.

use std::collections::BTreeMap;
use std::future::Future;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, timeout_at};

use crate::exit::Fingerprint;
use crate::lifecycle::Tasks;
use crate::route::{Isolation, OwnEngine, SPARES, WantedExit, WantedExits};

pub mod circuit;
pub mod control;
mod directory;
pub mod engine;
pub mod event;
pub mod fault;
mod fleet;
pub mod guard;
pub mod netdir;
mod own;
pub mod path;
mod preflight;
pub mod reply;
pub mod settings;
pub mod stream;
pub mod torrc;
pub mod version;

pub use circuit::{CircuitStatus, Lease, Way};
pub use engine::{EngineId, EngineState, EngineStatus};
pub use fault::{LeaseFault, StreamFault};
pub use fleet::Alert;
pub use preflight::{Preflight, PreflightError, preflight};
pub use settings::{Attach, Settings};

use circuit::pool::Key;
use engine::Engine;
use fleet::Fleet;
use netdir::Netdir;
use own::Owned;
use path::Port;
use stream::Username;

/// How long a request waits for some engine to become ready, at most: a restart takes a second or two, and a client
/// that is told so can do something else.
const READY_WAIT: Duration = Duration::from_secs(10);

/// How long an engine may take over a circuit before the next one is asked for it: its guard may hang, which nothing
/// tells from being slow. Arbitrary: two circuits that the first builds side by side had three seconds and more by then.
const ENGINE_WAIT: Duration = Duration::from_secs(6);

/// Where, and as whom, onion services are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnionPort {
    /// The engine.
    pub engine: EngineId,
    /// Its SOCKS port for them.
    pub addr: control::Addr,
    /// The user name to give, by which tor keeps apart who is to be kept apart.
    pub username: String,
}

/// Who asks for an onion service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// With whom it may share circuits.
    pub isolation: Isolation,
    /// The engine that carries it, where that is not one of those that carry all.
    pub own: Option<OwnEngine>,
}

/// The handle on all engines; cheap to clone.
#[derive(Clone, Debug)]
pub struct Tor {
    fleet: Arc<Fleet>,
    engines: Arc<[Arc<Engine>]>,
    owned: Arc<Owned>,
}

impl Tor {
    /// Starts the engines in the background and returns at once.
    pub fn start(settings: Settings, tasks: Tasks, wanted: watch::Receiver<WantedExits>) -> Self {
        let (started, attach) = (settings.started_engines(), settings.attach.clone());
        let fleet = Arc::new(Fleet::new(settings, tasks.clone()));
        let attached = attach.into_iter().flat_map(Attach::engines);
        let kinds = (0..started).map(|_| None).chain(attached.map(Some));
        // More engines than fit into a byte are a mistake in the configuration, and more guards than anybody should have.
        let engines: Arc<[_]> = (0..=u8::MAX)
            .zip(kinds)
            .map(|(id, attach)| Arc::new(Engine::new(EngineId(id), attach, fleet.clone())))
            .collect();
        for engine in engines.iter() {
            tasks.spawn("engine", engine::run(engine.clone()));
        }
        let owned = Arc::new(Owned::new(engines.len()));
        let tor = Self { fleet, engines, owned };
        tasks.spawn("spares", tor.clone().reconcile(wanted, tasks.clone()));
        tor
    }

    /// How each engine stands, in the order of their ids.
    pub fn status(&self) -> Vec<EngineStatus> {
        let there = |status: &EngineStatus| status.state != EngineState::Absent;
        self.all().iter().map(|engine| engine.status()).filter(there).collect()
    }

    /// Counts changes of state of any engine.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.fleet.changes.subscribe()
    }

    /// What a person should hear of.
    pub fn alerts(&self) -> broadcast::Receiver<Alert> {
        self.fleet.alerts.subscribe()
    }

    /// The newest directory of any engine.
    pub fn directory(&self) -> watch::Receiver<Option<Arc<Netdir>>> {
        self.fleet.directory.subscribe()
    }

    /// Every circuit there is.
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

    /// Resolves once some engine is ready.
    pub async fn ready(&self) {
        let mut changes = self.changes();
        while !self.engines.iter().any(|engine| engine.state().borrow().usable()) {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await; // nothing will change any more
            }
        }
    }

    /// Takes over new settings without dropping a stream. Returns the names of those that need a restart.
    pub async fn reload(&self, settings: Settings) -> Result<Vec<&'static str>, PreflightError> {
        let settings = settings.without_missing().await;
        preflight(&settings).await?;
        let old = self.fleet.settings.load_full();
        let changed = [
            ("tor.binary", old.binary != settings.binary),
            ("tor.engines", old.started_engines() != settings.started_engines()),
            ("data_dir", old.data_dir != settings.data_dir),
            ("tor.attach", old.attach != settings.attach),
        ];
        let restart = changed.iter().filter(|(_, changed)| *changed).map(|(name, _)| *name).collect();
        let (binary, engines) = (old.binary.clone(), old.engines);
        let (data_dir, attach) = (old.data_dir.clone(), old.attach.clone());
        self.fleet.settings.store(Arc::new(Settings { binary, engines, data_dir, attach, ..settings }));
        self.all().iter().for_each(|engine| engine.reload());
        self.fleet.changed(); // how much is kept warm may be among it
        Ok(restart)
    }

    /// The right to put one stream on a circuit that goes this way; `port` is the target's, if it has one. `failed` is an
    /// engine where it was tried in vain, so that it is asked last.
    pub async fn lease(
        &self,
        way: Way,
        port: Option<Port>,
        failed: Option<EngineId>,
        deadline: Instant,
    ) -> Result<Lease, LeaseFault> {
        if let Some(dir) = self.fleet.netdir() {
            path::exit(&dir, &way.exit, port).map_err(engine::no_path)?;
        }
        let lasting = port.map(|port| port.number).filter(|port| path::is_long_lived(*port));
        let key = Key { exit: way.exit, hops: if way.hops == 2 { 2 } else { 3 }, lasting };
        let mut engines = self.engines_for(way, deadline).await?;
        engines.sort_by_key(|engine| Some(engine.id()) == failed);
        if let Some(lease) = engines.iter().find_map(|engine| engine.lend(key, way.isolation)) {
            return Ok(lease);
        }
        let mut fault = LeaseFault::NotReady;
        let last = engines.last().map(|engine| engine.id());
        for engine in engines {
            let until = if Some(engine.id()) == last { deadline } else { deadline.min(Instant::now() + ENGINE_WAIT) };
            match engine.ask(key, way.isolation, until).await {
                Ok(lease) => return Ok(lease),
                // What is in the way is this engine, or its guard: another one may do.
                Err(why @ (LeaseFault::NoPath | LeaseFault::Lost | LeaseFault::NotReady)) => fault = why,
                Err(why @ LeaseFault::Deadline) if until < deadline => fault = why,
                Err(why) => return Err(why),
            }
        }
        Err(fault)
    }

    /// Where an onion service is asked for: the same engine for one isolation key as long as it lives.
    pub async fn onion(&self, who: Caller, deadline: Instant) -> Result<OnionPort, LeaseFault> {
        let Caller { isolation, own } = who;
        let way = Way { exit: Fingerprint([0; 20]), hops: 3, isolation, own };
        let engines = self.engines_for(way, deadline).await?;
        let (engine, live) = engines.iter().find_map(|e| Some((e.id(), e.live()?))).ok_or(LeaseFault::NotReady)?;
        Ok(OnionPort { engine, addr: live.onion.clone(), username: Username::Onion(isolation).write() })
    }

    /// The engines that may carry a stream that goes this way.
    async fn engines_for(&self, way: Way, deadline: Instant) -> Result<Vec<Arc<Engine>>, LeaseFault> {
        let Some(own) = way.own else { return self.usable(way, deadline).await };
        let engine = self.owned.get(own, &self.fleet);
        let until = deadline.min(Instant::now() + READY_WAIT);
        let mut state = engine.state();
        let ready = async { state.wait_for(EngineState::usable).await.is_ok() };
        match timeout_at(until, ready).await {
            Ok(true) => Ok(vec![engine]),
            _ => Err(LeaseFault::NotReady),
        }
    }

    /// Those that carry all, and those that carry one route each.
    fn all(&self) -> Vec<Arc<Engine>> {
        self.engines.iter().cloned().chain(self.owned.list()).collect()
    }

    /// The engines that can carry streams, best first for this way; waits for one if there is none.
    async fn usable(&self, way: Way, deadline: Instant) -> Result<Vec<Arc<Engine>>, LeaseFault> {
        let mut engines = self.ranked(way.exit);
        if engines.is_empty() {
            let until = deadline.min(Instant::now() + READY_WAIT);
            timeout_at(until, self.ready()).await.map_err(|_| LeaseFault::NotReady)?;
            engines = self.ranked(way.exit);
        }
        // Spares lie on the first two; which of them is asked first is the isolation key's, so that both are used.
        if engines.len() > 1 && hash(&way.isolation) % 2 == 1 {
            engines.swap(0, 1);
        }
        // One that is not well only if there is no other. (Stable: the order among equals stays.)
        engines.sort_by_key(|engine| *engine.state().borrow() != EngineState::Ready);
        Ok(engines)
    }

    /// Engines that can carry streams, in an order that each exit has of its own: when one goes, only its exits move.
    fn ranked(&self, exit: Fingerprint) -> Vec<Arc<Engine>> {
        let mut engines: Vec<_> = self.engines.iter().filter(|engine| engine.live().is_some()).cloned().collect();
        engines.sort_by_key(|engine| std::cmp::Reverse(hash(&(exit, engine.id()))));
        engines
    }

    /// Keeps what is wanted warm: half of an exit's spares on one engine, half on another.
    fn reconcile(self, mut wanted: watch::Receiver<WantedExits>, tasks: Tasks) -> impl Future<Output = ()> + Send {
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

    fn spread(&self, wanted: &WantedExits) {
        let mut shares: BTreeMap<EngineId, BTreeMap<Key, u8>> = BTreeMap::new();
        let each = u16::from(self.fleet.settings.load().spare_circuits);
        let share = |exit: &Fingerprint, want: &WantedExit| {
            let spares = (u16::from(want.spares) * each).div_ceil(u16::from(SPARES));
            let hops = if want.hops == 2 { 2 } else { 3 };
            (Key { exit: *exit, hops, lasting: None }, u8::try_from(spares).unwrap_or(u8::MAX))
        };
        self.owned.follow(wanted, &self.fleet);
        for (own, exits) in &wanted.own {
            let engine = self.owned.get(*own, &self.fleet).id();
            shares.insert(engine, exits.iter().map(|(exit, want)| share(exit, want)).collect());
        }
        for (exit, want) in &wanted.exits {
            let (key, spares) = share(exit, want);
            let engines = self.ranked(*exit);
            let halves = [spares.div_ceil(2), spares / 2];
            let spares = if engines.len() < 2 { [spares, 0] } else { halves };
            for (engine, spares) in engines.iter().zip(spares).filter(|(_, spares)| *spares > 0) {
                shares.entry(engine.id()).or_default().insert(key, spares);
            }
        }
        for engine in self.all().into_iter().filter(|engine| engine.live().is_some()) {
            let share = shares.remove(&engine.id()).unwrap_or_default();
            engine.act(|circuits, now| circuits.want(share, now));
        }
    }
}

/// The same number for the same value in every run.
fn hash(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
