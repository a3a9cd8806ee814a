//! Thousands of public proxies, each listening on loopback, and the shipped binary that tests them.
//!
//!     cargo run --release -p exitgate-public-bench -- [pass|lists|churn|restart|scale|all] [minutes of churn]
//!
//! The fakes, the web that they reach and the load run in this process, on the same processors as the gateway. So every figure is a
//! lower bound: on a machine of its own the gateway does better. Fakes stand for machines elsewhere, which use none of the gateway's
//! CPU time, so they run at a lower priority, the same as the gateway's tester.

#![expect(clippy::print_stdout, reason = "the figures are this program's output")]

mod churn;
mod fakes;
mod lists;
mod pass;
mod restart;
mod scale;

use std::process::Command;

use anyhow::{Context as _, bail};

/// The priority of the fakes: that of the gateway's tester. With a higher one the tester would wait for the proxies that it tests.
const NICE: i32 = 10;

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let stage = words.next().unwrap_or_else(|| "all".to_owned());
    let minutes = words.next().unwrap_or_else(|| "1".to_owned());
    if stage == "all" {
        return ["pass", "lists", "churn", "restart"].iter().try_for_each(|stage| in_own_process(stage, &minutes));
    }
    let minutes = minutes.parse().context("the minutes of churn")?;
    let lower_priority = || _ = rustix::process::setpriority_process(None, NICE);
    let runtime = tokio::runtime::Builder::new_multi_thread().on_thread_start(lower_priority).enable_all().build()?;
    // This thread keeps its priority and starts the gateway, which inherits it.
    runtime.block_on(run(&stage, minutes))
}

/// Runs a stage in a process of its own: thousands of sockets of one stage must not count towards the limit of the next.
fn in_own_process(stage: &str, minutes: &str) -> anyhow::Result<()> {
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
