//! Targets that do not answer, answer late, or refuse: whoever asks for them must not lose an exit for it.

use std::time::Duration;

use serde_json::json;

use super::{Rig, moved};
use crate::bed::Bed;
use crate::client::Answer;
use crate::load::{Request, blaming, patience, reasons, send, served, spread};
use crate::pace::Pace;
use crate::row::Row;

/// Requests of the session for the bad target, one after another.
const IN_A_SESSION: usize = 3;

/// Requests by a pool, all at once.
const BY_A_POOL: usize = 200;

pub async fn dead(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    run(bed, pace, "dead-target", bed.web.http("dead.test", "/ip")).await
}

/// The page is one that takes 20 s, which is longer than an attempt may take and shorter than a dial.
pub async fn slow(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    let seconds = pace.wall(Duration::from_secs(20)).as_secs_f64();
    run(bed, pace, "slow-target", bed.web.http("slow.test", &format!("/sleep/{seconds}"))).await
}

pub async fn refusing(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    run(bed, pace, "refusing-target", bed.web.http("closed.test", "/ip")).await
}

async fn run(bed: &Bed, pace: Pace, name: &'static str, url: String) -> anyhow::Result<Row> {
    let rig = Rig::warm(bed, pace, "").await?;
    rig.world.order(&json!({ "fault": "target_drops", "to": "dead.test" }))?;
    let (proxy, patience) = (rig.gateway.proxy(), patience(pace));
    let good =
        |count: usize| spread((0..count).map(|n| format!("any-session-healthy{n}")), &bed.page(), Duration::ZERO);
    let before = send(proxy, good(4), patience).await;
    let mut bad: Vec<Answer> = Vec::new();
    for _ in 0..IN_A_SESSION {
        let each: Vec<Request> = good(4).into_iter().map(|request| Request { url: url.clone(), ..request }).collect();
        bad.extend(send(proxy, each, patience).await);
    }
    let after = send(proxy, good(4), patience).await;
    let pool = spread((0..BY_A_POOL).map(|_| "any-rotate".to_owned()), &url, pace.wall(Duration::from_secs(60)));
    let by_pool = send(proxy, pool, patience).await;
    let normal = send(proxy, spread((0..20).map(|_| "any".to_owned()), &bed.page(), Duration::ZERO), patience).await;

    let mut row = Row::new(name, pace.name());
    row.at_most("sessions moved of 4", moved(&before, &after) as f64, 0.0);
    row.at_least("sessions served after it of 4", served(&after) as f64, 4.0);
    let slowest =
        bad.iter().filter(|answer| !answer.served()).map(|answer| pace.model(answer.whole)).fold(0.0, f64::max);
    row.at_most("slowest error s", slowest, 15.0);
    row.figure("errors in sessions", reasons(&bad));
    row.figure("errors by a pool", reasons(&by_pool));
    row.figure("pages by a pool", served(&by_pool));
    row.at_least("other pages served after it of 20", served(&normal) as f64, 20.0);
    row.at_most("errors that blame an exit", (blaming(&bad) + blaming(&by_pool)) as f64, 0.0);
    row.figure("told of the move", after.iter().filter(|answer| answer.moved.is_some()).count());
    rig.nobody_called_bad(&mut row).await?;
    rig.always(&mut row, &[before, bad, after, by_pool, normal].concat())?;
    Ok(row)
}
