//! What one more exit costs: memory, the choice among them, judging and restoring. `benches/scale` draws it.

use std::time::{Duration, Instant};

use exitgate_testnet::fetch;
use exitgate_testnet::public::Kind;
use tokio::net::TcpStream;

use crate::bed::{Bed, Gateway, percentile};

const STEPS: [u32; 3] = [100, 1_000, 10_000];

/// Requests whose cost is averaged, one after the other.
const REQUESTS: u32 = 1_000;

/// Pauses so long that nothing but the requests is going on while they are timed.
const QUIET: &str =
    "check.public.working_every = \"1h\"\ncheck.public.extended_probes = 0\ncheck.public.extended_passes = 0";

/// Prints a line a step: exits, KiB each, CPU µs a request, p50 µs, p99 µs, µs to judge one, ms until all are served again.
pub async fn run() -> anyhow::Result<()> {
    let empty = {
        let bed = Bed::start(&[(Kind::Good, 1)]).await?;
        let gateway = bed.launch(QUIET).await?;
        gateway.wait_stats(|stats| stats["working_proxies"] == 1).await?;
        gateway.stop()?;
        let gateway = bed.launch(QUIET).await?;
        gateway.wait_stats(|stats| stats["working_proxies"] == 1).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        gateway.memory("RssAnon")?
    };
    for count in STEPS {
        let bed = Bed::start(&[(Kind::Good, count)]).await?;
        let gateway = bed.launch(QUIET).await?;
        let judged = gateway.wait_stats(|stats| stats["working_proxies"] == count).await?;
        let (cpu, p50, p99) = requests(&bed, &gateway).await?;
        gateway.stop()?;
        // Memory after a restart: what it takes to know them, and not what judging all of them at once left behind.
        let gateway = bed.launch(QUIET).await?;
        let restored = gateway.wait_stats(|stats| stats["working_proxies"] == count).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let kib = gateway.memory("RssAnon")?.saturating_sub(empty) as f64 / f64::from(count);
        let judging = judged.as_secs_f64() * 1e6 / f64::from(count);
        let restored = restored.as_secs_f64() * 1e3;
        println!("scale {count} {kib:.3} {cpu:.1} {p50:.0} {p99:.0} {judging:.0} {restored:.0}");
    }
    Ok(())
}

/// CPU µs of the gateway a request, p50 and p99 µs to its whole answer.
async fn requests(bed: &Bed, gateway: &Gateway) -> anyhow::Result<(f64, f64, f64)> {
    let url = bed.web.http("echo.test", "/ip");
    let login = [("Proxy-Authorization", "Basic YW55LXNvdXJjZS1wdWJsaWM6")]; // any-source-public:
    let (mut took, mut cpu) = (Vec::new(), 0.0);
    for turn in 0..REQUESTS + REQUESTS / 10 {
        // The first tenth makes the route and its pool.
        if turn == REQUESTS / 10 {
            (cpu, took) = (gateway.cpu(), Vec::new());
        }
        let begun = Instant::now();
        let stream = TcpStream::connect(gateway.front()).await?;
        let got = fetch::get_with(stream, "echo.test", &url, &login).await?;
        anyhow::ensure!(got.status == 200, "{} {}", got.status, got.text().trim());
        took.push(begun.elapsed());
    }
    let micros = |span: Duration| span.as_secs_f64() * 1e6;
    let cpu = (gateway.cpu() - cpu) * 1e6 / f64::from(REQUESTS);
    Ok((cpu, micros(percentile(&mut took, 0.5)), micros(percentile(&mut took, 0.99))))
}
