//! `/list` and `/random` at two hundred requests a second each, while ten thousand proxies are validated over and over.

use std::sync::Arc;
use std::time::Duration;

use exitgate_testnet::public::Kind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bed::{Bed, Gateway, percentile};

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
    let gateway = Arc::new(bed.launch(again).await?);
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
        let (mut took, bytes) = load(&gateway, path).await?;
        let cpu = (gateway.cpu() - before) / f64::from(SECONDS) * 100.0;
        let at = |took: &mut Vec<Duration>, share| percentile(took, share).as_secs_f64() * 1000.0;
        println!(
            "  {path}: p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, {} KB an answer, gateway at {cpu:.0} %",
            at(&mut took, 0.5),
            at(&mut took, 0.99),
            at(&mut took, 0.999),
            bytes / 1024,
        );
    }
    Ok(())
}

/// Sends at a fixed pace, whether or not earlier answers are there, and times each from when it was due.
async fn load(gateway: &Arc<Gateway>, path: &str) -> anyhow::Result<(Vec<Duration>, usize)> {
    let mut lanes = JoinSet::new();
    let begun = Instant::now() + Duration::from_millis(100);
    let addr = (gateway.front().ip(), 8080);
    for lane in 0..KEPT {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.front().ip());
        lanes.spawn(async move {
            let mut stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            let (mut took, mut bytes) = (Vec::new(), 0);
            for turn in (lane..(A_SECOND * SECONDS) as usize).step_by(KEPT) {
                let due = begun + Duration::from_secs(1) * turn as u32 / A_SECOND;
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
