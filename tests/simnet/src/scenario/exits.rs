//! Exits die, or those who are asked about them do: which verdicts are wrong after half an hour.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use exitgate_testnet::web::ExitFault;
use serde_json::{Value, json};

use super::Rig;
use crate::bed::Bed;
use crate::load::{patience, send, served, spread, timing};
use crate::pace::Pace;
use crate::row::{Row, number};

/// As long as the tester takes to come round, twice.
const LENGTH: Duration = Duration::from_secs(3600);

pub async fn many_down(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    let rig = Rig::warm(bed, pace, "").await?;
    // Every machine whose address ends in one of four digits: 40 %, and the scenario knows which.
    let down = exits_where(bed, |address| address.octets()[3] % 10 < 4);
    dead(bed, rig, "exits-down", &down, "any").await
}

pub async fn country_down(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    let rig = Rig::warm(bed, pace, "").await?;
    let country: HashSet<Ipv4Addr> = bed
        .model
        .relays()
        .iter()
        .filter(|relay| relay.flags.exit && relay.country == "AT")
        .map(|relay| relay.address)
        .collect();
    let down = exits_where(bed, |address| country.contains(&address));
    dead(bed, rig, "country-down", &down, "nonat").await
}

/// Fingerprints of exits by their address.
fn exits_where(bed: &Bed, down: impl Fn(Ipv4Addr) -> bool) -> HashSet<String> {
    let exits = bed.model.relays().iter().filter(|relay| relay.flags.exit);
    exits.filter(|relay| down(relay.address)).map(|relay| relay.hex()).collect()
}

async fn dead(bed: &Bed, rig: Rig, name: &'static str, down: &HashSet<String>, username: &str) -> anyhow::Result<Row> {
    let who: Vec<&str> = down.iter().map(String::as_str).collect();
    rig.world.order(&json!({ "fault": "relay_down", "who": who.join(",") }))?;
    finish(bed, rig, name, down, username).await
}

pub async fn echo_down(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    let rig = Rig::warm(bed, pace, "").await?;
    for echo in ["echo.test", "ip.test"] {
        rig.world.order(&json!({ "fault": "target_drops", "to": format!("{echo}:{}", bed.web.https_port()) }))?;
    }
    finish(bed, rig, "echo-down", &HashSet::new(), "any").await
}

/// One of the two echo servers names an address that is not the exit's, to everybody.
pub async fn echo_lying(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    let rig = Rig::warm(bed, pace, "").await?;
    let lie = Ipv4Addr::new(127, 250, 250, 250);
    planted(bed, rig, "echo-lying", ExitFault::Seen("ip.test", lie)).await
}

pub async fn echo_slow(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    let rig = Rig::warm(bed, pace, "").await?;
    planted(bed, rig, "echo-slow", ExitFault::Slow(pace.wall(Duration::from_secs(10)))).await
}

async fn planted(bed: &Bed, rig: Rig, name: &'static str, plant: ExitFault) -> anyhow::Result<Row> {
    let addresses: HashSet<Ipv4Addr> = bed.model.relays().iter().map(|relay| relay.exit_address).collect();
    addresses.iter().for_each(|address| bed.web.plant(*address, plant.clone()));
    let row = finish(bed, rig, name, &HashSet::new(), "any").await;
    addresses.iter().for_each(|address| bed.web.unplant(*address));
    row
}

async fn finish(
    bed: &Bed,
    rig: Rig,
    name: &'static str,
    down: &HashSet<String>,
    username: &str,
) -> anyhow::Result<Row> {
    let (pace, circuits) = (rig.pace, rig.world.circuits()?);
    let usernames = (0..LENGTH.as_secs() / 6).map(|_| username.to_owned()); // ten a minute
    let answers = send(rig.gateway.proxy(), spread(usernames, &bed.page(), pace.wall(LENGTH)), patience(pace)).await;
    let verdicts = rig.verdicts().await?;
    let alive = verdicts.iter().filter(|(id, _)| !down.contains(*id));
    let wronged = alive.filter(|(_, verdict)| *verdict == "bad").count();
    let missed = down.iter().filter(|id| verdicts.get(*id).is_some_and(|verdict| verdict == "good")).count();
    let mut row = Row::new(name, pace.name());
    row.at_most("good exits called bad", (wronged as f64 - rig.bad).max(0.0), verdicts.len() as f64 / 100.0);
    row.figure("dead exits still called good", format!("{missed} of {}", down.len()));
    row.at_least("served %", number_of(served(&answers), answers.len()), 99.0);
    timing(&mut row, &answers, pace);
    row.figure("circuits a second", number((rig.world.circuits()? - circuits) / LENGTH.as_secs_f64()));
    let (_, checks) = rig.gateway.api("GET", "/checks").await?;
    let pages = checks["checks"].as_array().cloned().unwrap_or_default();
    let suspended = pages.iter().filter(|page| !page["suspended"].is_null()).filter_map(|page| page["name"].as_str());
    row.figure("pages suspended", suspended.collect::<Vec<_>>().join(", "));
    rig.always(&mut row, &answers)?;
    Ok(row)
}

fn number_of(part: usize, all: usize) -> f64 {
    part as f64 / all.max(1) as f64 * 100.0
}

impl Rig {
    /// The verdict on every exit, by fingerprint without `$`.
    pub(super) async fn verdicts(&self) -> anyhow::Result<HashMap<String, String>> {
        let (mut verdicts, mut after) = (HashMap::new(), String::new());
        loop {
            let (_, page) = self.gateway.api("GET", &format!("/exits?limit=1000{after}")).await?;
            for exit in page["exits"].as_array().into_iter().flatten() {
                let word = |name: &str| exit[name].as_str().unwrap_or_default().trim_start_matches('$').to_owned();
                verdicts.insert(word("id"), word("verdict"));
            }
            match &page["next"] {
                Value::String(next) => after = format!("&after={}", next.replace('$', "%24")),
                _ => return Ok(verdicts),
            }
        }
    }
}
