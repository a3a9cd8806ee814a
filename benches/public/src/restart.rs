//! What is served in the first second after a restart, before anything was tested again.

use exitgate_testnet::public::Kind;
use serde_json::Value;

use crate::bed::Bed;

const WORKING: u32 = 5_000;

pub async fn run() -> anyhow::Result<()> {
    let bed = Bed::start(&[(Kind::Good, WORKING)]).await?;
    let long_pauses =
        "check.public.working_every = \"1h\"\ncheck.public.extended_probes = 0\ncheck.public.extended_passes = 0";
    let gateway = bed.launch(long_pauses).await?;
    gateway.wait_stats(|stats| stats["working_proxies"] == WORKING).await?;
    gateway.stop()?;
    for proxy in bed.proxies.proxies().into_iter().take(100) {
        // A hundred that can be told from those that were tested again.
        bed.proxies.turn(proxy, Kind::Dead).await?;
    }
    let gateway = bed.launch(long_pauses).await?;
    let first = gateway.begun.elapsed();
    let list = gateway.json("/list?format=json").await?;
    let all = list.as_array().map_or(&[][..], Vec::as_slice);
    let aged = all.iter().filter(|one| one["age_seconds"].is_number()).count();
    let oldest = all.iter().filter_map(|one: &Value| one["age_seconds"].as_u64()).max();
    println!("restart: the API answers after {:.0} ms,", first.as_secs_f64() * 1000.0);
    println!(
        "  {} of {WORKING} served after {:.0} ms, {aged} with their age (oldest {oldest:?} s)",
        all.len(),
        gateway.begun.elapsed().as_secs_f64() * 1000.0
    );
    Ok(())
}
