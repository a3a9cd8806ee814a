//! What we add to a stream, measured inside it: the spans between tor's moments and ours.

use std::time::Duration;

use exitgate_testnet::Testbed;
use tokio::time::Instant;

use crate::rig::{Rig, way};
use crate::stats::{Times, mark};

const STREAMS: usize = 1_000;

/// Streams that only warm things up.
const WARM: usize = 20;

/// The marks, for all three spans together.
const P50: Duration = Duration::from_millis(1);
const P95: Duration = Duration::from_millis(2);

pub async fn print(bed: &Testbed) -> anyhow::Result<bool> {
    let rig = Rig::start(bed, 1).await?;
    let exit = bed.network.relay("us1");
    let mut spans = [(); 4].map(|()| Times::default());
    for stream in 0..STREAMS + WARM {
        let (_open, facts) = rig.dial(way(exit, 1)?).await?;
        let told = Instant::now();
        let timings = facts.timings;
        if stream >= WARM {
            let ours = [timings.sent - timings.started, timings.attach().unwrap_or_default(), told - timings.replied];
            ours.iter().zip(&mut spans).for_each(|(span, times)| times.add(*span));
            spans[3].add(ours.iter().sum());
        }
    }
    println!("### What we add to a stream ({STREAMS} streams on a warm circuit)\n");
    println!("| span | p50 / p95, ms |\n| --- | --- |");
    let names =
        ["asked → SOCKS request sent", "STREAM event → ATTACHSTREAM answered", "tor's reply → ours", "**all three**"];
    for (name, times) in names.iter().zip(&spans) {
        println!("| {name} | {} |", times.cell());
    }
    let all = &spans[3];
    let met = mark("p50 1 ms or less, p95 2 ms or less", all.p50() <= P50 && all.percentile(95) <= P95);
    rig.stop().await;
    Ok(met)
}
