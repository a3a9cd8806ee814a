//! The network: relays, connections to them, circuits over them and streams out of them, as one process for all engines.
//!
//! One process, because what matters here is shared: an exit's capacity by all streams through it, a relay's patience by
//! all circuits of one client, a fault by everybody. Engines speak to it over a unix socket ([`crate::link`]) and are
//! otherwise on their own, so that they can crash, hang and be suspended one by one.
//!
//! Next: `world/settings.rs` (what can be set), `world/build.rs` (circuits), `world/stream.rs` and `world/shape.rs`
//! (streams), `world/defence.rs` (relays against floods), `world/directory.rs` (consensuses), `world/serve.rs` (the socket).

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::fault::{Faults, Manner, Network, Order, Uplink, chance};
use crate::link::{CircuitId, Conn, Gone, Tell};
use crate::model::Model;

mod build;
mod channel;
mod choose;
mod defence;
mod directory;
mod dns;
pub(crate) mod end;
mod layout;
mod serve;
pub mod settings;
mod shape;
pub mod stats;
mod stream;

use defence::Defence;
use settings::Settings;
use shape::Buckets;
use stats::Stats;

/// The place of a first relay that is no relay of the model: a bridge.
const BRIDGE: usize = usize::MAX;

/// The place of a relay that nobody is.
const NOBODY: usize = usize::MAX - 1;

/// The number that decides which of the relays that vanish are there all the same.
const MISSED: u64 = 0x4D49;

/// An engine and one of its circuits.
type Key = (u32, CircuitId);

/// A network that runs.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) model: Model,
    /// Where the editions of the directory lie.
    folder: PathBuf,
    began: Instant,
    /// When hour 0 began.
    zero: SystemTime,
    state: Mutex<State>,
    /// Told whenever a fault begins or ends.
    changed: watch::Sender<u64>,
}

/// What changes.
#[derive(Debug)]
struct State {
    rng: StdRng,
    engines: HashMap<u32, Engine>,
    next_engine: u32,
    channels: HashMap<(u32, usize), Channel>,
    circuits: HashMap<Key, Circuit>,
    /// Pairs of relays of which the first could not reach the second, until when it does not try again.
    unreached: HashMap<(usize, usize), Instant>,
    /// Circuits whose end is known to their second relay, which has not passed it on yet: by their first two relays.
    held: HashMap<(usize, usize), Vec<Key>>,
    onions: HashMap<String, Onion>,
    defence: Defence,
    faults: Faults,
    stats: Stats,
    buckets: Buckets,
    editions: directory::Editions,
    /// Since when the uplink lets nothing pass.
    cut: Option<Instant>,
    /// When the last cut ended, and when connections that outlived it go on.
    resumes: Option<(Instant, Instant)>,
    /// Relays that were entered, with the task that accepts connections at their address, if they can be reached.
    listening: HashMap<usize, Option<AbortHandle>>,
}

#[derive(Debug)]
struct Engine {
    tell: mpsc::UnboundedSender<Tell>,
    client: String,
    bridges: HashSet<String>,
    /// When it was last known to be awake.
    awake: Instant,
}

#[derive(Debug)]
struct Channel {
    /// None while it is being made.
    open: watch::Sender<Option<Result<(), String>>>,
    task: Option<AbortHandle>,
    /// When it was made; none until then.
    made: Option<Instant>,
}

#[derive(Debug)]
struct Circuit {
    path: Vec<usize>,
    /// How many of those it reaches.
    reached: usize,
    build: Option<AbortHandle>,
    streams: HashMap<u64, AbortHandle>,
    next_stream: u64,
    /// It ended out there, and nobody has told the client.
    lost: bool,
}

#[derive(Clone, Copy, Debug)]
struct Onion {
    port: u16,
    target: SocketAddr,
}

impl World {
    pub(crate) fn new(settings: Settings, folder: PathBuf) -> anyhow::Result<Arc<Self>> {
        let model = match &settings.relays {
            Some(path) => layout::read(path)?,
            None => {
                let mut model = Model::new(settings.seed, settings.size);
                model.churn = settings.churn;
                model
            }
        };
        let rng = StdRng::seed_from_u64(settings.seed);
        let state = State {
            rng,
            engines: HashMap::new(),
            next_engine: 0,
            channels: HashMap::new(),
            circuits: HashMap::new(),
            unreached: HashMap::new(),
            held: HashMap::new(),
            onions: HashMap::new(),
            defence: Defence::default(),
            faults: Faults::default(),
            stats: Stats::default(),
            buckets: Buckets::default(),
            editions: directory::Editions::default(),
            cut: None,
            resumes: None,
            listening: HashMap::new(),
        };
        // Some way into its first hour, as whoever joins a network meets it.
        let zero = SystemTime::now() - settings.hour_length().mul_f64(settings.begun.clamp(0.0, 1.0));
        let began = Instant::now();
        let (changed, _) = watch::channel(0);
        Ok(Arc::new(Self { settings, model, folder, began, zero, state: Mutex::new(state), changed }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A time of the model as it passes here.
    fn scaled(&self, time: Duration) -> Duration {
        time.div_f64(self.settings.speed)
    }

    async fn wait(&self, time: Duration) {
        tokio::time::sleep(self.scaled(time)).await;
    }

    /// What all relays are called outside.
    fn hex(&self, relay: usize) -> String {
        self.model.relays()[relay].hex()
    }

    /// Begins a fault; its number.
    pub(crate) fn order(self: &Arc<Self>, order: Order) -> u64 {
        use crate::fault::Fault;
        let mut state = self.state();
        match &order.fault {
            Fault::EngineCrash { engine } => state.tell_all(*engine, &Tell::Crash),
            Fault::ControlCut { engine } => state.tell_all(*engine, &Tell::CutControl),
            _ => {}
        }
        let entered: HashSet<usize> = state.channels.keys().map(|(_, relay)| *relay).collect();
        let id = state.faults.begin(order, &Network { model: &self.model, entered: &entered });
        drop(state);
        self.faults_changed();
        id
    }

    /// Ends one fault or all; how many that were.
    pub(crate) fn clear(self: &Arc<Self>, id: Option<u64>) -> usize {
        let ended = self.state().faults.end(id);
        self.faults_changed();
        ended
    }

    /// Lets the new faults act on what exists already.
    fn faults_changed(self: &Arc<Self>) {
        let mut state = self.state();
        self.note_cut(&mut state);
        let entered: Vec<usize> = state.listening.keys().copied().collect();
        entered.into_iter().for_each(|relay| self.listen(&mut state, relay));
        let conduct = state.faults.conduct(&self.settings.version);
        state.tell_all(None, &Tell::Conduct(conduct));
        let down: HashSet<usize> =
            (0..self.model.relays().len()).filter(|relay| state.faults.relay(*relay) == Manner::Down).collect();
        if !down.is_empty() {
            self.take_down(&mut state, &down);
        }
        drop(state);
        self.changed.send_modify(|epoch| *epoch += 1);
    }

    /// Ends the connections to relays and the circuits over them.
    fn take_down(&self, state: &mut State, relays: &HashSet<usize>) {
        let channels: Vec<_> = state.channels.keys().filter(|(_, relay)| relays.contains(relay)).copied().collect();
        for (engine, relay) in channels {
            self.close_channel(state, engine, relay, "CONNECTRESET");
        }
        let over =
            |circuit: &Circuit| circuit.path.iter().take(circuit.reached.max(1)).any(|relay| relays.contains(relay));
        let keys: Vec<Key> = state.circuits.iter().filter(|(_, circuit)| over(circuit)).map(|(key, _)| *key).collect();
        for key in keys {
            self.cut(state, key);
        }
    }

    /// A circuit ends somewhere behind its first relay. Of several over one link the first is told of at once, and of the
    /// others some only when something else goes that way.
    fn cut(&self, state: &mut State, key: Key) {
        let Some(circuit) = state.circuits.get_mut(&key) else { return };
        circuit.streams.drain().for_each(|(_, stream)| stream.abort());
        let link = match circuit.path[..] {
            [first, second, ..] if circuit.reached > 1 => (first, second),
            _ => return state.end(key, &Gone::there("CHANNEL_CLOSED")),
        };
        let is_first = !state.held.contains_key(&link);
        let held = state.held.entry(link).or_default();
        if !is_first && state.rng.random_bool(self.settings.held_destroys) {
            held.push(key);
            if let Some(circuit) = state.circuits.get_mut(&key) {
                circuit.lost = true;
            }
        } else {
            state.end(key, &Gone::there("CHANNEL_CLOSED"));
        }
    }

    /// Waits until the uplink and these relays let something pass over connections that exist, to the first of them from
    /// this engine, if there is one.
    async fn passable(&self, engine: Option<u32>, relays: &[usize]) {
        let mut changed = self.changed.subscribe();
        loop {
            match self.passage(engine, relays) {
                Ok(()) => return,
                Err(Some(at)) => tokio::time::sleep_until(at).await,
                Err(None) if changed.changed().await.is_err() => return,
                Err(None) => {}
            }
        }
    }

    /// Whether something passes; else when it will, if that is known.
    fn passage(&self, engine: Option<u32>, relays: &[usize]) -> Result<(), Option<Instant>> {
        let state = self.state();
        let hangs = |relay: &usize| state.faults.relay(*relay) == Manner::Hangs;
        if state.cut.is_some() || relays.iter().any(hangs) {
            return Err(None);
        }
        let Some((back, resumes)) = state.resumes.filter(|(_, at)| *at > Instant::now()) else { return Ok(()) };
        let Some(first) = relays.first() else { return Ok(()) };
        let channel = engine.and_then(|engine| state.channels.get(&(engine, *first)));
        let is_new = channel.and_then(|channel| channel.made).is_some_and(|made| made >= back);
        if is_new { Ok(()) } else { Err(Some(resumes)) }
    }

    /// Notes when a cut begins; when it ends, everything goes on with the next retransmission, and not at once.
    fn note_cut(&self, state: &mut State) {
        let is_cut = matches!(state.faults.uplink(), Uplink::Silent | Uplink::Unreachable);
        match (is_cut, state.cut) {
            (true, None) => state.cut = Some(Instant::now()),
            (false, Some(since)) => {
                let lasted = since.elapsed().mul_f64(self.settings.speed);
                let resumes = since + self.scaled(channel::next_try(lasted, channel::DATA));
                state.resumes = Some((Instant::now(), resumes));
                state.cut = None;
            }
            _ => {}
        }
    }

    /// Looks after what only time ends: faults, engines that sleep, consensuses.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        let mut hour = 0;
        loop {
            tick.tick().await;
            let now = Instant::now();
            if self.state().faults.expire(now) {
                self.faults_changed();
            }
            self.part_from_sleepers(now);
            if self.hour() != hour {
                hour = self.hour();
                self.restart_relays(hour);
            }
        }
    }

    /// The hour of the model that it is now.
    fn hour(&self) -> u64 {
        let since = SystemTime::now().duration_since(self.zero).unwrap_or_default();
        (since.as_secs_f64() / self.settings.hour_length().as_secs_f64()) as u64
    }

    /// Whether a relay is there at all. Of those that vanish from the consensus half are: relays go down far more seldom
    /// than they are missed by a vote. The half is a guess.
    fn is_there(&self, relay: usize) -> bool {
        let missed = || chance(relay as u64, MISSED) < 0.5;
        match relay {
            BRIDGE => true,
            NOBODY => false,
            _ => self.settings.relays.is_some() || self.model.is_listed(relay, self.hour()) || missed(),
        }
    }

    /// Relays that restart close what goes over them and are back in a moment.
    fn restart_relays(&self, hour: u64) {
        let restarted: HashSet<usize> = match self.settings.relays {
            Some(_) => HashSet::new(),
            None => self.model.restarts(hour).into_iter().collect(),
        };
        self.take_down(&mut self.state(), &restarted);
    }
}

impl State {
    fn tell(&self, engine: u32, what: Tell) {
        if let Some(engine) = self.engines.get(&engine) {
            let _ = engine.tell.send(what); // an engine that is gone is forgotten when its connection ends
        }
    }

    fn tell_all(&self, only: Option<u32>, what: &Tell) {
        for id in self.engines.keys().filter(|id| only.is_none_or(|only| only == **id)) {
            self.tell(*id, what.clone());
        }
    }

    fn tell_conn(&self, world: &World, engine: u32, relay: usize, conn: Conn) {
        let name = match relay {
            BRIDGE => self.engines.get(&engine).and_then(|engine| engine.bridges.iter().next().cloned()),
            NOBODY => None,
            _ => Some(world.hex(relay)),
        };
        if let Some(relay) = name {
            self.tell(engine, Tell::Conn { relay, conn });
        }
    }

    /// Ends a circuit and tells its engine why.
    fn end(&mut self, key: Key, gone: &Gone) {
        if self.forget(key) {
            *self.stats.ended.entry(gone.reason.clone()).or_default() += 1;
            self.tell(key.0, Tell::Gone { circuit: key.1, gone: gone.clone() });
        }
    }

    /// Ends a circuit; true if there was one.
    fn forget(&mut self, key: Key) -> bool {
        let Some(mut circuit) = self.circuits.remove(&key) else { return false };
        circuit.streams.drain().for_each(|(_, stream)| stream.abort());
        if let Some(build) = circuit.build {
            build.abort();
        }
        true
    }
}
