//! What these tests share: a network, engines in it, and requests through them.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::process::Command;
use std::time::Duration;

use exitgate::dial::tor::{Facts, Options, Way, dial};
use exitgate::dial::{DialError, Stream};
use exitgate::exit::Fingerprint;
use exitgate::lifecycle::{Ended, Lifecycle};
use exitgate::net::{Host, Target};
use exitgate::route::{CircuitDemand, Isolation};
use exitgate::tor::control::{Addr, Auth, Control};
use exitgate::tor::{BuildClass, Settings, Tor};
use exitgate_testnet::web::ECHO_PORT;
use exitgate_testnet::{Backend, Network, Options as Layout, Relay, Testbed, fetch};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// How long anything in here may take, so that a hang is a failure with a name. Only failures take it.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Makes two tests of each function: with real tor in a private network, and with `simtor`, which must not drift from it.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod real {
            $(#[tokio::test]
            async fn $name() {
                super::$name(exitgate_testnet::Backend::Tor).await;
            })+
        }

        mod simtor {
            $(#[tokio::test]
            async fn $name() {
                super::$name(exitgate_testnet::Backend::Simtor).await;
            })+
        }
    };
}
pub(super) use on_both;

/// A network of this kind, with a web.
pub(super) async fn bed(backend: Backend) -> Testbed {
    Testbed::start_with(Layout { backend, ..Layout::default() }).await.unwrap()
}

/// Engines in a network.
pub(super) struct Rig {
    pub(super) tor: Tor,
    pub(super) wanted: watch::Sender<CircuitDemand>,
    pub(super) life: Lifecycle,
    pub(super) settings: Settings,
    port: u16,
    dir: TempDir,
}

/// Settings for engines in this network, whose relays bear more than public ones.
pub(super) fn settings(network: &Network, dir: &TempDir) -> Settings {
    Settings {
        binary: network.program(),
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
        let (life, wanted) = (Lifecycle::new(), watch::Sender::new(CircuitDemand::default()));
        let tor = Tor::start(settings.clone(), life.tasks(), wanted.subscribe());
        Self { tor, wanted, life, settings, port: bed.web.http_port(), dir }
    }

    pub(super) async fn all_ready(&self) {
        self.until("every engine is ready", |tor| tor.status().iter().all(|engine| engine.state.usable())).await;
    }

    /// Waits until something is true of the engines.
    pub(super) async fn until(&self, what: &str, is: impl Fn(&Tor) -> bool) {
        until(what, async || is(&self.tor), || format!("{:#?}\n{:#?}", self.tor.status(), self.tor.circuits())).await;
    }

    /// Waits until there is something to be seen of the engines.
    pub(super) async fn until_some<T>(&self, what: &str, mut see: impl FnMut(&Tor) -> Option<T>) -> T {
        let mut seen = None;
        let there = async || {
            seen = see(&self.tor);
            seen.is_some()
        };
        until(what, there, || format!("{:#?}", self.tor.status())).await;
        seen.unwrap()
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

    /// A stream to the web's echo port, which answers as long as everything on the way lives.
    pub(super) async fn echo(&self, way: Way) -> Result<(Echo, Facts), DialError> {
        let at = target("echo.test", ECHO_PORT);
        let (stream, facts) = dial(&self.tor, way, &at, Options::default(), deadline()).await?;
        Ok((Echo(stream), facts))
    }

    /// One echo stream on each engine, in the order of their ids.
    pub(super) async fn echo_on_each(&self, exit: &Relay) -> Vec<Echo> {
        let mut streams = BTreeMap::new();
        for isolation in 0.. {
            let (echo, facts) = self.echo(way(exit, isolation)).await.unwrap();
            streams.entry(facts.engine).or_insert(echo);
            if streams.len() == self.settings.engines {
                break;
            }
        }
        streams.into_values().collect()
    }

    /// A control connection of our own to an engine.
    pub(super) async fn control(&self, engine: usize) -> Control {
        let socket = self.settings.data_dir.join(format!("engine-{engine}/control"));
        let connected = Control::connect(&Addr::Unix(socket), &Auth::Offered, deadline(), &self.life.tasks()).await;
        connected.unwrap().0
    }

    /// Nothing is left of any dial, here and in every tor.
    pub(super) async fn all_given_back(&self) {
        let idle = |tor: &Tor| {
            tor.status().iter().all(|engine| engine.streams == 0 && engine.building == 0)
                && tor.circuits().iter().all(|circuit| circuit.streams == 0)
        };
        self.until("every place is given back", idle).await;
        for engine in 0..self.settings.engines {
            let streams = self.control(engine).await.streams().await.unwrap();
            assert!(streams.is_empty(), "{streams:?}");
        }
    }

    /// Ends everything and starts it again in the same folder.
    pub(super) async fn start_again(self, bed: &Testbed) -> Self {
        assert_eq!(self.life.stop(PATIENCE, std::future::pending()).await, Ended::Drained);
        let rig = Self::launch(bed, self.dir, self.settings);
        rig.all_ready().await;
        rig
    }

    /// Ends everything.
    pub(super) async fn stop(self) -> Ended {
        self.life.stop(Duration::from_secs(10), std::future::pending()).await
    }
}

/// A stream to an echo.
pub(super) struct Echo(Stream);

impl Echo {
    /// Whether a word comes back.
    pub(super) async fn lives(&mut self) -> bool {
        let round = async {
            self.0.write_all(b"still here?").await?;
            let mut answer = [0; 11];
            self.0.read_exact(&mut answer).await.map(|_| answer)
        };
        let answer: io::Result<[u8; 11]> = timeout(PATIENCE, round).await.expect("an answer, or an end");
        answer.is_ok_and(|answer| answer == *b"still here?")
    }

    /// Resolves when the other end closes it.
    pub(super) async fn ended(&mut self) {
        let end = timeout(PATIENCE, self.0.read(&mut [0; 1])).await.expect("it ends");
        assert!(end.is_err() || end.is_ok_and(|read| read == 0));
    }
}

/// Runs futures side by side to their ends.
pub(super) async fn all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    // This polls only the futures that were woken. If all of five hundred dials were polled at each event, the test
    // itself would be so slow that dials miss their deadlines.
    futures_util::future::join_all(futures).await
}

/// Sends a signal to a process.
pub(super) fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(sent.success());
}

/// True while there is such a process that is not a zombie.
pub(super) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
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
    Way { exit: fingerprint(relay), hops: 3, isolation: Isolation(isolation), class: BuildClass::Live, own: None }
}

pub(super) fn target(host: &str, port: u16) -> Target {
    Target::new(Host::parse(host).unwrap(), port).unwrap()
}

pub(super) fn deadline() -> Instant {
    Instant::now() + PATIENCE
}
