//! The fake proxies and the fake web, and the gateway that uses them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use exitgate_bench_shared::gateway::{self, Gateway};
use exitgate_bench_shared::http::{self, Response};
use exitgate_testnet::public::{Kind, Mix};
use exitgate_testnet::{Dns, PublicProxies, Sandbox, Web};
use serde_json::Value;
use tokio::time::Instant;

/// How long any condition may take: several times what the slowest stage needs.
const PATIENCE: Duration = Duration::from_secs(300);

/// Configuration lines for long pauses between tests, so that only the measured requests run.
pub const LONG_PAUSES: &str =
    "check.public.working_every = \"1h\"\ncheck.public.extended_probes = 0\ncheck.public.extended_passes = 0";

/// Fake proxies and a fake web, without Tor.
pub struct Fakes {
    pub proxies: PublicProxies,
    pub web: Web,
    sandbox: Arc<Sandbox>,
    _dns: Dns,
}

impl Fakes {
    pub async fn start(mix: &[(Kind, u32)]) -> anyhow::Result<Self> {
        let mix = Mix::of(mix);
        // On a thread of the runtime, which has a lower priority: threads that the fakes start inherit it.
        let begun = tokio::spawn(async move {
            let sandbox = Sandbox::claim()?;
            let (web, dns) = (Web::start(&sandbox).await?, Dns::start(&sandbox).await?);
            let proxies = PublicProxies::start(&sandbox, &dns, &web, &mix).await?;
            anyhow::Ok(Self { proxies, web, sandbox, _dns: dns })
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
            data = self.sandbox.folder().join("gateway"),
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

    /// An address of the gateway. The proxies have others.
    fn ip(&self) -> Ipv4Addr {
        self.sandbox.ip(90, 1)
    }

    /// The shared port of the gateway.
    pub fn gateway(&self) -> SocketAddr {
        (self.ip(), 1080).into()
    }

    pub fn api(&self) -> SocketAddr {
        (self.ip(), 8080).into()
    }

    /// Starts the gateway with `more` lines of configuration, and waits until its API answers.
    pub async fn launch(&self, more: &str) -> anyhow::Result<Gateway> {
        let gateway = Gateway::start(&gateway::program()?, self.sandbox.folder(), &self.config(more), self.api())?;
        wait_for(&gateway, "/health", |_| true).await?;
        Ok(gateway)
    }
}

/// One request through the gateway, and how long it took.
pub async fn timed_request(gateway: SocketAddr, username: &str, url: &str) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let answer = http::get_through(gateway, username, url).await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text().trim());
    Ok(begun.elapsed())
}

/// Asks until the answer is 200 and right, and returns how long after the gateway's start that was.
pub async fn wait_for(gateway: &Gateway, path: &str, right: impl Fn(&Response) -> bool) -> anyhow::Result<Duration> {
    gateway.wait(path, PATIENCE, |answer| answer.status == 200 && right(answer)).await
}

/// The same for the numbers of `/stats`.
pub async fn wait_for_stats(gateway: &Gateway, right: impl Fn(&Value) -> bool) -> anyhow::Result<Duration> {
    wait_for(gateway, "/stats", |answer| right(&answer.json())).await
}
