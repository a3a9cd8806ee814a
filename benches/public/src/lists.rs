//! `/list` and `/random` at two hundred requests a second each, while ten thousand proxies are tested again and again.
//!
//! The load has a thread of its own, so that it does not wait for the fakes. Two others are asked at the same moments as each path:
//! `/health`, which does no work, so its time is that of the gateway itself; and a bare thread with a ready answer, whose time is that of
//! the machine. No server on this machine answers sooner than the bare thread, so a mark that the bare thread misses says nothing about
//! the gateway. Because all three are asked at the same moments, moments in which the machine stood still can be told from moments in
//! which the gateway was slow.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use exitgate_bench_shared::http;
use exitgate_bench_shared::stats::percentile;
use exitgate_testnet::public::Kind;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::fakes::{Fakes, wait_for_stats};

const WORKING: u32 = 10_000;
const A_SECOND: u32 = 200;
const SECONDS: u32 = 15;

/// If the bare thread takes longer than this, the machine kept it from running.
const STALL: Duration = Duration::from_micros(500);

/// Connections of the load. They are kept open, as clients of scrapers keep theirs.
const KEPT: u32 = 16;

pub async fn run() -> anyhow::Result<()> {
    let fakes = Fakes::start(&[(Kind::Good, WORKING)]).await?;
    // Without a pause: a round over ten thousand takes the tester longer than a second.
    let again =
        "check.public.working_every = \"1s\"\ncheck.public.extended_probes = 0\ncheck.public.extended_passes = 0";
    let gateway = fakes.launch(again).await?;
    wait_for_stats(&gateway, |stats| stats["working_proxies"].as_u64() >= Some(u64::from(WORKING) * 99 / 100)).await?;
    println!(
        "lists: {WORKING} working proxies, {A_SECOND} requests a second for {SECONDS} s, validation all the while"
    );
    let bare = bare()?;
    let api = fakes.api();
    for path in [
        "/list?limit=100",
        "/list",
        "/list?country=us&anonymity=elite&format=json&limit=100",
        "/random",
        "/random?country=de",
    ] {
        let before = gateway.cpu();
        let (asked, health, bare) = ask_all_three(api, path.to_owned(), bare).await?;
        let cpu = (gateway.cpu() - before) / f64::from(SECONDS) * 100.0;
        let calm: HashSet<u32> =
            bare.took.iter().filter(|(_, took)| *took < STALL).map(|(number, _)| *number).collect();
        let undisturbed =
            asked.took.iter().filter(|(number, _)| calm.contains(number)).map(|(_, took)| *took).collect();
        println!("  {path}: {}, {} KB an answer, gateway at {cpu:.0} %", percentiles(asked.all()), asked.bytes / 1024);
        println!("    /health: {}", percentiles(health.all()));
        println!("    a bare thread: {}", percentiles(bare.all()));
        println!(
            "    {path} at the {:.1} % of moments at which the bare thread took less than {STALL:?}: {}",
            100.0 * calm.len() as f64 / bare.took.len() as f64,
            percentiles(undisturbed),
        );
    }
    Ok(())
}

/// How long each request took, by its number.
struct Times {
    took: Vec<(u32, Duration)>,
    /// Length of the last answer's body.
    bytes: usize,
}

impl Times {
    fn all(&self) -> Vec<Duration> {
        self.took.iter().map(|(_, took)| *took).collect()
    }
}

/// Percentiles in one line.
fn percentiles(mut took: Vec<Duration>) -> String {
    let [half, most, nearly_all] = [0.5, 0.99, 0.999].map(|share| percentile(&mut took, share).as_secs_f64() * 1000.0);
    format!("p50 {half:.2} ms, p99 {most:.2} ms, p99.9 {nearly_all:.2} ms")
}

/// Answers everything that arrives, on a thread for each connection: no server on this machine could answer sooner.
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

/// Asks for the path, for `/health`, and the bare thread, on a thread of its own.
async fn ask_all_three(api: SocketAddr, path: String, bare: SocketAddr) -> anyhow::Result<(Times, Times, Times)> {
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new().name("load".to_owned()).spawn(move || {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { tokio::try_join!(load(api, &path), load(api, "/health"), load(bare, "/")) })
        };
        let _ = tell.send(run());
    })?;
    told.await?
}

/// Sends requests at a fixed rate, whether or not earlier answers have come, and times each from the moment at which it was due.
async fn load(server: SocketAddr, path: &str) -> anyhow::Result<Times> {
    let mut lanes = JoinSet::new();
    let begun = Instant::now() + Duration::from_millis(100);
    for lane in 0..KEPT {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", server.ip());
        lanes.spawn(async move {
            let mut stream = TcpStream::connect(server).await?;
            stream.set_nodelay(true)?;
            let (mut took, mut bytes) = (Vec::new(), 0);
            for number in (lane..A_SECOND * SECONDS).step_by(KEPT as usize) {
                let due = begun + Duration::from_secs(1) * number / A_SECOND;
                tokio::time::sleep_until(due).await;
                let due = Instant::now().min(due + Duration::from_millis(2)); // the timer may be up to 2 ms late by itself
                stream.write_all(request.as_bytes()).await?;
                bytes = answer(&mut stream).await?;
                took.push((number, due.elapsed()));
            }
            anyhow::Ok(Times { took, bytes })
        });
    }
    let mut all = Times { took: Vec::new(), bytes: 0 };
    while let Some(lane) = lanes.join_next().await {
        let lane = lane??;
        all.took.extend(lane.took);
        all.bytes = lane.bytes;
    }
    Ok(all)
}

/// Reads one answer, and returns the length of its body.
async fn answer(stream: &mut TcpStream) -> anyhow::Result<usize> {
    let answer = http::read(stream).await?;
    anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text().trim());
    Ok(answer.body.len())
}
