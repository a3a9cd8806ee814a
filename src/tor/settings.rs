//! The settings of engines and circuits. This is a plain value that [`crate::app`] fills from the configuration.

use std::path::PathBuf;
use std::time::Duration;

use super::control::{Addr, Auth};
use crate::config::Endpoint;
use crate::route::SPARES;

/// The settings of the engines (tor processes) and their circuits.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The tor program: a path, or a name that is searched for in `PATH`.
    pub binary: PathBuf,
    /// The number of engines to start. 0 means [`DEFAULT_ENGINES`].
    pub engines: usize,
    /// The folder that contains the folders of the engines: `<data_dir>/engine-0`, …
    pub data_dir: PathBuf,
    /// A file with the user's lines for torrc. `None` if there is no such file.
    pub torrc: Option<PathBuf>,
    /// Further torrc lines of the user, which come after the lines of the file.
    pub extra: Vec<String>,
    /// The GeoIP file (countries of addresses). tor gets this file only if the user's lines contain countries. Without
    /// this file an engine needs 30 MB less memory.
    pub geoip_file: Option<PathBuf>,
    /// tor processes that run elsewhere and that this gateway controls, in addition to the engines that it starts. If
    /// this list is not empty and `engines` is 0, the gateway starts no engine.
    pub attach: Vec<Attach>,
    /// True if the gateway itself makes no connections except through tor. If this is false and an attached tor uses
    /// bridges, a warning is logged.
    pub only_tor: bool,
    /// The number of circuits per second that may be built through one guard, on average over a long time.
    pub circuits_per_second: f64,
    /// The number of circuits that may be built through one guard at the same time after a quiet period.
    pub circuit_burst: u32,
    /// How long the build of a circuit may take.
    pub circuit_timeout: Duration,
    /// The number of circuits to keep ready for an exit that is in use. This setting also scales the numbers of other
    /// exits: twice the value means twice as many circuits. 0: no circuits are kept ready.
    pub spare_circuits: u8,
    /// The largest number of spare circuits of one engine. If the routes want more, the exits in use get theirs first.
    pub max_spare_circuits: u16,
    /// The largest number of streams on one circuit. It is bounded because exits may limit it, and because all streams
    /// of a circuit share one congestion window.
    pub streams_per_circuit: u16,
    /// How long after its first use a circuit accepts new streams.
    pub circuit_dirty: Duration,
    /// How long a used circuit without streams is kept before the circuit is closed.
    pub circuit_idle: Duration,
}

/// A tor process that runs elsewhere and that this gateway attaches to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// The address of the control port.
    pub control: Endpoint,
    /// The address of the SOCKS port. This gateway must be able to connect to it.
    pub socks: Endpoint,
    /// The address of the SOCKS port for onion services. `None` if onion services use the port `socks`.
    pub onion: Option<Endpoint>,
    /// True if every address of the ports' host name belongs to a different tor process, as with scaled containers.
    pub every_address: bool,
    /// The method and credentials for logging in to the control port.
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
            only_tor: false,
            // The protection of relays against circuit floods allows by default 3 circuits a second and a burst of 90
            // from one address. The consensus may lower this to 2 and 60. We use half of the lower rate and a third of
            // the lower burst.
            circuits_per_second: 1.0,
            circuit_burst: 20,
            // On the public network one circuit in twenty takes longer to build. Such a circuit would also be slow in
            // use.
            circuit_timeout: Duration::from_secs(15),
            spare_circuits: SPARES,
            // At one circuit per second, 64 circuits are built in about the first minute after a start. Each costs the
            // engine 12 KiB.
            max_spare_circuits: 64,
            // Exits may limit the new streams of a circuit to 100 a second with a burst of 300. A smaller number is
            // used here, because the congestion window of one circuit is already too small for far fewer streams at the
            // same time.
            streams_per_circuit: 64,
            // tor's own value is 10 minutes. This value is three times as long: in this gateway a new circuit changes
            // the path but not the exit, so it brings less privacy, and its build costs the guard as much as in tor.
            circuit_dirty: Duration::from_secs(30 * 60),
            circuit_idle: Duration::from_secs(10 * 60),
        }
    }
}

/// The number of engines that are started if nothing else is configured. There are two, because traffic then continues
/// if one engine or its guard dies. The number does not grow with the number of CPU cores: each engine enters the Tor
/// network through a guard of its own, and every further guard is one more relay that may be hostile.
pub const DEFAULT_ENGINES: usize = 2;

/// The most attached tor processes behind one host name. Each process has its own guard, so a larger number would be a
/// mistake.
const BEHIND_A_NAME: usize = 16;

impl Attach {
    /// Returns one entry for each engine that this entry of the configuration may need: several if `every_address` is
    /// true.
    pub(super) fn engines(self) -> impl Iterator<Item = Self> {
        let count = if self.every_address { BEHIND_A_NAME } else { 1 };
        std::iter::repeat_n(self, count)
    }
}

impl Settings {
    /// Removes attached tor processes with `every_address` whose host name does not exist now. Otherwise the engines
    /// that this gateway starts would wait for these tor processes.
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

    /// Returns the number of engines that this gateway starts.
    pub fn started_engines(&self) -> usize {
        match self.engines {
            0 if !self.attach.is_empty() => 0,
            0 => DEFAULT_ENGINES,
            count => count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_engines_are_started_whatever_the_machine() {
        let attach = Attach {
            control: Endpoint::Unix("/control".into()),
            socks: Endpoint::Unix("/socks".into()),
            onion: None,
            every_address: false,
            auth: Auth::Offered,
        };
        let engines = |engines, attach| Settings { engines, attach, ..Settings::default() }.started_engines();
        assert_eq!((engines(0, vec![]), engines(5, vec![])), (2, 5));
        assert_eq!((engines(0, vec![attach.clone()]), engines(1, vec![attach])), (0, 1));
    }
}
