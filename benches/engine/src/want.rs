//! From "I want this exit" to the first byte through it, when nothing is warm.

use exitgate_testnet::{ClientOptions, Testbed, fetch};
use tokio::time::Instant;

use crate::bare::Bare;
use crate::rig::{Rig, first_byte, way};
use crate::stats::{Times, mark, ms, ratio};

const ROUNDS: usize = 100;

/// Starts of a whole tor: each takes seconds.
const STARTS: usize = 5;

pub async fn print(bed: &Testbed) -> anyhow::Result<bool> {
    let rig = Rig::start(bed, 1).await?;
    let mut bare = Bare::start(bed, "bare").await?;
    let (exits, port) = (bed.network.exits(), bed.web.http_port());
    let (mut ours, mut theirs, mut process) = (Times::default(), Times::default(), Times::default());
    for round in 0..ROUNDS {
        let exit = exits[round % exits.len()];
        let began = Instant::now();
        let (stream, facts) = rig.dial(way(exit, 1_000_000 + round as u64)?).await?;
        ours.add(first_byte(stream, exit).await? - began);
        // The same path, by a controller that does nothing but this.
        let path: Vec<String> = facts.path.iter().map(ToString::to_string).collect();
        let began = Instant::now();
        let circuit = bare.extend(&path).await?;
        let stream = bare.open(&circuit, "echo.test", port).await?;
        theirs.add(first_byte(stream, exit).await? - began);
    }
    let seed = bare.client.folder();
    for round in 0..STARTS {
        let exit = exits[round % exits.len()];
        let lines = vec![format!("ExitNodes ${}", exit.fingerprint), "StrictNodes 1".to_owned()];
        let began = Instant::now();
        let options = ClientOptions { lines, seed: Some(seed.clone()), ..ClientOptions::default() };
        let client = bed.network.client_with(&format!("process-{round}"), options).await?;
        let stream = fetch::socks5(client.socks(), None, "echo.test", port).await?;
        process.add(first_byte(stream, exit).await? - began);
    }
    println!("### From \"I want this exit\" to the first byte\n");
    println!("| | p50 / p95, ms | beside ours |\n| --- | --- | --- |");
    println!("| exitgate, nothing warm | {} | 1 |", ours.cell());
    println!(
        "| bare EXTENDCIRCUIT and one request, the same path | {} | {:.2} |",
        theirs.cell(),
        ratio(theirs.p50(), ours.p50())
    );
    println!(
        "| a tor pinned to the exit, directory seeded ({STARTS} starts) | {} | {:.1} |",
        process.cell(),
        ratio(process.p50(), ours.p50())
    );
    let (bare_ratio, process_ratio) = (ratio(ours.p50(), theirs.p50()), ratio(process.p50(), ours.p50()));
    let mut met = mark(
        &format!("at most 3 times a bare EXTENDCIRCUIT: {bare_ratio:.2} ({} ms)", ms(ours.p50())),
        bare_ratio <= 3.0,
    );
    met &= mark(&format!("20 times faster than a process an exit: {process_ratio:.1}"), process_ratio >= 20.0);
    rig.stop().await;
    Ok(met)
}
