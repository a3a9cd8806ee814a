//! The gateway's process: started as a user starts it, asked over its API, weighed by what the kernel says of it.

use std::fmt;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use exitgate_testnet::{Testbed, fetch};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::speak;

/// How long a start may take on two cores that run fifteen relays beside it.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running gateway; killed when dropped.
pub struct Gateway {
    child: Child,
    ip: Ipv4Addr,
    log: PathBuf,
}

/// What a gateway holds.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    /// Its resident memory, without its engines'.
    pub kib: u64,
    /// The part of it that is no file: what a leak would grow.
    pub anonymous: u64,
    pub descriptors: u64,
    pub threads: u64,
    pub engines: u64,
    /// Connections of clients that are still open, as it says itself.
    pub connections: u64,
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kib, anonymous, descriptors, threads, engines, connections } = self;
        write!(
            f,
            "{kib} KiB ({anonymous} of no file), {descriptors} descriptors, {threads} threads, {engines} engines, {connections} connections"
        )
    }
}

impl Gateway {
    /// Starts it and waits until every exit was tested.
    pub async fn start(program: PathBuf, bed: &Testbed, exits: usize) -> anyhow::Result<Self> {
        let ip = bed.ground.ip(200, 1);
        let path = bed.ground.folder().join("exitgate.toml");
        fs::write(&path, config(bed, ip))?;
        let log = bed.ground.folder().join("gateway.log");
        let child = Command::new(&program)
            .args(["serve", "--config"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("{} cannot be run", program.display()))?;
        let gateway = Self { child, ip, log };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let usable = match gateway.api("GET", "/ready", None).await {
                Ok((_, answer)) => answer["sources"]["tor"]["usable"].as_u64().unwrap_or_default(),
                Err(_) => 0,
            };
            if usable >= exits as u64 {
                return Ok(gateway);
            }
            if Instant::now() > deadline {
                bail!("{usable} of {exits} exits are usable after {} s", PATIENCE.as_secs());
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// The shared port.
    pub fn addr(&self) -> SocketAddr {
        (self.ip, 1080).into()
    }

    /// A route's own port.
    pub fn port(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// One request to the API: its status and its body as JSON (null where it is none).
    pub async fn api(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<(u16, Value)> {
        let asked = async {
            let stream = TcpStream::connect((self.ip, 8080)).await?;
            speak::ask_api(stream, method, path, body).await
        };
        timeout(Duration::from_secs(30), asked).await.with_context(|| format!("{method} {path} hangs"))?
    }

    pub async fn metrics(&self) -> anyhow::Result<String> {
        let stream = TcpStream::connect((self.ip, 8080)).await?;
        let got =
            timeout(Duration::from_secs(30), fetch::get(stream, &format!("{}:8080", self.ip), "/metrics")).await??;
        ensure!(got.status == 200, "GET /metrics gives {}", got.status);
        Ok(got.text())
    }

    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        signal_to(self.pid(), signal)
    }

    /// The engines' processes.
    pub fn engines(&self) -> Vec<u32> {
        let ours = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
            parent == Some(self.pid()) && stat.contains("(tor")
        };
        let pids = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(ours).collect()
    }

    pub async fn footprint(&self) -> anyhow::Result<Footprint> {
        let proc = PathBuf::from(format!("/proc/{}", self.pid()));
        let status = fs::read_to_string(proc.join("status")).context("the gateway is gone")?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
        };
        let metrics = self.metrics().await?;
        let open = metrics.lines().filter(|line| line.starts_with("exitgate_connections_open"));
        let open: f64 = open.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        Ok(Footprint {
            kib: number("VmRSS:"),
            anonymous: number("RssAnon:"),
            threads: number("Threads:"),
            descriptors: fs::read_dir(proc.join("fd"))?.count() as u64,
            engines: self.engines().len() as u64,
            connections: open as u64,
        })
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal_to(pid: u32, signal: &str) -> anyhow::Result<()> {
    let sent = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status()?;
    ensure!(sent.success(), "kill -{signal} {pid}");
    Ok(())
}

/// A route that never moves, one with a port that stays, and an Onionoo that can fail.
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
        data = bed.ground.folder().join("gateway"),
        lines = bed.gateway_lines(),
        onionoo = bed.onionoo.url(),
    )
}
