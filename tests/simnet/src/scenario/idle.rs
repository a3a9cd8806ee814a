//! Nobody asks for anything: what the gateway does by itself.

use std::time::Duration;

use super::Rig;
use crate::bed::Bed;
use crate::pace::Pace;
use crate::process::{cpu, memory};
use crate::row::{Row, number};

const HOUR: Duration = Duration::from_secs(3600);

pub async fn with_a_route(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    idle(bed, pace, "idle-hour", "[[routes]]\nname = \"pool-of-eight\"\nselector = \"any\"\npool = 8\n").await
}

pub async fn bare(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    idle(bed, pace, "idle-hour-bare", "").await
}

async fn idle(bed: &Bed, pace: Pace, name: &'static str, lines: &str) -> anyhow::Result<Row> {
    let rig = Rig::warm(bed, pace, lines).await?;
    // All exits were tested within one minute, so nothing is due for `check.every`: that is not how an hour begins.
    pace.wait(Duration::from_secs(35 * 60)).await;
    let pid = rig.gateway.pid();
    let (circuits, bytes) = (rig.world.circuits()?, exit_bytes(&rig)?);
    let (busy, size) = (cpu(pid)?, memory(pid)?);
    bed.web.forget();
    pace.wait(HOUR).await;
    let echoes =
        bed.web.seen().iter().filter(|seen| seen.host.starts_with("echo.") || seen.host.starts_with("ip.")).count();
    let circuits = rig.world.circuits()? - circuits;
    let mut row = Row::new(name, pace.name());
    row.at_most("circuits an hour", circuits, 2000.0 / 24.0);
    row.at_most("echo requests an hour", echoes as f64, 1000.0 / 24.0);
    row.at_most("CPU s an hour", (cpu(pid)? - busy).as_secs_f64(), 60.0);
    row.figure("circuits a second", number(circuits / 3600.0));
    row.figure("memory MB at begin and end", format!("{} {}", number(size), number(memory(pid)?)));
    row.figure("MB through exits", number((exit_bytes(&rig)? - bytes) / 1e6));
    rig.nobody_called_bad(&mut row).await?;
    rig.always(&mut row, &[])?;
    Ok(row)
}

/// Bytes through all exits since the network began.
pub(super) fn exit_bytes(rig: &Rig) -> anyhow::Result<f64> {
    Ok(rig.world.stats()?.bytes_by_exit.values().sum::<u64>() as f64)
}
