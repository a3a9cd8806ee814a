//! Requests on a route over public proxies, while five percent of the proxies die every minute.

use std::time::Duration;

use exitgate_bench_shared::stats::percentile;
use exitgate_testnet::public::Kind;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::fakes::{Fakes, timed_request, wait_for_stats};

const WORKING: u32 = 1_000;
const A_SECOND: u32 = 40;

/// How many proxies die at once, and how often: 5 % a minute.
const DIE: (usize, Duration) = (5, Duration::from_secs(6));

pub async fn run(minutes: f64) -> anyhow::Result<()> {
    let fakes = Fakes::start(&[(Kind::Good, WORKING)]).await?;
    let route = "[[routes]]\nname = \"fleet\"\nselector = \"any-source-public\"\npool = 32";
    let server = fakes.launch(route).await?;
    wait_for_stats(&server, |stats| stats["working_proxies"].as_u64() >= Some(u64::from(WORKING) * 99 / 100)).await?;
    println!("churn: {WORKING} proxies, 5 % die each minute, {A_SECOND} requests a second for {minutes} minutes");
    let (gateway, url) = (fakes.gateway(), fakes.web.http("echo.test", "/ip"));
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let mut pace = tokio::time::interval(Duration::from_secs(1) / A_SECOND);
    let mut deaths = tokio::time::interval(DIE.1);
    deaths.tick().await;
    let all: Vec<_> = fakes.proxies.proxies().into_iter().cloned().collect();
    let mut doomed = all.iter();
    let (mut running, mut took, mut failed, mut dead) = (JoinSet::new(), Vec::new(), Vec::new(), 0);
    while Instant::now() < end || !running.is_empty() {
        tokio::select! {
            _ = pace.tick(), if Instant::now() < end => {
                let url = url.clone();
                running.spawn(async move { timed_request(gateway, "fleet", &url).await });
            }
            _ = deaths.tick() => {
                // Half of them refuse from now on; half hang, which costs their clients a time-out.
                for (number, proxy) in doomed.by_ref().take(DIE.0).enumerate() {
                    fakes.proxies.change_kind(proxy, if number % 2 == 0 { Kind::Dead } else { Kind::Hanging }).await?;
                    dead += 1;
                }
            }
            Some(ended) = running.join_next() => match ended? {
                Ok(time) => took.push(time),
                Err(error) => failed.push(error.to_string()),
            },
        }
    }
    let asked = took.len() + failed.len();
    let share = took.len() as f64 / asked as f64 * 100.0;
    let at = |took: &mut Vec<Duration>, share| percentile(took, share).as_secs_f64() * 1000.0;
    println!("  {asked} requests, {share:.2} % succeeded, {dead} proxies died");
    println!(
        "  p50 {:.1} ms, p99 {:.0} ms, p99.9 {:.0} ms",
        at(&mut took, 0.5),
        at(&mut took, 0.99),
        at(&mut took, 0.999)
    );
    failed.iter().take(3).for_each(|why| println!("    {why}"));
    Ok(())
}
