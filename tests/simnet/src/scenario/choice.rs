//! Which exits are chosen, by what they can carry.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;

use super::Rig;
use crate::bed::Bed;
use crate::client::Answer;
use crate::load::{Request, by_exit, patience, send, served, spread, timing};
use crate::pace::Pace;
use crate::row::{Row, number, quantile};

const REQUESTS: usize = 5000;
const ROUTES: usize = 60;
const BULK: usize = 50;
const MEGABYTE: usize = 1_000_000;

/// MB/s at the 10th percentile and at the median while all exits were chosen equally often (`benches/RESULTS.md`, 30
/// November 2026). The slowest downloads must be twice as fast, the others not slower; a tenth is left to chance.
const UNIFORM: [f64; 2] = [1.89, 4.04];

pub async fn run(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    let rig = Rig::warm(bed, pace, "").await?;
    let proxy = rig.gateway.proxy();
    let deciles = Deciles::of(bed);
    let usernames = (0..REQUESTS).map(|_| "any".to_owned());
    let answers =
        send(proxy, spread(usernames, &bed.page(), pace.wall(Duration::from_secs(250))), patience(pace)).await;
    // A pool has eight exits, so that one username says little of how they are chosen: sixty routes say it of 480.
    let (mut names, mut members) = (Vec::new(), HashMap::new());
    for number in 0..ROUTES {
        let name = format!("choice{number}");
        rig.gateway.post("/proxies", &json!({ "name": name, "selector": "any", "pool": 8 })).await?;
        let (_, pool) = rig.gateway.api("GET", &format!("/proxies/{name}/exits")).await?;
        for exit in pool["exits"].as_array().into_iter().flatten().filter_map(|exit| exit["id"].as_str()) {
            *members.entry(exit.to_owned()).or_default() += 1;
        }
        names.push(name);
    }
    let bulk = downloads(bed, &rig, &names).await;

    let mut row = Row::new("choice", pace.name());
    row.at_least("served", served(&answers) as f64, REQUESTS as f64);
    timing(&mut row, &answers, pace);
    row.figure("exits that served 5,000 requests by any", by_exit(&answers).len());
    let shares = deciles.shares(&members);
    let capacity = &deciles.capacity;
    let most = shares.iter().zip(capacity).map(|(share, capacity)| share / capacity).fold(0.0, f64::max);
    row.at_most("a decile's share of pools by its share of capacity, at most", most, 2.0);
    let words = |shares: &[f64]| shares.iter().map(|share| number(share * 100.0)).collect::<Vec<_>>().join(" ");
    row.figure("share of capacity by decile %", words(capacity));
    row.figure("share of pools' members by decile %", words(&shares));
    let rate = |answer: &Answer| answer.bytes as f64 / 1e6 / pace.model(answer.whole.saturating_sub(answer.first));
    let goodput: Vec<f64> = bulk.iter().filter(|answer| answer.served()).map(rate).collect();
    row.at_least("MB/s of 1 MB downloads at p10", quantile(&goodput, 0.1), 2.0 * UNIFORM[0]);
    row.at_least("MB/s of 1 MB downloads at p50", quantile(&goodput, 0.5), 0.9 * UNIFORM[1]);
    row.figure("downloads", format!("{} of {}", goodput.len(), bulk.len()));
    rig.nobody_called_bad(&mut row).await?;
    rig.always(&mut row, &[answers, bulk].concat())?;
    Ok(row)
}

/// One bulk stream through each of fifty routes.
async fn downloads(bed: &Bed, rig: &Rig, names: &[String]) -> Vec<Answer> {
    let url = bed.web.http("echo.test", &format!("/bytes/{MEGABYTE}"));
    let pages = names.iter().take(BULK).enumerate();
    let step = rig.pace.wall(Duration::from_secs(1));
    let requests =
        pages.map(|(place, name)| Request { username: name.clone(), url: url.clone(), at: step * place as u32 });
    let longest = patience(rig.pace) + Duration::from_secs(60);
    send(rig.gateway.proxy(), requests.collect(), longest).await
}

/// Exits in ten lots of the same number, the slowest first.
struct Deciles {
    of: HashMap<String, usize>,
    /// The part of the whole capacity that each lot has.
    capacity: Vec<f64>,
}

impl Deciles {
    fn of(bed: &Bed) -> Self {
        let mut exits: Vec<_> =
            bed.model.relays().iter().filter(|relay| relay.flags.exit && !relay.flags.bad_exit).collect();
        exits.sort_by_key(|relay| relay.capacity);
        let (mut of, mut capacity, count) = (HashMap::new(), vec![0.0; 10], exits.len());
        for (place, relay) in exits.into_iter().enumerate() {
            let decile = place * 10 / count;
            of.insert(relay.hex(), decile);
            capacity[decile] += relay.capacity as f64;
        }
        let all: f64 = capacity.iter().sum();
        Self { of, capacity: capacity.into_iter().map(|part| part / all).collect() }
    }

    /// The part of these that each lot has.
    fn shares(&self, counts: &HashMap<String, usize>) -> Vec<f64> {
        let mut shares = vec![0.0; 10];
        for (exit, count) in counts {
            if let Some(decile) = self.of.get(exit.trim_start_matches('$')) {
                shares[*decile] += *count as f64;
            }
        }
        let all: f64 = shares.iter().sum::<f64>().max(1.0);
        shares.into_iter().map(|share| share / all).collect()
    }
}
