//! `/list` and `/random` at two hundred requests a second each, while ten thousand proxies are validated over and over.
//!
//! The load has a thread of its own: it must not wait behind the fakes. Beside each path two others are asked: `/health`,
//! which does nothing, so that it takes what the gateway takes; and a bare thread that has an answer ready and no more
//! to do, which takes what the machine takes. No server answers sooner than that here: a mark that the bare thread
//! misses says nothing about the gateway. All three are asked at the same moments, so that the moments in which the
//! machine stood still can be told from those in which the gateway was slow.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
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

/// A bare thread that takes longer was kept from running.
const STALL: Duration = Duration::from_micros(500);

/// Connections that are kept open: a scraper's client does.
const KEPT: u32 = 16;

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
    let bare = bare()?;
    let front = SocketAddr::new(gateway.front().ip(), 8080);
    for path in [
        "/list?limit=100",
        "/list",
        "/list?country=us&anonymity=elite&format=json&limit=100",
        "/random",
        "/random?country=de",
    ] {
        let before = gateway.cpu();
        let (asked, health, bare) = off_to_the_side(front, path.to_owned(), bare).await?;
        let cpu = (gateway.cpu() - before) / f64::from(SECONDS) * 100.0;
        let calm: HashSet<u32> = bare.took.iter().filter(|(_, took)| *took < STALL).map(|(turn, _)| *turn).collect();
        let undisturbed = asked.took.iter().filter(|(turn, _)| calm.contains(turn)).map(|(_, took)| *took).collect();
        println!("  {path}: {}, {} KB an answer, gateway at {cpu:.0} %", said(asked.all()), asked.bytes / 1024);
        println!("    /health: {}", said(health.all()));
        println!("    a bare thread: {}", said(bare.all()));
        println!(
            "    {path} at the {:.1} % of moments at which the bare thread took less than {STALL:?}: {}",
            100.0 * calm.len() as f64 / bare.took.len() as f64,
            said(undisturbed),
        );
    }
    Ok(())
}

/// How long each turn took.
struct Taken {
    took: Vec<(u32, Duration)>,
    /// Of the last answer.
    bytes: usize,
}

impl Taken {
    fn all(&self) -> Vec<Duration> {
        self.took.iter().map(|(_, took)| *took).collect()
    }
}

/// What was taken, in a line.
fn said(mut took: Vec<Duration>) -> String {
    let [half, most, nearly_all] = [0.5, 0.99, 0.999].map(|share| percentile(&mut took, share).as_secs_f64() * 1000.0);
    format!("p50 {half:.2} ms, p99 {most:.2} ms, p99.9 {nearly_all:.2} ms")
}

/// Answers whatever arrives, on a thread for each connection: nothing on this machine could be quicker.
fn bare() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let accept = move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = move || {
                let mut stream = stream;
                let mut asked = [0; 1024];
                while stream.read(&mut asked).is_ok_and(|length| length > 0)
                    && stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_ok()
                {}
            };
            let _ = std::thread::Builder::new().name("bare".to_owned()).spawn(serve);
        }
    };
    std::thread::Builder::new().name("bare".to_owned()).spawn(accept)?;
    Ok(address)
}

/// Asks for the path, for `/health` and the bare thread, on a thread of its own.
async fn off_to_the_side(front: SocketAddr, path: String, bare: SocketAddr) -> anyhow::Result<(Taken, Taken, Taken)> {
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new().name("load".to_owned()).spawn(move || {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { tokio::try_join!(load(front, &path), load(front, "/health"), load(bare, "/")) })
        };
        let _ = tell.send(run());
    })?;
    told.await?
}

/// Sends at a fixed pace, whether or not earlier answers are there, and times each from when it was due.
async fn load(server: SocketAddr, path: &str) -> anyhow::Result<Taken> {
    let mut lanes = JoinSet::new();
    let begun = Instant::now() + Duration::from_millis(100);
    for lane in 0..KEPT {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", server.ip());
        lanes.spawn(async move {
            let mut stream = TcpStream::connect(server).await?;
            stream.set_nodelay(true)?;
            let (mut took, mut bytes) = (Vec::new(), 0);
            for turn in (lane..A_SECOND * SECONDS).step_by(KEPT as usize) {
                let due = begun + Duration::from_secs(1) * turn / A_SECOND;
                tokio::time::sleep_until(due).await;
                let due = Instant::now().min(due + Duration::from_millis(2)); // the timer's own grain is not the gateway's
                stream.write_all(request.as_bytes()).await?;
                bytes = answer(&mut stream).await?;
                took.push((turn, due.elapsed()));
            }
            anyhow::Ok(Taken { took, bytes })
        });
    }
    let mut all = Taken { took: Vec::new(), bytes: 0 };
    while let Some(lane) = lanes.join_next().await {
        let lane = lane??;
        all.took.extend(lane.took);
        all.bytes = lane.bytes;
    }
    Ok(all)
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
