//! The gateway under load, and what it holds: memory, descriptors, threads, engines, connections.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use exitgate_bench_shared::gateway::Gateway;
use exitgate_bench_shared::process::{children, name, signal};
use exitgate_testnet::Testbed;

/// How long a start may take on two cores that also run fifteen relays.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running gateway on a private Tor network.
pub struct Subject {
    gateway: Gateway,
    ip: Ipv4Addr,
}

impl Deref for Subject {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

/// What the gateway's process holds.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    /// Resident memory in KiB, without that of the engines.
    pub kib: u64,
    /// The part of it that is not backed by a file: a leak grows this.
    pub anonymous: u64,
    pub descriptors: u64,
    pub threads: u64,
    pub engines: u64,
    /// Open connections of clients, by the gateway's own metrics.
    pub connections: u64,
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kib, anonymous, descriptors, threads, engines, connections } = self;
        write!(
            f,
            "{kib} KiB ({anonymous} anonymous), {descriptors} descriptors, {threads} threads, {engines} engines, {connections} connections"
        )
    }
}

impl Subject {
    /// Starts the gateway, and waits until every exit was tested.
    pub async fn start(program: &Path, bed: &Testbed, exits: usize) -> anyhow::Result<Self> {
        let ip = bed.sandbox.ip(200, 1);
        let gateway = Gateway::start(program, bed.sandbox.folder(), &config(bed, ip), (ip, 8080).into())?;
        let usable =
            |answer: &exitgate_bench_shared::http::Response| answer.json()["sources"]["tor"]["usable"].as_u64();
        gateway.wait("/ready", PATIENCE, |answer| usable(answer) >= Some(exits as u64)).await?;
        Ok(Self { gateway, ip })
    }

    /// The shared port.
    pub fn addr(&self) -> SocketAddr {
        (self.ip, 1080).into()
    }

    /// The port of a route.
    pub fn port(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }

    pub async fn metrics(&self) -> anyhow::Result<String> {
        let answer = self.ask("GET", "/metrics", None).await?;
        ensure!(answer.status == 200, "GET /metrics gives {}", answer.status);
        Ok(answer.text())
    }

    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        signal(self.pid(), name)
    }

    /// The process ids of the engines.
    pub fn engines(&self) -> Vec<u32> {
        children(self.pid()).into_iter().filter(|pid| name(*pid).starts_with("tor")).collect()
    }

    pub async fn footprint(&self) -> anyhow::Result<Footprint> {
        let metrics = self.metrics().await?;
        let open = metrics.lines().filter(|line| line.starts_with("exitgate_connections_open"));
        let open: f64 = open.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        Ok(Footprint {
            kib: self.status("VmRSS")?,
            anonymous: self.status("RssAnon")?,
            threads: self.status("Threads")?,
            descriptors: fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count() as u64,
            engines: self.engines().len() as u64,
            connections: open as u64,
        })
    }
}

/// Two routes (one with a pin that never moves), and an Onionoo that can fail.
fn config(bed: &Testbed, ip: Ipv4Addr) -> String {
    format!(
        r#"data_dir = {data:?}
gateway.listen = "{ip}:1080"
gateway.route_bind = "{ip}"
gateway.route_ports = "20000-20199"
api.listen = "{ip}:8080"
{lines}
tor.circuits_per_second = 50.0
sources.onionoo.url = "{onionoo}/details"
sources.onionoo.every = "1m"
check.per_second = 20.0
check.every = "2m"
log.level = "info"

[[routes]]
name = "pinned"
selector = "us-strict"
port = 20000
repin_after = "never"

[[routes]]
name = "wide"
selector = "any"
port = 20001
"#,
        data = bed.sandbox.folder().join("gateway"),
        lines = bed.gateway_lines(),
        onionoo = bed.onionoo.url(),
    )
}
