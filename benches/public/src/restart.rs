//! What the API lists in the first second after a restart, before any proxy was tested again.

use exitgate_testnet::public::Kind;
use serde_json::Value;

use crate::fakes::{Fakes, LONG_PAUSES, wait_for_stats};

const WORKING: u32 = 5_000;

pub async fn run() -> anyhow::Result<()> {
    let fakes = Fakes::start(&[(Kind::Good, WORKING)]).await?;
    let gateway = fakes.launch(LONG_PAUSES).await?;
    wait_for_stats(&gateway, |stats| stats["working_proxies"] == WORKING).await?;
    gateway.stop()?;
    for proxy in fakes.proxies.proxies().into_iter().take(100) {
        // These would leave the list if they were tested again.
        fakes.proxies.change_kind(proxy, Kind::Dead).await?;
    }
    let gateway = fakes.launch(LONG_PAUSES).await?;
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
