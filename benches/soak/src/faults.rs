//! What is broken, one thing at a time, and for how long that excuses a failed request.

use std::sync::Arc;
use std::time::Duration;

use exitgate_testnet::onionoo::Behaviour;
use tokio::time::{Instant, sleep};

use crate::gateway::signal_to;
use crate::world::World;

/// Between two faults: long enough that most of the time nothing is broken.
const BETWEEN: Duration = Duration::from_secs(14);
/// How long an exit stays dead.
const DEAD: Duration = Duration::from_secs(8);
/// After it is mended: what was under way ends, and what was learnt is forgotten.
const GRACE: Duration = Duration::from_secs(5);
/// How long an engine may take to come back.
const ENGINE: Duration = Duration::from_secs(15);

/// Breaks one thing after the other until `until`.
pub async fn inject(world: Arc<World>, until: Instant) {
    for turn in 0.. {
        sleep(BETWEEN).await;
        if Instant::now() + DEAD + ENGINE > until {
            break;
        }
        let end = match turn % 5 {
            0 => exit_dies(&world, turn / 5).await,
            1 => engine_dies(&world, turn / 5).await,
            2 => source_fails(&world, turn / 5).await,
            3 => world.gateway.signal("HUP"),
            _ => exit_hangs(&world, turn / 5).await,
        };
        if let Err(error) = end {
            world.tally.wrong(format!("a fault could not be injected: {error:#}"));
        }
    }
    world.bed.onionoo.behave(Behaviour::Normal);
}

async fn exit_dies(world: &World, turn: usize) -> anyhow::Result<()> {
    let exits = world.bed.network.exits();
    let name = exits[turn % exits.len()].name.clone();
    world.tally.fault_begins("exit killed");
    world.bed.network.kill(&name).await?;
    sleep(DEAD).await;
    world.bed.network.respawn(&name).await?;
    world.tally.fault_ends(GRACE);
    Ok(())
}

async fn exit_hangs(world: &World, turn: usize) -> anyhow::Result<()> {
    let exits = world.bed.network.exits();
    let name = exits[(turn + 3) % exits.len()].name.clone();
    world.tally.fault_begins("exit hangs");
    world.bed.network.pause(&name).await?;
    sleep(DEAD).await;
    world.bed.network.resume(&name).await?;
    world.tally.fault_ends(GRACE);
    Ok(())
}

async fn engine_dies(world: &World, turn: usize) -> anyhow::Result<()> {
    let engines = world.gateway.engines();
    anyhow::ensure!(!engines.is_empty(), "there is no engine to kill");
    world.tally.fault_begins("engine killed");
    signal_to(engines[turn % engines.len()], "KILL")?;
    let deadline = Instant::now() + ENGINE;
    while world.gateway.engines().len() < engines.len() {
        anyhow::ensure!(Instant::now() < deadline, "an engine does not come back within {} s", ENGINE.as_secs());
        sleep(Duration::from_millis(100)).await;
    }
    world.tally.fault_ends(GRACE);
    Ok(())
}

/// No excuse for anybody: what is known of the exits stays known.
async fn source_fails(world: &World, turn: usize) -> anyhow::Result<()> {
    let ways = [Behaviour::Status(500), Behaviour::Truncated, Behaviour::Garbage, Behaviour::Hang];
    world.bed.onionoo.behave(ways[turn % ways.len()]);
    let (status, _) = world.gateway.api("POST", "/sources/onionoo/refresh", None).await?;
    anyhow::ensure!(status < 500 || status == 502 || status == 503, "a refresh of a broken source gives {status}");
    world.bed.onionoo.behave(Behaviour::Normal);
    Ok(())
}
