//! Two ways to do the same, measured alternately: the state of the machine, which changes by the minute, meets both alike.

use std::time::Duration;

use exitgate_bench_shared::stats::{Times, ratio};
use exitgate_bench_shared::table;

/// Measured repetitions of each side.
pub const ROUNDS: usize = 300;

/// Repetitions before the first that counts.
const WARM_UP: usize = 20;

/// The mark: our median, as a multiple of theirs.
const MOST: f64 = 1.1;

/// Measures both sides, prints the table, and returns whether the mark is met. Each side is given the number of the round and returns how
/// long its operation took.
pub async fn print(
    names: [&str; 2],
    mut ours: impl AsyncFnMut(usize) -> anyhow::Result<Duration>,
    mut theirs: impl AsyncFnMut(usize) -> anyhow::Result<Duration>,
) -> anyhow::Result<bool> {
    let mut times = [Times::default(), Times::default()];
    for round in 0..ROUNDS + WARM_UP {
        let (our_time, their_time) = (ours(round).await?, theirs(round).await?);
        if round >= WARM_UP {
            times[0].add(our_time);
            times[1].add(their_time);
        }
    }
    let rows = names.iter().zip(&times).map(|(name, times)| vec![(*name).to_owned(), times.cell()]);
    table::print(&["", "p50 / p95, ms"], &rows.collect::<Vec<_>>());
    let beside = ratio(times[0].p50(), times[1].p50());
    Ok(table::mark(&format!("p50 at most {MOST} times plain tor's: {beside:.2}"), beside <= MOST))
}
