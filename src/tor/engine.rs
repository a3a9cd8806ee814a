//! One engine: a tor process that we control, and restart when it dies.
//!
//! An engine outlives its tor process. When tor crashes it comes back with another process id and no circuits, while the
//! engine keeps its folder, its guard and its id, and publishes its state on a watch. A *run* lasts from a login on the
//! control port to the end of that connection. Circuits, streams and leases carry the number of their run, because tor
//! counts its ids from 1 again in each run.
//!
//! `engine/run.rs` starts a tor process, or attaches to one, and does so again when it ends; `engine/session.rs` is one run,
//! a loop over events; `engine/lend.rs` has what dials call, and carries out what the pool of circuits decides; `engine/build.rs` builds circuits;
//! `engine/nudge.rs` finds circuits that died or hang without a sign; `engine/guarding.rs` keeps the guard; `engine/folder.rs` and `engine/process.rs` are the files and the process.
//!
//! No code here awaits while it holds a lock. Locks are taken in one order: streams, circuits, guards.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::circuit::pool::{Counts, View};
use super::control::{Addr, Control};
use super::engine_id::EngineId;
use super::fleet::Fleet;
use super::guard::GuardState;
use super::netdir::Rules;
use super::settings::Attach;
use super::stream::Streams;
use super::version::Version;
use crate::exit::Fingerprint;
use crate::route::OwnEngine;

mod build;
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
    /// It waits for one more address behind the host name of an attached tor.
    Absent,
    /// Its tor is being started or connected to.
    Starting,
    /// Its tor runs and fetches the directory.
    Bootstrapping {
        /// 0 to 100. It stays at 75 once the directory is complete, because predicted circuits are off.
        percent: u8,
        /// tor's description of the phase.
        phase: Box<str>,
    },
    /// It carries streams.
    Ready,
    /// It may carry streams, but something is wrong.
    Degraded { why: Box<str> },
    /// Its tor has ended and is started again after the pause.
    Restarting { pause: Duration, why: Box<str> },
    /// It was told to stop, or trying again cannot help until the configuration changes.
    Stopped {
        /// `None` if it was told to stop.
        why: Option<Box<str>>,
    },
}

impl EngineState {
    /// True if the engine may get streams.
    pub fn usable(&self) -> bool {
        matches!(self, Self::Ready | Self::Degraded { .. })
    }

    /// The state in words, with its details.
    pub fn describe(&self) -> String {
        match self {
            Self::Bootstrapping { percent, phase } => format!("{}, {percent} %: {phase}", self.as_str()),
            Self::Degraded { why } | Self::Restarting { why, .. } | Self::Stopped { why: Some(why) } => {
                format!("{}: {why}", self.as_str())
            }
            Self::Absent | Self::Starting | Self::Ready | Self::Stopped { why: None } => self.as_str().to_owned(),
        }
    }

    /// The state's word in logs, the API and metrics.
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

/// An engine's status, for the API and metrics.
#[derive(Clone, Debug)]
pub struct EngineStatus {
    pub id: EngineId,
    /// True if we attached to a running tor instead of starting one.
    pub attached: bool,
    pub state: EngineState,
    /// tor's process id.
    pub pid: Option<u32>,
    /// tor's version.
    pub version: Option<Version>,
    /// The first relay of its circuits.
    pub guard: Option<Fingerprint>,
    /// Complete circuits.
    pub circuits: usize,
    /// Circuits that are being built or queued.
    pub building: usize,
    /// Complete circuits that were never used.
    pub spares: usize,
    /// Open streams.
    pub streams: usize,
    /// How often tor was started again.
    pub restarts: u32,
}

/// A run whose tor has a directory, so that it can build circuits.
#[derive(Debug)]
pub struct Live {
    pub(super) run: u64,
    pub(super) control: Control,
    /// SOCKS port for targets over IPv4.
    pub(super) socks: Addr,
    /// SOCKS port for routes that allow IPv6.
    pub(super) socks6: Addr,
    /// SOCKS port for onion services.
    pub(super) onion: Addr,
    pid: Option<u32>,
    version: Version,
    rules: Rules,
    /// The user's lines set bridges; tor chooses among them.
    bridges: bool,
}

pub struct Engine {
    id: EngineId,
    attach: Option<Attach>,
    /// The route that this engine belongs to, if it carries only one.
    own: Option<OwnEngine>,
    fleet: Arc<Fleet>,
    state: watch::Sender<EngineState>,
    live: ArcSwapOption<Live>,
    circuits: Mutex<Circuits>,
    streams: Streams,
    guard: Mutex<GuardState>,
    restarts: AtomicU32,
    /// Notified when a queued build waits for the pace.
    bell: Notify,
    /// Notified when the settings have changed.
    reload: Notify,
    /// Cancelled when its route is gone: the engine ends after its last stream.
    retired: CancellationToken,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({}, {})", self.id, self.state.borrow().as_str())
    }
}

impl Engine {
    pub(super) fn new(id: EngineId, attach: Option<Attach>, fleet: Arc<Fleet>) -> Self {
        let circuits = Mutex::new(Circuits::new(fleet.limits()));
        let may_be_absent = attach.as_ref().is_some_and(|attach| attach.every_address);
        let state = if may_be_absent { EngineState::Absent } else { EngineState::Starting };
        Self {
            id,
            attach,
            own: None,
            fleet,
            state: watch::Sender::new(state),
            live: ArcSwapOption::empty(),
            circuits,
            streams: Streams::default(),
            guard: Mutex::default(),
            restarts: AtomicU32::new(0),
            bell: Notify::new(),
            reload: Notify::new(),
            retired: CancellationToken::new(),
        }
    }

    /// An engine for a single route.
    pub(super) fn own(id: EngineId, own: OwnEngine, fleet: Arc<Fleet>) -> Self {
        Self { own: Some(own), ..Self::new(id, None, fleet) }
    }

    /// Makes the engine end once it has no stream.
    pub(super) fn retire(&self) {
        self.retired.cancel();
    }

    /// Resolves once the engine must take no more work.
    async fn ending(&self) {
        tokio::select! {
            () = self.fleet.tasks.stopping() => {}
            () = self.retired.cancelled() => {}
        }
    }

    pub fn id(&self) -> EngineId {
        self.id
    }

    /// Streams that exist on this engine or are expected.
    pub(super) fn streams(&self) -> &Streams {
        &self.streams
    }

    /// The run that may get streams now.
    pub(super) fn live(&self) -> Option<Arc<Live>> {
        self.live.load_full()
    }

    /// A watch on the state.
    pub(super) fn state(&self) -> watch::Receiver<EngineState> {
        self.state.subscribe()
    }

    /// Notifies the engine that the settings have changed.
    pub(super) fn reload(&self) {
        self.reload.notify_one();
    }

    pub(super) fn status(&self) -> EngineStatus {
        let Counts { circuits, building, spares, .. } = self.circuits().pool.counts();
        let live = self.live();
        EngineStatus {
            id: self.id,
            attached: self.attach.is_some(),
            state: self.state.borrow().clone(),
            pid: live.as_ref().and_then(|live| live.pid),
            version: live.as_ref().map(|live| live.version),
            guard: self.guard().current(),
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
            self.fleet.changed();
        }
    }

    fn circuits(&self) -> MutexGuard<'_, Circuits> {
        self.circuits.lock().unwrap_or_else(PoisonError::into_inner)
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
