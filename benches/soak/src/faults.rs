//! Faults that are injected, one at a time, and for how long each excuses a failed request.

use std::sync::Arc;
use std::time::Duration;

use exitgate_bench_shared::process::signal;
use exitgate_testnet::onionoo::Behaviour;
use tokio::time::{Instant, sleep};

use crate::setup::Setup;

/// Between two faults: long enough that there is no fault for most of the time.
const BETWEEN: Duration = Duration::from_secs(14);
/// How long an exit stays dead.
const DEAD: Duration = Duration::from_secs(8);
/// How long requests are excused after a fault ends: until those that were running have ended, and the gateway tries the exit again.
const GRACE: Duration = Duration::from_secs(5);
/// How long an engine may take to come back.
const ENGINE: Duration = Duration::from_secs(15);

/// Injects one fault after the other until `until`.
pub async fn inject(setup: Arc<Setup>, until: Instant) {
    for number in 0.. {
        sleep(BETWEEN).await;
        if Instant::now() + DEAD + ENGINE > until {
            break;
        }
        let end = match number % 5 {
            0 => exit_dies(&setup, number / 5).await,
            1 => engine_dies(&setup, number / 5).await,
            2 => source_fails(&setup, number / 5).await,
            3 => setup.gateway.signal("HUP"),
            _ => exit_hangs(&setup, number / 5).await,
        };
        if let Err(error) = end {
            setup.outcomes.wrong(format!("a fault could not be injected: {error:#}"));
        }
    }
    setup.bed.onionoo.behave(Behaviour::Normal);
}

async fn exit_dies(setup: &Setup, number: usize) -> anyhow::Result<()> {
    let name = exit(setup, number);
    setup.outcomes.fault_begins("exit killed");
    setup.bed.network.kill(&name).await?;
    sleep(DEAD).await;
    setup.bed.network.respawn(&name).await?;
    setup.outcomes.fault_ends(GRACE);
    Ok(())
}

async fn exit_hangs(setup: &Setup, number: usize) -> anyhow::Result<()> {
    let name = exit(setup, number + 3);
    setup.outcomes.fault_begins("exit hangs");
    setup.bed.network.pause(&name).await?;
    sleep(DEAD).await;
    setup.bed.network.resume(&name).await?;
    setup.outcomes.fault_ends(GRACE);
    Ok(())
}

fn exit(setup: &Setup, number: usize) -> String {
    let exits = setup.bed.network.exits();
    exits[number % exits.len()].name.clone()
}

async fn engine_dies(setup: &Setup, number: usize) -> anyhow::Result<()> {
    let engines = setup.gateway.engines();
    anyhow::ensure!(!engines.is_empty(), "there is no engine to kill");
    setup.outcomes.fault_begins("engine killed");
    signal(engines[number % engines.len()], "KILL")?;
    let deadline = Instant::now() + ENGINE;
    while setup.gateway.engines().len() < engines.len() {
        anyhow::ensure!(Instant::now() < deadline, "an engine does not come back within {} s", ENGINE.as_secs());
        sleep(Duration::from_millis(100)).await;
    }
    setup.outcomes.fault_ends(GRACE);
    Ok(())
}

/// Excuses no request: the gateway keeps what it knows of the exits.
async fn source_fails(setup: &Setup, number: usize) -> anyhow::Result<()> {
    let faults = [Behaviour::Status(500), Behaviour::Truncated, Behaviour::Garbage, Behaviour::Hang];
    setup.bed.onionoo.behave(faults[number % faults.len()]);
    let status = setup.gateway.ask("POST", "/sources/onionoo/refresh", None).await?.status;
    anyhow::ensure!(status < 500 || status == 502 || status == 503, "a refresh of a broken source gives {status}");
    setup.bed.onionoo.behave(Behaviour::Normal);
    Ok(())
}
