//! The state that all engines share: settings, the directory of relays, which engine has which guard, and the channels
//! for changes and alerts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::circuit::pool::Limits;
use super::control::Addr;
use super::directory::Reads;
use super::engine_id::EngineId;
use super::liveness::Liveness;
use super::netdir::Netdir;
use super::settings::Settings;
use super::version::Version;
use crate::exit::Fingerprint;
use crate::lifecycle::Tasks;

/// An alert: an event that the operator should see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alert {
    /// The tor of an engine ended or could not be reached. The gateway will start it again.
    EngineLost { engine: EngineId, why: Box<str> },
    /// An engine changed its guard.
    GuardMoved {
        engine: EngineId,
        /// The guard before the change. `None` if the engine had no guard.
        from: Option<Fingerprint>,
        /// The guard after the change.
        to: Fingerprint,
    },
    /// No guard of any engine answers, so this machine probably has no network.
    NetworkLost,
    /// The guard of `engine` answers, after a time in which no guard answered.
    NetworkReached { engine: EngineId },
    /// Very few circuits through this guard succeed. The guard may be hostile.
    GuardSuspect { engine: EngineId, text: Box<str> },
}

/// The number of alerts that can wait for a slow subscriber. If more wait, the subscriber misses the oldest. Not tuned.
const ALERTS: usize = 64;

/// How long a relay that failed as a middle relay is left out of new paths. A relay that could not reach another relay
/// refuses to try again for about a minute.
const AVOID: Duration = Duration::from_secs(90);

/// The state that all engines share.
#[derive(Debug)]
pub(super) struct SharedState {
    pub(super) settings: ArcSwap<Settings>,
    pub(super) tasks: Tasks,
    /// The newest directory of relays that any engine has.
    pub(super) directory: watch::Sender<Option<Arc<Netdir>>>,
    /// A counter that grows when the state of any engine changes.
    pub(super) changes: watch::Sender<u64>,
    pub(super) alerts: broadcast::Sender<Alert>,
    /// What the last reads of the directory found. The lock is held while a directory is read.
    pub(super) reads: tokio::sync::Mutex<Reads>,
    /// The address of the tor that each engine uses. Needed when one host name has the addresses of several tors.
    held: Mutex<BTreeMap<EngineId, Addr>>,
    /// The engine id → the guard of that engine. Locked while a guard is chosen, so two engines cannot choose the same
    /// guard.
    guards: Mutex<BTreeMap<EngineId, Fingerprint>>,
    /// The versions of tor about which a warning was already logged, each with the reason for the warning.
    warned: Mutex<HashSet<(Version, &'static str)>>,
    liveness: Mutex<Liveness>,
    /// A relay that must not be the middle of a new path → the time when this ban ends.
    avoid: Mutex<HashMap<Fingerprint, Instant>>,
}

impl SharedState {
    pub(super) fn new(settings: Settings, tasks: Tasks) -> Self {
        Self {
            settings: ArcSwap::from_pointee(settings),
            tasks,
            directory: watch::Sender::new(None),
            changes: watch::Sender::new(0),
            alerts: broadcast::Sender::new(ALERTS),
            reads: tokio::sync::Mutex::default(),
            held: Mutex::default(),
            guards: Mutex::default(),
            warned: Mutex::default(),
            liveness: Mutex::default(),
            avoid: Mutex::default(),
        }
    }

    pub(super) fn guards(&self) -> MutexGuard<'_, BTreeMap<EngineId, Fingerprint>> {
        self.guards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn liveness(&self) -> MutexGuard<'_, Liveness> {
        self.liveness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how long the relays of a test circuit may take to answer: 3 s with the shipped time-out of 20 s for a
    /// whole circuit. After this time, the test circuit counts as not answered. On the public network an answer takes 1
    /// s or less. If the time-out is very short, a lower bound applies, which is far above the delays of a busy
    /// machine.
    pub(super) fn answer_time(&self) -> Duration {
        (self.settings.load().circuit_timeout * 3 / 20).clamp(Duration::from_millis(150), Duration::from_secs(10))
    }

    /// Returns the time between two checks of an engine's circuits: 1 s with the shipped time-out of 20 s.
    pub(super) fn tick(&self) -> Duration {
        (self.settings.load().circuit_timeout / 20).clamp(Duration::from_millis(20), Duration::from_secs(1))
    }

    /// Reserves the first of these addresses that no other engine has reserved, and returns it. `None` if all are
    /// reserved.
    pub(super) fn hold(&self, engine: EngineId, addrs: Vec<Addr>) -> Option<Addr> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(&engine);
        let free = addrs.into_iter().find(|addr| held.values().all(|other| other != addr))?;
        held.insert(engine, free.clone());
        Some(free)
    }

    /// Frees the address that this engine has reserved, so other engines can use this address.
    pub(super) fn let_go(&self, engine: EngineId) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&engine);
    }

    /// Returns true the first time that this is called with this version and reason.
    pub(super) fn is_first_warning(&self, version: Version, reason: &'static str) -> bool {
        self.warned.lock().unwrap_or_else(PoisonError::into_inner).insert((version, reason))
    }

    /// Leaves a relay out of new paths of all engines for the time [`AVOID`].
    pub(super) fn avoid(&self, middle: Fingerprint) {
        self.avoid.lock().unwrap_or_else(PoisonError::into_inner).insert(middle, Instant::now() + AVOID);
    }

    /// Returns the relays that must not be middle relays now.
    pub(super) fn avoided(&self) -> HashSet<Fingerprint> {
        let (mut avoid, now) = (self.avoid.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        avoid.retain(|_, until| now < *until);
        avoid.keys().copied().collect()
    }

    pub(super) fn netdir(&self) -> Option<Arc<Netdir>> {
        self.directory.borrow().clone()
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn alert(&self, alert: Alert) {
        drop(self.alerts.send(alert)); // without subscribers this fails, but the log also has the alert
    }

    /// Returns the limits of a pool of circuits: those of the settings, or lower ones if the consensus requires them.
    pub(super) fn limits(&self) -> Limits {
        let settings = self.settings.load();
        let (mut rate, mut burst) = (settings.circuits_per_second, settings.circuit_burst);
        if let Some(dir) = self.netdir().filter(|dir| dir.param_or("DoSCircuitCreationEnabled", 0, 0..=1) == 1) {
            // Relays refuse a client address that builds too many circuits. If the consensus does not contain the
            // allowed values, tor's defaults apply: 3 circuits a second and a burst of 90. The gateway uses only a
            // third of the burst, because the guard may also count other clients with the same address.
            let bearable = dir.param_or("DoSCircuitCreationRate", 3, 1..=i32::MAX);
            let at_once = dir.param_or("DoSCircuitCreationBurst", 90, 1..=i32::MAX);
            rate = rate.min(f64::from(bearable));
            burst = burst.min((at_once / 3).max(1).unsigned_abs());
        }
        Limits {
            rate,
            burst,
            build: settings.circuit_timeout,
            streams: settings.streams_per_circuit.max(1),
            dirty: settings.circuit_dirty,
            idle: settings.circuit_idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::Lifecycle;

    #[tokio::test]
    async fn each_address_behind_a_name_is_driven_by_one_engine() {
        let shared = SharedState::new(Settings::default(), Lifecycle::new().tasks());
        let addrs =
            |last: &[u8]| last.iter().map(|n| format!("10.0.0.{n}:9051").parse().unwrap()).collect::<Vec<Addr>>();
        let hold = |engine, last: &[u8]| shared.hold(EngineId(engine), addrs(last)).map(|addr| addr.to_string());
        assert_eq!(hold(0, &[1, 2]).as_deref(), Some("10.0.0.1:9051"));
        assert_eq!(hold(1, &[1, 2]).as_deref(), Some("10.0.0.2:9051"));
        assert_eq!(hold(2, &[1, 2]), None, "there is no third");
        assert_eq!(hold(0, &[1, 2]).as_deref(), Some("10.0.0.1:9051"), "its own is free for itself");
        shared.let_go(EngineId(0));
        assert_eq!(hold(2, &[1, 2]).as_deref(), Some("10.0.0.1:9051"));
        assert_eq!(hold(0, &[]), None);
    }
}
