//! What one more exit costs: memory, a choice among all, a test, and a restart. `benches/scale` draws the figures.

use std::time::Duration;

use exitgate_bench_shared::gateway::Gateway;
use exitgate_bench_shared::stats::percentile;
use exitgate_testnet::public::Kind;

use crate::fakes::{Fakes, LONG_PAUSES, timed_request, wait_for_stats};

const STEPS: [u32; 3] = [100, 1_000, 10_000];

/// Requests, one after the other, whose cost is averaged.
const REQUESTS: u32 = 1_000;

/// Prints a line for each step: exits, KiB each, CPU µs a request, p50 µs, p99 µs, µs to test one, ms until all are listed again.
pub async fn run() -> anyhow::Result<()> {
    let empty = {
        let fakes = Fakes::start(&[(Kind::Good, 1)]).await?;
        let gateway = fakes.launch(LONG_PAUSES).await?;
        wait_for_stats(&gateway, |stats| stats["working_proxies"] == 1).await?;
        gateway.stop()?;
        let gateway = fakes.launch(LONG_PAUSES).await?;
        wait_for_stats(&gateway, |stats| stats["working_proxies"] == 1).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        gateway.status("RssAnon")?
    };
    for count in STEPS {
        let fakes = Fakes::start(&[(Kind::Good, count)]).await?;
        let gateway = fakes.launch(LONG_PAUSES).await?;
        let tested = wait_for_stats(&gateway, |stats| stats["working_proxies"] == count).await?;
        let (cpu, p50, p99) = requests(&fakes, &gateway).await?;
        gateway.stop()?;
        // Memory after a restart: what the exits themselves take, without what the test of all of them left behind.
        let gateway = fakes.launch(LONG_PAUSES).await?;
        let restored = wait_for_stats(&gateway, |stats| stats["working_proxies"] == count).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let kib = gateway.status("RssAnon")?.saturating_sub(empty) as f64 / f64::from(count);
        let testing = tested.as_secs_f64() * 1e6 / f64::from(count);
        let restored = restored.as_secs_f64() * 1e3;
        println!("scale {count} {kib:.3} {cpu:.1} {p50:.0} {p99:.0} {testing:.0} {restored:.0}");
    }
    Ok(())
}

/// CPU µs of the gateway for each request; p50 and p99 µs until the whole answer is there.
async fn requests(fakes: &Fakes, gateway: &Gateway) -> anyhow::Result<(f64, f64, f64)> {
    let url = fakes.web.http("echo.test", "/ip");
    let (mut took, mut cpu) = (Vec::new(), 0.0);
    for number in 0..REQUESTS + REQUESTS / 10 {
        // The first tenth does not count: it makes the route and its pool.
        if number == REQUESTS / 10 {
            (cpu, took) = (gateway.cpu(), Vec::new());
        }
        took.push(timed_request(fakes.gateway(), "any-source-public", &url).await?);
    }
    let micros = |span: Duration| span.as_secs_f64() * 1e6;
    let cpu = (gateway.cpu() - cpu) * 1e6 / f64::from(REQUESTS);
    Ok((cpu, micros(percentile(&mut took, 0.5)), micros(percentile(&mut took, 0.99))))
}
