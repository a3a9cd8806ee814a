//! From "I want this exit" to the first byte through it, without a circuit that was built before.

use exitgate_bench_shared::stats::{Times, ms, ratio};
use exitgate_bench_shared::table;
use exitgate_testnet::{ClientOptions, Testbed, fetch};
use tokio::time::Instant;

use crate::engines::{Engines, first_byte, way};
use crate::plain_tor::Controller;

const ROUNDS: usize = 100;

/// Starts of a tor process: few, because each takes seconds.
const STARTS: usize = 5;

pub async fn print(bed: &Testbed) -> anyhow::Result<bool> {
    let engines = Engines::start(bed, 1).await?;
    let mut bare = Controller::start(bed, "bare").await?;
    let (exits, port) = (bed.network.exits(), bed.web.http_port());
    let (mut ours, mut theirs, mut process) = (Times::default(), Times::default(), Times::default());
    for round in 0..ROUNDS {
        let exit = exits[round % exits.len()];
        let began = Instant::now();
        let (stream, facts) = engines.dial(way(exit, 1_000_000 + round as u64)?).await?;
        ours.add(first_byte(stream, exit).await? - began);
        // The same path, by a controller that does nothing else.
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
    let row = |name: &str, times: &Times| {
        vec![name.to_owned(), times.cell(), format!("{:.2}", ratio(times.p50(), ours.p50()))]
    };
    let rows = [
        row("exitgate, nothing warm", &ours),
        row("bare EXTENDCIRCUIT and one request, the same path", &theirs),
        row(&format!("a tor pinned to the exit, directory seeded ({STARTS} starts)"), &process),
    ];
    table::print(&["", "p50 / p95, ms", "beside ours"], &rows);
    let (bare_ratio, process_ratio) = (ratio(ours.p50(), theirs.p50()), ratio(process.p50(), ours.p50()));
    let mut met = table::mark(
        &format!("at most 3 times a bare EXTENDCIRCUIT: {bare_ratio:.2} ({} ms)", ms(ours.p50())),
        bare_ratio <= 3.0,
    );
    met &= table::mark(
        &format!("20 times faster than a process for each exit: {process_ratio:.1}"),
        process_ratio >= 20.0,
    );
    engines.stop().await;
    Ok(met)
}
