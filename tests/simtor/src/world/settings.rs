//! What can be set about a world. Where a number is the public network's, its source is named.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::model::{PUBLIC_CHURN, PUBLIC_SIZE};

/// All settings; those that a file does not name are the public network's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// From which the relays, and all chance, are drawn.
    pub seed: u64,
    /// How many relays.
    pub size: usize,
    /// A file with the relays in the place of those that are drawn: see `world/layout.rs`.
    pub relays: Option<PathBuf>,
    /// By what all times of the model and of the simulated tor are divided.
    pub speed: f64,
    /// Seconds from one consensus to the next.
    pub hour: u64,
    /// How much of the first hour is over at the start, from 0 to 1.
    pub begun: f64,
    /// Part of relays that vanish from one consensus to the next.
    pub churn: f64,
    /// The name server that exits ask; without one no name resolves.
    pub dns: Option<SocketAddr>,
    /// The version of tor that engines are.
    pub version: String,
    /// Consensus parameters beside those of the model.
    pub params: BTreeMap<String, i32>,
    /// Other connections from the client's address at every guard. Relays only defend themselves against an address that
    /// holds several.
    pub neighbours: u32,
    /// Times.
    pub times: Times,
    /// Part of extends that a relay answers with DESTROY.
    pub extend_failure: f64,
    /// Part of extends that nobody answers.
    pub extend_silence: f64,
    /// Part of an exit's capacity that others use.
    pub load: f64,
    /// Bytes of one stream that are under way at most: with the round trip it bounds the stream's goodput.
    pub window: usize,
    /// Whether capacities bound anything.
    pub shaped: bool,
    /// Of circuits that one dead relay ends together, the part that the client is not told of until something else goes
    /// the same way; measured with real tor: 18 of 24.
    pub held_destroys: f64,
    /// Seconds for which a relay that could not reach another does not try again; measured with real tor.
    pub retry: f64,
}

/// Times in milliseconds, each drawn from a lognormal distribution with this median and this sigma.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Times {
    /// Round trip to a relay from the one before it, the same at all times.
    pub relay_ms: f64,
    /// Its spread among relays.
    pub relay_sigma: f64,
    /// What a relay takes to answer a create or an extend, drawn each time.
    pub queue_ms: f64,
    /// Its spread.
    pub queue_sigma: f64,
    /// Round trip from an exit to a target.
    pub target_ms: f64,
    /// Its spread.
    pub target_sigma: f64,
}

impl Default for Times {
    /// Together they give a build of three hops in 0.4 to 0.8 s at the median and 2 to 3 s at the 95th percentile, and a
    /// stream in 0.2 to 0.6 s: `world/build.rs` has the test.
    fn default() -> Self {
        Self { relay_ms: 45.0, relay_sigma: 0.5, queue_ms: 50.0, queue_sigma: 1.7, target_ms: 60.0, target_sigma: 0.8 }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 1,
            size: PUBLIC_SIZE,
            relays: None,
            speed: 1.0,
            hour: 3600,
            begun: 0.4,
            churn: PUBLIC_CHURN,
            dns: None,
            version: "0.4.9.11".to_owned(),
            params: BTreeMap::new(),
            neighbours: 0,
            times: Times::default(),
            extend_failure: 0.01,
            extend_silence: 0.005,
            load: 0.5,
            window: 1 << 20,
            shaped: true,
            held_destroys: 0.75,
            retry: 60.0,
        }
    }
}

impl Settings {
    /// A network without delays, chance or bounds, whose directory never changes: what the suite that also runs on a
    /// private network of real relays expects.
    pub fn calm() -> Self {
        Self {
            hour: 86_400,
            begun: 0.01,
            churn: 0.0,
            times: Times {
                relay_ms: 1.0,
                relay_sigma: 0.0,
                queue_ms: 1.0,
                queue_sigma: 0.0,
                target_ms: 0.0,
                target_sigma: 0.0,
            },
            extend_failure: 0.0,
            extend_silence: 0.0,
            shaped: false,
            window: 4 << 20,
            ..Self::default()
        }
    }

    /// Reads a file of settings.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let settings: Self =
            serde_json::from_slice(&text).with_context(|| format!("{} is no file of settings", path.display()))?;
        anyhow::ensure!(settings.speed > 0.0 && settings.hour > 0, "speed and hour are above 0");
        Ok(settings)
    }

    /// Time from one consensus to the next, as it passes here.
    pub(crate) fn hour_length(&self) -> Duration {
        Duration::from_secs(self.hour).div_f64(self.speed)
    }
}
