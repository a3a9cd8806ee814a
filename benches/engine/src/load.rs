//! Two hundred streams at once over fifty circuits: every body whole, every request from the exit that was asked for.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use exitgate_testnet::{Testbed, fetch, web};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::rig::{Rig, way};
use crate::stats::mark;

const AT_ONCE: usize = 200;
const CIRCUITS: usize = 50;
const REQUESTS: usize = 1_000;
const BYTES: usize = 100_000;

pub async fn print(bed: &Testbed) -> anyhow::Result<bool> {
    let rig = Arc::new(Rig::start(bed, 2).await?);
    let exits = bed.network.exits();
    let (done, mut ended) = mpsc::unbounded_channel();
    let began = Instant::now();
    for worker in 0..AT_ONCE {
        let way = way(exits[worker % CIRCUITS % exits.len()], (worker % CIRCUITS) as u64)?;
        let (rig, done) = (rig.clone(), done.clone());
        rig.life.tasks().spawn("worker", async move {
            for request in (worker..REQUESTS).step_by(AT_ONCE) {
                drop(done.send((request, fetched(&rig, way, request).await))); // the reader is there to the end
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
    println!(
        "| requests | failed | from a wrong address | circuits | seconds | MB/s |\n| --- | --- | --- | --- | --- | --- |"
    );
    let speed = (REQUESTS * BYTES) as f64 / 1e6 / took;
    println!("| {REQUESTS} | {} | {wrong} | {} | {took:.1} | {speed:.1} |", failures.len(), circuits.len());
    failures.iter().take(5).for_each(|failure| println!("{failure}"));
    let met = mark("no failure, no request from a wrong address", failures.is_empty() && wrong == 0);
    if let Some(rig) = Arc::into_inner(rig) {
        rig.stop().await;
    }
    Ok(met)
}

/// One request; says which circuit carried it.
async fn fetched(rig: &Rig, way: exitgate::dial::tor::Way, request: usize) -> anyhow::Result<String> {
    let (stream, facts) = rig.dial(way).await?;
    let got = fetch::get(stream, "echo.test", &format!("/bytes/{BYTES}?nonce={request}")).await?;
    ensure!(got.status == 200 && got.body.len() == BYTES, "status {}, {} bytes", got.status, got.body.len());
    ensure!(got.body == web::pattern(0..BYTES as u64), "other bytes than were sent");
    Ok(format!("{} {:?}", facts.engine, facts.circuit))
}

/// Requests that the web saw from an address that their exit does not have.
fn wrong_sources(bed: &Testbed) -> anyhow::Result<usize> {
    let exits = bed.network.exits();
    let mut wrong = 0;
    let mut seen = 0;
    let ours = format!("/bytes/{BYTES}?nonce="); // a gateway's tester may have been here as well
    for request in bed.web.seen().iter().filter(|request| request.path.starts_with(&ours)) {
        let number: usize = request.path.rsplit('=').next().context("a nonce")?.parse()?;
        let exit = exits[number % AT_ONCE % CIRCUITS % exits.len()];
        wrong += usize::from(request.source.ip() != exit.outbound);
        seen += 1;
    }
    ensure!(seen >= REQUESTS, "the web saw {seen} requests");
    Ok(wrong)
}
