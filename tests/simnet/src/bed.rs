//! What all scenarios of a run stand on: the fake web, the names, the lists of relays, the model, and a data folder of a
//! gateway that has tested every exit.
//!
//! The folder is made once: a gateway at the shipped settings needs half an hour for its first pass over 3,000 exits, and most
//! scenarios are about one that has been running for a day. It is made by a run with all durations divided, and every
//! scenario that wants it starts on a copy.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use exitgate_simtor::model::{Model, PUBLIC_SIZE};
use exitgate_testnet::{Dns, Onionoo, Sandbox, Web};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use crate::gateway::{Gateway, Setup};
use crate::options::Options;
use crate::pace::Pace;
use crate::world::{Network, World};

/// The seed of all scenarios: their figures are comparable from run to run.
pub const SEED: u64 = 16;

/// By what the network's times are divided while the folder is made.
const MAKING: f64 = 40.0;

/// What the gateway is told while the folder is made: to test as fast as two cores can. Its deadlines stay as shipped.
const FAST: &str =
    "tor.circuits_per_second = 100.0\ncheck.per_second = 200.0\ncheck.concurrency = 200\ncheck.every = \"2h\"\n";

/// How long that may take.
const LONGEST: Duration = Duration::from_secs(240);

/// What is there for the whole run.
pub struct Bed {
    pub options: Options,
    pub web: Web,
    pub dns: Dns,
    pub onionoo: Onionoo,
    pub model: Model,
    pub sandbox: Arc<Sandbox>,
    geoip: PathBuf,
    tested: OnceCell<PathBuf>,
}

impl Bed {
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let sandbox = Sandbox::claim()?;
        let (web, dns) = (Web::start(&sandbox).await?, Dns::start(&sandbox).await?);
        let model = Model::new(SEED, options.size.unwrap_or(PUBLIC_SIZE));
        let onionoo = Onionoo::start(&sandbox, &[]).await?;
        let now = SystemTime::now();
        onionoo.edit(|relays| {
            let all = (0..model.relays().len()).filter_map(|place| match model.details(place, now) {
                serde_json::Value::Object(fields) => Some(exitgate_testnet::onionoo::Details::from_fields(fields)),
                _ => None,
            });
            relays.extend(all);
        });
        let geoip = sandbox.folder().join("geoip");
        std::fs::write(&geoip, model.geoip())?;
        Ok(Self { options, web, dns, onionoo, model, sandbox, geoip, tested: OnceCell::new() })
    }

    /// The address that gateways listen on.
    pub fn ip(&self) -> Ipv4Addr {
        self.sandbox.ip(200, 1)
    }

    /// A page that says which address it saw.
    pub fn page(&self) -> String {
        self.web.http("echo.test", "/ip")
    }

    /// Exits that let out port 80, and are not known as bad.
    pub fn exits(&self) -> usize {
        self.model.relays().iter().filter(|relay| relay.flags.exit && !relay.flags.bad_exit).count()
    }

    /// The lines that differ from the shipped configuration in every scenario; `README.md` says why each of them must.
    pub fn lines(&self) -> String {
        format!(
            r#"gateway.listen = "{ip}:1080"
gateway.route_bind = "{ip}"
api.listen = "{ip}:8080"
tor.binary = {simtor:?}
tor.geoip_file = {geoip:?}
sources.onionoo.url = "{onionoo}/details"
check.echo = [{echo:?}, {second:?}]
check.canary = [{canary:?}]
check.ca_file = {ca:?}
"#,
            ip = self.ip(),
            simtor = self.options.simtor,
            geoip = self.geoip,
            onionoo = self.onionoo.url(),
            echo = self.web.https("echo.test", "/ip"),
            second = self.web.https("ip.test", "/ip.json"),
            canary = self.web.http("canary.test", "/bytes/64"),
            ca = self.web.ca_pem(),
        )
    }

    /// A data folder whose gateway has tested all exits a moment ago; made when it is first asked for.
    pub async fn tested(&self) -> anyhow::Result<&Path> {
        let made = self.tested.get_or_try_init(|| self.make_tested()).await;
        Ok(made.context("the data folder of a gateway with tested exits cannot be made")?)
    }

    async fn make_tested(&self) -> anyhow::Result<PathBuf> {
        let began = Instant::now();
        let world = World::start(self, Network { speed: MAKING, ..Network::default() }).await?;
        let setup = Setup { pace: Pace(1.0), data: None, lines: FAST.to_owned() };
        let gateway = Gateway::start(self, &world, setup).await?;
        let enough = self.exits() * 9 / 10;
        // The gateway tests what somebody wants, so all exits are ordered. The order is given again because at first no
        // exit is known, and because a post gives up before a pass over all exits ends.
        let order = async {
            loop {
                let _ = gateway.post("/checks", &serde_json::json!({})).await;
                sleep(Duration::from_millis(500)).await;
            }
        };
        let tested = async {
            let (mut best, mut usable) = (0, 0);
            while began.elapsed() < LONGEST && usable < enough {
                sleep(Duration::from_millis(500)).await;
                usable = gateway.usable().await;
                if usable > best + 100 {
                    best = usable;
                    eprintln!("     testing exits once for all scenarios: {usable} of {enough}");
                }
            }
            usable
        };
        let usable = tokio::select! { usable = tested => usable, () = order => 0 };
        ensure!(
            usable >= enough / 2,
            "only {usable} of {} exits were usable after {} s",
            self.exits(),
            LONGEST.as_secs()
        );
        eprintln!("     {usable} exits are usable after {} s", began.elapsed().as_secs());
        let folder = gateway.stop().await?;
        let kept = self.sandbox.folder().join("tested");
        std::fs::rename(&folder, &kept)?;
        Ok(kept)
    }
}

/// Copies a folder with all that is in it, but for sockets.
pub fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    std::fs::set_permissions(to, std::fs::metadata(from)?.permissions())?; // tor's folders are for their owner alone
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
