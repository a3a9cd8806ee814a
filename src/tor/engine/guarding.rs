//! Chooses the guard of an engine: the first relay of all its circuits. The rules of [`crate::tor::guard`] are used,
//! and each engine gets a different guard.
//!
//! The guard becomes tor's option EntryNodes. So tor's own connections (for the directory and for onion services) use
//! the same guard.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Engine, Folder, Live};
use crate::exit::Fingerprint;
use crate::tor::guard::{Choice, Exclude, GuardState, Reachable};
use crate::tor::netdir::Rules;
use crate::tor::path::Entry;
use crate::tor::shared_state::Alert;

/// The name of the file in an engine's folder that contains the state of the guards.
const FILE: &str = "guards.json";

/// The name of the file with the state of the guards before the last change.
const BEFORE: &str = "guards.json.before";

/// The rules that a guard must meet: those of paths, and the addresses that this machine may connect to. A guard of
/// another engine is not chosen either.
pub(super) struct GuardLimits<'a> {
    pub(super) rules: Rules,
    pub(super) reachable: &'a Reachable,
}

/// The result of choosing a guard for the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chosen {
    /// The engine must use this guard.
    Use(Fingerprint),
    /// The engine must test this guard by building one circuit through it. Until the result is known, the engine uses
    /// its current guard.
    Try { guard: Fingerprint, current: Fingerprint },
    /// No guard is usable.
    None,
}

impl Engine {
    /// Reads the saved state of the guards. This happens only once, because afterwards the state in memory is newer. If
    /// the file is damaged, the state before the last change is read instead. If that fails too, new guards are chosen
    /// and a warning is logged. If there is no file, new guards are chosen without a warning.
    pub(super) async fn remember_guards(&self, folder: &Folder) {
        if self.guard().current().is_some() {
            return;
        }
        let mut damaged = false;
        for name in [FILE, BEFORE] {
            let state = match folder.read(name).await {
                Ok(None) => continue,
                Ok(Some(text)) => GuardState::from_json(&text).map_err(|why| why.to_string()),
                Err(why) => Err(why.to_string()),
            };
            match state {
                Ok(state) => {
                    if damaged {
                        tracing::warn!(engine = self.id.0, "the guards of this engine are read from {BEFORE}");
                    }
                    *self.guard() = state;
                    return;
                }
                Err(why) => {
                    damaged = true;
                    let path = folder.path().join(name);
                    tracing::warn!(engine = self.id.0, path = %path.display(), "the guards cannot be read: {why}");
                }
            }
        }
        if damaged {
            tracing::error!(
                engine = self.id.0,
                "the guards of this engine are lost, so it chooses new ones: each new guard may be hostile. Restore {FILE} \
                 from a backup if there is one, and find out why the disk lost it"
            );
        }
    }

    /// Saves the state of the guards in the engine's folder, if it has changed since the last time.
    pub(super) async fn save_guards(&self, folder: &Folder) {
        let text = self.guard().to_json();
        if *self.saved_guards() == text {
            return;
        }
        match folder.replace(FILE, BEFORE, text.clone()).await {
            Ok(()) => *self.saved_guards() = text,
            Err(e) => tracing::warn!(engine = self.id.0, "cannot keep the guards: {e}; check the disk of data_dir"),
        }
    }

    /// Chooses a guard that no other engine uses. If there is no such guard, chooses a guard that another engine also
    /// uses.
    pub(super) fn choose_guard(&self, limits: &GuardLimits<'_>) -> Chosen {
        let Some(dir) = self.shared.netdir() else { return Chosen::None };
        let mut taken = self.shared.guards();
        let others: Vec<_> = taken.iter().filter(|(id, _)| **id != self.id).map(|(_, guard)| *guard).collect();
        let mut state = self.guard();
        let GuardLimits { rules, reachable } = *limits;
        let exclude = Exclude { guards: &others, rules, reachable };
        let mut choice = state.choose(&dir, SystemTime::now(), &mut rand::rng(), &exclude);
        if choice.is_err() && !others.is_empty() {
            // The network is small, or few guards work. Two engines with the same guard are better than an engine
            // without one.
            choice = state.choose(&dir, SystemTime::now(), &mut rand::rng(), &Exclude { guards: &[], ..exclude });
        }
        match choice {
            Ok(Choice { guard, trial: true, .. }) => {
                let current = state.current().unwrap_or(guard);
                taken.insert(self.id, current);
                Chosen::Try { guard, current }
            }
            Ok(Choice { guard, moved_from, .. }) => {
                taken.insert(self.id, guard);
                drop((state, taken));
                if let Some(from) = moved_from {
                    tracing::info!(engine = self.id.0, %from, to = %guard, "the engine has another guard");
                    self.shared.alert(Alert::GuardMoved { engine: self.id, from: Some(from), to: guard });
                }
                Chosen::Use(guard)
            }
            Err(why) => {
                tracing::warn!(engine = self.id.0, "no guard: {why}");
                Chosen::None
            }
        }
    }

    /// Keeps the guard that tor chose by itself on its first start, unless another engine uses this guard.
    pub(super) async fn adopt_guard(&self, live: &Live) {
        if self.guard().current().is_some() {
            return;
        }
        let Ok(text) = live.control.getinfo("entry-guards").await else { return };
        let Some(up) = first_up(&text) else { return };
        let Some(dir) = self.shared.netdir() else { return };
        let mut taken = self.shared.guards();
        if taken.iter().any(|(id, guard)| *id != self.id && *guard == up) {
            return;
        }
        if self.guard().adopt(up, &dir, SystemTime::now(), &mut rand::rng()) {
            taken.insert(self.id, up);
        }
    }

    /// Returns the bridge where paths begin. Returns `None` if the user's torrc lines contain no bridges.
    pub(super) async fn bridge(&self, live: &Live) -> Option<Entry> {
        let text = live.control.getinfo("entry-guards").await.ok()?;
        let id = first_up(&text).or_else(|| first(&text))?;
        Some(Entry::Bridge { id, ip: None })
    }

    /// Makes all new paths begin at this guard or bridge.
    pub(super) fn enter_at(self: &Arc<Self>, entry: Entry) {
        self.act(|circuits, _| circuits.entry = Some(entry));
    }
}

/// Returns the first relay in an answer to `GETINFO entry-guards` that works, from a line such as
/// `$FINGERPRINT~nickname up`.
fn first_up(text: &str) -> Option<Fingerprint> {
    let mut working = text.lines().filter(|line| line.split(' ').nth(1) == Some("up"));
    working.find_map(|line| crate::tor::event::long_name(line.split(' ').next()?))
}

fn first(text: &str) -> Option<Fingerprint> {
    text.lines().find_map(|line| crate::tor::event::long_name(line.split(' ').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_guard_that_is_up_is_found() {
        let (a, b) = ("F5C688BE508553C516E3A1AE96955F380AC31EDF", "8D79B493B6C951E79E5D5F429C5688A9368E0DB4");
        let text = format!("\n${a}~guard1 never-connected\n${b}~guard3 up\n");
        assert_eq!(first_up(&text).map(|id| id.to_string()).as_deref(), Some(b));
        assert_eq!(first(&text).map(|id| id.to_string()).as_deref(), Some(a));
        assert_eq!(first_up("nonsense\n"), None);
    }
}
