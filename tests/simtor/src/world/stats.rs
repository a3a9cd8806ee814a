//! What the world has counted: read as JSON with `simtor stats`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Targets that are counted by name, at most: beyond it they are `other`.
const TARGETS: usize = 10_000;

/// All figures since the world began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Seconds since the world began, of the clock on the wall.
    pub seconds: f64,
    /// The hour of the model.
    pub hour: u64,
    /// Engines that are connected now.
    pub engines: usize,
    /// Circuits that exist now.
    pub circuits_now: usize,
    /// Streams that exist now.
    pub streams_now: usize,
    /// Circuits that were asked for.
    pub circuits: u64,
    /// Of those, completed.
    pub circuits_built: u64,
    /// Of those, failed before they were complete.
    pub circuits_failed: u64,
    /// Circuits that ended by themselves, by tor's word for it.
    pub ended: BTreeMap<String, u64>,
    /// Circuits that a relay's defence against floods refused.
    pub refused_by_defence: u64,
    /// How often a relay marked the client as one who floods.
    pub marked_as_flooding: u64,
    /// Circuits beyond the rate and burst of relays, whether or not the client held enough connections to be counted.
    pub over_rate: u64,
    /// Times of builds, in milliseconds of the model.
    pub build_ms: Times,
    /// Connections to relays by fingerprint.
    pub entered: BTreeMap<String, u64>,
    /// Connections to relays that failed.
    pub connections_failed: u64,
    /// Editions of the directory that were fetched.
    pub fetched: u64,
    /// Streams that were asked for.
    pub streams: u64,
    /// Of those, opened.
    pub streams_opened: u64,
    /// Streams that ended before they were open, by the number of the reason.
    pub stream_ends: BTreeMap<u8, u64>,
    /// Streams refused because their target is not on loopback.
    pub not_loopback: u64,
    /// Streams by target.
    pub targets: BTreeMap<String, u64>,
    /// Streams by exit.
    pub streams_by_exit: BTreeMap<String, u64>,
    /// Bytes that came through each exit.
    pub bytes_by_exit: BTreeMap<String, u64>,
}

impl Stats {
    pub(super) fn target(&mut self, host: &str, port: u16) {
        let name = format!("{host}:{port}");
        let room = self.targets.len() < TARGETS || self.targets.contains_key(&name);
        *self.targets.entry(if room { name } else { "other".to_owned() }).or_default() += 1;
    }
}

/// A histogram of times whose bounds grow by a quarter, so that a percentile is right within a tenth or so.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// How many.
    pub count: u64,
    /// How many by the number of their bound.
    bounds: BTreeMap<u16, u64>,
}

impl Times {
    pub(super) fn add(&mut self, time: Duration) {
        self.count += 1;
        let ms = (time.as_secs_f64() * 1000.0).max(1.0);
        *self.bounds.entry(ms.log(1.25) as u16).or_default() += 1;
    }

    /// The time in milliseconds that this part of all is below.
    pub fn at(&self, part: f64) -> f64 {
        let mut left = (self.count as f64 * part) as u64;
        for (bound, count) in &self.bounds {
            if left < *count {
                return 1.25f64.powf(f64::from(*bound) + 0.5);
            }
            left -= count;
        }
        0.0
    }
}
