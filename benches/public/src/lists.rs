//! `/list` and `/random` at two hundred requests a second each, while ten thousand proxies are validated over and over.
//!
//! The load has a thread of its own: it must not wait behind the fakes. Beside each path `/health` is asked, which does
//! nothing: what it takes is what the machine takes.

use std::net::IpAddr;
use std::time::Duration;

use exitgate_testnet::public::Kind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bed::{Bed, percentile};

const WORKING: u32 = 10_000;
const A_SECOND: u32 = 200;
const SECONDS: u32 = 15;

/// Connections that are kept open: a scraper's client does.
const KEPT: usize = 16;

pub async fn run() -> anyhow::Result<()> {
    let bed = Bed::start(&[(Kind::Good, WORKING)]).await?;
    // As often as it can: a round of ten thousand takes the judge longer than that.
    let again =
        "check.public.working_every = \"1s\"\ncheck.public.extended_probes = 0\ncheck.public.extended_passes = 0";
    let gateway = bed.launch(again).await?;
    gateway.wait_stats(|stats| stats["working_proxies"].as_u64() >= Some(u64::from(WORKING) * 99 / 100)).await?;
    println!(
        "lists: {WORKING} working proxies, {A_SECOND} requests a second for {SECONDS} s, validation all the while"
    );
    for path in [
        "/list?limit=100",
        "/list",
        "/list?country=us&anonymity=elite&format=json&limit=100",
        "/random",
        "/random?country=de",
    ] {
        let before = gateway.cpu();
        let load = off_to_the_side(gateway.front().ip(), path.to_owned()).await?;
        let ((mut took, bytes), (mut control, _)) = load;
        let cpu = (gateway.cpu() - before) / f64::from(SECONDS) * 100.0;
        let at = |took: &mut Vec<Duration>, share| percentile(took, share).as_secs_f64() * 1000.0;
        println!(
            "  {path}: p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, {} KB an answer, gateway at {cpu:.0} %; \
             /health: p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms",
            at(&mut took, 0.5),
            at(&mut took, 0.99),
            at(&mut took, 0.999),
            bytes / 1024,
            at(&mut control, 0.5),
            at(&mut control, 0.99),
            at(&mut control, 0.999),
        );
    }
    Ok(())
}

type Taken = (Vec<Duration>, usize);

/// Asks for the path and for `/health`, on a thread of its own.
async fn off_to_the_side(ip: IpAddr, path: String) -> anyhow::Result<(Taken, Taken)> {
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new().name("load".to_owned()).spawn(move || {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { tokio::try_join!(load(ip, &path, A_SECOND), load(ip, "/health", A_SECOND)) })
        };
        let _ = tell.send(run());
    })?;
    told.await?
}

/// Sends at a fixed pace, whether or not earlier answers are there, and times each from when it was due.
async fn load(ip: IpAddr, path: &str, a_second: u32) -> anyhow::Result<Taken> {
    let mut lanes = JoinSet::new();
    let begun = Instant::now() + Duration::from_millis(100);
    for lane in 0..KEPT {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {ip}\r\n\r\n");
        lanes.spawn(async move {
            let mut stream = TcpStream::connect((ip, 8080)).await?;
            stream.set_nodelay(true)?;
            let (mut took, mut bytes) = (Vec::new(), 0);
            for turn in (lane..(a_second * SECONDS) as usize).step_by(KEPT) {
                let due = begun + Duration::from_secs(1) * turn as u32 / a_second;
                tokio::time::sleep_until(due).await;
                let due = Instant::now().min(due + Duration::from_millis(2)); // the timer's own grain is not the gateway's
                stream.write_all(request.as_bytes()).await?;
                bytes = answer(&mut stream).await?;
                took.push(due.elapsed());
            }
            anyhow::Ok((took, bytes))
        });
    }
    let (mut all, mut bytes) = (Vec::new(), 0);
    while let Some(lane) = lanes.join_next().await {
        let (took, size) = lane??;
        all.extend(took);
        bytes = size;
    }
    Ok((all, bytes))
}

/// Reads one answer to its end; its body's length.
async fn answer(stream: &mut TcpStream) -> anyhow::Result<usize> {
    let mut read = Vec::with_capacity(64 * 1024);
    loop {
        anyhow::ensure!(stream.read_buf(&mut read).await? > 0, "the API hung up");
        let Some(end) = read.windows(4).position(|piece| piece == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
        anyhow::ensure!(head.starts_with("http/1.1 200"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
        let length = length.unwrap_or_default();
        while read.len() < end + 4 + length {
            anyhow::ensure!(stream.read_buf(&mut read).await? > 0, "the API hung up");
        }
        return Ok(length);
    }
}
