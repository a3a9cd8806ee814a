//! Keeps an engine's tor running. It starts tor or attaches to a running tor, logs in and runs a session. After a
//! failure the module pauses and tries again.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::RngExt as _;
use tokio::time::{Instant, sleep, timeout};

use super::backoff::Backoff;
use super::guarding::GuardLimits;
use super::process::{self, Process};
use super::session::{self, Ports};
use super::{Engine, EngineState, Folder, Live, has_directory};
use crate::config::Endpoint;
use crate::route::OwnEngine;
use crate::tor::control::{Addr, Auth, Control, ControlError, Events};
use crate::tor::guard::Reachable;
use crate::tor::netdir::Rules;
use crate::tor::settings::{Attach, Settings};
use crate::tor::shared_state::Alert;
use crate::tor::torrc::{self, EnginePaths, UserLines};
use crate::tor::version::{UPDATE, Version};

/// If tor has run at least this long, the pause before its next restart is the shortest again.
const STEADY: Duration = Duration::from_secs(120);

/// The longest time from tor's start until its control port answers. tor usually takes about 50 ms.
const LOGIN: Duration = Duration::from_secs(30);

/// After the control connection broke, we wait this long for the end of the process, because the last log lines of the
/// process usually contain the reason.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The time between two attempts to connect to a tor that was just started.
const LOGIN_RETRY: Duration = Duration::from_millis(20);

/// How long the other engines wait for the directory of relays of the first engine, instead of downloading the
/// directory. On the public network the first engine has its directory within about 20 s.
const SEED_WAIT: Duration = Duration::from_secs(60);

/// The pause between two look-ups of the host name of an attached tor, while the name has no free address for this
/// engine.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// An engine that must end (at the shutdown, or because its route was deleted) ends after it has had no stream for this
/// time. A connection that was accepted just before may still open a stream.
const QUIET: Duration = Duration::from_millis(500);

/// Why a run of tor, or the attempt to start one, ended.
#[derive(Debug)]
pub(super) enum End {
    /// tor or its control connection broke, so the engine tries again.
    Broken(String),
    /// Trying again does not help until the configuration changes.
    Hopeless(String),
    /// The host name of the attached tor has no address that is free for this engine.
    Absent,
}

/// The folder and the connection that must be closed when an engine ends.
#[derive(Default)]
struct Held {
    folder: Option<Arc<Folder>>,
    process: Option<Process>,
    control: Option<Control>,
}

impl Held {
    /// Saves the state of the guards, and unlocks the engine's folder.
    async fn keep_guards(&mut self, engine: &Engine) {
        if let Some(folder) = self.folder.take() {
            engine.save_guards(&folder).await;
        }
    }
}

/// Runs an engine until shutdown. The engine of a single route also ends when its route is deleted.
pub(in crate::tor) async fn run(engine: Arc<Engine>) {
    let mut backoff = Backoff::default();
    let mut held = Held::default();
    loop {
        if *engine.state.borrow() != EngineState::Absent {
            engine.set_state(EngineState::Starting);
        }
        let began = Instant::now();
        let end = tokio::select! {
            end = live(&engine, &mut held) => end,
            () = engine.may_end() => break,
        };
        engine.lost();
        engine.shared.let_go(engine.id);
        held.keep_guards(&engine).await;
        // Dropping the control connection makes tor end, because this connection owns tor (`TAKEOWNERSHIP`).
        held.control = None;
        if let Some(process) = held.process.take() {
            process.end(None).await;
        }
        if began.elapsed() >= STEADY {
            backoff.reset();
        }
        if engine.rest(end, &mut backoff).await.is_none() {
            break;
        }
    }
    engine.lost();
    engine.shared.guards().remove(&engine.id);
    held.keep_guards(&engine).await;
    if let Some(process) = held.process.take() {
        process.end(held.control.take()).await;
    }
    if *engine.state.borrow() != EngineState::Absent {
        engine.set_state(EngineState::Stopped { why: None });
    }
}

/// Starts tor, or attaches to a tor that runs already. Then handles tor's events until the control connection ends.
async fn live(engine: &Arc<Engine>, held: &mut Held) -> End {
    let settings = engine.shared.settings.load_full();
    let end = match &engine.attach {
        Some(attach) => live_attached(engine, attach, &settings, held).await,
        None => live_started(engine, &settings, held).await,
    };
    end.unwrap_or_else(|end| end)
}

async fn live_started(engine: &Arc<Engine>, settings: &Settings, held: &mut Held) -> Result<End, End> {
    let version = process::version(&settings.binary).await.map_err(|e| End::Hopeless(e.to_string()))?;
    let user = UserLines::load(settings.torrc.as_deref(), &settings.extra).await;
    let user = user.map_err(|e| End::Hopeless(e.to_string()))?;
    let folder = Folder::open(&settings.data_dir, engine.folder_name()).await.map_err(End::Broken)?;
    let folder = held.folder.insert(Arc::new(folder)).clone();
    folder.end_orphan(engine.id, &engine.shared.tasks).await.map_err(End::Broken)?;
    engine.remember_guards(&folder).await;
    engine.seed(&folder, settings).await;
    let rules = Rules { distinct_subnets: user.distinct_subnets() };
    let bridges = user.use_bridges();
    let reachable = Reachable::of(|option| user.list(option));
    if !bridges {
        engine.choose_guard(&GuardLimits { rules, reachable: &reachable });
    }
    engine.write_torrc(&folder, settings, &user).await.map_err(End::Broken)?;
    let broken = |e: std::io::Error| End::Broken(format!("cannot start tor: {e}"));
    let torrc = folder.path().join("torrc");
    let process = Process::start(&settings.binary, &torrc, engine.id.0, &engine.shared.tasks).map_err(broken)?;
    let pid = process.pid();
    let process = held.process.insert(process);
    let socket = |name: &str| Addr::Unix(folder.sockets().join(name));
    let control_socket = socket(torrc::CONTROL_SOCKET);
    let (control, events) = tokio::select! {
        connected = log_in(engine, &control_socket) => connected.map_err(|e| End::Broken(e.to_string()))?,
        why = process.ended() => return Err(End::Broken(why)),
    };
    held.control = Some(control.clone());
    control.take_ownership().await.map_err(|e| End::Broken(e.to_string()))?;
    let run = engine.circuits().run;
    let live = Live {
        run,
        control,
        socks: socket(torrc::SOCKS_SOCKET),
        socks6: socket(torrc::SOCKS6_SOCKET),
        onion: socket(torrc::ONION_SOCKET),
        pid,
        version,
        rules,
        reachable,
        may_probe: user.connects_directly(),
        bridges,
    };
    let ports = Ports { live: Arc::new(live), events, folder: &folder, user: Some(&user) };
    let why = tokio::select! {
        why = session::run(engine, ports) => match timeout(LAST_WORDS, process.ended()).await {
            Ok(ended) => ended,
            Err(_) => why,
        },
        why = process.ended() => why,
    };
    Ok(End::Broken(why))
}

async fn live_attached(
    engine: &Arc<Engine>,
    attach: &Attach,
    settings: &Settings,
    held: &mut Held,
) -> Result<End, End> {
    let broken = |e: ControlError| End::Broken(e.to_string());
    let (control, socks, onion) = places(engine, attach).await?;
    engine.set_state(EngineState::Starting);
    let folder = Folder::open(&settings.data_dir, engine.folder_name()).await.map_err(End::Broken)?;
    let folder = held.folder.insert(Arc::new(folder)).clone();
    engine.remember_guards(&folder).await;
    let deadline = Instant::now() + LOGIN;
    let connected = Control::connect(&control, &attach.auth, deadline, &engine.shared.tasks).await;
    let (control, events) = connected.map_err(broken)?;
    held.control = Some(control.clone());
    let version = control.version().await.map_err(broken)?;
    if version < Version::OLDEST {
        return Err(End::Hopeless(format!(
            "the tor at {} is {version}, too old, because the Tor network no longer supports series before 0.4.9; {UPDATE}",
            attach.control
        )));
    }
    let options = torrc::behaviour(settings.circuit_timeout);
    let options: Vec<_> = options.iter().map(|(option, value)| (*option, value.as_str())).collect();
    control.setconf(&options).await.map_err(broken)?;
    let asked = |key| {
        let control = control.clone();
        async move { control.config(key).await.unwrap_or_default() }
    };
    let distinct = asked("EnforceDistinctSubnets").await != "0";
    let bridges = asked("UseBridges").await == "1";
    warn_of_bridges(engine, bridges && !settings.only_tor);
    let mut reach = HashMap::new();
    for option in Reachable::OPTIONS {
        reach.insert(option, asked(option).await);
    }
    let pid = control.process_id().await.ok();
    let run = engine.circuits().run;
    let live = Live {
        run,
        pid,
        control,
        socks6: socks.clone(),
        socks,
        onion,
        version,
        rules: Rules { distinct_subnets: distinct },
        reachable: Reachable::of(|option| reach.get(option).cloned()),
        may_probe: false, // an attached tor may run on another machine
        bridges,
    };
    let ports = Ports { live: Arc::new(live), events, folder: &folder, user: None };
    Ok(End::Broken(session::run(engine, ports).await))
}

/// Warns if an attached tor uses bridges while the gateway may still make connections that do not go through tor.
fn warn_of_bridges(engine: &Engine, beside_tor: bool) {
    if beside_tor {
        tracing::warn!(
            engine = engine.id.0,
            "the attached tor uses bridges, but lists of exits are fetched from this machine's own address: set tor.only = true"
        );
    }
}

/// Returns the current addresses of an attached tor: control port, SOCKS port, and SOCKS port for onion services.
async fn places(engine: &Engine, attach: &Attach) -> Result<(Addr, Addr, Addr), End> {
    let onion = attach.onion.as_ref().unwrap_or(&attach.socks);
    if attach.every_address {
        let all = timeout(LOGIN, Addr::all(&attach.control)).await.ok().and_then(Result::ok).unwrap_or_default();
        let control = engine.shared.hold(engine.id, all).ok_or(End::Absent)?;
        let (socks, onion) = (control.with_port(&attach.socks), control.with_port(onion));
        return Ok((control, socks, onion));
    }
    // The SOCKS ports are looked up first, because without these ports the control port is useless.
    let (socks, onion) = (find("socks", &attach.socks).await?, find("onion_socks", onion).await?);
    Ok((find("control", &attach.control).await?, socks, onion))
}

/// Returns the current address of one port of an attached tor.
async fn find(key: &str, at: &Endpoint) -> Result<Addr, End> {
    match timeout(LOGIN, Addr::find(at)).await {
        Ok(Ok(addr)) => Ok(addr),
        Ok(Err(e)) => Err(End::Broken(format!("tor.attach: {key} = \"{at}\" cannot be resolved: {e}"))),
        Err(_) => Err(End::Broken(format!("tor.attach: {key} = \"{at}\" was not resolved in time"))),
    }
}

/// Connects to a tor that was just started, and repeats this until tor listens.
async fn log_in(engine: &Arc<Engine>, addr: &Addr) -> Result<(Control, Events), ControlError> {
    let deadline = Instant::now() + LOGIN;
    loop {
        match Control::connect(addr, &Auth::Offered, deadline, &engine.shared.tasks).await {
            // tor opens the socket before it writes the cookie file, so a missing cookie is also a reason to try again.
            Err(ControlError::Unreachable { .. } | ControlError::Cookie { .. }) if Instant::now() < deadline => {
                sleep(LOGIN_RETRY).await;
            }
            done => return done,
        }
    }
}

impl Engine {
    fn folder_name(&self) -> String {
        match (self.own, &self.attach) {
            (Some(OwnEngine(route)), _) => format!("own-{route:016x}"),
            (None, Some(_)) => format!("attached-{}", self.id),
            (None, None) => format!("engine-{}", self.id),
        }
    }

    /// Resolves once the engine must end and has no streams, or once the grace period of the shutdown is over.
    async fn may_end(&self) {
        self.ending().await;
        let unused = async {
            let mut since = Instant::now();
            while since.elapsed() < QUIET {
                sleep(QUIET / 5).await;
                if !self.streams.is_empty() {
                    since = Instant::now();
                }
            }
        };
        tokio::select! {
            () = unused => {}
            () = self.shared.tasks.killed() => {}
        }
    }

    /// Logs why the run of tor ended and waits until the next attempt. Returns `None` if the shutdown begins during the
    /// wait.
    async fn rest(&self, end: End, backoff: &mut Backoff) -> Option<()> {
        let why = match end {
            End::Hopeless(why) => {
                tracing::error!(engine = self.id.0, "{why}");
                self.set_state(EngineState::Stopped { why: Some(why.into()) });
                return tokio::select! {
                    () = self.reload.notified() => Some(()),
                    () = self.ending() => None,
                };
            }
            End::Absent => {
                self.set_state(EngineState::Absent);
                return tokio::select! {
                    () = sleep(LOOK_AGAIN) => Some(()),
                    () = self.ending() => None,
                };
            }
            End::Broken(why) => why,
        };
        let pause = backoff.next(rand::rng().random());
        tracing::warn!(engine = self.id.0, pause_ms = pause.as_millis(), "the engine was lost: {why}");
        self.restarts.fetch_add(1, Ordering::Relaxed);
        self.shared.alert(Alert::EngineLost { engine: self.id, why: why.as_str().into() });
        self.set_state(EngineState::Restarting { pause, why: why.into() });
        tokio::select! {
            () = sleep(pause) => Some(()),
            () = self.ending() => None,
        }
    }

    /// Copies another engine's directory of relays into the folder of a new engine.
    async fn seed(&self, folder: &Folder, settings: &Settings) {
        if self.id.0 == 0 || has_directory(folder.path()) {
            return;
        }
        let mut directory = self.shared.directory.subscribe();
        let there = async { directory.wait_for(Option::is_some).await.is_ok() };
        if !matches!(timeout(SEED_WAIT, there).await, Ok(true)) {
            return; // the first engine is late, so this engine downloads the directory itself
        }
        let others = (0..self.id.0).map(|id| settings.data_dir.join(format!("engine-{id}")));
        let Some(from) = others.into_iter().find(|other: &PathBuf| has_directory(other)) else { return };
        if let Err(e) = folder.seed(from).await {
            tracing::debug!(engine = self.id.0, "cannot copy the directory: {e}");
        }
    }

    pub(super) async fn write_torrc(
        &self,
        folder: &Folder,
        settings: &Settings,
        user: &UserLines,
    ) -> Result<(), String> {
        let place = EnginePaths {
            folder: folder.path(),
            sockets: folder.sockets(),
            owner: std::process::id(),
            guard: self.guard().current(),
            engine: (usize::from(self.id.0) % settings.started_engines().max(1), settings.started_engines()),
            geoip_file: settings.geoip_file.as_deref(),
            circuit_timeout: settings.circuit_timeout,
        };
        let text = torrc::render(&place, user);
        folder.write("torrc", text).await.map_err(|e| format!("cannot write torrc: {e}"))
    }
}
