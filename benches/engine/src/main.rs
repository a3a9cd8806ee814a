//! Measures engines and circuits beside a plain tor client, in a private Tor network on loopback, in one run.
//!
//! Every figure that depends on the machine stands beside the same figure of tor alone, measured alternately: read the ratio. The
//! relays, the target and both sides of each comparison share the machine's cores.
//!
//! Next: `engines.rs` starts what is measured, `plain_tor.rs` is tor without exitgate; each other file is one table.
#![expect(clippy::print_stdout, reason = "the tables are this program's output")]

mod alternated;
mod engines;
mod load;
mod memory;
mod plain_tor;
mod reply;
mod shipped;
mod spans;
mod want;

use std::process::ExitCode;

use exitgate_testnet::Testbed;

/// The tables, by the word on the command line that prints one.
const PARTS: [&str; 6] = ["memory", "want", "spans", "reply", "shipped", "load"];

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(word) = words.iter().find(|word| !PARTS.contains(&word.as_str())) {
        println!("there is no table {word}; choose from: {}", PARTS.join(" "));
        return ExitCode::from(64);
    }
    let parts = PARTS.into_iter().filter(|part| words.is_empty() || words.iter().any(|word| word == part));
    match run(parts).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            println!("{fault:?}");
            ExitCode::from(70)
        }
    }
}

/// Prints these tables and returns whether every mark is met.
async fn run(parts: impl Iterator<Item = &'static str>) -> anyhow::Result<bool> {
    let bed = Testbed::start().await?;
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    println!("{cores} cores, shared with {} relays and the target\n", bed.network.relays().len());
    let mut met = true;
    for part in parts {
        met &= match part {
            "memory" => memory::print(&bed).await?,
            "want" => want::print(&bed).await?,
            "spans" => spans::print(&bed).await?,
            "reply" => reply::print(&bed).await?,
            "shipped" => shipped::print(&bed).await?,
            _ => load::print(&bed).await?,
        };
        println!();
    }
    Ok(met)
}
