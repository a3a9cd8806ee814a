//! What a circuit costs: five hundred warm ones in one engine, nobody on them.

use std::collections::BTreeMap;

use exitgate::route::{WantedExit, WantedExits};
use exitgate_testnet::Testbed;

use crate::rig::{Rig, fingerprint, memory};
use crate::stats::mark;

const CIRCUITS: usize = 500;

/// The mark: KiB a circuit, tor's and ours together.
const MOST: f64 = 64.0;

pub async fn print(bed: &Testbed) -> anyhow::Result<bool> {
    let rig = Rig::start(bed, 1).await?;
    let exits = bed.network.exits();
    let each = u8::try_from(CIRCUITS.div_ceil(exits.len()))?;
    let want = |spares| -> anyhow::Result<WantedExits> {
        let all: anyhow::Result<BTreeMap<_, _>> =
            exits.iter().map(|exit| Ok((fingerprint(exit)?, WantedExit { spares, hops: 3 }))).collect();
        Ok(WantedExits { exits: all?, ..WantedExits::default() })
    };
    let built = |count: usize| move |tor: &exitgate::tor::Tor| tor.status()[0].circuits >= count;
    // What the first few need is needed once: sockets to the guard, tables, the allocator's arenas.
    rig.wanted.send_replace(want(2)?);
    rig.until("the first circuits", built(2 * exits.len())).await?;
    let tor = rig.tor.status()[0].pid.unwrap_or_default();
    let here = std::process::id();
    let (before, count) = ([memory(tor)?, memory(here)?], rig.tor.circuits().len());
    let began = std::time::Instant::now();
    rig.wanted.send_replace(want(each)?);
    rig.until("all circuits", built(usize::from(each) * exits.len())).await?;
    let took = began.elapsed();
    let (after, circuits) = ([memory(tor)?, memory(here)?], rig.tor.circuits().len() - count);
    let grown = [0, 1].map(|at| after[at].saturating_sub(before[at]) as f64 / circuits as f64);
    println!("### Memory\n\n| | tor | gateway | together |\n| --- | --- | --- | --- |");
    println!("| before, KiB | {} | {} | |", before[0], before[1]);
    println!("| with {circuits} circuits more, KiB | {} | {} | |", after[0], after[1]);
    println!("| KiB a circuit | {:.1} | {:.1} | **{:.1}** |", grown[0], grown[1], grown[0] + grown[1]);
    println!(
        "\n(built in {:.2} s; the gateway's column is this process, with the target and its certificates in it)",
        took.as_secs_f64()
    );
    let met = mark(&format!("a circuit costs {MOST} KiB or less"), grown[0] + grown[1] <= MOST);
    rig.stop().await;
    Ok(met)
}
