//! A gateway behind bridges: nothing of its own goes out beside Tor.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Data, Rig};
use crate::bed::Bed;
use crate::load::{patience, send, served, spread};
use crate::pace::Pace;
use crate::row::Row;
use crate::world::Network;

/// How often the list of relays must be fetched, so that the first fetch is no accident.
const FETCHES: usize = 2;

/// How long the fetches may take, in time of the model.
const LONGEST: Duration = Duration::from_secs(4 * 3600);

/// Without the first line the gateway refuses the fake list of relays, which is on loopback.
const LINES: &str = "gateway.allow_private_targets = true\n\
                     tor.extra = [\"UseBridges 1\", \
                     \"Bridge 127.9.9.1:9001 0123456789ABCDEF0123456789ABCDEF01234567\", \
                     \"Bridge 127.9.9.2:9001 89ABCDEF0123456789ABCDEF0123456789ABCDEF\"]\n";

pub async fn bridges(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    bed.tested().await?; // the gateway that makes this folder has no bridges
    let asked_before = bed.onionoo.asked().len();
    let network = Network { speed: pace.0, ..Network::default() };
    let rig = Rig::start(bed, pace, network, Data::Tested, LINES).await?.warmed(bed).await?;
    let until = Instant::now() + pace.wall(LONGEST);
    let asked = || bed.onionoo.asked().split_off(asked_before);
    while asked().len() < FETCHES {
        // The stored time of the next fetch is an hour ahead of the run that made the data folder.
        rig.gateway.post("/sources/onionoo/refresh", &json!({})).await?;
        ensure!(Instant::now() < until, "the list of relays was fetched {} times of {FETCHES}", asked().len());
        sleep(Duration::from_secs(2)).await;
    }
    let pages = spread((0..20).map(|_| "any-rotate".to_owned()), &bed.page(), Duration::from_secs(20));
    let answers = send(rig.gateway.proxy(), pages, patience(pace)).await;
    let beside = asked().iter().filter(|asked| !is_of_a_relay(asked.from)).count();
    let (_, engines) = rig.gateway.api("GET", "/engines").await?;
    let mut row = Row::new("bridges", pace.name());
    row.at_most("fetches of lists beside Tor", beside as f64, 0.0);
    row.at_least("served", served(&answers) as f64, 20.0);
    row.holds("GET /engines says only_tor", engines["only_tor"].to_string(), engines["only_tor"] == true);
    row.figure("fetches of lists", asked().len());
    rig.always(&mut row, &answers)?;
    Ok(row)
}

/// Relays of the simulated network have addresses in 127.1 to 127.99 and 127.200 to 127.254.
fn is_of_a_relay(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if matches!(ip.octets(), [127, 1..=99 | 200..=254, ..]))
}
