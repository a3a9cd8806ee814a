//! The load that a gateway is for: a steady scraper with sessions.

use std::time::Duration;

use super::Rig;
use crate::bed::Bed;
use crate::load::{firsts, patience, send, served, spread, timing};
use crate::pace::Pace;
use crate::row::{Row, number, quantile};

const SESSIONS: usize = 50;
const A_SECOND: f64 = 20.0;
const LENGTH: Duration = Duration::from_secs(600);

pub async fn steady(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    let rig = Rig::warm(bed, pace, "").await?;
    let circuits = rig.world.circuits()?;
    let count = (A_SECOND * LENGTH.as_secs_f64()) as usize;
    let usernames = (0..count).map(|number| format!("any-session-s{}", number % SESSIONS));
    let answers = send(rig.gateway.proxy(), spread(usernames, &bed.page(), pace.wall(LENGTH)), patience(pace)).await;
    let mut row = Row::new("scraper", pace.name());
    let share = served(&answers) as f64 / count as f64 * 100.0;
    row.at_least("served %", share, 99.9);
    row.at_most("first byte p95 s", quantile(&firsts(&answers, pace), 0.95), 5.0);
    timing(&mut row, &answers, pace);
    let sessions: Vec<Vec<_>> =
        (0..SESSIONS).map(|s| answers.iter().skip(s).step_by(SESSIONS).cloned().collect()).collect();
    let changes: usize = sessions.iter().map(|session| super::moved(session, &session[1..])).sum();
    row.at_most("changes of a session's address", changes as f64, 0.0);
    row.figure("circuits a minute", number((rig.world.circuits()? - circuits) / 10.0));
    rig.nobody_called_bad(&mut row).await?;
    rig.always(&mut row, &answers)?;
    Ok(row)
}
