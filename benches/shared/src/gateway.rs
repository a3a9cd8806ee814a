//! A gateway's process: started as a user starts it, and asked over its API.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::http::{self, Response};
use crate::process::{self, KilledOnDrop};

/// How long one request to the API may take. No answer takes a tenth of it on a machine that is overloaded.
const API_DEADLINE: Duration = Duration::from_secs(30);

/// How often [`Gateway::wait`] asks.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// A running gateway; killed when dropped.
#[derive(Debug)]
pub struct Gateway {
    process: KilledOnDrop,
    api: SocketAddr,
    log: PathBuf,
    pub begun: Instant,
}

/// The program to measure: what `EXITGATE_BIN` names, else the one that was built beside this program.
pub fn program() -> anyhow::Result<PathBuf> {
    match std::env::var_os("EXITGATE_BIN") {
        Some(program) => Ok(program.into()),
        None => Ok(std::env::current_exe()?.with_file_name("exitgate")),
    }
}

impl Gateway {
    /// Runs `program serve` with this configuration. The configuration and the log are written to `folder`; `api` is the address in
    /// the configuration.
    pub fn start(program: &Path, folder: &Path, config: &str, api: SocketAddr) -> anyhow::Result<Self> {
        let (path, log) = (folder.join("exitgate.toml"), folder.join("gateway.log"));
        fs::write(&path, config)?;
        let begun = Instant::now();
        let child = Command::new(program)
            .args(["serve", "--config"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(&log)?)
            .spawn()
            .with_context(|| format!("cannot run {}: build it first (cargo build --release)", program.display()))?;
        Ok(Self { process: KilledOnDrop(child), api, log, begun })
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Seconds of CPU time that it has used.
    pub fn cpu(&self) -> f64 {
        process::cpu(self.pid())
    }

    /// A number of its `/proc/PID/status`; memory is in KiB.
    pub fn status(&self, field: &str) -> anyhow::Result<u64> {
        process::status(self.pid(), field)
    }

    /// One request to the API.
    pub async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Response> {
        let answer = timeout(API_DEADLINE, http::ask(self.api, method, path, body)).await;
        answer.with_context(|| format!("{method} {path} gets no answer within {API_DEADLINE:?}"))?
    }

    /// A document of the API.
    pub async fn json(&self, path: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.ask("GET", path, None).await?.body)?)
    }

    /// Asks until the answer is right, and returns how long after the start that was.
    pub async fn wait(
        &self,
        path: &str,
        within: Duration,
        right: impl Fn(&Response) -> bool,
    ) -> anyhow::Result<Duration> {
        let deadline = Instant::now() + within;
        loop {
            let answer = self.ask("GET", path, None).await; // an error: it does not listen yet
            if answer.as_ref().is_ok_and(&right) {
                return Ok(self.begun.elapsed());
            }
            let said = || answer.map_or_else(|error| error.to_string(), |answer| answer.text());
            ensure!(Instant::now() < deadline, "after {within:?} {path} is still not right: {}", said());
            sleep(ASK_EVERY).await;
        }
    }

    /// Ends it with SIGTERM, and waits for its end.
    pub fn stop(mut self) -> anyhow::Result<()> {
        process::signal(self.pid(), "TERM")?;
        ensure!(
            self.process.0.wait()?.success(),
            "the gateway did not end with success; its log: {}",
            self.log.display()
        );
        Ok(())
    }
}
