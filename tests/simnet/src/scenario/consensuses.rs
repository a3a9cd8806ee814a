//! The directory changes every hour: what that costs, and what it moves.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;

use super::{Data, Rig};
use crate::bed::Bed;
use crate::load::{patience, send, served, spread};
use crate::pace::Pace;
use crate::process::{cpu, memory};
use crate::row::{Row, number};
use crate::world::Network;

const HOURS: u32 = 24;
const PINS: usize = 50;
const ROUTE: &str = "[[routes]]\nname = \"pool-of-eight\"\nselector = \"any\"\npool = 8\n";

pub async fn day(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    let network = Network { speed: pace.0, churn: Some(0.02), ..Network::default() };
    let rig = Rig::start(bed, pace, network, Data::Tested, ROUTE).await?.warmed(bed).await?;
    let pins =
        || spread((0..PINS).map(|pin| format!("any-strict-session-p{pin}")), &bed.page(), Duration::from_secs(5));
    let before = send(rig.gateway.proxy(), pins(), patience(pace)).await;
    let pid = rig.gateway.pid();
    let (busy, mut sizes, mut exchanged) = (cpu(pid)?, vec![memory(pid)?], 0);
    let mut pool = members(&rig).await?;
    for _ in 0..HOURS {
        pace.wait(Duration::from_secs(3600)).await;
        let now = members(&rig).await?;
        exchanged += now.difference(&pool).count();
        pool = now;
        sizes.push(memory(pid)?);
    }
    let busy = (cpu(pid)? - busy).as_secs_f64();
    let after = send(rig.gateway.proxy(), pins(), patience(pace)).await;
    let mut row = Row::new("consensuses", pace.name());
    let largest = sizes.iter().copied().fold(0.0, f64::max);
    row.at_most("largest memory MB", largest, 85.0);
    row.at_most("memory grown MB", sizes[sizes.len() - 1] - sizes[2], 5.0);
    row.figure("memory MB by hour", sizes.iter().map(|size| number(*size)).collect::<Vec<_>>().join(" "));
    row.figure("CPU s an hour", number(busy / f64::from(HOURS)));
    row.figure("members of the pool exchanged", exchanged);
    let moved = super::moved(&before, &after);
    row.at_most(format!("pins moved of {}", served(&before)), moved as f64, 0.0);
    row.figure("pins not served after it", served(&before).saturating_sub(served(&after)));
    row.at_least("editions fetched", rig.world.stats()?.fetched as f64, 16.0); // with fewer, the memory says little
    rig.always(&mut row, &[before, after].concat())?;
    Ok(row)
}

async fn members(rig: &Rig) -> anyhow::Result<HashSet<String>> {
    let (_, answer) = rig.gateway.api("GET", "/proxies/pool-of-eight/exits").await?;
    let exits = answer["exits"].as_array().cloned().unwrap_or_default();
    Ok(exits.iter().filter_map(|exit: &Value| exit["id"].as_str()).map(str::to_owned).collect())
}
