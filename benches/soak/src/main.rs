//! Keeps a gateway busy on a private Tor network, breaks things around it, and looks for what is left behind.
//!
//! A leak or a rare wrong exit shows in no test of seconds. Here mixed clients run for minutes while exits die and
//! return, engines are killed, sources fail, routes come and go and the configuration is reloaded; at the end the
//! gateway must be what it was at the start: the same memory, the same descriptors, nobody left hanging, and not one
//! request that left by another exit than was asked for or named.
//!
//! Next: `clients.rs` for what is asked and asserted, `faults.rs` for what is broken and when, `tally.rs` for the marks.
//!
//!     make soak                    thirty minutes
//!     make soak MINUTES=5
#![expect(clippy::print_stdout, reason = "the report is this program's output")]
#![expect(clippy::disallowed_methods, reason = "a load generator is its own client, and its tasks end with it")]

mod clients;
mod faults;
mod gateway;
mod routes;
mod speak;
mod tally;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::gateway::Footprint;
use crate::world::World;

const USAGE: &str = "soak GATEWAY MINUTES      GATEWAY: the program, such as target/release/exitgate";

/// Load before the first footprint is taken: pools fill, caches reach their size, the allocator its high mark. A fault
/// of every kind happens in it, because the first restart of an engine costs memory that the second does not.
const WARM_UP: Duration = Duration::from_secs(75);
/// How often metrics are read.
const SCRAPE: Duration = Duration::from_secs(15);
/// Silence before a footprint: what drains has drained, what is idle was closed.
const SILENCE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [program, minutes] = &args[..] else {
        println!("{USAGE}");
        return ExitCode::from(64);
    };
    let Some(minutes) = minutes.parse().ok().filter(|minutes: &u64| (1..=24 * 60).contains(minutes)) else {
        println!("{minutes:?} is no number of minutes between 1 and 1440\n{USAGE}");
        return ExitCode::from(64);
    };
    match soak(PathBuf::from(program), Duration::from_secs(60 * minutes)).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("the soak could not be done: {error:#}");
            ExitCode::from(70)
        }
    }
}

async fn soak(program: PathBuf, length: Duration) -> anyhow::Result<bool> {
    let world = Arc::new(World::start(program).await?);
    println!("the gateway is ready; warming up for {} s", WARM_UP.as_secs());
    busy(&world, WARM_UP).await;
    let before = quiet(&world).await?;
    println!("before: {before}");
    world.tally.begin();
    busy(&world, length).await;
    let after = quiet(&world).await?;
    println!("after:  {after}");
    let fine = world.tally.report(&before, &after);
    if !fine {
        let kept = PathBuf::from("target/ci");
        std::fs::create_dir_all(&kept)?;
        std::fs::copy(world.gateway.log(), kept.join("soak-gateway.log")).context("the log cannot be kept")?;
        println!("the gateway's log is kept at target/ci/soak-gateway.log");
    }
    Ok(fine)
}

/// Clients, faults and short-lived routes for `length`; all of them end before this returns.
async fn busy(world: &Arc<World>, length: Duration) {
    let until = tokio::time::Instant::now() + length;
    let mut tasks = clients::spawn(world, until);
    tasks.spawn(faults::inject(world.clone(), until));
    tasks.spawn(routes::come_and_go(world.clone(), until));
    tasks.spawn(watch(world.clone(), until));
    while let Some(end) = tasks.join_next().await {
        if let Err(error) = end {
            world.tally.wrong(format!("a task of the soak itself died: {error}"));
        }
    }
}

/// Scrapes as Prometheus does: the last counts of closed routes wait for that, up to a thousand names of them.
async fn watch(world: Arc<World>, until: tokio::time::Instant) {
    while tokio::time::Instant::now() < until {
        tokio::time::sleep(SCRAPE).await;
        if let Err(error) = world.gateway.metrics().await {
            world.tally.wrong(format!("the metrics cannot be read: {error:#}"));
        }
    }
}

async fn quiet(world: &World) -> anyhow::Result<Footprint> {
    tokio::time::sleep(SILENCE).await;
    world.gateway.footprint().await
}
