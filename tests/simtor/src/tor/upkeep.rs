//! What an engine does by the clock: bandwidth events, circuits that are over, its owner, and clocks that jump.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::engine::Engine;
use super::event::Kind;
use crate::link::Ask;

/// How often tor looks whether the process that owns it lives.
const OWNER: Duration = Duration::from_secs(15);

/// A gap of the clock that tor takes for a machine that slept.
const JUMP: Duration = Duration::from_secs(100);

/// A gap that a busy machine may make by itself, however fast the times of the model go.
const BUSY: Duration = Duration::from_secs(5);

impl Engine {
    /// Runs for ever.
    pub(super) async fn keep_up(self: Arc<Self>) {
        // As often as tor's second comes round, but no more often than is cheap.
        let second = self.scaled(Duration::from_secs(1)).max(Duration::from_millis(50));
        let mut tick = interval(second);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut looked, mut last, mut told) = (Instant::now(), SystemTime::now(), (0, 0));
        loop {
            tick.tick().await;
            let slept = SystemTime::now().duration_since(last).unwrap_or_default();
            last = SystemTime::now();
            if slept > self.scaled(JUMP).max(BUSY) {
                self.jumped(slept);
            }
            let now = Instant::now();
            self.with(|state| {
                state.ask(Ask::Awake);
                state.expire_circuits(now, |time| self.scaled(time));
                let ids: Vec<_> = state.circuits.keys().copied().collect();
                ids.into_iter().for_each(|id| state.say_carried(id));
                let (read, written) = (state.read - told.0, state.written - told.1);
                told = (state.read, state.written);
                state.event(Kind::Bw, format!("BW {read} {written}"));
            });
            if looked.elapsed() >= OWNER {
                looked = Instant::now();
                self.look_for_owner();
            }
        }
    }

    fn look_for_owner(&self) {
        let owner: Option<i32> = self.torrc().text("__OwningControllerProcess").parse().ok();
        if let Some(owner) = owner.filter(|owner| !is_alive(*owner)) {
            self.log.notice(&format!("Owning controller process {owner} has vanished: exiting now."));
            self.end();
        }
    }

    /// The machine slept: what was open is not trusted any more.
    fn jumped(&self, slept: Duration) {
        self.log.warn(&format!(
            "Your system clock just jumped {} seconds forward; assuming established circuits no longer work.",
            slept.as_secs()
        ));
        self.with(|state| {
            state.event(Kind::StatusGeneral, format!("STATUS_GENERAL WARN CLOCK_JUMPED TIME={}", slept.as_secs()));
            let ids: Vec<_> = state.circuits.keys().copied().collect();
            for id in ids {
                let unused = state.circuits.get(&id).is_some_and(|circuit| circuit.streams == 0);
                if unused {
                    state.close_circuit(id, "FINISHED");
                } else {
                    state.doom(id);
                }
            }
        });
    }
}

fn is_alive(pid: i32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}
