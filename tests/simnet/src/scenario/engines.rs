//! The process of an engine, or the connection to it, fails.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use super::Rig;
use super::guards::measure;
use crate::bed::Bed;
use crate::pace::Pace;
use crate::process::signal;
use crate::row::Row;

/// How long the load goes on.
const LOAD: Duration = Duration::from_secs(150);

pub async fn crash(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    let rig = Rig::warm(bed, pace, "").await?;
    let act = async {
        pace.wait(Duration::from_secs(20)).await;
        signal(first(&rig)?, "KILL")?;
        pace.wait(Duration::from_secs(2)).await;
        rig.said().await
    };
    measure(bed, &rig, "engine-crash", LOAD, act).await
}

pub async fn hang(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    let rig = Rig::warm(bed, pace, "").await?;
    let act = async {
        pace.wait(Duration::from_secs(20)).await;
        let engine = first(&rig)?;
        signal(engine, "STOP")?;
        pace.wait(Duration::from_secs(60)).await;
        let said = rig.said().await;
        let _ = signal(engine, "CONT"); // the gateway may have ended it meanwhile
        said
    };
    measure(bed, &rig, "engine-hang", LOAD, act).await
}

pub async fn cut(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    let rig = Rig::warm(bed, pace, "").await?;
    let act = async {
        pace.wait(Duration::from_secs(20)).await;
        rig.world.order(&json!({ "fault": "control_cut" }))?;
        pace.wait(Duration::from_secs(2)).await;
        rig.said().await
    };
    measure(bed, &rig, "control-cut", LOAD, act).await
}

fn first(rig: &Rig) -> anyhow::Result<u32> {
    rig.gateway.engines().first().copied().context("the gateway has no engine")
}
