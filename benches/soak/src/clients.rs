//! Clients of several kinds, as scrapers are. Each checks that the target saw an exit that was asked for, and that the answer names it.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use exitgate_bench_shared::http;
use exitgate_testnet::{fetch, web};
use rand::RngExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::outcomes::End;
use crate::setup::{Geo, Setup};

/// How long a client waits: longer than every deadline of the gateway, so a client that waits longer was forgotten.
const PATIENCE: Duration = Duration::from_secs(75);
/// Clients of each kind.
const EACH: u32 = 3;
/// Milliseconds between two requests of one client: short enough that all kinds of requests overlap, and long enough for two cores
/// that also run fifteen relays.
const PAUSE: std::ops::Range<u64> = 20..200;
/// Bytes of a download: long enough to be interrupted by a fault.
const DOWNLOAD: usize = 200_000;
/// Seconds for which a long tunnel stays open; four bytes go there and back each second.
const LONG: u32 = 20;

/// Starts all clients; they end soon after `until`.
pub fn spawn(setup: &Arc<Setup>, until: tokio::time::Instant) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for number in 0..EACH {
        for kind in KINDS {
            tasks.spawn(keep_asking(setup.clone(), *kind, number, until));
        }
    }
    tasks
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// SOCKS5 at the shared port, another country each time.
    Socks,
    /// Plain HTTP at the shared port.
    Plain,
    /// CONNECT at the shared port, then a download.
    Download,
    /// A tunnel that stays open.
    Long,
    /// A session outside the US.
    Session,
    /// A pinned address, at its route's own port.
    Strict,
    /// A client that leaves at a random moment.
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
    /// The address of the last request, if it succeeded.
    last: Option<IpAddr>,
    strict: HashSet<IpAddr>,
}

async fn keep_asking(setup: Arc<Setup>, kind: Kind, number: u32, until: tokio::time::Instant) {
    let mut memory = Memory::default();
    while tokio::time::Instant::now() < until {
        let since = Instant::now();
        match timeout(PATIENCE, ask(&setup, kind, number, &mut memory)).await {
            Ok(Ok(())) => setup.outcomes.ended(kind.name(), since, End::Good, String::new),
            Ok(Err(error)) => {
                memory.last = None;
                setup.outcomes.ended(kind.name(), since, End::Failed, || format!("{error:#}"));
            }
            Err(_) => setup.outcomes.ended(kind.name(), since, End::Hung, || "no answer".into()),
        }
        let pause = rand::rng().random_range(PAUSE);
        sleep(Duration::from_millis(pause)).await;
    }
}

async fn ask(setup: &Setup, kind: Kind, number: u32, memory: &mut Memory) -> anyhow::Result<()> {
    let geo = [Geo::Any, Geo::Us, Geo::NonUs][rand::rng().random_range(0..3)];
    match kind {
        Kind::Socks => socks(setup, geo).await,
        Kind::Plain => plain(setup, geo.word(), geo).await.map(drop),
        Kind::Download => download(setup, geo).await,
        Kind::Long => long(setup, geo).await,
        Kind::Session => session(setup, number, memory).await,
        Kind::Strict => strict(setup, memory).await,
        Kind::Rude => rude(setup, geo).await,
    }
}

async fn socks(setup: &Setup, geo: Geo) -> anyhow::Result<()> {
    let web = &setup.bed.web;
    let tunnel = fetch::socks5(setup.gateway.addr(), Some((geo.word(), "x")), "echo.test", web.http_port()).await?;
    let got = fetch::get(tunnel, "echo.test", "/ip").await?;
    let seen = address(got.status, &got.body)?;
    check(setup, geo, geo.word(), seen, None);
    Ok(())
}

/// Returns the address that the target saw, and whether the answer says that the session has moved.
async fn plain(setup: &Setup, username: &str, geo: Geo) -> anyhow::Result<(IpAddr, bool)> {
    let url = setup.bed.web.http("echo.test", "/ip");
    let answer = http::get_through(setup.gateway.addr(), username, &url).await?;
    let seen = address(answer.status, &answer.body)?;
    check(setup, geo, username, seen, answer.header("x-exitgate-exit-ip"));
    Ok((seen, answer.header("x-exitgate-moved").is_some()))
}

async fn download(setup: &Setup, geo: Geo) -> anyhow::Result<()> {
    let web = &setup.bed.web;
    let target = format!("echo.test:{}", web.http_port());
    let tunnel = http::connect(setup.gateway.addr(), geo.word(), &target).await?;
    let got = fetch::get(tunnel, "echo.test", &format!("/bytes/{DOWNLOAD}")).await?;
    ensure!(got.status == 200 && got.body.len() == DOWNLOAD, "{} of {DOWNLOAD} bytes", got.body.len());
    if got.body != web::pattern(0..DOWNLOAD as u64) {
        setup.outcomes.wrong(format!("{} downloaded bytes are not those that were sent", got.body.len()));
    }
    Ok(())
}

async fn long(setup: &Setup, geo: Geo) -> anyhow::Result<()> {
    let target = format!("echo.test:{}", web::ECHO_PORT);
    let mut tunnel = http::connect(setup.gateway.addr(), geo.word(), &target).await?;
    for beat in 0..LONG {
        tunnel.write_all(&beat.to_be_bytes()).await?;
        let mut back = [0; 4];
        tunnel.read_exact(&mut back).await.context("the tunnel ended")?;
        if back != beat.to_be_bytes() {
            setup.outcomes.wrong(format!("{back:?} came back for {:?}", beat.to_be_bytes()));
        }
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn session(setup: &Setup, number: u32, memory: &mut Memory) -> anyhow::Result<()> {
    let username = format!("nonus-session-soak{number}");
    let (seen, moved) = plain(setup, &username, Geo::NonUs).await?;
    if let Some(last) = memory.last.filter(|last| *last != seen && !moved) {
        setup.outcomes.wrong(format!("{username} moved from {last} to {seen} and the answer does not say so"));
    }
    memory.last = Some(seen);
    Ok(())
}

async fn strict(setup: &Setup, memory: &mut Memory) -> anyhow::Result<()> {
    let url = setup.bed.web.http("echo.test", "/ip");
    let answer = http::get_through(setup.gateway.port(20000), "", &url).await?;
    let seen = address(answer.status, &answer.body)?;
    check(setup, Geo::Us, "pinned", seen, answer.header("x-exitgate-exit-ip"));
    memory.strict.insert(seen);
    if memory.strict.len() > 1 {
        setup.outcomes.wrong(format!("a pin that never moves was seen at {:?}", memory.strict));
    }
    Ok(())
}

/// Leaves at a random moment. The footprint at the end shows whether the gateway has released everything.
async fn rude(setup: &Setup, geo: Geo) -> anyhow::Result<()> {
    let target = format!("echo.test:{}", setup.bed.web.http_port());
    let stay = Duration::from_millis(rand::rng().random_range(0..400));
    let leave = async {
        let mut tunnel = http::connect(setup.gateway.addr(), geo.word(), &target).await?;
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

/// Counts a request as wrong if the target saw an exit that was not asked for, or another one than the answer names.
fn check(setup: &Setup, geo: Geo, username: &str, seen: IpAddr, named: Option<&str>) {
    if !setup.allowed(geo).contains(&seen) {
        setup.outcomes.wrong(format!("{username} was seen at {seen}"));
    }
    if let Some(named) = named.filter(|named| *named != seen.to_string()) {
        setup.outcomes.wrong(format!("{username} was seen at {seen}, and the answer names {named}"));
    }
}
