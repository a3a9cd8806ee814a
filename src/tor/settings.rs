//! Settings of engines and circuits. A plain value: [`crate::app`] fills it from the configuration.

use std::path::PathBuf;
use std::time::Duration;

use super::control::{Addr, Auth};
use crate::config::Endpoint;
use crate::route::SPARES;

/// Settings of everything in this room.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The tor program: a path, or a name to look up in `PATH`.
    pub binary: PathBuf,
    /// How many engines to start. 0 means one per two cores and at least two, because then one may die.
    pub engines: usize,
    /// Where engines keep their folders: `<data_dir>/engine-0`, …
    pub data_dir: PathBuf,
    /// A file with the user's lines for torrc.
    pub torrc: Option<PathBuf>,
    /// More lines of the user for torrc, after those of the file.
    pub extra: Vec<String>,
    /// tor gets this file only if the user's lines name countries. Without it an engine needs 30 MB less.
    pub geoip_file: Option<PathBuf>,
    /// tor processes that run elsewhere and that we control. They are used in addition to the engines that we start. If
    /// there are any and `engines` is 0, none is started here.
    pub attach: Vec<Attach>,
    /// Circuits that may be built through one guard a second, in the long run.
    pub circuits_per_second: f64,
    /// Circuits that may be built at once through one guard after a quiet time.
    pub circuit_burst: u32,
    /// How long a circuit may take to build.
    pub circuit_timeout: Duration,
    /// Circuits to keep ready for an exit that is in use. Other exits get proportionally fewer. 0 keeps none.
    pub spare_circuits: u8,
    /// The most streams on one circuit: exits may limit them, and all streams share one congestion window.
    pub streams_per_circuit: u16,
    /// How long after its first use a circuit still takes new streams.
    pub circuit_dirty: Duration,
    /// How long a used circuit may be without streams before it is closed.
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
    /// Every address of these ports' host name is a tor of its own, such as scaled containers.
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
            // One in twenty circuits of the public network takes longer to build, and would be slow to use.
            circuit_timeout: Duration::from_secs(15),
            spare_circuits: SPARES,
            // Exits may limit the streams of a circuit to 100 a second with a burst of 300. The circuit's single congestion
            // window becomes the bottleneck far below that.
            streams_per_circuit: 64,
            // tor's own value is 10 minutes. Here a new circuit changes the path but not the exit, so it gains less while
            // it costs the guard a build: three times as long.
            circuit_dirty: Duration::from_secs(30 * 60),
            circuit_idle: Duration::from_secs(10 * 60),
        }
    }
}

/// The most tor processes behind one host name. Each has a guard of its own; more than this is a mistake.
const BEHIND_A_NAME: usize = 16;

impl Attach {
    /// One entry per engine that this may become.
    pub(super) fn engines(self) -> impl Iterator<Item = Self> {
        let count = if self.every_address { BEHIND_A_NAME } else { 1 };
        std::iter::repeat_n(self, count)
    }
}

impl Settings {
    /// Leaves out attached tors with `every_address` whose host name does not exist now, so that the engines started here
    /// do not wait for them.
    pub async fn without_missing(mut self) -> Self {
        let mut there = Vec::new();
        for attach in self.attach {
            let missing = attach.every_address && Addr::all(&attach.control).await.is_ok_and(|found| found.is_empty());
            if missing {
                tracing::info!(
                    "tor.attach: the host name of {} does not exist; no tor is attached there",
                    attach.control
                );
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
