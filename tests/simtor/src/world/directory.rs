//! Editions of the directory, as files that engines copy from.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::World;
use crate::fault::{Uplink, chance};
use crate::link::{Edition, Tell};
use crate::model::{self, text};

/// Compressed bytes of one microdescriptor: mostly keys, which do not compress.
const MICRODESC_BYTES: usize = 400;

/// What one relay serves of the directory a second. With it a first start takes some 20 s, as on the public network.
const SERVED: f64 = 300_000.0;

/// Editions whose files are kept, for engines that are still reading one.
const KEPT: u64 = 3;

/// The number that decides which relays lack their microdescriptor.
const MISSING: u64 = 0x4D44;

/// The latest edition.
#[derive(Debug, Default)]
pub(super) struct Editions {
    latest: Option<(Key, Edition)>,
    written: u64,
}

/// What makes two editions differ.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    hour: u64,
    missing: f64,
    versions: Option<String>,
}

impl World {
    /// Serves the directory to an engine; whatever goes wrong on the way, it hears of it or waits.
    pub(super) async fn fetch(self: Arc<Self>, engine: u32, guard: Option<String>, microdescs: Option<usize>) {
        let place = self.choose_guard(guard.as_deref());
        let Some(place) = place else { return };
        let name = if place == super::BRIDGE { guard.unwrap_or_default() } else { self.hex(place) };
        self.state().tell(engine, Tell::Asking { guard: name.clone() });
        if self.channel(engine, place).await.is_err() {
            return self.state().tell(engine, Tell::NotFetched { guard: name });
        }
        let edition = match self.edition().await {
            Ok(edition) => edition,
            Err(_) => return self.state().tell(engine, Tell::NotFetched { guard: name }),
        };
        let size = std::fs::metadata(&edition.consensus).map_or(0, |meta| meta.len() as usize) / 4;
        let bytes = microdescs.map_or(size, |count| count * MICRODESC_BYTES);
        let calm = !self.settings.shaped;
        let rate = match self.state().faults.uplink() {
            Uplink::Slow { bytes_per_second, .. } => SERVED.min(bytes_per_second.max(1) as f64),
            _ => SERVED,
        };
        let served = if calm { Duration::ZERO } else { Duration::from_secs_f64(bytes as f64 / rate) };
        self.passable(Some(engine), &[place]).await;
        self.wait(self.round_trip(place) * 2 + served).await;
        self.passable(Some(engine), &[place]).await;
        let mut state = self.state();
        state.stats.fetched += 1;
        state.tell(engine, Tell::Fetched(Edition { complete: microdescs.is_some(), ..edition }));
    }

    fn choose_guard(&self, name: Option<&str>) -> Option<usize> {
        match name {
            Some(name) => {
                Some(crate::hex::fingerprint(name).and_then(|id| self.model.find(&id)).unwrap_or(super::BRIDGE))
            }
            None => {
                let mut state = self.state();
                self.any(&mut state.rng, |_, relay| relay.flags.guard && !relay.flags.exit)
            }
        }
    }

    /// The edition of this moment; writes its files if they are not there.
    async fn edition(self: &Arc<Self>) -> io::Result<Edition> {
        let world = self.clone();
        tokio::task::spawn_blocking(move || world.write_edition()).await.map_err(io::Error::other)?
    }

    fn write_edition(&self) -> io::Result<Edition> {
        let key = {
            let state = self.state();
            let (missing, versions) = state.faults.directory();
            let key = Key { hour: self.hour(), missing, versions: versions.map(str::to_owned) };
            if let Some((latest, edition)) = &state.editions.latest
                && *latest == key
            {
                return Ok(edition.clone());
            }
            key
        };
        let length = self.settings.hour_length();
        let valid_after = self.zero + length.mul_f64(key.hour as f64);
        let order = model::Edition {
            client_versions: key.versions.clone(),
            params: self.params(),
            ..model::Edition::default()
        };
        let consensus = self.model.consensus_of(key.hour, valid_after, length, &order);
        let lacks = |place: &usize| chance(*place as u64, MISSING) < key.missing;
        let missing: Vec<usize> = (0..self.model.relays().len()).filter(lacks).collect();
        let microdescs = match missing.is_empty() {
            true => self.model.microdescs(key.hour, SystemTime::now()),
            false => self.some_microdescs(key.hour, &lacks),
        };
        let mut state = self.state();
        state.editions.written += 1;
        let number = state.editions.written;
        let file = |what: &str, number: u64| -> PathBuf { self.folder.join(format!("{what}-{number}")) };
        let edition = Edition {
            consensus: file("consensus", number),
            microdescs: file("microdescs", number),
            complete: false,
            missing: missing.into_iter().map(|place| self.hex(place)).collect(),
        };
        std::fs::write(&edition.consensus, consensus)?;
        std::fs::write(&edition.microdescs, microdescs)?;
        for what in ["consensus", "microdescs"] {
            let _ = std::fs::remove_file(file(what, number.saturating_sub(KEPT))); // none so old: none to remove
        }
        state.editions.latest = Some((key, edition.clone()));
        Ok(edition)
    }

    /// The parameters that differ from the model's. What is a number a second is one of the model's seconds, and clients
    /// read it as one of theirs.
    fn params(&self) -> Vec<(String, i32)> {
        let mut params = self.settings.params.clone();
        for name in ["DoSCircuitCreationRate", "DoSStreamCreationRate"] {
            let rate = f64::from(self.param(name)) * self.settings.speed;
            params.insert(name.to_owned(), (rate.round() as i32).max(1));
        }
        params.into_iter().collect()
    }

    fn some_microdescs(&self, hour: u64, lacks: &impl Fn(&usize) -> bool) -> String {
        let listed = text::stamp(text::seconds(SystemTime::now()));
        let places = (0..self.model.relays().len()).filter(|place| self.model.is_listed(*place, hour) && !lacks(place));
        places.map(|place| format!("@last-listed {listed}\n{}", self.model.microdesc(place))).collect()
    }
}
