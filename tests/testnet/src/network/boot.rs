//! The start of a network, until a client can use it. Every step waits for a condition, never for a fixed time.
//!
//! In a cold start the first vote of the authority is far in the future. Once the authority has the descriptor of every relay, it is told to
//! vote now. A relay that asked for the consensus too early would wait a long time before it asks again; `SIGNAL RELOAD` makes it ask
//! at once. The network is ready when every relay has the whole directory, because a client that gets a 404 would wait as long.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::NetworkState;
use crate::control::Control;
use crate::layout::{DIR_PORT, OR_PORT, Options, Relay, Role};

/// How often a condition is checked.
const CHECK_EVERY: Duration = Duration::from_millis(50);

/// How long one check may take.
const CHECK_DEADLINE: Duration = Duration::from_secs(5);

/// The pause between two RELOADs of a relay: long enough for the downloads that it starts.
const RELOAD_PAUSE: Duration = Duration::from_millis(1500);

/// The voting interval once the vote is ordered: the smallest that tor accepts in a test network.
const VOTE_INTERVAL: u64 = 5;

/// Seconds until the ordered vote: vote and distribution take a second each.
const VOTE_LEAD: u64 = 2;

/// Starts the authority, then all others.
pub(super) async fn spawn_all(state: &NetworkState, relays: &[Relay], deadline: Instant) -> anyhow::Result<()> {
    let (authority, others): (Vec<_>, Vec<_>) = relays.iter().partition(|relay| relay.role == Role::Authority);
    for relay in authority {
        state.spawn_relay(relay).await?;
        listening(state, relay, DIR_PORT, deadline).await?; // a relay that cannot upload its descriptor waits before it retries
    }
    for relay in others {
        state.spawn_relay(relay).await?;
    }
    Ok(())
}

/// Waits for every descriptor, and then orders the vote.
pub(super) async fn vote(
    state: &NetworkState,
    relays: &[Relay],
    options: &Options,
    deadline: Instant,
) -> anyhow::Result<()> {
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
    let delay = if interval < 60 { 2 } else { 5 }; // vote and distribution must fit into an interval
    let settings = format!(
        "SETCONF TestingV3AuthInitialVotingInterval={VOTE_INTERVAL} TestingV3AuthVotingStartOffset={} \
         V3AuthVotingInterval={interval} V3AuthVoteDelay={delay} V3AuthDistDelay={delay}",
        at % VOTE_INTERVAL
    );
    Control::connect(&state.control(&authority.name)).await?.command(&settings).await?;
    Ok(())
}

/// Waits for a consensus that lists every relay as running. Returns when it ends, in seconds since 1970.
pub(super) async fn consensus(relays: &[Relay], deadline: Instant) -> anyhow::Result<u64> {
    let authority = authority(relays)?;
    loop {
        let consensus = get(authority, "/tor/status-vote/current/consensus-microdesc").await.unwrap_or_default();
        let running = consensus.lines().filter(|line| line.starts_with("s ") && line.contains(" Running")).count();
        if running >= relays.len() {
            let end = consensus.lines().find_map(|line| line.strip_prefix("valid-until "));
            return end.and_then(crate::dates::parse).context("the consensus has no valid-until");
        }
        pause(deadline, "no consensus lists every relay as running").await?;
    }
}

/// Waits until every relay has the whole directory.
pub(super) async fn informed(state: &NetworkState, relays: &[Relay], deadline: Instant) -> anyhow::Result<()> {
    let mut waiting: Vec<(&Relay, Instant)> =
        relays.iter().filter(|relay| relay.role != Role::Authority).map(|relay| (relay, Instant::now())).collect();
    loop {
        let mut still = Vec::new();
        for (relay, reloaded) in waiting {
            match timeout(CHECK_DEADLINE, is_informed(&state.control(&relay.name), reloaded)).await {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(reloaded))) => still.push((relay, reloaded)),
                _ => still.push((relay, reloaded)), // its control socket is not there yet
            }
        }
        if still.is_empty() {
            return Ok(());
        }
        waiting = still;
        state.all_alive(relays).await?;
        pause(deadline, "not every relay has the directory").await?;
    }
}

/// None if the relay has the directory, else when it was last told to fetch it.
async fn is_informed(control: &Path, reloaded: Instant) -> anyhow::Result<Option<Instant>> {
    let mut control = Control::connect(control).await?;
    // An exit resolves no name before it has made its own descriptor. Until then this command fails.
    let described = control.info("exit-policy/full").await.is_ok();
    if described && control.info("status/enough-dir-info").await? == "1" {
        return Ok(None);
    }
    if reloaded.elapsed() < RELOAD_PAUSE {
        return Ok(Some(reloaded));
    }
    control.command("SIGNAL RELOAD").await?;
    Ok(Some(Instant::now()))
}

/// Waits until a relay accepts connections on `port`.
pub(super) async fn listening(state: &NetworkState, relay: &Relay, port: u16, deadline: Instant) -> anyhow::Result<()> {
    while !matches!(timeout(CHECK_DEADLINE, TcpStream::connect((relay.ip, port))).await, Ok(Ok(_))) {
        state.all_alive(std::slice::from_ref(relay)).await?;
        pause(deadline, &format!("{} does not listen", relay.name)).await?;
    }
    Ok(())
}

/// Waits until a restarted relay serves circuits.
pub(super) async fn respawned(state: &NetworkState, relay: &Relay, deadline: Instant) -> anyhow::Result<()> {
    listening(state, relay, OR_PORT, deadline).await?;
    informed(state, std::slice::from_ref(relay), deadline).await
}

/// The authority among `relays`.
pub(super) fn authority(relays: &[Relay]) -> anyhow::Result<&Relay> {
    relays.iter().find(|relay| relay.role == Role::Authority).context("there is no authority")
}

async fn pause(deadline: Instant, complaint: &str) -> anyhow::Result<()> {
    if Instant::now() > deadline {
        bail!("{complaint}");
    }
    sleep(CHECK_EVERY).await;
    Ok(())
}

/// The body of the authority's answer to a GET; an error if the status is not 200.
async fn get(authority: &Relay, path: &str) -> anyhow::Result<String> {
    timeout(CHECK_DEADLINE, async {
        let mut stream = TcpStream::connect((authority.ip, DIR_PORT)).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no head")?;
        if head.split(' ').nth(1) != Some("200") {
            bail!("{}", head.lines().next().unwrap_or_default());
        }
        Ok(body.to_owned())
    })
    .await?
}
