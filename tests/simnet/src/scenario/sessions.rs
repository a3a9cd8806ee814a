//! Many new sessions: each wants an exit of its own, and most of them a circuit.

use std::time::Duration;

use super::Rig;
use crate::bed::Bed;
use crate::load::{patience, send, served, spread, timing};
use crate::pace::Pace;
use crate::row::{Row, quantile};

pub async fn at_once(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    sessions(bed, pace, "sessions-200", 200, Duration::ZERO).await
}

pub async fn in_a_minute(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    sessions(bed, pace, "sessions-1000", 1000, Duration::from_secs(60)).await
}

async fn sessions(bed: &Bed, pace: Pace, name: &'static str, count: usize, over: Duration) -> anyhow::Result<Row> {
    let rig = Rig::warm(bed, pace, "").await?;
    let circuits = rig.world.circuits()?;
    let usernames = (0..count).map(|number| format!("any-session-new{number}"));
    let requests = spread(usernames, &bed.page(), pace.wall(over));
    let answers = send(rig.gateway.proxy(), requests, patience(pace)).await;
    let mut row = Row::new(name, pace.name());
    row.at_least("served", served(&answers) as f64, count as f64);
    let firsts = crate::load::firsts(&answers, pace);
    row.at_most("first byte p95 s", quantile(&firsts, 0.95), 5.0);
    timing(&mut row, &answers, pace);
    row.figure("circuits asked for", rig.world.circuits()? - circuits);
    rig.nobody_called_bad(&mut row).await?;
    rig.always(&mut row, &answers)?;
    Ok(row)
}
