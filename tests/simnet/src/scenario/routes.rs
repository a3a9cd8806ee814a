//! Many routes made at once, each with a pool of eight.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::Rig;
use crate::bed::Bed;
use crate::client::{Answer, get};
use crate::load::{firsts, patience, served, timing};
use crate::pace::Pace;
use crate::process::memory;
use crate::row::{Row, number};

pub async fn hundred(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    many(bed, pace, "routes-100", 100).await
}

pub async fn thousand(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    many(bed, pace, "routes-1000", 1000).await
}

async fn many(bed: &Bed, pace: Pace, name: &'static str, count: u32) -> anyhow::Result<Row> {
    let rig = Rig::warm(bed, pace, "").await?;
    let circuits = rig.world.circuits()?;
    let engines = |rig: &Rig| rig.gateway.engines().iter().filter_map(|pid| memory(*pid).ok()).sum::<f64>();
    let (size, of_engines, began) = (memory(rig.gateway.pid())?, engines(&rig), Instant::now());
    let step = pace.wall(Duration::from_secs(60)) / count;
    let (mut requests, mut refused) = (JoinSet::new(), 0);
    for number in 0..count {
        sleep_until(began + step * number).await;
        let route = format!("route{number}");
        let made = rig.gateway.post("/proxies", &json!({ "name": route, "selector": "any", "pool": 8 })).await?;
        refused += u32::from(made.0 != 201);
        let (proxy, page, patience) = (rig.gateway.proxy(), bed.page(), patience(pace));
        requests.spawn(async move { get(proxy, &route, &page, patience).await });
    }
    let answers: Vec<Answer> = requests.join_all().await;
    let last = pace.model(began.elapsed());
    let spares: u64 = rig.engines().await?.iter().filter_map(|engine| engine["spares"].as_u64()).sum();
    let mut row = Row::new(name, pace.name());
    row.at_least("served", served(&answers) as f64, f64::from(count));
    let slowest = firsts(&answers, pace).into_iter().fold(0.0, f64::max);
    row.at_most("slowest first byte s", slowest, 10.0);
    timing(&mut row, &answers, pace);
    row.figure("routes refused", refused);
    row.figure("until the last was served s", number(last));
    row.figure("circuits asked for", rig.world.circuits()? - circuits);
    row.figure("spares", spares);
    row.figure("memory of engines MB before and after", format!("{} {}", number(of_engines), number(engines(&rig))));
    row.figure("memory MB before and after", format!("{} {}", number(size), number(memory(rig.gateway.pid())?)));
    rig.nobody_called_bad(&mut row).await?;
    rig.always(&mut row, &answers)?;
    Ok(row)
}
