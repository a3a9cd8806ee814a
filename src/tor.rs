//! Drives tor. An engine is a tor process that we start, watch and command. A circuit is a path through Tor that we choose
//! and have an engine build.
//!
//! Other gateways run one tor process per exit, which costs 20 MB and two seconds each. Here a few engines carry circuits
//! to any number of exits: tor leaves streams unattached, and we attach each stream to a circuit that leads to the exit
//! chosen for it. So we must do what tor would do by itself: keep a guard, choose middle relays, limit the pace of
//! builds, keep clients apart, and replace what dies.
//!
//! [`Tor`] is the handle. A dial asks it for a [`circuit::Lease`], the right to put one stream on one circuit, and
//! connects under a username that identifies the stream ([`stream`]). The circuits to keep ready come in as
//! [`WantedExits`], a plain value on a watch: this room knows nothing of routes and pools.
//!
//! The modules from the bottom up: [`reply`] (bytes to replies), [`event`] (replies to events), [`control`] (a control
//! connection), [`torrc`] (an engine's configuration), [`netdir`] (the directory), [`guard`] and [`path`] (which relays
//! to use), [`circuit`] (which circuit to lend), [`engine`] (a tor process, kept alive). Next: `dial/tor.rs` calls this room.

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
mod engine_id;
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
pub use engine::{EngineState, EngineStatus};
pub use engine_id::EngineId;
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

/// The longest time that a request waits for any engine to become ready. A restart takes a second or two; after ten
/// seconds an error is more useful to the client.
const READY_WAIT: Duration = Duration::from_secs(10);

/// How long to wait for a circuit from one engine before the next engine is asked: the guard may hang, which looks the
/// same as being slow. Any value from 4 to 10 s does: by then the first engine has had two builds running for 3 s.
const ENGINE_WAIT: Duration = Duration::from_secs(6);

/// The SOCKS port and username for a stream to an onion service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnionPort {
    /// The engine.
    pub engine: EngineId,
    /// The engine's SOCKS port for onion services.
    pub addr: control::Addr,
    /// tor shares circuits only among streams with the same username.
    pub username: String,
}

/// A caller that wants a stream to an onion service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Streams with the same key may share circuits.
    pub isolation: Isolation,
    /// The engine of the caller's route, if the route has an engine of its own.
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
        // An engine's id is a byte. Each engine has a guard of its own, so 256 engines would be a mistake anyway.
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

    /// The status of each engine, in the order of their ids.
    pub fn status(&self) -> Vec<EngineStatus> {
        let there = |status: &EngineStatus| status.state != EngineState::Absent;
        self.all().iter().map(|engine| engine.status()).filter(there).collect()
    }

    /// Counts changes of state of any engine.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.fleet.changes.subscribe()
    }

    /// Alerts for the operator.
    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "tests/it reads it"))]
    pub fn alerts(&self) -> broadcast::Receiver<Alert> {
        self.fleet.alerts.subscribe()
    }

    /// The newest directory of any engine.
    pub fn directory(&self) -> watch::Receiver<Option<Arc<Netdir>>> {
        self.fleet.directory.subscribe()
    }

    /// Every circuit that exists.
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

    /// Resolves once some engine is ready.
    pub async fn ready(&self) {
        let mut changes = self.changes();
        while !self.engines.iter().any(|engine| engine.state().borrow().usable()) {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await; // the engines are gone; the caller has a deadline
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
        self.fleet.changed(); // the number of spares may have changed
        Ok(restart)
    }

    /// The right to put one stream on a circuit to `way.exit`. `port` is the target's, if it has one. `failed` is an engine
    /// that just failed for this request; it is asked last.
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
                // The cause is this engine or its guard: another engine may succeed.
                Err(why @ (LeaseFault::NoPath | LeaseFault::Lost | LeaseFault::NotReady)) => fault = why,
                Err(why @ LeaseFault::Deadline) if until < deadline => fault = why,
                Err(why) => return Err(why),
            }
        }
        Err(fault)
    }

    /// Where to ask for an onion service: the same engine for one isolation key as long as that engine runs.
    pub async fn onion(&self, who: Caller, deadline: Instant) -> Result<OnionPort, LeaseFault> {
        let Caller { isolation, own } = who;
        let way = Way { exit: Fingerprint([0; 20]), hops: 3, isolation, own };
        let engines = self.engines_for(way, deadline).await?;
        let (engine, live) = engines.iter().find_map(|e| Some((e.id(), e.live()?))).ok_or(LeaseFault::NotReady)?;
        Ok(OnionPort { engine, addr: live.onion.clone(), username: Username::Onion(isolation).write() })
    }

    /// The engines that may carry a stream of this way.
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

    /// The shared engines, then those that belong to one route each.
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
        // Spares are kept on the first two engines. The isolation key decides which is asked first, so both are used.
        if engines.len() > 1 && hash(&way.isolation) % 2 == 1 {
            engines.swap(0, 1);
        }
        // A degraded engine comes last. The sort is stable, so the order among equals stays.
        engines.sort_by_key(|engine| *engine.state().borrow() != EngineState::Ready);
        Ok(engines)
    }

    /// Engines that can carry streams, in an order of each exit's own. When an engine stops, only its exits move
    /// (rendezvous hashing).
    fn ranked(&self, exit: Fingerprint) -> Vec<Arc<Engine>> {
        let mut engines: Vec<_> = self.engines.iter().filter(|engine| engine.live().is_some()).cloned().collect();
        engines.sort_by_key(|engine| std::cmp::Reverse(hash(&(exit, engine.id()))));
        engines
    }

    /// Keeps the wanted spares ready: half of an exit's spares on one engine, half on another.
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

/// Gives the same number for the same value in every run.
fn hash(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
