//! What is measured: engines in this process, as the gateway holds them.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use exitgate::dial::tor::{Facts, Options, Way, dial};
use exitgate::dial::{DialError, Stream};
use exitgate::exit::Fingerprint;
use exitgate::lifecycle::Lifecycle;
use exitgate::net::{Host, Target};
use exitgate::route::{Isolation, WantedExits};
use exitgate::tor::{Settings, Tor};
use exitgate_testnet::{Relay, Testbed};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// Longer than anything here takes: a bench that hangs says so.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Relays hand out cells every 10 ms, so that whoever comes right behind the end of another stream waits for it: each
/// request of a comparison begins when the one before has died away.
const SETTLED: Duration = Duration::from_millis(30);

/// Closes a stream and lets the relays forget it.
pub async fn closed<T>(stream: T) {
    drop(stream);
    sleep(SETTLED).await;
}

/// Engines in a private network.
pub struct Rig {
    pub tor: Tor,
    pub wanted: watch::Sender<WantedExits>,
    pub life: Lifecycle,
    pub target: Target,
    _dir: TempDir,
}

impl Rig {
    /// Starts that many engines and waits until they are ready.
    pub async fn start(bed: &Testbed, engines: usize) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let settings = Settings {
            binary: bed.network.tor_binary(), // as the plain clients run: without Nagle, which stalls loopback at random
            engines,
            data_dir: dir.path().join("tor"),
            extra: bed.network.client_torrc_lines(),
            circuits_per_second: 1e6, // relays of this network do not defend themselves
            circuit_burst: 100_000,
            ..Settings::default()
        };
        let (life, wanted) = (Lifecycle::new(), watch::Sender::new(WantedExits::default()));
        let tor = Tor::start(settings, life.tasks(), wanted.subscribe());
        let target = Target::new(Host::parse("echo.test")?, bed.web.http_port())?;
        let rig = Self { tor, wanted, life, target, _dir: dir };
        rig.until("engines are ready", |tor| tor.status().iter().all(|engine| engine.state.usable())).await?;
        Ok(rig)
    }

    /// Waits until something is true of the engines.
    pub async fn until(&self, what: &str, is: impl Fn(&Tor) -> bool) -> anyhow::Result<()> {
        let wait = async {
            while !is(&self.tor) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, wait).await.with_context(|| format!("never: {what}; {:?}", self.tor.status()))
    }

    /// A stream to the target.
    pub async fn dial(&self, way: Way) -> Result<(Stream, Facts), DialError> {
        dial(&self.tor, way, &self.target, Options::default(), Instant::now() + PATIENCE).await
    }

    pub async fn stop(self) {
        self.life.stop(Duration::from_secs(10), std::future::pending()).await;
    }
}

pub fn fingerprint(relay: &Relay) -> anyhow::Result<Fingerprint> {
    relay.fingerprint.parse().ok().context("a fingerprint")
}

/// Three hops to an exit, for one isolation key.
pub fn way(exit: &Relay, isolation: u64) -> anyhow::Result<Way> {
    Ok(Way { exit: fingerprint(exit)?, hops: 3, isolation: Isolation(isolation), own: None })
}

/// Memory of a process that is its own, in KiB: pages that it shares with a file are not.
pub fn memory(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// One request over an open stream, until the first byte of its answer. The answer must come from this exit.
pub async fn first_byte(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    exit: &Relay,
) -> anyhow::Result<Instant> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream.write_all(b"GET /ip HTTP/1.1\r\nHost: echo.test\r\nConnection: close\r\n\r\n").await?;
    let mut answer = vec![stream.read_u8().await?];
    let at = Instant::now();
    stream.read_to_end(&mut answer).await?;
    ensure!(String::from_utf8_lossy(&answer).ends_with(&exit.outbound.to_string()), "the wrong exit");
    Ok(at)
}
