//! A plain tor client in the network: to compare a gateway with, and for tests without a gateway.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{Instant, sleep, timeout};

use super::{Network, NetworkState, make_home};
use crate::control::Control;
use crate::torrc::{self, Shared};

/// How long a client may take to start. One that fetches the whole directory takes two or three seconds.
const DEADLINE: Duration = Duration::from_secs(60);

/// The files in which a client keeps the directory.
const DIRECTORY: [&str; 4] =
    ["cached-microdesc-consensus", "cached-microdescs", "cached-microdescs.new", "cached-certs"];

/// The state of a client that its start waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// Bootstrapped: a first circuit is built.
    #[default]
    Bootstrapped,
    /// It has the directory. A client with `__DisablePredictedCircuits 1` gets no further by itself.
    Directory,
    /// The control socket answers.
    Started,
}

/// How to start a client.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// torrc lines. Each replaces the default line with the same keyword.
    pub lines: Vec<String>,
    pub wait: Wait,
    /// The data folder of another client, from which the directory is copied so that nothing is fetched.
    pub seed: Option<PathBuf>,
}

/// A running tor client; dropping this ends it.
#[derive(Debug)]
pub struct Client {
    name: String,
    socks: Option<SocketAddr>,
    boot: Duration,
    state: Arc<NetworkState>,
}

impl Network {
    /// Starts a tor client with these torrc lines and waits until it is bootstrapped.
    pub async fn client(&self, name: &str, lines: &[&str]) -> anyhow::Result<Client> {
        let lines = lines.iter().map(|&line| line.to_owned()).collect();
        self.client_with(name, ClientOptions { lines, ..ClientOptions::default() }).await
    }

    /// Starts a tor client. No running client may have the same name.
    pub async fn client_with(&self, name: &str, options: ClientOptions) -> anyhow::Result<Client> {
        let begun = Instant::now();
        let name = format!("client-{name}");
        let folder = self.state.sandbox.folder();
        if folder.join(&name).exists() {
            bail!("{name} runs already");
        }
        make_home(folder, &name)?;
        if let Some(seed) = &options.seed {
            for file in DIRECTORY.iter().filter(|file| seed.join(file).exists()) {
                fs::copy(seed.join(file), folder.join(&name).join(file))?;
            }
        }
        let authority = &self.state.authority;
        let shared = Shared { folder, options: &self.options, relays: &self.relays, authority, vote_offset: 0 };
        fs::write(folder.join(&name).join("torrc"), torrc::client(&shared, &name, &options.lines))?;
        let mut client = Client { name, socks: None, boot: Duration::ZERO, state: self.state.clone() };
        let mut command = self.state.tor(&client.name)?;
        command.envs(self.state.shim.iter().flat_map(|shim| shim.env_of_client()));
        self.state.processes.spawn(&client.name, command).await?;
        let ready = timeout(DEADLINE, client.ready(options.wait)).await;
        ready.with_context(|| format!("{} is not ready: {}", client.name, self.state.end_of_log(&client.name)))??;
        client.boot = begun.elapsed();
        Ok(client)
    }
}

impl Client {
    /// Its SOCKS address. Panics if its torrc lines set a Unix socket or no port.
    pub fn socks(&self) -> SocketAddr {
        self.socks.expect("this client has no SOCKS port on TCP")
    }

    /// Its control socket, which needs no password.
    pub fn control_path(&self) -> PathBuf {
        self.state.control(&self.name)
    }

    /// A control connection.
    pub async fn control(&self) -> anyhow::Result<Control> {
        Control::connect(&self.control_path()).await
    }

    /// Its data folder; can be the `seed` of another client.
    pub fn folder(&self) -> PathBuf {
        self.state.home(&self.name)
    }

    /// How long its start took.
    pub fn boot_took(&self) -> Duration {
        self.boot
    }

    /// Its process id; none if it has died.
    pub async fn pid(&self) -> anyhow::Result<Option<u32>> {
        self.state.processes.pid(&self.name).await
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }

    pub async fn kill(&self) -> anyhow::Result<()> {
        self.state.processes.kill(&self.name).await
    }

    async fn ready(&mut self, wait: Wait) -> anyhow::Result<()> {
        let mut control = self.first_control().await?;
        loop {
            let done = match wait {
                Wait::Bootstrapped => control.info("status/bootstrap-phase").await?.contains("PROGRESS=100"),
                Wait::Directory => control.info("status/enough-dir-info").await? == "1",
                Wait::Started => true,
            };
            if done {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        let listeners = control.info("net/listeners/socks").await?;
        self.socks = listeners.split_whitespace().find_map(|listener| listener.trim_matches('"').parse().ok());
        Ok(())
    }

    async fn first_control(&self) -> anyhow::Result<Control> {
        loop {
            if let Ok(control) = self.control().await {
                return Ok(control);
            }
            if self.pid().await?.is_none() {
                bail!("{} died: {}", self.name, self.state.end_of_log(&self.name));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.state.processes.kill_now(&self.name);
        remove(&self.folder());
    }
}

fn remove(folder: &Path) {
    let _ = fs::remove_dir_all(folder); // fails if the network has removed its whole folder already
}
