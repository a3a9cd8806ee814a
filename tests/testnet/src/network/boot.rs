//! From keys to a network that a client can use, without a single guess about time.
//!
//! Cold: the authority starts with its first vote far away; once it has the descriptor of every relay, it is told that
//! the vote is now. Relays that asked for the consensus too early back off for longer than we want to wait, and
//! `SIGNAL RELOAD` makes them ask again. Ready is when every relay has the whole directory, because a first client that
//! is sent 404 backs off in the same way.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::Site;
use crate::control::Control;
use crate::layout::{DIR_PORT, OR_PORT, Options, Relay, Role};

/// How often a condition is looked at: cheap next to what it waits for.
const LOOK: Duration = Duration::from_millis(50);

/// How long one look may take.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);

/// How long a relay is left alone after a RELOAD before it is told again: time enough for the downloads that it starts.
const RELOAD_PAUSE: Duration = Duration::from_millis(1500);

/// The authority votes on this grid once it is told to: the smallest that tor takes in a test network.
const VOTE_GRID: u64 = 5;

/// How far ahead the vote is called: vote and distribution take a second each, as set before the start.
const VOTE_LEAD: u64 = 2;

/// Starts the authority, then all others.
pub(super) async fn spawn_all(site: &Site, relays: &[Relay], deadline: Instant) -> anyhow::Result<()> {
    let (authority, others): (Vec<_>, Vec<_>) = relays.iter().partition(|relay| relay.role == Role::Authority);
    for relay in authority {
        site.spawn_relay(relay).await?;
        listening(site, relay, DIR_PORT, deadline).await?; // a relay that cannot upload at once waits before it retries
    }
    for relay in others {
        site.spawn_relay(relay).await?;
    }
    Ok(())
}

/// Waits for every descriptor and calls the vote.
pub(super) async fn vote(site: &Site, relays: &[Relay], options: &Options, deadline: Instant) -> anyhow::Result<()> {
    let authority = authority(relays)?;
    loop {
        let known = get(authority, "/tor/server/all").await.unwrap_or_default();
        if known.lines().filter(|line| line.starts_with("router ")).count() >= relays.len() {
            break;
        }
        pause(deadline, "not every relay has published its descriptor").await?;
    }
    let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() + VOTE_LEAD;
    let interval = options.interval.as_secs();
    let delay = if interval < 60 { 2 } else { 5 }; // vote and distribution must fit well into an interval
    let settings = format!(
        "SETCONF TestingV3AuthInitialVotingInterval={VOTE_GRID} TestingV3AuthVotingStartOffset={} \
         V3AuthVotingInterval={interval} V3AuthVoteDelay={delay} V3AuthDistDelay={delay}",
        at % VOTE_GRID
    );
    Control::connect(&site.control(&authority.name)).await?.command(&settings).await?;
    Ok(())
}

/// Waits for a consensus with everybody in it; when it ends, in seconds since 1970.
pub(super) async fn consensus(relays: &[Relay], deadline: Instant) -> anyhow::Result<u64> {
    let authority = authority(relays)?;
    loop {
        let consensus = get(authority, "/tor/status-vote/current/consensus-microdesc").await.unwrap_or_default();
        let running = consensus.lines().filter(|line| line.starts_with("s ") && line.contains(" Running")).count();
        if running >= relays.len() {
            let end = consensus.lines().find_map(|line| line.strip_prefix("valid-until "));
            return end.and_then(crate::clock::parse).context("the consensus has no end");
        }
        pause(deadline, "there is no consensus with every relay in it").await?;
    }
}

/// Waits until every relay holds the whole directory.
pub(super) async fn informed(site: &Site, relays: &[Relay], deadline: Instant) -> anyhow::Result<()> {
    let mut waiting: Vec<(&Relay, Instant)> =
        relays.iter().filter(|relay| relay.role != Role::Authority).map(|relay| (relay, Instant::now())).collect();
    loop {
        let mut still = Vec::new();
        for (relay, nudged) in waiting {
            match timeout(LOOK_DEADLINE, is_informed(&site.control(&relay.name), nudged)).await {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(nudged))) => still.push((relay, nudged)),
                _ => still.push((relay, nudged)), // its control socket is not there yet
            }
        }
        if still.is_empty() {
            return Ok(());
        }
        waiting = still;
        site.all_alive(relays).await?;
        pause(deadline, "not every relay has the directory").await?;
    }
}

/// Nothing when the relay holds the directory, else when it was last told to fetch it.
async fn is_informed(control: &Path, nudged: Instant) -> anyhow::Result<Option<Instant>> {
    let mut control = Control::connect(control).await?;
    // An exit resolves no name before it has made its own descriptor, without which this is an error.
    let described = control.info("exit-policy/full").await.is_ok();
    if described && control.info("status/enough-dir-info").await? == "1" {
        return Ok(None);
    }
    if nudged.elapsed() < RELOAD_PAUSE {
        return Ok(Some(nudged));
    }
    control.command("SIGNAL RELOAD").await?;
    Ok(Some(Instant::now()))
}

/// Waits until a relay accepts connections on `port`.
pub(super) async fn listening(site: &Site, relay: &Relay, port: u16, deadline: Instant) -> anyhow::Result<()> {
    while !matches!(timeout(LOOK_DEADLINE, TcpStream::connect((relay.ip, port))).await, Ok(Ok(_))) {
        site.all_alive(std::slice::from_ref(relay)).await?;
        pause(deadline, &format!("{} does not listen", relay.name)).await?;
    }
    Ok(())
}

/// Waits until a relay that was started again serves circuits.
pub(super) async fn back(site: &Site, relay: &Relay, deadline: Instant) -> anyhow::Result<()> {
    listening(site, relay, OR_PORT, deadline).await?;
    informed(site, std::slice::from_ref(relay), deadline).await
}

/// The authority among `relays`.
pub(super) fn authority(relays: &[Relay]) -> anyhow::Result<&Relay> {
    relays.iter().find(|relay| relay.role == Role::Authority).context("no authority")
}

async fn pause(deadline: Instant, complaint: &str) -> anyhow::Result<()> {
    if Instant::now() > deadline {
        bail!("{complaint}");
    }
    sleep(LOOK).await;
    Ok(())
}

/// What the authority answers to a GET; an error for anything but 200.
async fn get(authority: &Relay, path: &str) -> anyhow::Result<String> {
    timeout(LOOK_DEADLINE, async {
        let mut stream = TcpStream::connect((authority.ip, DIR_PORT)).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
        if head.split(' ').nth(1) != Some("200") {
            bail!("{}", head.lines().next().unwrap_or_default());
        }
        Ok(body.to_owned())
    })
    .await?
}
