//! From the start of the process to the first pages.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Data, Rig};
use crate::bed::Bed;
use crate::client::{Answer, get};
use crate::load::patience;
use crate::pace::Pace;
use crate::row::{Row, number};
use crate::world::Network;

/// A country with a handful of exits.
const SMALL: &str = "is";

/// How long the first page is waited for, in time of the model.
const LONGEST: Duration = Duration::from_secs(15 * 60);

pub async fn fresh(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    start(bed, pace, "fresh-start", Data::Empty, &[1, 5, 20]).await
}

pub async fn again(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    start(bed, pace, "restart", Data::Tested, &[1]).await
}

async fn start(bed: &Bed, pace: Pace, name: &'static str, data: Data, minutes: &[u64]) -> anyhow::Result<Row> {
    let network = Network { speed: pace.0, ..Network::default() };
    let rig = Rig::start(bed, pace, network, data, "").await?;
    let began = rig.gateway.began;
    let mut row = Row::new(name, pace.name());
    let posted = rig.gateway.post("/proxies", &json!({ "name": "early", "selector": "us" })).await?;
    row.holds("POST /proxies in the first second", posted.0, posted.0 == 201);
    if posted.0 != 201 {
        row.figure("its refusal", posted.1["error"]["message"].as_str().unwrap_or("–"));
    }
    let first = |username: &'static str| first_page(bed, &rig, username);
    let (any, us, small, counts, ready) = tokio::join!(
        first("any"),
        first("us"),
        first(SMALL),
        known(&rig, minutes),
        rig.gateway.ready(pace.wall(LONGEST))
    );
    row.figure("to ready s", ready.as_ref().map_or("–".into(), |took| number(pace.model(*took))));
    let engines = ready.map_or(f64::NAN, |took| pace.model(took));
    row.figure("first page by any s", number(any.0));
    row.figure(format!("first page by {SMALL} s"), number(small.0));
    row.figure("first page by us s", number(us.0));
    row.at_most("first page by us after the first exit was ready s", (us.0 - engines).max(0.0), 5.0);
    row.figure("refusals before it", any.1.len() + us.1.len() + small.1.len() - 3);
    for (minute, usable) in counts {
        row.figure(format!("exits known good after {minute} min"), usable);
    }
    row.figure("circuits asked for", rig.world.circuits()?);
    row.figure("s of the model in all", number(pace.model(began.elapsed())));
    rig.always(&mut row, &[any.1, us.1, small.1].concat())?;
    Ok(row)
}

/// Asks every second until a page arrives: when, in seconds of the model since the start, and all answers.
async fn first_page(bed: &Bed, rig: &Rig, username: &str) -> (f64, Vec<Answer>) {
    let until = rig.gateway.began + rig.pace.wall(LONGEST);
    let mut answers = Vec::new();
    while Instant::now() < until {
        let answer = get(rig.gateway.proxy(), username, &bed.page(), patience(rig.pace)).await;
        let served = answer.served();
        answers.push(answer);
        if served {
            return (rig.pace.model(rig.gateway.began.elapsed()), answers);
        }
        sleep(rig.pace.wall(Duration::from_secs(1))).await;
    }
    (f64::INFINITY, answers)
}

/// How many exits are usable after so many minutes of the model.
async fn known(rig: &Rig, minutes: &[u64]) -> Vec<(u64, usize)> {
    let mut counts = Vec::new();
    for minute in minutes {
        let at = rig.gateway.began + rig.pace.wall(Duration::from_secs(60 * minute));
        tokio::time::sleep_until(at).await;
        counts.push((*minute, rig.gateway.usable().await));
    }
    counts
}
