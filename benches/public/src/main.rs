//! Public proxies by the thousand, each really listening on loopback, and the shipped binary that judges them.
//!
//!     cargo run --release -p exitgate-public-bench -- [pass|lists|churn|restart|scale|all] [minutes of churn]
//!
//! The fakes, the web that they reach and the load run in this process, beside the gateway on the same processors: what
//! is measured is the lower bound of what a machine of its own would do. Fakes stand for machines elsewhere, which take
//! nothing of a gateway's processors, so they run at a lower priority than it, the same as its judge.

#![expect(clippy::print_stdout, reason = "what it prints is the point of it")]

mod bed;
mod churn;
mod lists;
mod pass;
mod restart;
mod scale;

use anyhow::bail;

/// How much fakes yield: as much as the judge, or whoever is tested would wait for those that test.
const NICE: i32 = 10;

fn main() -> anyhow::Result<()> {
    let quietly = || _ = rustix::process::setpriority_process(None, NICE);
    let runtime = tokio::runtime::Builder::new_multi_thread().on_thread_start(quietly).enable_all().build()?;
    // This thread starts the gateway, which has its priority.
    runtime.block_on(run())
}

async fn run() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let what = words.next().unwrap_or_else(|| "all".to_owned());
    let minutes: f64 = words.next().map_or(Ok(1.0), |word| word.parse())?;
    match what.as_str() {
        "pass" => pass::run().await,
        "lists" => lists::run().await,
        "churn" => churn::run(minutes).await,
        "restart" => restart::run().await,
        "scale" => scale::run().await,
        "all" => {
            pass::run().await?;
            lists::run().await?;
            churn::run(minutes).await?;
            restart::run().await
        }
        other => bail!("there is no stage {other:?}: pass, lists, churn, restart, scale or all"),
    }
}
