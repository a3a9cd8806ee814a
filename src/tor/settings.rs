//! What may be set about engines and circuits. A plain value: [`crate::app`] fills it from the configuration.

use std::path::PathBuf;
use std::time::Duration;

use super::control::{Addr, Auth};
use crate::config::Endpoint;
use crate::route::SPARES;

/// Settings of everything in this room.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The tor program: a path, or a name that is looked for in `PATH`.
    pub binary: PathBuf,
    /// How many engines; 0 means one per two cores and at least two, so that the death of one is survived.
    pub engines: usize,
    /// Where engines keep their folders: `<data_dir>/engine-0`, …
    pub data_dir: PathBuf,
    /// A file with the user's own lines for torrc.
    pub torrc: Option<PathBuf>,
    /// The user's own lines for torrc, behind those of the file.
    pub extra: Vec<String>,
    /// Given to tor only if the user's lines name countries; without them engines load no GeoIP, which saves 30 MB each.
    pub geoip_file: Option<PathBuf>,
    /// Tors that run elsewhere and are ours to command. They come beside the engines that we start; with some of them
    /// and `engines = 0` none is started here.
    pub attach: Vec<Attach>,
    /// Circuits that may be built through one guard a second, in the long run.
    pub circuits_per_second: f64,
    /// Circuits that may be built through one guard at once after a quiet time.
    pub circuit_burst: u32,
    /// How long a circuit may take to build.
    pub circuit_timeout: Duration,
    /// Warm circuits of an exit that is in use; those of others follow suit. 0 keeps none.
    pub spare_circuits: u8,
    /// Streams that one circuit carries at most: exits may limit them, and all share one congestion window.
    pub streams_per_circuit: u16,
    /// How long after its first use a circuit takes new streams.
    pub circuit_dirty: Duration,
    /// How long a circuit that was used may be without a stream before it is closed.
    pub circuit_idle: Duration,
}

/// A tor that runs elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// Its control port.
    pub control: Endpoint,
    /// Its SOCKS port, reachable from here.
    pub socks: Endpoint,
    /// Its SOCKS port for onion services, if that is another one.
    pub onion: Option<Endpoint>,
    /// Every address behind the name of these ports is a tor of its own: containers that somebody scales up and down.
    pub every_address: bool,
    /// How to log in.
    pub auth: Auth,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            binary: "tor".into(),
            engines: 0,
            data_dir: "exitgate-data/tor".into(),
            torrc: None,
            extra: Vec::new(),
            geoip_file: None,
            attach: Vec::new(),
            // Relays' defence against circuit floods allows 3 a second and a burst of 90 from one address by default, and
            // the consensus may say 2 and 60: a third of the stricter burst, half of the stricter rate.
            circuits_per_second: 1.0,
            circuit_burst: 20,
            // The slowest twentieth of the public network's circuits takes longer, and they would be slow circuits.
            circuit_timeout: Duration::from_secs(15),
            spare_circuits: SPARES,
            // Exits may limit the streams of a circuit to 100 a second with a burst of 300; far below that the circuit's
            // one congestion window is what is short.
            streams_per_circuit: 64,
            // tor itself says 10 minutes. A fresh circuit costs a guard a build, and here it changes the path but not the
            // exit, so that there is less to gain: three times as long.
            circuit_dirty: Duration::from_secs(30 * 60),
            circuit_idle: Duration::from_secs(10 * 60),
        }
    }
}

/// Tors behind one name, at most: beyond it lies a mistake, or more guards than anybody should have.
const BEHIND_A_NAME: usize = 16;

impl Attach {
    /// The engines that this may become.
    pub(super) fn engines(self) -> impl Iterator<Item = Self> {
        let count = if self.every_address { BEHIND_A_NAME } else { 1 };
        std::iter::repeat_n(self, count)
    }
}

impl Settings {
    /// Without those attached tors that may be missing and are: nobody has their name, so that what is started here does
    /// not wait for them.
    pub async fn without_missing(mut self) -> Self {
        let mut there = Vec::new();
        for attach in self.attach {
            let missing = attach.every_address && Addr::all(&attach.control).await.is_ok_and(|found| found.is_empty());
            if missing {
                tracing::info!("nobody is called {}: no tor to attach to there", attach.control);
            } else {
                there.push(attach);
            }
        }
        self.attach = there;
        self
    }

    /// How many engines are started here.
    pub fn started_engines(&self) -> usize {
        match self.engines {
            0 if !self.attach.is_empty() => 0,
            0 => std::thread::available_parallelism().map_or(2, |cores| (cores.get() / 2).max(2)),
            count => count,
        }
    }
}
