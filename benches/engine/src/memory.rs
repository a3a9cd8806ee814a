//! The memory of a circuit: five hundred warm ones in one engine, without streams.

use std::collections::BTreeMap;

use exitgate::route::{CircuitDemand, Rank, SpareCircuits};
use exitgate_bench_shared::process::status;
use exitgate_bench_shared::table;
use exitgate_testnet::Testbed;

use crate::engines::{Engines, fingerprint};

const CIRCUITS: usize = 500;

/// The mark: KiB of one circuit, in tor and in the gateway together.
const MOST: f64 = 64.0;

pub async fn print(bed: &Testbed) -> anyhow::Result<bool> {
    let engines = Engines::start(bed, 1).await?;
    let exits = bed.network.exits();
    let each = u8::try_from(CIRCUITS.div_ceil(exits.len()))?;
    let want = |spares| -> anyhow::Result<CircuitDemand> {
        let all: anyhow::Result<BTreeMap<_, _>> = exits
            .iter()
            .map(|exit| Ok((fingerprint(exit)?, SpareCircuits { spares, rank: Rank::Used, hops: 3 })))
            .collect();
        Ok(CircuitDemand { exits: all?, ..CircuitDemand::default() })
    };
    let built = |count: usize| move |tor: &exitgate::tor::Tor| tor.status()[0].circuits >= count;
    // The first circuits also pay for what is needed once: sockets to the guard, tables, the allocator's arenas.
    engines.wanted.send_replace(want(2)?);
    engines.until("the first circuits", built(2 * exits.len())).await?;
    let tor = engines.tor.status()[0].pid.unwrap_or_default();
    let memory = || anyhow::Ok([status(tor, "RssAnon")?, status(std::process::id(), "RssAnon")?]);
    let (before, count) = (memory()?, engines.tor.circuits().len());
    let began = std::time::Instant::now();
    engines.wanted.send_replace(want(each)?);
    engines.until("all circuits", built(usize::from(each) * exits.len())).await?;
    let took = began.elapsed();
    let (after, circuits) = (memory()?, engines.tor.circuits().len() - count);
    let grown = [0, 1].map(|at| after[at].saturating_sub(before[at]) as f64 / circuits as f64);
    println!("### Memory\n");
    let row = |name: String, [tor, ours]: [f64; 2]| {
        [name].into_iter().chain([tor, ours, tor + ours].map(|kib| format!("{kib:.1}"))).collect()
    };
    let rows = [
        row("before, KiB".to_owned(), before.map(|kib| kib as f64)),
        row(format!("with {circuits} more circuits, KiB"), after.map(|kib| kib as f64)),
        row("KiB a circuit".to_owned(), grown),
    ];
    table::print(&["", "tor", "gateway", "together"], &rows);
    println!(
        "\n(built in {:.2} s; the gateway's column is this process, which also holds the target and its certificates)",
        took.as_secs_f64()
    );
    let met = table::mark(&format!("a circuit costs {MOST} KiB or less"), grown[0] + grown[1] <= MOST);
    engines.stop().await;
    Ok(met)
}
