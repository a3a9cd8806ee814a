//! The fakes, and the gateway among them.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use exitgate_testnet::public::{Kind, Mix};
use exitgate_testnet::{Dns, Ground, PublicProxies, Web, fetch};
use serde_json::Value;
use tokio::net::TcpStream;

/// Proxies, a web, and no Tor.
pub struct Bed {
    pub proxies: PublicProxies,
    pub web: Web,
    ground: Arc<Ground>,
    _dns: Dns,
}

/// A running gateway; killed when dropped.
pub struct Gateway {
    child: Child,
    ip: Ipv4Addr,
    pub begun: Instant,
}

impl Bed {
    pub async fn start(mix: &[(Kind, u32)]) -> anyhow::Result<Self> {
        let mix = Mix::of(mix);
        // On a thread that yields: those that the fakes start for themselves have the priority of whoever starts them.
        let begun = tokio::spawn(async move {
            let ground = Ground::claim()?;
            let (web, dns) = (Web::start(&ground).await?, Dns::start(&ground).await?);
            let proxies = PublicProxies::start(&ground, &dns, &web, &mix).await?;
            anyhow::Ok(Self { proxies, web, ground, _dns: dns })
        });
        begun.await?
    }

    fn config(&self, more: &str) -> String {
        let ip = self.ip();
        format!(
            r#"data_dir = {data:?}
gateway.listen = "{ip}:1080"
gateway.allow_private_targets = true
api.listen = "{ip}:8080"
tor.enabled = false
tor.geoip_file = {geoip:?}
sources.proxifly.enabled = true
sources.proxifly.url = {url:?}
check.echo = [{secure:?}]
check.canary = [{canary:?}]
check.ca_file = {ca:?}
check.public.echo = [{echo:?}, {second:?}]
check.public.headers = {headers:?}
log.level = "warn"
{more}
"#,
            data = self.ground.folder().join("gateway"),
            geoip = self.proxies.geoip_file(),
            url = self.proxies.cdn.url().trim_end_matches('/'),
            secure = self.web.https("echo.test", "/ip"),
            canary = self.web.http("echo.test", "/bytes/64"),
            ca = self.web.ca_pem(),
            echo = self.web.http("echo.test", "/ip"),
            second = self.web.http("ip.test", "/ip.json"),
            headers = self.web.http("echo.test", "/headers"),
        )
    }

    /// Below the proxies' own addresses.
    fn ip(&self) -> Ipv4Addr {
        self.ground.ip(90, 1)
    }

    /// Starts the release binary, or what `EXITGATE_BIN` names; `more` is of its configuration.
    pub async fn launch(&self, more: &str) -> anyhow::Result<Gateway> {
        let config = self.ground.folder().join("exitgate.toml");
        fs::write(&config, self.config(more))?;
        let built = || concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/exitgate").into();
        let binary = std::env::var_os("EXITGATE_BIN").map_or_else(built, PathBuf::from);
        let log = File::options().create(true).append(true).open(self.ground.folder().join("gateway.log"))?;
        let begun = Instant::now();
        let child = Command::new(&binary)
            .args(["serve", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("{}: build it first: cargo build --release", binary.display()))?;
        let gateway = Gateway { child, ip: self.ip(), begun };
        gateway.wait("/health", |_| true).await?;
        Ok(gateway)
    }
}

impl Gateway {
    pub fn front(&self) -> SocketAddr {
        (self.ip, 1080).into()
    }

    /// `GET` of the API, over a connection of its own.
    pub async fn ask(&self, path: &str) -> anyhow::Result<fetch::Got> {
        let stream = TcpStream::connect((self.ip, 8080)).await?;
        fetch::get(stream, &self.ip.to_string(), path).await
    }

    pub async fn json(&self, path: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.ask(path).await?.body)?)
    }

    /// Asks until the answer is right; how long after the start that was.
    pub async fn wait(&self, path: &str, right: impl Fn(&fetch::Got) -> bool) -> anyhow::Result<Duration> {
        let deadline = Instant::now() + Duration::from_secs(300);
        loop {
            if let Ok(got) = self.ask(path).await
                && got.status == 200
                && right(&got)
            {
                return Ok(self.begun.elapsed());
            }
            anyhow::ensure!(Instant::now() < deadline, "{path} is not right after five minutes");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The same for a number of `/stats`.
    pub async fn wait_stats(&self, right: impl Fn(&Value) -> bool) -> anyhow::Result<Duration> {
        self.wait("/stats", |got| serde_json::from_slice(&got.body).is_ok_and(|stats| right(&stats))).await
    }

    /// A field of `/proc/…/status`, in KiB.
    pub fn memory(&self, field: &str) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let found =
            status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.split_whitespace().next());
        found.with_context(|| format!("/proc/…/status has no {field}"))?.parse().context(field.to_owned())
    }

    /// Processor time used so far.
    pub fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
        (ticks(11) + ticks(12)) / 100.0 // USER_HZ is 100 on every Linux that we run on
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let asked = Command::new("kill").arg(self.child.id().to_string()).status()?;
        anyhow::ensure!(asked.success() && self.child.wait()?.success(), "it did not end well");
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The value below which `share` of them lie; sorts them.
pub fn percentile(values: &mut [Duration], share: f64) -> Duration {
    values.sort_unstable();
    let at = ((values.len() as f64 * share) as usize).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or_default()
}
