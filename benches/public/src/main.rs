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

use std::process::Command;

use anyhow::{Context as _, bail};

/// How much fakes yield: as much as the judge, or whoever is tested would wait for those that test.
const NICE: i32 = 10;

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let stage = words.next().unwrap_or_else(|| "all".to_owned());
    let minutes = words.next().unwrap_or_else(|| "1".to_owned());
    if stage == "all" {
        return ["pass", "lists", "churn", "restart"].iter().try_for_each(|stage| apart(stage, &minutes));
    }
    let minutes = minutes.parse().context("the minutes of churn")?;
    let quietly = || _ = rustix::process::setpriority_process(None, NICE);
    let runtime = tokio::runtime::Builder::new_multi_thread().on_thread_start(quietly).enable_all().build()?;
    // This thread starts the gateway, which has its priority.
    runtime.block_on(run(&stage, minutes))
}

/// A stage in a process of its own: the thousands of sockets of one must not be in the next one's limit.
fn apart(stage: &str, minutes: &str) -> anyhow::Result<()> {
    let status = Command::new(std::env::current_exe()?).args([stage, minutes]).status()?;
    anyhow::ensure!(status.success(), "the stage {stage} failed");
    Ok(())
}

async fn run(stage: &str, minutes: f64) -> anyhow::Result<()> {
    match stage {
        "pass" => pass::run().await,
        "lists" => lists::run().await,
        "churn" => churn::run(minutes).await,
        "restart" => restart::run().await,
        "scale" => scale::run().await,
        other => bail!("there is no stage {other:?}: pass, lists, churn, restart, scale or all"),
    }
}
