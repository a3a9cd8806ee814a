//! The gateway's process: the release program with the shipped defaults, started as a user starts it and asked over its API.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use exitgate_simtor::model::text;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::bed::{Bed, copy};
use crate::client;
use crate::pace::Pace;
use crate::process;
use crate::world::World;

/// How long one question to the API may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a gateway may take to end after it was asked to, beyond its drain.
const END: Duration = Duration::from_secs(45);

/// The file in which an engine keeps its consensus.
const CONSENSUS: &str = "cached-microdesc-consensus";

/// How a gateway is started.
pub struct Setup {
    pub pace: Pace,
    /// A data folder to start on a copy of; without one it is a first start.
    pub data: Option<PathBuf>,
    /// Lines of the configuration beside those of [`Bed::lines`].
    pub lines: String,
}

/// A running gateway; killed when dropped.
pub struct Gateway {
    child: Child,
    ip: std::net::Ipv4Addr,
    folder: PathBuf,
    /// When it was started.
    pub began: Instant,
}

impl Gateway {
    /// Starts it; does not wait for anything.
    pub async fn start(bed: &Bed, world: &World, setup: Setup) -> anyhow::Result<Self> {
        let folder = bed.sandbox.folder().join("gateway");
        let _ = fs::remove_dir_all(&folder); // of the scenario before
        if let Some(data) = &setup.data {
            copy(data, &folder)?;
            date_consensuses(&folder, setup.pace)?;
        }
        let path = bed.sandbox.folder().join("exitgate.toml");
        let text = format!("data_dir = {folder:?}\n{}{}{}", bed.lines(), setup.pace.lines(), setup.lines);
        fs::write(&path, text)?;
        let log = bed.options.logs()?.join("gateway.log");
        let mut gateway =
            Self { child: Self::spawn(bed, world, &path, &log)?, ip: bed.ip(), folder, began: Instant::now() };
        let deadline = gateway.began + PATIENCE;
        while gateway.api("GET", "/health").await.is_err() {
            if let Some(status) = gateway.child.try_wait()? {
                anyhow::bail!("the gateway ended at its start: {status}; its log is {}", log.display());
            }
            ensure!(Instant::now() < deadline, "the gateway's API does not answer; its log is {}", log.display());
            sleep(Duration::from_millis(20)).await;
        }
        Ok(gateway)
    }

    fn spawn(bed: &Bed, world: &World, config: &PathBuf, log: &PathBuf) -> anyhow::Result<Child> {
        let child = Command::new(&bed.options.gateway)
            .args(["serve", "--config"])
            .arg(config)
            .env("SIMTOR_WORLD", world.socket())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log)?)
            .spawn();
        child.with_context(|| format!("{} cannot be run", bed.options.gateway.display()))
    }

    /// Asks it to stop, and waits until it has: its data folder.
    pub async fn stop(mut self) -> anyhow::Result<PathBuf> {
        process::signal(self.pid(), "TERM")?;
        let deadline = Instant::now() + END;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "the gateway does not end on SIGTERM");
            sleep(Duration::from_millis(50)).await;
        }
        Ok(self.folder.clone())
    }

    /// The shared port.
    pub fn proxy(&self) -> SocketAddr {
        (self.ip, 1080).into()
    }

    /// Where its API listens.
    pub fn api_address(&self) -> SocketAddr {
        (self.ip, 8080).into()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its engines' processes.
    pub fn engines(&self) -> Vec<u32> {
        process::children(self.pid())
    }

    /// One request without a body.
    pub async fn api(&self, method: &str, path: &str) -> anyhow::Result<(u16, Value)> {
        self.asked(method, path, None).await
    }

    /// One request with a body.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        self.asked("POST", path, Some(body)).await
    }

    async fn asked(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<(u16, Value)> {
        let asked = client::api(self.api_address(), method, path, body);
        timeout(PATIENCE, asked).await.with_context(|| format!("{method} {path} hangs"))?
    }

    /// Exits that are usable now; 0 while it does not answer.
    pub async fn usable(&self) -> usize {
        let answer = self.api("GET", "/ready").await.map(|(_, answer)| answer).unwrap_or_default();
        answer["sources"]["tor"]["usable"].as_u64().unwrap_or_default() as usize
    }

    /// Waits until `/ready` says yes; how long it took since the start.
    pub async fn ready(&self, patience: Duration) -> anyhow::Result<Duration> {
        let until = self.began + patience;
        loop {
            if self.api("GET", "/ready").await.is_ok_and(|(status, _)| status == 200) {
                return Ok(self.began.elapsed());
            }
            ensure!(Instant::now() < until, "not ready after {} s", patience.as_secs());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until its engines are connected, beyond what is remembered from an earlier run: a spare circuit is there.
    pub async fn warm(&self, patience: Duration) -> anyhow::Result<()> {
        self.ready(patience).await?;
        let until = self.began + patience;
        loop {
            let (_, answer) = self.api("GET", "/engines").await?;
            let engines = answer["engines"].as_array().cloned().unwrap_or_default();
            if !engines.is_empty() && engines.iter().all(|engine| engine["state"] == "ready") {
                return Ok(());
            }
            ensure!(Instant::now() < until, "engines are not ready after {} s: {answer}", patience.as_secs());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The sum of a metric's series whose labels contain `label`.
    pub async fn metric(&self, name: &str, label: &str) -> anyhow::Result<f64> {
        let asked = client::raw(self.api_address(), "GET", "/metrics", None);
        let (_, body) = timeout(PATIENCE, asked).await.context("GET /metrics hangs")??;
        let text = String::from_utf8_lossy(&body).into_owned();
        let series = text.lines().filter(|line| {
            let rest = line.strip_prefix(name).unwrap_or_default();
            (rest.starts_with('{') || rest.starts_with(' ')) && rest.contains(label)
        });
        Ok(series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Asked first, so that its engines end with it; they also end when its connections close.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Dates the consensuses of all engines in a data folder as if they had been published a moment ago, in a network at
/// this pace. The folder was made at another pace, so without this, a consensus would stay valid for longer than a
/// whole scenario, and no engine would fetch another one.
fn date_consensuses(folder: &Path, pace: Pace) -> anyhow::Result<()> {
    let hour = pace.wall(Duration::from_secs(3600)).as_secs().max(1);
    let now = text::seconds(SystemTime::now());
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            date_consensuses(&path, pace)?;
        } else if path.file_name().is_some_and(|name| name == CONSENSUS) {
            fs::write(&path, dated(&fs::read_to_string(&path)?, now, hour))?;
        }
    }
    Ok(())
}

fn dated(consensus: &str, now: u64, hour: u64) -> String {
    let times = [("valid-after ", now), ("fresh-until ", now + hour), ("valid-until ", now + 3 * hour)];
    let line = |line: &str| {
        let time = times.iter().find(|(key, _)| line.starts_with(key));
        time.map_or_else(|| line.to_owned(), |(key, at)| format!("{key}{}\n", text::stamp(*at)))
    };
    consensus.split_inclusive('\n').map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consensus_gets_new_times_and_keeps_all_other_lines() {
        let old = "network-status-version 3 microdesc\nvalid-after 2026-11-21 12:00:00\nfresh-until 2026-11-21 13:00:00\n\
                   valid-until 2026-11-21 15:00:00\nr relay\nm digest\n";
        let new = dated(old, 1_795_000_000, 15);
        assert_eq!(
            new,
            "network-status-version 3 microdesc\nvalid-after 2026-11-18 11:06:40\nfresh-until 2026-11-18 11:06:55\n\
             valid-until 2026-11-18 11:07:25\nr relay\nm digest\n"
        );
    }
}
