//! One engine: a tor that does what we say.
//!
//! An engine outlives its tor. The tor crashes, is restarted, comes back under another process id with other circuits;
//! the engine keeps its folder, its guard and its place in the list, and says on a watch how it stands. Between the
//! two is a *run*: from a login to the end of that control connection. Whatever belongs to one run (circuits, streams,
//! leases) carries its number, because tor counts its ids from 1 again each time.
//!
//! Who does what: `engine/run.rs` starts a tor, or finds one, again and again; `engine/session.rs` is one run, a loop over
//! its events; `engine/lend.rs` is what dials call, and what carries out what the pool of circuits decides;
//! `engine/nudge.rs` finds out what died or hangs in silence; `engine/guarding.rs` keeps the guard; `engine/folder.rs` and `engine/process.rs` are the files and the process.
//!
//! Nothing here awaits while it holds a lock, and locks are taken in one order: streams before circuits before guards.

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
use super::fleet::Fleet;
use super::guard::GuardState;
use super::netdir::Rules;
use super::settings::Attach;
use super::stream::Streams;
use super::version::Version;
use crate::exit::Fingerprint;
use crate::route::OwnEngine;

mod folder;
mod guarding;
mod lend;
mod nudge;
pub(super) mod process;
mod run;
mod session;

pub(super) use folder::{Folder, has_directory};
use lend::Circuits;
pub(super) use lend::no_path;
pub(super) use nudge::Link;
pub(super) use run::run;

/// Which engine: its place in the list, started ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EngineId(pub u8);

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How an engine stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineState {
    /// It has no tor: it is for one more behind a name, should there be one.
    Absent,
    /// Its tor is being started or connected to.
    Starting,
    /// Its tor runs and fetches what it needs.
    Bootstrapping {
        /// 0 to 100; rests at 75 once the directory is there.
        percent: u8,
        /// tor's line about it.
        phase: Box<str>,
    },
    /// It carries streams.
    Ready,
    /// It may carry streams, and something is wrong.
    Degraded {
        /// What.
        why: Box<str>,
    },
    /// Its tor is gone and will be started again.
    Restarting {
        /// After this pause.
        pause: Duration,
        /// Why it went.
        why: Box<str>,
    },
    /// Nothing is being done: it was told to stop, or trying again is pointless until the configuration changes.
    Stopped {
        /// Why, unless it was told to.
        why: Option<Box<str>>,
    },
}

impl EngineState {
    /// True if streams may be given to it.
    pub fn usable(&self) -> bool {
        matches!(self, Self::Ready | Self::Degraded { .. })
    }

    /// The word for it, and what more is known.
    pub fn told(&self) -> String {
        match self {
            Self::Bootstrapping { percent, phase } => format!("{}, {percent} %: {phase}", self.as_str()),
            Self::Degraded { why } | Self::Restarting { why, .. } | Self::Stopped { why: Some(why) } => {
                format!("{}: {why}", self.as_str())
            }
            Self::Absent | Self::Starting | Self::Ready | Self::Stopped { why: None } => self.as_str().to_owned(),
        }
    }

    /// The word for it in logs, the API and metrics.
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

/// An engine, for whoever looks.
#[derive(Clone, Debug)]
pub struct EngineStatus {
    /// Which.
    pub id: EngineId,
    /// True if its tor was not started by us.
    pub attached: bool,
    /// How it stands.
    pub state: EngineState,
    /// Its tor's process id.
    pub pid: Option<u32>,
    /// Its tor's version.
    pub version: Option<Version>,
    /// The first relay of its circuits.
    pub guard: Option<Fingerprint>,
    /// Circuits that are built.
    pub circuits: usize,
    /// Circuits that are being built, or wait to be.
    pub building: usize,
    /// Circuits that nobody used yet.
    pub spares: usize,
    /// Streams on it.
    pub streams: usize,
    /// How often its tor was started again.
    pub restarts: u32,
}

/// A run of an engine's tor that is logged in and has a directory.
#[derive(Debug)]
pub struct Live {
    /// Number of the run.
    pub(super) run: u64,
    pub(super) control: Control,
    /// Where targets over IPv4 are asked for.
    pub(super) socks: Addr,
    /// Where routes ask that opted in to IPv6.
    pub(super) socks6: Addr,
    /// Where onion services are asked for.
    pub(super) onion: Addr,
    pid: Option<u32>,
    version: Version,
    rules: Rules,
    /// Paths begin at the user's bridges, which tor chooses among.
    bridges: bool,
}

/// An engine.
pub struct Engine {
    id: EngineId,
    attach: Option<Attach>,
    /// The one route that it is for.
    own: Option<OwnEngine>,
    fleet: Arc<Fleet>,
    state: watch::Sender<EngineState>,
    live: ArcSwapOption<Live>,
    circuits: Mutex<Circuits>,
    streams: Streams,
    guard: Mutex<GuardState>,
    restarts: AtomicU32,
    /// Rung when there is a build that the pace may soon allow.
    bell: Notify,
    /// Rung when the settings have changed.
    reload: Notify,
    /// Nobody wants it any more: it ends with its last stream.
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

    /// One for a single route.
    pub(super) fn own(id: EngineId, own: OwnEngine, fleet: Arc<Fleet>) -> Self {
        Self { own: Some(own), ..Self::new(id, None, fleet) }
    }

    /// Tells it to end once it has no stream.
    pub(super) fn retire(&self) {
        self.retired.cancel();
    }

    /// Resolves once it is to take no more work.
    async fn ending(&self) {
        tokio::select! {
            () = self.fleet.tasks.stopping() => {}
            () = self.retired.cancelled() => {}
        }
    }

    /// Which engine this is.
    pub fn id(&self) -> EngineId {
        self.id
    }

    /// Streams that exist on it or are about to.
    pub(super) fn streams(&self) -> &Streams {
        &self.streams
    }

    /// The run that streams may be given to now.
    pub(super) fn live(&self) -> Option<Arc<Live>> {
        self.live.load_full()
    }

    /// How it stands, now and from now on.
    pub(super) fn state(&self) -> watch::Receiver<EngineState> {
        self.state.subscribe()
    }

    /// Tells it that the settings have changed.
    pub(super) fn reload(&self) {
        self.reload.notify_one();
    }

    /// Everything about it, for whoever looks.
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

    /// Its circuits, for whoever looks.
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
            assert_eq!(state.told(), want);
        }
    }
}
