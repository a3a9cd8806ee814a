//! A plain tor client in the network: what a gateway is compared with, and the way in for tests that need no gateway.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{Instant, sleep, timeout};

use super::{Network, Site, make_home};
use crate::control::Control;
use crate::torrc::{self, Shared};

/// How long a client may take to start. A client that has to fetch everything takes two or three seconds.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a client keeps of a directory, and what a seeded one is given.
const DIRECTORY: [&str; 4] =
    ["cached-microdesc-consensus", "cached-microdescs", "cached-microdescs.new", "cached-certs"];

/// What to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// Bootstrapped: a first circuit is built.
    #[default]
    Bootstrapped,
    /// The directory is there. A client with `__DisablePredictedCircuits 1` never gets further by itself.
    Directory,
    /// The control socket answers.
    Started,
}

/// How to start a client.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// torrc lines; one replaces ours of the same keyword.
    pub lines: Vec<String>,
    /// What to wait for.
    pub wait: Wait,
    /// A data folder to take the directory from, so that nothing need be fetched.
    pub seed: Option<PathBuf>,
}

/// A running tor client. It ends when this is dropped.
#[derive(Debug)]
pub struct Client {
    name: String,
    socks: Option<SocketAddr>,
    boot: Duration,
    site: Arc<Site>,
}

impl Network {
    /// Starts a tor client with these torrc lines and waits until it is bootstrapped.
    pub async fn client(&self, name: &str, lines: &[&str]) -> anyhow::Result<Client> {
        let lines = lines.iter().map(|&line| line.to_owned()).collect();
        self.client_with(name, ClientOptions { lines, ..ClientOptions::default() }).await
    }

    /// Starts a tor client. Names are unique among the clients that run.
    pub async fn client_with(&self, name: &str, options: ClientOptions) -> anyhow::Result<Client> {
        let begun = Instant::now();
        let name = format!("client-{name}");
        let folder = self.site.ground.folder();
        if folder.join(&name).exists() {
            bail!("there is a {name} already");
        }
        make_home(folder, &name)?;
        if let Some(seed) = &options.seed {
            for file in DIRECTORY.iter().filter(|file| seed.join(file).exists()) {
                fs::copy(seed.join(file), folder.join(&name).join(file))?;
            }
        }
        let authority = &self.site.authority;
        let shared = Shared { folder, options: &self.options, relays: &self.relays, authority, vote_offset: 0 };
        fs::write(folder.join(&name).join("torrc"), torrc::client(&shared, &name, &options.lines))?;
        let mut client = Client { name, socks: None, boot: Duration::ZERO, site: self.site.clone() };
        let mut command = self.site.tor(&client.name)?;
        command.envs(self.site.shim.iter().flat_map(|shim| shim.env_of_client()));
        self.site.keeper.spawn(&client.name, command).await?;
        let ready = timeout(DEADLINE, client.ready(options.wait)).await;
        ready.with_context(|| format!("{} is not ready: {}", client.name, self.site.last_words(&client.name)))??;
        client.boot = begun.elapsed();
        Ok(client)
    }
}

impl Client {
    /// Its SOCKS address. Panics when its own lines moved the port to a Unix socket or switched it off.
    pub fn socks(&self) -> SocketAddr {
        self.socks.expect("this client has no SOCKS port on TCP")
    }

    /// Its control socket; no password.
    pub fn control_path(&self) -> PathBuf {
        self.site.control(&self.name)
    }

    /// A control connection.
    pub async fn control(&self) -> anyhow::Result<Control> {
        Control::connect(&self.control_path()).await
    }

    /// Its data folder; the `seed` of another client.
    pub fn folder(&self) -> PathBuf {
        self.site.home(&self.name)
    }

    /// From the start until what was waited for.
    pub fn boot_took(&self) -> Duration {
        self.boot
    }

    /// Its process id, or nothing when it has died.
    pub async fn pid(&self) -> anyhow::Result<Option<u32>> {
        self.site.keeper.pid(&self.name).await
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }

    /// Kills it with SIGKILL.
    pub async fn kill(&self) -> anyhow::Result<()> {
        self.site.keeper.kill(&self.name).await
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
                bail!("{} died: {}", self.name, self.site.last_words(&self.name));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.site.keeper.kill_now(&self.name);
        remove(&self.folder());
    }
}

fn remove(folder: &Path) {
    let _ = fs::remove_dir_all(folder); // the network's folder, and so this one, is removed with the network
}
