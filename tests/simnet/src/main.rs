//! Runs the shipped gateway on a simulated public Tor network and holds its figures against bars.
//!
//! `README.md` says what each scenario does and how to read the table. In the code: `bed.rs` (what all scenarios stand on),
//! `world.rs` and `gateway.rs` (the two processes of a scenario), `load.rs` (clients), `scenario.rs` (the list of
//! scenarios), `known_red.rs` (those that are red today).

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the report is this program's output")]

mod bed;
mod client;
mod gateway;
mod known_red;
mod load;
mod options;
mod pace;
mod process;
mod row;
mod scenario;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, timeout};

use crate::bed::Bed;
use crate::options::{Options, USAGE};
use crate::pace::Pace;
use crate::row::{HEAD, Row};
use crate::scenario::{ALL, Scenario};

/// A scenario that takes longer in real time hangs; in the short form a quarter of an hour is enough for each.
const LONGEST: Duration = Duration::from_secs(3 * 3600);

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            println!("{error:#}\n{USAGE}");
            return ExitCode::from(64);
        }
    };
    if options.list {
        ALL.iter().for_each(|scenario| println!("{:24} {}", scenario.name, scenario.about));
        return ExitCode::SUCCESS;
    }
    match run(options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("the scenarios could not be run: {error:#}");
            ExitCode::from(70)
        }
    }
}

/// Runs what was asked for; true if nothing came otherwise than expected.
async fn run(options: Options) -> anyhow::Result<bool> {
    let chosen = choose(&options)?;
    let bed = Bed::start(options).await?;
    let (mut lines, mut as_expected) = (Vec::new(), true);
    for scenario in chosen {
        let began = Instant::now();
        let factor = if bed.options.full { 1.0 } else { bed.options.by.unwrap_or(scenario.factor) };
        let row = match timeout(LONGEST.div_f64(factor.min(12.0)), (scenario.run)(&bed, Pace(factor))).await {
            Ok(Ok(mut row)) => {
                row.took = began.elapsed();
                Some(row)
            }
            Ok(Err(error)) => {
                println!("== {}: could not be run: {error:#}", scenario.name);
                None
            }
            Err(_) => {
                println!("== {}: did not end within {} s", scenario.name, began.elapsed().as_secs());
                None
            }
        };
        as_expected &= compare_with_list(scenario, row.as_ref());
        lines.push(row.map_or_else(|| format!("| {} | | could not be run | | |", scenario.name), |row| row.line()));
        write(&bed.options, &lines)?;
    }
    Ok(as_expected)
}

fn choose(options: &Options) -> anyhow::Result<Vec<&'static Scenario>> {
    if options.names.is_empty() {
        let all = ALL.iter().filter(|scenario| scenario.verify || !options.verify);
        let (which, of) = options.part.unwrap_or((1, 1));
        return Ok(all.skip(which - 1).step_by(of).collect());
    }
    let find = |name: &String| {
        ALL.iter().find(|scenario| scenario.name == name).with_context(|| format!("no scenario is called {name}"))
    };
    options.names.iter().map(find).collect()
}

/// Prints a row; true if it came as expected.
fn compare_with_list(scenario: &Scenario, row: Option<&Row>) -> bool {
    let Some(row) = row else { return false };
    println!("{}", row.report());
    match (row.green(), known_red::reason(scenario.name)) {
        (true, None) => true,
        (false, Some(reason)) => {
            println!("     red as expected: {reason}");
            true
        }
        (true, Some(_)) => {
            println!("     it is green: take it off the list in tests/simnet/src/known_red.rs");
            false
        }
        (false, None) => {
            println!("     it is red, and not listed as such");
            false
        }
    }
}

/// Writes the table anew after each scenario, so that a run that is broken off leaves what it has.
fn write(options: &Options, lines: &[String]) -> anyhow::Result<()> {
    let path = options.out.clone().map_or_else(|| Ok(options.logs()?.join("table.md")), anyhow::Ok)?;
    let table = format!("{HEAD}\n{}\n", lines.join("\n"));
    std::fs::write(&path, table).with_context(|| format!("{} cannot be written", path.display()))
}
