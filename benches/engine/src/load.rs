//! Two hundred streams at once over fifty circuits: every body must be complete, and every request must leave by the requested exit.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use exitgate_bench_shared::table;
use exitgate_testnet::{Testbed, fetch, web};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::engines::{Engines, way};

const AT_ONCE: usize = 200;
const CIRCUITS: usize = 50;
const REQUESTS: usize = 1_000;
const BYTES: usize = 100_000;

pub async fn print(bed: &Testbed) -> anyhow::Result<bool> {
    let engines = Arc::new(Engines::start(bed, 2).await?);
    let exits = bed.network.exits();
    let (done, mut ended) = mpsc::unbounded_channel();
    let began = Instant::now();
    for worker in 0..AT_ONCE {
        let way = way(exits[worker % CIRCUITS % exits.len()], (worker % CIRCUITS) as u64)?;
        let (engines, done) = (engines.clone(), done.clone());
        engines.life.tasks().spawn("worker", async move {
            for request in (worker..REQUESTS).step_by(AT_ONCE) {
                drop(done.send((request, fetched(&engines, way, request).await))); // the receiver lives longer
            }
        });
    }
    drop(done);
    let (mut circuits, mut failures) = (HashMap::<_, usize>::new(), Vec::new());
    while let Some((request, outcome)) = ended.recv().await {
        match outcome {
            Ok(circuit) => *circuits.entry(circuit).or_default() += 1,
            Err(why) => failures.push(format!("{request}: {why:#}")),
        }
    }
    let took = began.elapsed().as_secs_f64();
    let wrong = wrong_sources(bed)?;
    println!("### {AT_ONCE} streams at once over {CIRCUITS} isolation keys, {REQUESTS} × {BYTES} bytes\n");
    let speed = (REQUESTS * BYTES) as f64 / 1e6 / took;
    let counts = [REQUESTS, failures.len(), wrong, circuits.len()].map(|count| count.to_string());
    let row = counts.into_iter().chain([took, speed].map(|number| format!("{number:.1}"))).collect();
    table::print(&["requests", "failed", "from a wrong address", "circuits", "seconds", "MB/s"], &[row]);
    failures.iter().take(5).for_each(|failure| println!("{failure}"));
    let met = table::mark("no failure, no request from a wrong address", failures.is_empty() && wrong == 0);
    if let Some(engines) = Arc::into_inner(engines) {
        engines.stop().await;
    }
    Ok(met)
}

/// Sends one request and returns which circuit carried it.
async fn fetched(engines: &Engines, way: exitgate::dial::tor::Way, request: usize) -> anyhow::Result<String> {
    let (stream, facts) = engines.dial(way).await?;
    let got = fetch::get(stream, "echo.test", &format!("/bytes/{BYTES}?nonce={request}")).await?;
    ensure!(got.status == 200 && got.body.len() == BYTES, "status {}, {} bytes", got.status, got.body.len());
    ensure!(got.body == web::pattern(0..BYTES as u64), "the body differs");
    Ok(format!("{} {:?}", facts.engine, facts.circuit))
}

/// How many requests the web saw from an address other than that of their exit.
fn wrong_sources(bed: &Testbed) -> anyhow::Result<usize> {
    let exits = bed.network.exits();
    let mut wrong = 0;
    let mut seen = 0;
    let ours = format!("/bytes/{BYTES}?nonce="); // a gateway's tester may have sent others
    for request in bed.web.seen().iter().filter(|request| request.path.starts_with(&ours)) {
        let number: usize = request.path.rsplit('=').next().context("no nonce")?.parse()?;
        let exit = exits[number % AT_ONCE % CIRCUITS % exits.len()];
        wrong += usize::from(request.source.ip() != exit.outbound);
        seen += 1;
    }
    ensure!(seen >= REQUESTS, "the web saw only {seen} requests");
    Ok(wrong)
}
