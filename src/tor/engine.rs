//! One engine: a tor process that this gateway controls. The engine restarts tor when tor ends.
//!
//! An engine outlives its tor process. After a restart, tor has another process id and no circuits, but the engine
//! keeps its folder, its guard (the first relay of all its circuits) and its id. The engine publishes its state on a
//! watch channel.
//!
//! A *run* of an engine lasts from a login on tor's control port to the end of that connection. Circuits, streams and
//! leases carry the number of their run, because tor counts its ids from 1 again in each run.
//!
//! Next:
//!
//! - `engine/run.rs` starts a tor process or attaches to a running one, and does so again when that tor ends
//!   (`engine/backoff.rs` has the pauses between two starts).
//! - `engine/session.rs` is one run: a loop over tor's events.
//! - `engine/lend.rs` has the functions that dials call, and carries out the decisions of the pool of circuits.
//! - `engine/build.rs` builds circuits.
//! - `engine/nudge.rs` finds circuits that died or hang although tor has not reported this.
//! - `engine/first_hop.rs` decides whether the guard is silent, and `engine/session/entry.rs` what follows from that.
//! - `engine/guarding.rs` keeps the guard (the first relay of all circuits).
//! - `engine/folder.rs` is the engine's folder, and `engine/process.rs` is the tor process.
//!
//! No code here awaits while it holds a lock. Code that needs several locks takes them in this order: streams,
//! circuits, guards.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::circuit::pool::{Counts, View};
use super::control::{Addr, Control};
use super::engine_id::EngineId;
use super::guard::{GuardState, Reachable};
use super::netdir::Rules;
use super::netdir::clients::Recommendation;
use super::settings::Attach;
use super::shared_state::SharedState;
use super::stream::Streams;
use super::version::Version;
use crate::exit::Fingerprint;
use crate::route::OwnEngine;

mod backoff;
mod build;
mod first_hop;
mod folder;
mod guarding;
mod lend;
mod nudge;
pub(super) mod process;
mod run;
mod session;

pub(super) use build::no_path;
pub(super) use folder::{Folder, has_directory};
use lend::Circuits;
pub(super) use run::run;

/// The state of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineState {
    /// The host name of an attached tor has no free address for this engine. The engine waits for one more address.
    Absent,
    /// The engine starts its tor or connects to it.
    Starting,
    /// tor runs and downloads the directory of relays.
    Bootstrapping {
        /// The progress from 0 to 100 percent. The value stays at 75 once the directory is complete, because predicted
        /// circuits are off.
        percent: u8,
        /// tor's description of the phase.
        phase: Box<str>,
    },
    /// The engine carries streams.
    Ready,
    /// The engine may carry streams, but something is wrong. `why` is the reason.
    Degraded { why: Box<str> },
    /// tor has ended, and the engine starts it again after the time `pause`. `why` is the reason for the end.
    Restarting { pause: Duration, why: Box<str> },
    /// The engine has ended and does not start again: the gateway stopped it, or another try cannot help until the
    /// configuration changes.
    Stopped {
        /// The reason. `None` if the gateway stopped the engine.
        why: Option<Box<str>>,
    },
}

impl EngineState {
    /// Returns true if the engine may get streams.
    pub fn usable(&self) -> bool {
        matches!(self, Self::Ready | Self::Degraded { .. })
    }

    /// Returns the state as a text for people, with its details.
    pub fn describe(&self) -> String {
        match self {
            Self::Bootstrapping { percent, phase } => format!("{}, {percent} %: {phase}", self.as_str()),
            Self::Degraded { why } | Self::Restarting { why, .. } | Self::Stopped { why: Some(why) } => {
                format!("{}: {why}", self.as_str())
            }
            Self::Absent | Self::Starting | Self::Ready | Self::Stopped { why: None } => self.as_str().to_owned(),
        }
    }

    /// Returns the state as one word, for logs, the API and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Starting => "starting",
            Self::Bootstrapping { .. } => "bootstrapping",
            Self::Ready => "ready",
            Self::Degraded { .. } => "degraded",
            Self::Restarting { .. } => "restarting",
            Self::Stopped { .. } => "stopped",
        }
    }
}

/// The status of an engine, for the API and metrics.
#[derive(Clone, Debug)]
pub struct EngineStatus {
    pub id: EngineId,
    /// True if this gateway attached to a running tor instead of starting one.
    pub attached: bool,
    pub state: EngineState,
    /// The process id of tor, if it is known.
    pub pid: Option<u32>,
    /// The version of tor. `None` while the engine has no tor with a directory.
    pub version: Option<Version>,
    /// What the directory authorities recommend about this version of tor.
    pub recommendation: Recommendation,
    /// The first relay of the engine's circuits. `None` until a guard is chosen.
    pub guard: Option<Fingerprint>,
    /// True while the guard answers. False before its first answer, and while it is silent.
    pub guard_answers: bool,
    /// The number of complete circuits.
    pub circuits: usize,
    /// The number of circuit builds that are queued or under way.
    pub building: usize,
    /// The number of complete circuits that were never used.
    pub spares: usize,
    /// The number of streams that exist or that a dial is about to open.
    pub streams: usize,
    /// How many times tor was started again since the start of the gateway.
    pub restarts: u32,
}

/// A run of tor that has a directory of relays, so that tor can build circuits.
#[derive(Debug)]
pub struct Live {
    pub(super) run: u64,
    pub(super) control: Control,
    /// The SOCKS port for targets over IPv4.
    pub(super) socks: Addr,
    /// The SOCKS port for routes that allow targets over IPv6.
    pub(super) socks6: Addr,
    /// The SOCKS port for onion services.
    pub(super) onion: Addr,
    pid: Option<u32>,
    version: Version,
    rules: Rules,
    /// The rules that tell which guards this machine can reach.
    reachable: Reachable,
    /// True if the gateway itself may connect to the guard's address, without tor, to test whether the network works.
    may_probe: bool,
    /// True if the user's torrc lines turn on bridges. tor then chooses among the bridges.
    bridges: bool,
}

pub struct Engine {
    id: EngineId,
    attach: Option<Attach>,
    /// The route that this engine belongs to. `None` if many routes share this engine.
    own: Option<OwnEngine>,
    shared: Arc<SharedState>,
    state: watch::Sender<EngineState>,
    live: ArcSwapOption<Live>,
    circuits: Mutex<Circuits>,
    streams: Streams,
    guard: Mutex<GuardState>,
    /// The text of the guards' state that was last saved.
    saved_guards: Mutex<String>,
    /// True while the guard or bridge does not answer. New requests then go to other engines.
    silent: AtomicBool,
    restarts: AtomicU32,
    /// Wakes the engine's loop when a circuit build was queued. The loop starts the build as soon as the limit on the
    /// rate of builds allows it, and must first set its timer to that time.
    bell: Notify,
    /// Wakes the engine's loop when the settings have changed.
    reload: Notify,
    /// Cancelled when the route of this engine was deleted. The engine then ends after its last stream.
    retired: CancellationToken,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({}, {})", self.id, self.state.borrow().as_str())
    }
}

impl Engine {
    pub(super) fn new(id: EngineId, attach: Option<Attach>, shared: Arc<SharedState>) -> Self {
        let circuits = Mutex::new(Circuits::new(shared.limits()));
        let may_be_absent = attach.as_ref().is_some_and(|attach| attach.every_address);
        let state = if may_be_absent { EngineState::Absent } else { EngineState::Starting };
        Self {
            id,
            attach,
            own: None,
            shared,
            state: watch::Sender::new(state),
            live: ArcSwapOption::empty(),
            circuits,
            streams: Streams::default(),
            guard: Mutex::default(),
            saved_guards: Mutex::default(),
            silent: AtomicBool::new(false),
            restarts: AtomicU32::new(0),
            bell: Notify::new(),
            reload: Notify::new(),
            retired: CancellationToken::new(),
        }
    }

    /// Returns a new engine that carries the traffic of a single route.
    pub(super) fn own(id: EngineId, own: OwnEngine, shared: Arc<SharedState>) -> Self {
        Self { own: Some(own), ..Self::new(id, None, shared) }
    }

    /// Makes the engine end once it has no stream. Called when the engine's route was deleted.
    pub(super) fn retire(&self) {
        self.retired.cancel();
    }

    /// Resolves once the gateway shuts down or the route of this engine was deleted. After that, the engine must accept
    /// no new streams.
    async fn ending(&self) {
        tokio::select! {
            () = self.shared.tasks.stopping() => {}
            () = self.retired.cancelled() => {}
        }
    }

    pub fn id(&self) -> EngineId {
        self.id
    }

    /// Returns the streams that exist on this engine, or that a dial is about to open.
    pub(super) fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Returns the run of tor that may get streams now. Returns `None` if tor is not ready.
    pub(super) fn live(&self) -> Option<Arc<Live>> {
        self.live.load_full()
    }

    /// Returns true while the guard or bridge of this engine does not answer.
    pub(super) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    fn set_silent(&self, silent: bool) {
        if self.silent.swap(silent, Ordering::Relaxed) != silent {
            self.shared.changed();
        }
    }

    /// Returns a watch channel with the state of the engine.
    pub(super) fn state(&self) -> watch::Receiver<EngineState> {
        self.state.subscribe()
    }

    /// Returns the version of tor. `None` while tor is not running or does not know the relays yet.
    pub(super) fn version(&self) -> Option<Version> {
        self.live().map(|live| live.version)
    }

    /// Notifies the engine that the settings have changed.
    pub(super) fn reload(&self) {
        self.reload.notify_one();
    }

    pub(super) fn status(&self) -> EngineStatus {
        let Counts { circuits, building, spares, .. } = self.circuits().pool.counts();
        let live = self.live();
        let version = live.as_ref().map(|live| live.version);
        EngineStatus {
            id: self.id,
            attached: self.attach.is_some(),
            state: self.state.borrow().clone(),
            pid: live.as_ref().and_then(|live| live.pid),
            version,
            recommendation: version.map_or(Recommendation::Unknown, |version| self.shared.recommendation(version)),
            guard: self.guard().current(),
            guard_answers: self.shared.liveness().proves(self.id),
            circuits,
            building,
            spares,
            streams: self.streams.len(),
            restarts: self.restarts.load(Ordering::Relaxed),
        }
    }

    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "tests/it reads it"))]
    pub(super) fn views(&self) -> Vec<View> {
        self.circuits().pool.views(Instant::now())
    }

    fn set_state(&self, state: EngineState) {
        let changed = self.state.send_if_modified(|old| {
            let changed = *old != state;
            if changed && old.as_str() != state.as_str() {
                tracing::info!(engine = self.id.0, from = old.as_str(), to = state.as_str(), "engine");
            }
            old.clone_from(&state);
            changed
        });
        if changed {
            self.shared.changed();
        }
    }

    fn circuits(&self) -> MutexGuard<'_, Circuits> {
        self.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saved_guards(&self) -> MutexGuard<'_, String> {
        self.saved_guards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn guard(&self) -> MutexGuard<'_, GuardState> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_told_with_what_more_is_known() {
        let why: Box<str> = "its guard is gone".into();
        for (state, want) in [
            (EngineState::Starting, "starting"),
            (
                EngineState::Bootstrapping { percent: 14, phase: "Handshaking with a relay".into() },
                "bootstrapping, 14 %: Handshaking with a relay",
            ),
            (EngineState::Degraded { why: why.clone() }, "degraded: its guard is gone"),
            (EngineState::Restarting { pause: Duration::ZERO, why: why.clone() }, "restarting: its guard is gone"),
            (EngineState::Stopped { why: Some(why) }, "stopped: its guard is gone"),
            (EngineState::Stopped { why: None }, "stopped"),
        ] {
            assert_eq!(state.describe(), want);
        }
    }
}
