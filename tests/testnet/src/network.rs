//! A private Tor network: one authority, some guards, some exits, all on one /16 of loopback.
//!
//! A relay here is a real tor process, so what a gateway meets is what it meets outside: descriptors, a consensus with
//! weights, circuits, exit policies, and failures that look like failures ([`Network::kill`], [`Network::pause`]).
//! Next: `network/boot.rs` (how it comes up), `layout.rs` (who is in it), `torrc.rs` (what each is told).

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
use self::simulated::Simulated;
use crate::control::Control;
use crate::ground::Ground;
use crate::layout::{self, Backend, DNS_PORT, Options, Relay, Role};
use crate::process::{Keeper, Signal};
use crate::shim::Shim;
use crate::torrc::{self, Shared};
use crate::{cache, clock, snapshot};

mod boot;
mod client;
mod keys;
mod onion;
mod simulated;

/// How long a start may take before it is called failed. Ten times what it takes on two cores that have nothing else
/// to do, because they usually have.
const START_DEADLINE: Duration = Duration::from_secs(100);

/// How long a relay that is started again may take.
const RESPAWN_DEADLINE: Duration = Duration::from_secs(30);

/// How a network came up.
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
    site: Arc<Site>,
}

/// Where a network lives and who keeps its processes. Shared with clients, so that none of them loses its ground.
#[derive(Debug)]
pub(crate) struct Site {
    keeper: Keeper, // first: processes must be gone before their folder goes
    ground: Arc<Ground>,
    shim: Option<Shim>,
    authority: String,
    /// The simulated network, where there are no relays.
    simulated: Option<Simulated>,
}

impl Network {
    /// Starts a network on ground of its own and waits until a client can use it.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        Self::start_on(&Ground::claim()?, options).await
    }

    /// Starts a network on `ground`, where there must not be one already.
    pub async fn start_on(ground: &Arc<Ground>, options: Options) -> anyhow::Result<Self> {
        let begun = Instant::now();
        if options.backend == Backend::Simtor {
            return Self::simulate(ground, options, begun).await;
        }
        let cache = cache::dir()?;
        let (shim, version) = tokio::try_join!(Shim::get(&cache), tor_version())?;
        let relays = layout::relays(&options, ground);
        let saved = snapshot::path(&cache, &snapshot_name(&options, &relays, ground, &version));
        let plan = Plan { ground: ground.clone(), shim, relays, options, begun };
        if plan.options.keeps_snapshot()
            && let Some(index) = snapshot::restore(&saved, ground.folder())?
        {
            match plan.warm(index).await {
                Ok(network) => return Ok(network),
                Err(_) => snapshot::forget(&saved), // what is wrong with it does not matter: a cold start needs nothing
            }
            plan.clear()?;
        }
        let (network, index) = plan.cold().await?;
        if network.options.keeps_snapshot() {
            snapshot::keep(ground.folder(), &index, &saved).context("cannot keep a snapshot")?;
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

    /// The relay with this name. Panics if there is none: a test that misspells a name should say so.
    pub fn relay(&self, name: &str) -> &Relay {
        let found = self.relays.iter().find(|relay| relay.name == name);
        found.unwrap_or_else(|| panic!("there is no relay {name}"))
    }

    /// The exit that targets see as `ip`.
    pub fn exit_at(&self, ip: Ipv4Addr) -> Option<&Relay> {
        self.relays.iter().find(|relay| relay.role == Role::Exit && relay.outbound == ip)
    }

    /// How it came up.
    pub fn start_kind(&self) -> Start {
        self.start
    }

    /// How long that took.
    pub fn start_took(&self) -> Duration {
        self.took
    }

    /// The addresses and the folder that it lives on.
    pub fn ground(&self) -> &Arc<Ground> {
        &self.site.ground
    }

    /// A `GeoIPFile` with the countries of all relays, by OR address and by outbound address.
    pub fn geoip_file(&self) -> PathBuf {
        self.site.ground.folder().join("geoip")
    }

    /// The torrc lines with which any tor joins this network: what a gateway's `tor.extra` needs.
    pub fn client_torrc_lines(&self) -> Vec<String> {
        torrc::join(self.site.ground.folder(), &self.site.authority)
    }

    /// A program to run instead of `tor` (a gateway's `tor.binary`): tor itself, but without Nagle, which on loopback stalls
    /// connections for 40 ms at random, and without making a long key at every start. [`Client`]s run like that, too.
    pub fn tor_binary(&self) -> PathBuf {
        self.site.ground.folder().join("tor")
    }

    /// What to start as tor: `tor` itself, or the simulated network's stand-in for it.
    pub fn program(&self) -> PathBuf {
        if self.site.simulated.is_some() { self.tor_binary() } else { "tor".into() }
    }

    /// Where the exits ask for names: start a [`crate::Dns`] there.
    pub fn dns_address(&self) -> SocketAddr {
        dns_address(&self.site.ground)
    }

    /// What a relay has logged so far.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.site.home(name).join("log")).unwrap_or_default()
    }

    /// A relay's process id, or nothing when it is down.
    pub async fn pid(&self, name: &str) -> anyhow::Result<Option<u32>> {
        self.site.keeper.pid(name).await
    }

    /// A control connection to a relay.
    pub async fn control(&self, name: &str) -> anyhow::Result<Control> {
        Control::connect(&self.site.control(name)).await
    }

    /// Kills a relay with SIGKILL: its connections are reset, as when a machine's process crashes.
    pub async fn kill(&self, name: &str) -> anyhow::Result<()> {
        match &self.site.simulated {
            Some(simulated) => simulated.down(self.relay(name)),
            None => self.site.keeper.kill(name).await,
        }
    }

    /// Stops a relay with SIGSTOP: it keeps its connections and answers nothing, as when a machine hangs.
    pub async fn pause(&self, name: &str) -> anyhow::Result<()> {
        match &self.site.simulated {
            Some(simulated) => simulated.hang(self.relay(name)),
            None => self.site.keeper.signal(name, Signal::Stop).await,
        }
    }

    /// Lets a stopped relay go on.
    pub async fn resume(&self, name: &str) -> anyhow::Result<()> {
        match &self.site.simulated {
            Some(simulated) => simulated.back(self.relay(name)),
            None => self.site.keeper.signal(name, Signal::Continue).await,
        }
    }

    /// Starts a killed relay again, with its old keys, and waits until it serves circuits.
    pub async fn respawn(&self, name: &str) -> anyhow::Result<()> {
        let relay = self.relay(name);
        if let Some(simulated) = &self.site.simulated {
            return simulated.back(relay);
        }
        self.site.keeper.kill(name).await?;
        self.site.spawn_relay(relay).await?;
        boot::back(&self.site, relay, Instant::now() + RESPAWN_DEADLINE).await
    }

    /// Changes settings of a running relay: `SETCONF` with `settings` behind it.
    pub async fn setconf(&self, name: &str, settings: &str) -> anyhow::Result<()> {
        self.control(name).await?.command(&format!("SETCONF {settings}")).await.map(drop)
    }

    /// Changes what an exit really allows, and waits until it goes by that. The directory goes on saying what it said, so this exit now lies
    /// about its policy.
    pub async fn set_policy(&self, name: &str, lines: &[&str]) -> anyhow::Result<()> {
        if let Some(simulated) = &self.site.simulated {
            return simulated.set_policy(self.relay(name), lines);
        }
        let settings: Vec<String> = lines.iter().map(|line| format!("ExitPolicy=\"{line}\"")).collect();
        self.setconf(name, &settings.join(" ")).await?;
        // A relay goes by its descriptor, which it writes anew in its own time: some seconds, or a minute.
        let mut control = self.control(name).await?;
        let taken = |policy: &str| lines.iter().all(|line| policy.lines().any(|known| known == *line));
        let effective = async {
            // An error says that the descriptor is being written.
            while !control.info("exit-policy/full").await.is_ok_and(|policy| taken(&policy)) {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(90), effective).await.with_context(|| format!("{name} keeps its old policy"))
    }
}

/// Where the exits of a network on `ground` ask for names.
pub(crate) fn dns_address(ground: &Ground) -> SocketAddr {
    (ground.ip(53, 1), DNS_PORT).into()
}

impl Site {
    fn home(&self, name: &str) -> PathBuf {
        self.ground.folder().join(name)
    }

    fn control(&self, name: &str) -> PathBuf {
        self.home(name).join("control")
    }

    /// Starts a relay whose torrc is written.
    async fn spawn_relay(&self, relay: &Relay) -> anyhow::Result<()> {
        let mut command = self.tor(&relay.name)?;
        command.envs(self.shim.iter().flat_map(|shim| shim.env_of(relay)));
        self.keeper.spawn(&relay.name, command).await
    }

    /// The command that runs tor with the torrc in the home of `name`.
    fn tor(&self, name: &str) -> anyhow::Result<std::process::Command> {
        let home = self.home(name);
        let _ = fs::remove_file(home.join("control")); // of a former run: its presence must mean that it listens
        let stdout = fs::File::create(home.join("stdout"))?;
        let program = match &self.simulated {
            Some(_) => self.ground.folder().join("tor"),
            None => "tor".into(),
        };
        let mut command = std::process::Command::new(program);
        command.arg("-f").arg(home.join("torrc")).args(["--defaults-torrc", "/dev/null", "--hush"]);
        command.stdin(Stdio::null()).stderr(stdout.try_clone()?).stdout(stdout);
        Ok(command)
    }

    /// An error with the end of its log, if one of `relays` has died.
    async fn all_alive(&self, relays: &[Relay]) -> anyhow::Result<()> {
        for relay in relays {
            if self.keeper.pid(&relay.name).await?.is_none() {
                bail!("{} died: {}", relay.name, self.last_words(&relay.name));
            }
        }
        Ok(())
    }

    fn last_words(&self, name: &str) -> String {
        let read = |file: &str| fs::read_to_string(self.home(name).join(file)).unwrap_or_default();
        let said = read("stdout") + &read("log");
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// A network to be.
#[derive(Debug)]
struct Plan {
    ground: Arc<Ground>,
    shim: Shim,
    relays: Vec<Relay>,
    options: Options,
    begun: Instant,
}

impl Plan {
    fn deadline(&self) -> Instant {
        self.begun + START_DEADLINE
    }

    async fn warm(&self, index: snapshot::Index) -> anyhow::Result<Network> {
        let site = self.site(index.authority, &index.relays)?;
        boot::spawn_all(&site, &index.relays, self.deadline()).await?;
        boot::consensus(&index.relays, self.deadline()).await?;
        boot::informed(&site, &index.relays, self.deadline()).await?;
        Ok(self.network(site, index.relays, Start::Warm))
    }

    async fn cold(&self) -> anyhow::Result<(Network, snapshot::Index)> {
        let mut relays = self.relays.clone();
        let authority = keys::make(self.ground.folder(), boot::authority(&relays)?, &self.shim).await?;
        let site = self.site(authority.clone(), &relays)?;
        boot::spawn_all(&site, &relays, self.deadline()).await?;
        boot::vote(&site, &relays, &self.options, self.deadline()).await?;
        for relay in &mut relays {
            let fingerprint = keys::written_fingerprint(&site.home(&relay.name), &relay.name);
            relay.fingerprint = fingerprint.with_context(|| format!("{} has no fingerprint", relay.name))?;
        }
        let valid_until = boot::consensus(&relays, self.deadline()).await?;
        boot::informed(&site, &relays, self.deadline()).await?;
        let index = snapshot::Index { relays: relays.clone(), authority, valid_until };
        Ok((self.network(site, relays, Start::Cold), index))
    }

    /// Writes every file that the processes need.
    fn site(&self, authority: String, relays: &[Relay]) -> anyhow::Result<Site> {
        let folder = self.ground.folder();
        fs::write(folder.join("geoip"), layout::geoip(relays, &self.ground))?;
        fs::write(folder.join("geoip6"), "# none\n")?;
        fs::write(folder.join("resolv.conf"), format!("nameserver {}\n", dns_address(&self.ground)))?;
        write_program(&folder.join("tor"), &self.shim.wrapper())?;
        // Half a grid away: what is voted on is what we ask for, when we ask for it.
        let vote_offset = (clock::now() + torrc::FIRST_VOTE_GRID / 2) % torrc::FIRST_VOTE_GRID;
        let shared = Shared { folder, options: &self.options, relays, authority: &authority, vote_offset };
        for relay in relays {
            let home = make_home(folder, &relay.name)?;
            fs::write(home.join("torrc"), torrc::relay(&shared, relay))?;
            if !home.join("state").exists() {
                fs::write(home.join("state"), torrc::state(relay.role, clock::now()))?;
            }
        }
        let keeper = Keeper::new(self.ground.hold())?;
        let (ground, shim) = (self.ground.clone(), Some(self.shim.clone()));
        Ok(Site { keeper, ground, shim, authority, simulated: None })
    }

    /// Removes what a failed start has left.
    fn clear(&self) -> anyhow::Result<()> {
        for relay in &self.relays {
            fs::remove_dir_all(self.ground.folder().join(&relay.name))?;
        }
        Ok(())
    }

    fn network(&self, site: Site, relays: Vec<Relay>, start: Start) -> Network {
        Network { relays, options: self.options.clone(), start, took: self.begun.elapsed(), site: Arc::new(site) }
    }
}

/// Makes a folder that only we may read: tor insists.
fn make_home(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let home = folder.join(name);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&home).context("cannot make a folder for tor")?;
    Ok(home)
}

fn write_program(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o700))?)
}

/// A name for the snapshot of this layout on this ground with this tor: a digest of every torrc, without what changes
/// from run to run.
fn snapshot_name(options: &Options, relays: &[Relay], ground: &Ground, version: &str) -> String {
    let shared = Shared { folder: Path::new("/"), options, relays, authority: "", vote_offset: 0 };
    let torrcs: String = relays.iter().map(|relay| torrc::relay(&shared, relay)).collect();
    let stable: Vec<&str> = torrcs.lines().filter(|line| !line.starts_with("__OwningControllerProcess")).collect();
    cache::name_of(&format!("{version}\n{}\n{}", layout::geoip(relays, ground), stable.join("\n")))
}

async fn tor_version() -> anyhow::Result<String> {
    let output = tokio::process::Command::new("tor").arg("--version").stdin(Stdio::null()).output().await;
    let output = output.context("cannot run tor: is it installed?")?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}
