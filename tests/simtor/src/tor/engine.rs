//! What one engine knows, under one lock, and the events that come of its changes.
//!
//! A change is made in [`Engine::with`]; the events that it caused are sent when it ends, so that a command's answer
//! stands before the events that follow from it, as with tor.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::arguments::Arguments;
use super::circuits::Circuit;
use super::directory::{Bootstrap, Directory, News};
use super::event::Kind;
use super::home::{Home, Listener};
use super::log::Log;
use super::streams::Stream;
use super::uplink::{Link, Welcome};
use crate::link::{Ask, CircuitId, Conduct};
use crate::torrc::{Port, Torrc};

/// One engine.
#[derive(Debug)]
pub(super) struct Engine {
    state: Mutex<State>,
    pub(super) home: Home,
    pub(super) log: Log,
    /// The world's socket.
    pub(super) world: PathBuf,
    /// What the world calls us.
    pub(super) id: u32,
    speed: f64,
    pub(super) began: Instant,
    arguments: Arguments,
    quit: watch::Sender<bool>,
    /// Rung when the world has changed a circuit. Not by every change, because who waits makes some itself.
    pub(super) changed: Notify,
}

/// What changes.
#[derive(Debug)]
pub(super) struct State {
    pub(super) torrc: Torrc,
    pub(super) conduct: Conduct,
    pub(super) circuits: BTreeMap<CircuitId, Circuit>,
    pub(super) next_circuit: CircuitId,
    pub(super) streams: BTreeMap<u64, Stream>,
    pub(super) next_stream: u64,
    /// Connections to relays by fingerprint, with their number and whether they are open.
    pub(super) conns: BTreeMap<String, (u64, bool)>,
    pub(super) next_conn: u64,
    /// Guards that were entered by, and whether they work.
    pub(super) guards: BTreeMap<String, bool>,
    pub(super) directory: Directory,
    pub(super) bootstrap: Bootstrap,
    /// Where the task that looks after the directory listens.
    pub(super) news: mpsc::UnboundedSender<News>,
    pub(super) heard: Option<mpsc::UnboundedReceiver<News>>,
    pub(super) controllers: Vec<Controller>,
    pub(super) next_controller: u64,
    pub(super) owner: Option<u64>,
    /// Failures of targets by name: tor gives up at the third.
    pub(super) failures: HashMap<String, u32>,
    pub(super) asks: mpsc::UnboundedSender<Ask>,
    pub(super) listeners: BTreeMap<&'static str, Vec<String>>,
    pub(super) read: u64,
    pub(super) written: u64,
    queue: Vec<(Kind, String)>,
}

/// One control connection.
#[derive(Debug)]
pub(super) struct Controller {
    pub(super) id: u64,
    pub(super) events: Vec<Kind>,
    pub(super) tell: mpsc::UnboundedSender<Said>,
}

/// What goes to a controller.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Text(Instant, String),
    /// The connection is to be closed.
    End,
}

impl Engine {
    pub(super) fn new(
        arguments: Arguments,
        torrc: Torrc,
        home: Home,
        world: &Path,
        link: &Link,
        welcome: Welcome,
        log: Log,
    ) -> Arc<Self> {
        let (news, heard) = mpsc::unbounded_channel();
        let state = State {
            torrc,
            conduct: welcome.conduct,
            circuits: BTreeMap::new(),
            next_circuit: 1,
            streams: BTreeMap::new(),
            next_stream: 1,
            conns: BTreeMap::new(),
            next_conn: 1,
            guards: BTreeMap::new(),
            directory: Directory::default(),
            bootstrap: Bootstrap::default(),
            news,
            heard: Some(heard),
            controllers: Vec::new(),
            next_controller: 0,
            owner: None,
            failures: HashMap::new(),
            asks: link.asks.clone(),
            listeners: BTreeMap::new(),
            read: 0,
            written: 0,
            queue: Vec::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            home,
            log,
            world: world.to_owned(),
            id: welcome.engine,
            speed: welcome.speed,
            began: Instant::now(),
            arguments,
            quit: watch::Sender::new(false),
            changed: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change, then tells controllers of what it caused.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let value = work(&mut state);
        state.flush();
        value
    }

    /// A time of tor's as it passes here.
    pub(super) fn scaled(&self, time: Duration) -> Duration {
        time.div_f64(self.speed)
    }

    pub(super) fn torrc(&self) -> Torrc {
        self.state().torrc.clone()
    }

    /// The file that the configuration came from.
    pub(super) fn file(&self) -> String {
        self.arguments.file.as_ref().map_or_else(String::new, |path| path.display().to_string())
    }

    /// The time as this machine tells it.
    pub(super) fn now(&self) -> SystemTime {
        let off = self.state().conduct.clock_off;
        let by = Duration::from_secs(off.unsigned_abs());
        if off < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
    }

    /// Ends the process soon.
    pub(super) fn end(&self) {
        self.quit.send_replace(true);
    }

    pub(super) async fn quitting(&self) {
        let mut quit = self.quit.subscribe();
        let _ = quit.wait_for(|quit| *quit).await; // its sender is ours
    }

    /// Opens the control and the SOCKS ports of the configuration.
    pub(super) async fn listen(&self) -> Result<(Vec<Listener>, Vec<(Listener, Port)>), String> {
        let torrc = self.torrc();
        let (mut control, mut socks) = (Vec::new(), Vec::new());
        for name in ["ControlSocket", "ControlPort"] {
            for port in torrc.all(name).filter_map(|value| Port::read(name, value)) {
                control.extend(self.open(&port).await?);
            }
        }
        let lines: Vec<&str> = torrc.all("SocksPort").collect();
        let lines = if lines.is_empty() { vec!["9050"] } else { lines };
        for port in lines.into_iter().filter_map(|value| Port::read("SocksPort", value)) {
            if let Some(listener) = self.open(&port).await? {
                socks.push((listener, port));
            }
        }
        let names = |listeners: &mut dyn Iterator<Item = &Listener>| listeners.map(Listener::name).collect();
        self.with(|state| {
            state.listeners.insert("control", names(&mut control.iter()));
            state.listeners.insert("socks", names(&mut socks.iter().map(|(listener, _)| listener)));
        });
        Ok((control, socks))
    }

    async fn open(&self, port: &Port) -> Result<Option<Listener>, String> {
        Listener::open(&port.listen).await.map_err(|e| format!("Could not bind to {:?}: {e}", port.listen))
    }

    /// Reads the configuration file again, as SIGHUP does.
    pub(super) fn reload(&self) {
        let loaded = self.arguments.load(&self.log);
        self.with(|state| match loaded {
            Ok(torrc) if torrc.may_follow(&state.torrc).is_ok() => state.torrc = torrc,
            Ok(_) => self.log.warn("A setting that cannot change while Tor runs has changed."),
            Err(why) => self.log.err(&format!("Reading config failed--see warnings above. {why}")),
        });
    }
}

impl State {
    /// Queues an event, the text behind its `650 `.
    pub(super) fn event(&mut self, kind: Kind, text: String) {
        if self.controllers.iter().any(|controller| controller.events.contains(&kind)) {
            self.queue.push((kind, text));
        }
    }

    fn flush(&mut self) {
        let at = Instant::now();
        for (kind, text) in std::mem::take(&mut self.queue) {
            for controller in self.controllers.iter().filter(|controller| controller.events.contains(&kind)) {
                let _ = controller.tell.send(Said::Text(at, format!("650 {text}\r\n"))); // one that is gone is removed soon
            }
        }
    }

    pub(super) fn ask(&self, ask: Ask) {
        let _ = self.asks.send(ask); // without its world the engine ends
    }
}
