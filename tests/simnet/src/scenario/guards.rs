//! The relay that an engine enters the network through fails.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Rig, moved};
use crate::bed::Bed;
use crate::client::Answer;
use crate::load::{Request, blaming, longest_gap, patience, reasons, send, served};
use crate::pace::Pace;
use crate::row::{Row, number};

/// How long the fault lasts.
const LENGTH: Duration = Duration::from_secs(300);

/// How long the load goes on: before, during and after.
const LOAD: Duration = Duration::from_secs(450);

/// Requests a second, in turn by `any` and by ten sessions.
const A_SECOND: u32 = 2;

pub async fn down(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    one_fails(bed, pace, "guard-down", |guard| json!({ "fault": "relay_down", "who": guard })).await
}

pub async fn hangs(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    one_fails(bed, pace, "guard-hangs", |guard| json!({ "fault": "relay_hang", "who": guard })).await
}

pub async fn overloaded(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    one_fails(bed, pace, "guard-overloaded", |guard| json!({ "fault": "relay_refuses", "who": guard })).await
}

async fn one_fails(bed: &Bed, pace: Pace, name: &'static str, fault: impl Fn(&str) -> Value) -> anyhow::Result<Row> {
    let rig = Rig::warm(bed, pace, "").await?;
    let guards = rig.guards().await?;
    let fault = fault(guards.first().map_or("entered", String::as_str));
    let act = async {
        pace.wait(Duration::from_secs(30)).await;
        let id = rig.world.order(&fault)?;
        pace.wait(LENGTH).await;
        let said = rig.said().await?;
        rig.world.end(id)?;
        Ok(said)
    };
    measure(bed, &rig, name, LOAD, act).await
}

/// Whatever guards the engines have is taken down, again and again; then all are back.
pub async fn in_turn(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    let rig = Rig::warm(bed, pace, "").await?;
    let act = async {
        let mut faults = Vec::new();
        for _ in 0..4 {
            for guard in rig.guards().await? {
                faults.push(rig.world.order(&json!({ "fault": "relay_down", "who": guard }))?);
            }
            pace.wait(Duration::from_secs(30)).await;
        }
        let said = rig.said().await?;
        faults.into_iter().try_for_each(|fault| rig.world.end(fault))?;
        Ok(said)
    };
    measure(bed, &rig, "guards-in-turn", LOAD, act).await
}

impl Rig {
    /// What the gateway says of its engines and of itself.
    pub(super) async fn said(&self) -> anyhow::Result<String> {
        let engine = |engine: &Value| {
            let state = engine["state"].as_str().unwrap_or("–").to_owned();
            engine["why"].as_str().map_or(state.clone(), |why| format!("{state}: {why}"))
        };
        let engines: Vec<String> = self.engines().await?.iter().map(engine).collect();
        let (status, _) = self.gateway.api("GET", "/ready").await?;
        Ok(format!("/ready {status}; engines {}", engines.join(", ")))
    }
}

/// Runs a load of this length while something goes wrong, and says what clients and promises had of it.
pub(super) async fn measure(
    bed: &Bed,
    rig: &Rig,
    name: &'static str,
    load: Duration,
    act: impl Future<Output = anyhow::Result<String>>,
) -> anyhow::Result<Row> {
    let (pace, entered) = (rig.pace, rig.world.entered()?);
    let sessions = || {
        let names = (0..10).map(|number| format!("any-session-g{number}"));
        names.map(|username| Request { username, url: bed.page(), at: Duration::ZERO }).collect::<Vec<_>>()
    };
    let before = send(rig.gateway.proxy(), sessions(), patience(pace)).await;
    let requests: Vec<Request> = (0..load.as_secs() as u32 * A_SECOND)
        .map(|number| {
            let username = if number % 2 == 0 { "any".to_owned() } else { format!("any-session-g{}", number / 2 % 10) };
            Request { username, url: bed.page(), at: pace.wall(Duration::from_secs(1) * number / A_SECOND) }
        })
        .collect();
    let at: Vec<Duration> = requests.iter().map(|request| request.at).collect();
    let (answers, said) = tokio::join!(send(rig.gateway.proxy(), requests, patience(pace)), act);
    let after = send(rig.gateway.proxy(), sessions(), patience(pace)).await;
    let mut row = Row::new(name, pace.name());
    row.at_most("longest time without a page s", longest_gap(&at, &answers, pace), 20.0);
    row.at_most("sessions moved of 10", moved(&before, &after) as f64, 0.0);
    row.at_least("sessions served after it of 10", served(&after) as f64, 10.0);
    row.at_most("errors that blame an exit", blaming(&answers) as f64, 0.0);
    row.figure("served %", number(served(&answers) as f64 / answers.len() as f64 * 100.0));
    row.figure("failures", reasons(&answers));
    row.figure("relays entered besides", rig.world.entered()?.saturating_sub(entered));
    row.figure("what is said", said?);
    rig.nobody_called_bad(&mut row).await?;
    let all: Vec<Answer> = [before, answers, after].concat();
    rig.always(&mut row, &all)?;
    Ok(row)
}
