//! What these tests share: a network, engines in it, and requests through them.

use std::time::Duration;

use exitgate::dial::tor::{Facts, Options, Way, dial};
use exitgate::dial::{DialError, Stream};
use exitgate::exit::Fingerprint;
use exitgate::lifecycle::{Ended, Lifecycle};
use exitgate::net::{Host, Target};
use exitgate::route::{Isolation, Wanted};
use exitgate::tor::{Settings, Tor};
use exitgate_testnet::{Network, Relay, Testbed, fetch};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// How long anything in here may take, so that a hang is a failure with a name. Only failures take it.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Engines in a network.
pub(super) struct Rig {
    pub(super) tor: Tor,
    pub(super) wanted: watch::Sender<Wanted>,
    pub(super) life: Lifecycle,
    pub(super) settings: Settings,
    port: u16,
    _dir: TempDir,
}

/// Settings for engines in this network, whose relays bear more than public ones.
pub(super) fn settings(network: &Network, dir: &TempDir) -> Settings {
    Settings {
        engines: 2,
        data_dir: dir.path().join("tor"),
        extra: network.client_torrc_lines(),
        circuits_per_second: 100.0,
        circuit_burst: 1000,
        ..Settings::default()
    }
}

impl Rig {
    /// Two engines, ready.
    pub(super) async fn start(bed: &Testbed) -> Self {
        Self::start_with(bed, |_| {}).await
    }

    /// The same with other settings.
    pub(super) async fn start_with(bed: &Testbed, change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = settings(&bed.network, &dir);
        change(&mut settings);
        let rig = Self::launch(bed, dir, settings);
        rig.all_ready().await;
        rig
    }

    /// Engines that have just been told to start.
    pub(super) fn launch(bed: &Testbed, dir: TempDir, settings: Settings) -> Self {
        let (life, wanted) = (Lifecycle::new(), watch::Sender::new(Wanted::default()));
        let tor = Tor::start(settings.clone(), life.tasks(), wanted.subscribe());
        Self { tor, wanted, life, settings, port: bed.web.http_port(), _dir: dir }
    }

    pub(super) async fn all_ready(&self) {
        self.until("every engine is ready", |tor| tor.status().iter().all(|engine| engine.state.usable())).await;
    }

    /// Waits until something is true of the engines.
    pub(super) async fn until(&self, what: &str, is: impl Fn(&Tor) -> bool) {
        until(what, async || is(&self.tor), || format!("{:#?}\n{:#?}", self.tor.status(), self.tor.circuits())).await;
    }

    /// Opens a stream to the web through an exit.
    pub(super) async fn dial(&self, way: Way, host: &str) -> Result<(Stream, Facts), DialError> {
        dial(&self.tor, way, &target(host, self.port), Options::default(), deadline()).await
    }

    /// The address from which the web sees us through an exit, and how the stream came about.
    pub(super) async fn seen_from(&self, way: Way) -> Result<(String, Facts), DialError> {
        let (stream, facts) = self.dial(way, "echo.test").await?;
        let got = timeout(PATIENCE, fetch::get(stream, "echo.test", "/ip")).await.expect("an answer in time");
        Ok((got.expect("an answer").text(), facts))
    }

    /// Ends everything.
    pub(super) async fn stop(self) -> Ended {
        self.life.stop(Duration::from_secs(10), std::future::pending()).await
    }
}

/// Waits until a condition is true; says what was seen last if it never is.
pub(super) async fn until(what: &str, mut is: impl AsyncFnMut() -> bool, seen: impl FnOnce() -> String) {
    let wait = async {
        while !is().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(PATIENCE, wait).await.is_err() {
        panic!("never: {what}\n{}", seen());
    }
}

pub(super) fn fingerprint(relay: &Relay) -> Fingerprint {
    relay.fingerprint.parse().unwrap()
}

/// Three hops to an exit, for one isolation key.
pub(super) fn way(relay: &Relay, isolation: u64) -> Way {
    Way { exit: fingerprint(relay), hops: 3, isolation: Isolation(isolation) }
}

pub(super) fn target(host: &str, port: u16) -> Target {
    Target::new(Host::parse(host).unwrap(), port).unwrap()
}

pub(super) fn deadline() -> Instant {
    Instant::now() + PATIENCE
}
