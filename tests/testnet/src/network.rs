//! A private Tor network: one authority, some guards and some exits in one /16 of loopback.
//!
//! Every relay is a real tor process. So a gateway meets what it meets in the public network: descriptors, a consensus with weights, circuits,
//! exit policies, and real failures ([`Network::kill`], [`Network::pause`]). Next: `network/boot.rs` (the start), `layout.rs` (the relays),
//! `torrc.rs` (their configuration).

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{Instant, sleep, timeout};

pub use self::client::{Client, ClientOptions, Wait};
pub use self::onion::Onion;
use self::plan::Plan;
use self::simulated::Simulated;
use crate::control::Control;
use crate::layout::{self, Backend, DNS_PORT, Options, Relay, Role};
use crate::process::{Processes, Signal};
use crate::sandbox::Sandbox;
use crate::shim::Shim;
use crate::torrc::{self, Shared};
use crate::{cache, snapshot};

mod boot;
mod client;
mod keys;
mod onion;
mod plan;
mod simulated;

/// How long a start may take: ten times what it takes on two idle cores, because test machines are seldom idle.
const START_DEADLINE: Duration = Duration::from_secs(100);

/// How long the restart of a relay may take.
const RESPAWN_DEADLINE: Duration = Duration::from_secs(30);

/// How a network was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With new keys and a vote.
    Cold,
    /// From a snapshot.
    Warm,
}

/// A running network. Dropping it, and every [`Client`] of it, kills all processes and removes the folder.
#[derive(Debug)]
pub struct Network {
    relays: Vec<Relay>,
    options: Options,
    start: Start,
    took: Duration,
    state: Arc<NetworkState>,
}

/// The processes and files of a network. Clients share it, so that it lives as long as any of them.
#[derive(Debug)]
pub(crate) struct NetworkState {
    processes: Processes, // first: processes must be gone before their folder goes
    sandbox: Arc<Sandbox>,
    shim: Option<Shim>,
    authority: String,
    /// The simulated network, where there are no relays.
    simulated: Option<Simulated>,
}

impl Network {
    /// Starts a network in a sandbox of its own, and waits until a client can use it.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        Self::start_on(&Sandbox::claim()?, options).await
    }

    /// Starts a network in a sandbox that has none yet.
    pub async fn start_on(sandbox: &Arc<Sandbox>, options: Options) -> anyhow::Result<Self> {
        let begun = Instant::now();
        if options.backend == Backend::Simtor {
            return Self::simulate(sandbox, options, begun).await;
        }
        let cache = cache::dir()?;
        let (shim, version) = tokio::try_join!(Shim::get(&cache), tor_version())?;
        let relays = layout::relays(&options, sandbox);
        let saved = snapshot::path(&cache, &snapshot_name(&options, &relays, sandbox, &version));
        let plan = Plan { sandbox: sandbox.clone(), shim, relays, options, begun };
        if plan.options.keeps_snapshot()
            && let Some(index) = snapshot::restore(&saved, sandbox.folder())?
        {
            match plan.warm(index).await {
                Ok(network) => return Ok(network),
                Err(_) => snapshot::forget(&saved), // a cold start works without a snapshot
            }
            plan.remove_files()?;
        }
        let (network, index) = plan.cold().await?;
        if network.options.keeps_snapshot() {
            snapshot::keep(sandbox.folder(), &index, &saved).context("cannot keep a snapshot")?;
        }
        Ok(network)
    }

    /// Every relay, the authority first.
    pub fn relays(&self) -> &[Relay] {
        &self.relays
    }

    /// The guards, in order.
    pub fn guards(&self) -> Vec<&Relay> {
        self.with_role(Role::Guard)
    }

    /// The exits, in order.
    pub fn exits(&self) -> Vec<&Relay> {
        self.with_role(Role::Exit)
    }

    fn with_role(&self, role: Role) -> Vec<&Relay> {
        self.relays.iter().filter(|relay| relay.role == role).collect()
    }

    /// The relay with this name. Panics if there is none, because then the test is wrong.
    pub fn relay(&self, name: &str) -> &Relay {
        let found = self.relays.iter().find(|relay| relay.name == name);
        found.unwrap_or_else(|| panic!("there is no relay {name}"))
    }

    /// The exit that targets see as `ip`.
    pub fn exit_at(&self, ip: Ipv4Addr) -> Option<&Relay> {
        self.relays.iter().find(|relay| relay.role == Role::Exit && relay.outbound == ip)
    }

    pub fn start_kind(&self) -> Start {
        self.start
    }

    pub fn start_took(&self) -> Duration {
        self.took
    }

    /// Its addresses and its folder.
    pub fn sandbox(&self) -> &Arc<Sandbox> {
        &self.state.sandbox
    }

    /// A `GeoIPFile` with the countries of all relays, by OR address and by outbound address.
    pub fn geoip_file(&self) -> PathBuf {
        self.state.sandbox.folder().join("geoip")
    }

    /// The torrc lines with which any tor joins this network: the value of a gateway's `tor.extra`.
    pub fn client_torrc_lines(&self) -> Vec<String> {
        torrc::join(self.state.sandbox.folder(), &self.state.authority)
    }

    /// A program to run instead of `tor` (a gateway's `tor.binary`). It runs tor without Nagle's algorithm, which on loopback stalls
    /// connections for 40 ms at random, and without a new long key at every start. [`Client`]s use it too.
    pub fn tor_binary(&self) -> PathBuf {
        self.state.sandbox.folder().join("tor")
    }

    /// What to start as tor: `tor` itself, or the simulated network's stand-in for it.
    pub fn program(&self) -> PathBuf {
        if self.state.simulated.is_some() { self.tor_binary() } else { "tor".into() }
    }

    /// Where the exits ask for names: start a [`crate::Dns`] there.
    pub fn dns_address(&self) -> SocketAddr {
        dns_address(&self.state.sandbox)
    }

    /// The log of a relay.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.state.home(name).join("log")).unwrap_or_default()
    }

    /// The process id of a relay; none if it does not run.
    pub async fn pid(&self, name: &str) -> anyhow::Result<Option<u32>> {
        self.state.processes.pid(name).await
    }

    /// A control connection to a relay.
    pub async fn control(&self, name: &str) -> anyhow::Result<Control> {
        Control::connect(&self.state.control(name)).await
    }

    /// Kills a relay with SIGKILL. Its connections are reset, as after a crash.
    pub async fn kill(&self, name: &str) -> anyhow::Result<()> {
        match &self.state.simulated {
            Some(simulated) => simulated.down(self.relay(name)),
            None => self.state.processes.kill(name).await,
        }
    }

    /// Stops a relay with SIGSTOP. It keeps its connections and does not answer, as a machine that hangs.
    pub async fn pause(&self, name: &str) -> anyhow::Result<()> {
        match &self.state.simulated {
            Some(simulated) => simulated.hang(self.relay(name)),
            None => self.state.processes.signal(name, Signal::Stop).await,
        }
    }

    /// Continues a relay that was paused.
    pub async fn resume(&self, name: &str) -> anyhow::Result<()> {
        match &self.state.simulated {
            Some(simulated) => simulated.back(self.relay(name)),
            None => self.state.processes.signal(name, Signal::Continue).await,
        }
    }

    /// Starts a killed relay again with its old keys, and waits until it serves circuits.
    pub async fn respawn(&self, name: &str) -> anyhow::Result<()> {
        let relay = self.relay(name);
        if let Some(simulated) = &self.state.simulated {
            return simulated.back(relay);
        }
        self.state.processes.kill(name).await?;
        self.state.spawn_relay(relay).await?;
        boot::respawned(&self.state, relay, Instant::now() + RESPAWN_DEADLINE).await
    }

    /// Changes settings of a running relay: the arguments of `SETCONF`.
    pub async fn setconf(&self, name: &str, settings: &str) -> anyhow::Result<()> {
        self.control(name).await?.command(&format!("SETCONF {settings}")).await.map(drop)
    }

    /// Makes an exit end every stream that begins, with this number of a reason. Only a simulated exit can do this.
    pub fn end_streams(&self, name: &str, reason: u8) -> anyhow::Result<()> {
        let simulated = self.state.simulated.as_ref().context("only a simulated exit ends streams on demand")?;
        simulated.end_streams(self.relay(name), reason)
    }

    /// Changes what an exit really allows, and waits until the exit uses it. The directory still says the old policy, so this exit is now wrong
    /// about itself.
    pub async fn set_policy(&self, name: &str, lines: &[&str]) -> anyhow::Result<()> {
        if let Some(simulated) = &self.state.simulated {
            return simulated.set_policy(self.relay(name), lines);
        }
        let settings: Vec<String> = lines.iter().map(|line| format!("ExitPolicy=\"{line}\"")).collect();
        self.setconf(name, &settings.join(" ")).await?;
        // A relay uses the policy of its descriptor, which it writes again after some seconds, or a minute.
        let mut control = self.control(name).await?;
        let taken = |policy: &str| lines.iter().all(|line| policy.lines().any(|known| known == *line));
        let effective = async {
            // An error means that the descriptor is just being written.
            while !control.info("exit-policy/full").await.is_ok_and(|policy| taken(&policy)) {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(90), effective).await.with_context(|| format!("{name} still has its old policy"))
    }
}

/// The address of the name server that the exits of a network in `sandbox` ask.
pub(crate) fn dns_address(sandbox: &Sandbox) -> SocketAddr {
    (sandbox.ip(53, 1), DNS_PORT).into()
}

impl NetworkState {
    fn home(&self, name: &str) -> PathBuf {
        self.sandbox.folder().join(name)
    }

    fn control(&self, name: &str) -> PathBuf {
        self.home(name).join("control")
    }

    /// Starts a relay; its torrc must exist.
    async fn spawn_relay(&self, relay: &Relay) -> anyhow::Result<()> {
        let mut command = self.tor(&relay.name)?;
        command.envs(self.shim.iter().flat_map(|shim| shim.env_of(relay)));
        self.processes.spawn(&relay.name, command).await
    }

    /// The command that runs tor with the torrc in the folder of `name`.
    fn tor(&self, name: &str) -> anyhow::Result<std::process::Command> {
        let home = self.home(name);
        let _ = fs::remove_file(home.join("control")); // of an earlier run; if the file exists, tor must be listening
        let stdout = fs::File::create(home.join("stdout"))?;
        let program = match &self.simulated {
            Some(_) => self.sandbox.folder().join("tor"),
            None => "tor".into(),
        };
        let mut command = std::process::Command::new(program);
        command.arg("-f").arg(home.join("torrc")).args(["--defaults-torrc", "/dev/null", "--hush"]);
        command.stdin(Stdio::null()).stderr(stdout.try_clone()?).stdout(stdout);
        Ok(command)
    }

    /// Fails with the end of the log if one of `relays` has died.
    async fn all_alive(&self, relays: &[Relay]) -> anyhow::Result<()> {
        for relay in relays {
            if self.processes.pid(&relay.name).await?.is_none() {
                bail!("{} died: {}", relay.name, self.end_of_log(&relay.name));
            }
        }
        Ok(())
    }

    fn end_of_log(&self, name: &str) -> String {
        let read = |file: &str| fs::read_to_string(self.home(name).join(file)).unwrap_or_default();
        let text = read("stdout") + &read("log");
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// Creates a folder that only this user may read: tor requires that.
fn make_home(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let home = folder.join(name);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&home).context("cannot make a folder for tor")?;
    Ok(home)
}

fn write_program(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o700))?)
}

/// The name of the snapshot for this layout, this sandbox and this version of tor: a digest of every torrc, without what differs
/// between runs.
fn snapshot_name(options: &Options, relays: &[Relay], sandbox: &Sandbox, version: &str) -> String {
    let shared = Shared { folder: Path::new("/"), options, relays, authority: "", vote_offset: 0 };
    let torrcs: String = relays.iter().map(|relay| torrc::relay(&shared, relay)).collect();
    let stable: Vec<&str> = torrcs.lines().filter(|line| !line.starts_with("__OwningControllerProcess")).collect();
    cache::name_of(&format!("{version}\n{}\n{}", layout::geoip(relays, sandbox), stable.join("\n")))
}

async fn tor_version() -> anyhow::Result<String> {
    let output = tokio::process::Command::new("tor").arg("--version").stdin(Stdio::null()).output().await;
    let output = output.context("cannot run tor: is it installed?")?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}
