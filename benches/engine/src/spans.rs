//! What exitgate adds to the opening of a stream: the time between events of tor and its own reactions to them.

use std::time::Duration;

use exitgate_bench_shared::stats::Times;
use exitgate_bench_shared::table;
use exitgate_testnet::Testbed;
use tokio::time::Instant;

use crate::engines::{Engines, way};

const STREAMS: usize = 1_000;

/// Streams before the first that counts.
const WARM_UP: usize = 20;

/// The marks, for the sum of all three spans.
const P50: Duration = Duration::from_millis(1);
const P95: Duration = Duration::from_millis(2);

pub async fn print(bed: &Testbed) -> anyhow::Result<bool> {
    let engines = Engines::start(bed, 1).await?;
    let exit = bed.network.relay("us1");
    let mut spans = [(); 4].map(|()| Times::default());
    for stream in 0..STREAMS + WARM_UP {
        let (_open, facts) = engines.dial(way(exit, 1)?).await?;
        let returned = Instant::now();
        let timings = facts.timings;
        if stream >= WARM_UP {
            let ours =
                [timings.sent - timings.started, timings.attach().unwrap_or_default(), returned - timings.replied];
            ours.iter().zip(&mut spans).for_each(|(span, times)| times.add(*span));
            spans[3].add(ours.iter().sum());
        }
    }
    println!("### What exitgate adds to a stream ({STREAMS} streams on a warm circuit)\n");
    let names =
        ["asked → SOCKS request sent", "STREAM event → ATTACHSTREAM answered", "tor's reply → ours", "**all three**"];
    let rows: Vec<_> = names.iter().zip(&spans).map(|(name, times)| vec![(*name).to_owned(), times.cell()]).collect();
    table::print(&["span", "p50 / p95, ms"], &rows);
    let all = &spans[3];
    let met = table::mark("p50 1 ms or less, p95 2 ms or less", all.p50() <= P50 && all.percentile(0.95) <= P95);
    engines.stop().await;
    Ok(met)
}
