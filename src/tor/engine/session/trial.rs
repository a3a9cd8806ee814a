//! Trials: test circuits that show whether a guard works again. A trial goes through a guard that failed before and
//! that is better than the guard in use.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use rand::seq::IteratorRandom as _;

use super::Session;
use crate::exit::Fingerprint;
use crate::tor::control::Command;
use crate::tor::event::CircuitId;
use crate::tor::netdir::Flags;
use crate::tor::path::{self, Entry, Hops, Want};

/// The first number for the tags of the commands that build trials (test circuits). The tags of ordinary builds count
/// from 1.
const TAGS: u64 = 1 << 63;

/// The number of random exits of which the first one with a possible path becomes the end of a trial's path. The first
/// exit nearly always works.
const EXITS: usize = 5;

/// The trials that have no result yet.
#[derive(Debug, Default)]
pub(super) struct Trials {
    next: u64,
    asked: HashMap<u64, Fingerprint>,
    running: HashMap<CircuitId, Fingerprint>,
}

impl Trials {
    pub(super) fn is_one(&self, circuit: CircuitId) -> bool {
        self.running.contains_key(&circuit)
    }

    /// Handles tor's answer to the command that built a trial. Returns false if the tag does not belong to a trial.
    pub(super) fn answered(&mut self, tag: u64, circuit: Option<CircuitId>) -> bool {
        if let (Some(guard), Some(circuit)) = (self.asked.remove(&tag), circuit) {
            self.running.insert(circuit, guard);
        }
        tag >= TAGS
    }

    fn tries(&self, guard: Fingerprint) -> bool {
        self.asked.values().chain(self.running.values()).any(|other| *other == guard)
    }
}

impl Session<'_> {
    /// Builds one test circuit through a guard that may work again.
    pub(super) fn try_guard(&mut self, guard: Fingerprint) {
        let Some(dir) = self.engine.fleet.netdir().filter(|_| !self.trials.tries(guard)) else { return };
        let exits = dir.relays().filter(|relay| relay.flags().has(Flags::EXIT)).map(|relay| relay.fingerprint());
        let none = HashSet::new();
        let path = exits.sample(&mut rand::rng(), EXITS).into_iter().find_map(|exit| {
            let want = Want {
                entry: Entry::Guard(guard),
                exit,
                target: None,
                hops: Hops::Three,
                avoid: &none,
                rules: self.live.rules,
            };
            path::choose(&dir, &want, &mut rand::rng()).ok()
        });
        let Some(path) = path else { return };
        self.trials.next += 1;
        let tag = TAGS | self.trials.next;
        if self.live.control.extend_circuit(path.hops(), tag).is_ok() {
            self.trials.asked.insert(tag, guard);
        }
    }

    /// Handles the result of a trial. `well` is true if its circuit was built.
    pub(super) async fn tried(&mut self, circuit: CircuitId, well: bool) {
        let Some(guard) = self.trials.running.remove(&circuit) else { return };
        if well {
            self.engine.guard().note_success(guard, SystemTime::now(), &mut rand::rng());
            drop(self.live.control.start(&Command::new("CLOSECIRCUIT").arg(circuit)));
        } else {
            self.engine.guard().note_failure(guard, SystemTime::now());
        }
        Box::pin(self.find_entry()).await;
    }
}
