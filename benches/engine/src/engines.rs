//! The engines that are measured. They run in this process, as they do in the gateway.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use exitgate::dial::tor::{Facts, Options, Way, dial};
use exitgate::dial::{DialError, Stream};
use exitgate::exit::Fingerprint;
use exitgate::lifecycle::Lifecycle;
use exitgate::net::{Host, Target};
use exitgate::route::{CircuitDemand, Isolation};
use exitgate::tor::{BuildClass, Settings, Tor};
use exitgate_testnet::{Relay, Testbed};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// How long anything here may take. Every step takes less than a tenth of it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A pause between the end of one stream and the start of the next. Relays send cells every 10 ms, so a stream that starts
/// right after another one ended would wait for that. 30: three times as long.
const SETTLED: Duration = Duration::from_millis(30);

/// Closes a stream, and waits until the relays have handled that.
pub async fn closed<T>(stream: T) {
    drop(stream);
    sleep(SETTLED).await;
}

/// Engines in a private Tor network.
pub struct Engines {
    pub tor: Tor,
    pub wanted: watch::Sender<CircuitDemand>,
    pub life: Lifecycle,
    pub target: Target,
    _dir: TempDir,
}

impl Engines {
    /// Starts this many engines and waits until they are ready.
    pub async fn start(bed: &Testbed, count: usize) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let settings = Settings {
            binary: bed.network.tor_binary(), // without Nagle's algorithm, as the plain clients: it stalls loopback at random
            engines: count,
            data_dir: dir.path().join("tor"),
            extra: bed.network.client_torrc_lines(),
            circuits_per_second: 1e6, // the relays of this network do not limit anybody
            circuit_burst: 100_000,
            ..Settings::default()
        };
        let (life, wanted) = (Lifecycle::new(), watch::Sender::new(CircuitDemand::default()));
        let tor = Tor::start(settings, life.tasks(), wanted.subscribe());
        let target = Target::new(Host::parse("echo.test")?, bed.web.http_port())?;
        let engines = Self { tor, wanted, life, target, _dir: dir };
        engines.until("engines are ready", |tor| tor.status().iter().all(|engine| engine.state.usable())).await?;
        Ok(engines)
    }

    /// Waits until `is` is true of the engines; `what` names the condition in the error.
    pub async fn until(&self, what: &str, is: impl Fn(&Tor) -> bool) -> anyhow::Result<()> {
        let wait = async {
            while !is(&self.tor) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, wait).await.with_context(|| format!("waited in vain until {what}: {:?}", self.tor.status()))
    }

    /// Opens a stream to the fake web.
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

/// Three hops to an exit, with this isolation key.
pub fn way(exit: &Relay, isolation: u64) -> anyhow::Result<Way> {
    Ok(Way { exit: fingerprint(exit)?, hops: 3, isolation: Isolation(isolation), class: BuildClass::Live, own: None })
}

/// Sends one request over an open stream and returns when the first byte of its answer came. The target must have seen `exit`.
pub async fn first_byte(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    exit: &Relay,
) -> anyhow::Result<Instant> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream.write_all(b"GET /ip HTTP/1.1\r\nHost: echo.test\r\nConnection: close\r\n\r\n").await?;
    let mut answer = vec![stream.read_u8().await?];
    let at = Instant::now();
    stream.read_to_end(&mut answer).await?;
    ensure!(String::from_utf8_lossy(&answer).ends_with(&exit.outbound.to_string()), "the request left by another exit");
    Ok(at)
}
