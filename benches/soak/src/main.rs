//! Loads a gateway on a private Tor network, injects faults, and checks what is left behind.
//!
//! A test of some seconds shows no leak and no rare wrong exit. Here clients of several kinds run for minutes while exits die and
//! return, engines are killed, sources fail, routes are created and deleted, and the configuration is reloaded. At the end the
//! gateway must have the same memory and the same descriptors as at the start, no client may hang, and no request may have left by an
//! exit that was not asked for or that the answer does not name.
//!
//! Next: `clients.rs` for the requests and their checks, `faults.rs` for the faults, `outcomes.rs` for the marks.
//!
//!     make soak                    thirty minutes
//!     make soak MINUTES=5
#![expect(clippy::print_stdout, reason = "the report is this program's output")]

mod clients;
mod faults;
mod gateway;
mod outcomes;
mod routes;
mod setup;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::gateway::Footprint;
use crate::setup::Setup;

const USAGE: &str = "soak GATEWAY MINUTES      GATEWAY: the program, such as target/release/exitgate";

/// How long the load runs before the first footprint: until pools are full, and caches and the allocator have reached their size. A fault
/// of every kind happens in it, because the first restart of an engine costs memory that the second does not.
const WARM_UP: Duration = Duration::from_secs(75);
/// How often metrics are read.
const SCRAPE: Duration = Duration::from_secs(15);
/// A pause without load before a footprint, in which tunnels drain and idle connections are closed.
const SILENCE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [program, minutes] = &args[..] else {
        println!("{USAGE}");
        return ExitCode::from(64);
    };
    let Some(minutes) = minutes.parse().ok().filter(|minutes: &u64| (1..=24 * 60).contains(minutes)) else {
        println!("MINUTES must be a number between 1 and 1440, not {minutes:?}\n{USAGE}");
        return ExitCode::from(64);
    };
    match soak(Path::new(program), Duration::from_secs(60 * minutes)).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("the soak could not run: {error:#}");
            ExitCode::from(70)
        }
    }
}

async fn soak(program: &Path, length: Duration) -> anyhow::Result<bool> {
    let setup = Arc::new(Setup::start(program).await?);
    println!("the gateway is ready; the warm-up takes {} s", WARM_UP.as_secs());
    busy(&setup, WARM_UP).await;
    let before = quiet(&setup).await?;
    println!("before: {before}");
    setup.outcomes.begin();
    busy(&setup, length).await;
    let after = quiet(&setup).await?;
    println!("after:  {after}");
    let fine = setup.outcomes.report(&before, &after);
    if !fine {
        let kept = PathBuf::from("target/ci");
        std::fs::create_dir_all(&kept)?;
        std::fs::copy(setup.gateway.log(), kept.join("soak-gateway.log")).context("cannot keep the gateway's log")?;
        println!("the gateway's log is in target/ci/soak-gateway.log");
    }
    Ok(fine)
}

/// Runs clients, faults and short-lived routes for `length`, and returns when all of them have ended.
async fn busy(setup: &Arc<Setup>, length: Duration) {
    let until = tokio::time::Instant::now() + length;
    let mut tasks = clients::spawn(setup, until);
    tasks.spawn(faults::inject(setup.clone(), until));
    tasks.spawn(routes::come_and_go(setup.clone(), until));
    tasks.spawn(watch(setup.clone(), until));
    while let Some(end) = tasks.join_next().await {
        if let Err(error) = end {
            setup.outcomes.wrong(format!("a task of the soak itself failed: {error}"));
        }
    }
}

/// Reads the metrics as Prometheus does. The gateway keeps the last counts of deleted routes until somebody reads them.
async fn watch(setup: Arc<Setup>, until: tokio::time::Instant) {
    while tokio::time::Instant::now() < until {
        tokio::time::sleep(SCRAPE).await;
        if let Err(error) = setup.gateway.metrics().await {
            setup.outcomes.wrong(format!("the metrics cannot be read: {error:#}"));
        }
    }
}

async fn quiet(setup: &Setup) -> anyhow::Result<Footprint> {
    tokio::time::sleep(SILENCE).await;
    setup.gateway.footprint().await
}
