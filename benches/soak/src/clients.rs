//! Mixed clients: what scrapers do, each asserting that the target saw the exit that was asked for and named.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use exitgate_testnet::{fetch, web};
use rand::RngExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::speak;
use crate::tally::End;
use crate::world::{Geo, World};

/// What a client waits at most: beyond every deadline of the gateway, so that a client that waits so long was forgotten.
const PATIENCE: Duration = Duration::from_secs(75);
/// Clients of each kind.
const EACH: u32 = 3;
/// A pause between two requests of one client: load enough to mix everything with everything, and no more than two cores
/// that also run fifteen relays can carry.
const PAUSE: std::ops::Range<u64> = 20..200;
/// A download: some cells, so that it is under way when something breaks.
const DOWNLOAD: usize = 200_000;
/// How long a tunnel is kept open, a byte back and forth each second.
const LONG: u32 = 20;

/// Starts all of them; they end soon after `until`.
pub fn spawn(world: &Arc<World>, until: tokio::time::Instant) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for number in 0..EACH {
        for kind in KINDS {
            tasks.spawn(keep_asking(world.clone(), *kind, number, until));
        }
    }
    tasks
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// SOCKS5 by the shared port, another country each time.
    Socks,
    /// Plain HTTP by the shared port.
    Plain,
    /// CONNECT by the shared port, then a download.
    Download,
    /// A tunnel that stays.
    Long,
    /// A session outside the US.
    Session,
    /// The one address that never changes, by its route's own port.
    Strict,
    /// A client that leaves in the middle.
    Rude,
}

const KINDS: &[Kind] = &[Kind::Socks, Kind::Plain, Kind::Download, Kind::Long, Kind::Session, Kind::Strict, Kind::Rude];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Socks => "socks",
            Self::Plain => "plain",
            Self::Download => "download",
            Self::Long => "long tunnel",
            Self::Session => "session",
            Self::Strict => "strict",
            Self::Rude => "rude",
        }
    }
}

/// What a client remembers from one request to the next.
#[derive(Debug, Default)]
struct Memory {
    /// The address of the last request, if that succeeded.
    last: Option<IpAddr>,
    strict: HashSet<IpAddr>,
}

async fn keep_asking(world: Arc<World>, kind: Kind, number: u32, until: tokio::time::Instant) {
    let mut memory = Memory::default();
    while tokio::time::Instant::now() < until {
        let since = Instant::now();
        match timeout(PATIENCE, ask(&world, kind, number, &mut memory)).await {
            Ok(Ok(())) => world.tally.ended(kind.name(), since, End::Good, String::new),
            Ok(Err(error)) => {
                memory.last = None;
                world.tally.ended(kind.name(), since, End::Failed, || format!("{error:#}"));
            }
            Err(_) => world.tally.ended(kind.name(), since, End::Hung, || "no answer".into()),
        }
        let pause = rand::rng().random_range(PAUSE);
        sleep(Duration::from_millis(pause)).await;
    }
}

async fn ask(world: &World, kind: Kind, number: u32, memory: &mut Memory) -> anyhow::Result<()> {
    let geo = [Geo::Any, Geo::Us, Geo::NonUs][rand::rng().random_range(0..3)];
    match kind {
        Kind::Socks => socks(world, geo).await,
        Kind::Plain => plain(world, geo.word(), geo).await.map(drop),
        Kind::Download => download(world, geo).await,
        Kind::Long => long(world, geo).await,
        Kind::Session => session(world, number, memory).await,
        Kind::Strict => strict(world, memory).await,
        Kind::Rude => rude(world, geo).await,
    }
}

async fn socks(world: &World, geo: Geo) -> anyhow::Result<()> {
    let web = &world.bed.web;
    let tunnel = fetch::socks5(world.gateway.addr(), Some((geo.word(), "x")), "echo.test", web.http_port()).await?;
    let got = fetch::get(tunnel, "echo.test", "/ip").await?;
    let seen = address(got.status, &got.body)?;
    check(world, geo, geo.word(), seen, None);
    Ok(())
}

/// The address that the target saw, and whether the answer said that the session had to move.
async fn plain(world: &World, username: &str, geo: Geo) -> anyhow::Result<(IpAddr, bool)> {
    let url = world.bed.web.http("echo.test", "/ip");
    let (head, body) = speak::get_through(world.gateway.addr(), &speak::login(username), &url).await?;
    let seen = address(head.status, &body)?;
    check(world, geo, username, seen, head.get("x-exitgate-exit-ip"));
    Ok((seen, head.get("x-exitgate-moved").is_some()))
}

async fn download(world: &World, geo: Geo) -> anyhow::Result<()> {
    let web = &world.bed.web;
    let target = format!("echo.test:{}", web.http_port());
    let (head, tunnel) = speak::connect(world.gateway.addr(), &speak::login(geo.word()), &target).await?;
    ensure!(head.status == 200, "status {}", head.status);
    let got = fetch::get(tunnel, "echo.test", &format!("/bytes/{DOWNLOAD}")).await?;
    ensure!(got.status == 200 && got.body.len() == DOWNLOAD, "{} of {DOWNLOAD} bytes", got.body.len());
    if got.body != web::pattern(0..DOWNLOAD as u64) {
        world.tally.wrong(format!("{} downloaded bytes are not those that were sent", got.body.len()));
    }
    Ok(())
}

async fn long(world: &World, geo: Geo) -> anyhow::Result<()> {
    let target = format!("echo.test:{}", web::ECHO_PORT);
    let (head, mut tunnel) = speak::connect(world.gateway.addr(), &speak::login(geo.word()), &target).await?;
    ensure!(head.status == 200, "status {}", head.status);
    for beat in 0..LONG {
        tunnel.write_all(&beat.to_be_bytes()).await?;
        let mut back = [0; 4];
        tunnel.read_exact(&mut back).await.context("the tunnel ended")?;
        if back != beat.to_be_bytes() {
            world.tally.wrong(format!("{back:?} came back for {:?}", beat.to_be_bytes()));
        }
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn session(world: &World, number: u32, memory: &mut Memory) -> anyhow::Result<()> {
    let username = format!("nonus-session-soak{number}");
    let (seen, moved) = plain(world, &username, Geo::NonUs).await?;
    if let Some(last) = memory.last.filter(|last| *last != seen && !moved) {
        world.tally.wrong(format!("{username} moved from {last} to {seen} and the answer does not say so"));
    }
    memory.last = Some(seen);
    Ok(())
}

async fn strict(world: &World, memory: &mut Memory) -> anyhow::Result<()> {
    let url = world.bed.web.http("echo.test", "/ip");
    let (head, body) = speak::get_through(world.gateway.port(20000), "", &url).await?;
    let seen = address(head.status, &body)?;
    check(world, Geo::Us, "pinned", seen, head.get("x-exitgate-exit-ip"));
    memory.strict.insert(seen);
    if memory.strict.len() > 1 {
        world.tally.wrong(format!("a pin that never moves was seen at {:?}", memory.strict));
    }
    Ok(())
}

/// Leaves at a random moment: what it leaves behind is what counts.
async fn rude(world: &World, geo: Geo) -> anyhow::Result<()> {
    let target = format!("echo.test:{}", world.bed.web.http_port());
    let stay = Duration::from_millis(rand::rng().random_range(0..400));
    let leave = async {
        let (head, mut tunnel) = speak::connect(world.gateway.addr(), &speak::login(geo.word()), &target).await?;
        ensure!(head.status == 200, "status {}", head.status);
        tunnel.write_all(b"GET /bytes/10000000 HTTP/1.1\r\nHost: echo.test\r\n\r\n").await?;
        let mut some = [0; 4096];
        loop {
            ensure!(tunnel.read(&mut some).await? > 0, "the tunnel ended");
        }
    };
    match timeout(stay, leave).await {
        Err(_) => Ok(()),
        Ok(end) => end,
    }
}

fn address(status: u16, body: &[u8]) -> anyhow::Result<IpAddr> {
    ensure!(status == 200, "status {status}");
    let text = String::from_utf8_lossy(body);
    match text.trim().parse() {
        Ok(ip) => Ok(ip),
        Err(_) => bail!("no address in {text:?}"),
    }
}

/// Every request: from where was asked for, and from where the answer says.
fn check(world: &World, geo: Geo, username: &str, seen: IpAddr, named: Option<&str>) {
    if !world.allowed(geo).contains(&seen) {
        world.tally.wrong(format!("{username} was seen at {seen}"));
    }
    if let Some(named) = named.filter(|named| *named != seen.to_string()) {
        world.tally.wrong(format!("{username} was seen at {seen}, and the answer names {named}"));
    }
}
