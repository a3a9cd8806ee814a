//! The list of scenarios, and what most of them begin and end with.
//!
//! To add one: a function that starts a [`Rig`], does something, and returns a row; and a line in [`ALL`].

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use tokio::time::Instant;

use crate::bed::Bed;
use crate::client::{Answer, get};
use crate::gateway::{Gateway, Setup};
use crate::load::patience;
use crate::pace::Pace;
use crate::row::Row;
use crate::world::{Network, World};

mod bridges;
mod choice;
mod consensuses;
mod engines;
mod exits;
mod guards;
mod idle;
mod pass;
mod routes;
mod scraper;
mod sessions;
mod start;
mod targets;
mod uplink;

/// What a scenario comes to.
type Run = for<'a> fn(&'a Bed, Pace) -> Pin<Box<dyn Future<Output = anyhow::Result<Row>> + 'a>>;

/// One scenario.
pub struct Scenario {
    pub name: &'static str,
    /// One line for `--list`.
    pub about: &'static str,
    /// By what its durations are divided in the short form.
    pub factor: f64,
    /// `make verify` runs it.
    pub verify: bool,
    pub run: Run,
}

macro_rules! scenario {
    ($name:literal, $factor:expr, $verify:expr, $about:literal, $run:expr) => {
        Scenario {
            name: $name,
            about: $about,
            factor: $factor,
            verify: $verify,
            run: |bed, pace| Box::pin($run(bed, pace)),
        }
    };
}

/// All scenarios, in the order in which they run. Factors are as small as 25 minutes for all of them allow.
pub const ALL: &[Scenario] = &[
    scenario!("sessions-200", 1.0, true, "200 new sessions at once", sessions::at_once),
    scenario!("sessions-1000", 1.0, false, "1,000 new sessions within a minute", sessions::in_a_minute),
    scenario!(
        "dead-target",
        4.0,
        true,
        "a target that drops SYNs: 3 requests in a session, 200 by a pool",
        targets::dead
    ),
    scenario!("slow-target", 4.0, false, "a target that answers after 20 s, likewise", targets::slow),
    scenario!("refusing-target", 1.0, false, "a target that refuses, likewise", targets::refusing),
    scenario!("uplink-10s", 3.0, false, "no uplink for 10 s", uplink::ten_seconds),
    scenario!("uplink-150s", 5.0, true, "no uplink for 150 s", uplink::two_minutes_and_a_half),
    scenario!("uplink-15m", 10.0, false, "no uplink for 15 minutes", uplink::quarter_of_an_hour),
    scenario!("suspend-1h", 120.0, false, "the gateway and its engines are suspended for an hour", uplink::suspended),
    scenario!("uplink-day", 60.0, false, "ten times no uplink for 5 s to 10 min, and three suspends", uplink::day),
    scenario!("idle-hour", 60.0, true, "an hour with one route of eight exits and no request", idle::with_a_route),
    scenario!("idle-hour-bare", 90.0, false, "an hour without route and without request", idle::bare),
    scenario!(
        "choice",
        5.0,
        false,
        "5,000 requests by `any`, 50 bulk streams, and the pools of 60 routes",
        choice::run
    ),
    scenario!("fresh-start", 20.0, false, "a first start, with an empty data folder", start::fresh),
    scenario!("restart", 1.0, false, "a start with the data of an earlier run", start::again),
    scenario!("scraper", 10.0, false, "50 sessions, 20 requests a second, for 10 minutes", scraper::steady),
    scenario!("guard-down", 10.0, false, "the guard of an engine is down for 5 minutes", guards::down),
    scenario!("guard-hangs", 10.0, false, "the guard of an engine answers nothing for 5 minutes", guards::hangs),
    scenario!(
        "guard-overloaded",
        10.0,
        false,
        "the guard of an engine refuses every circuit for 5 minutes",
        guards::overloaded
    ),
    scenario!(
        "guards-in-turn",
        10.0,
        false,
        "the guards of all engines go down, four times within 2 minutes",
        guards::in_turn
    ),
    scenario!("engine-crash", 3.0, false, "an engine's process is killed", engines::crash),
    scenario!("engine-hang", 3.0, false, "an engine's process is stopped for a minute", engines::hang),
    scenario!("control-cut", 3.0, false, "the control connections of all engines are cut", engines::cut),
    scenario!("consensuses", 240.0, false, "24 consensuses in a row, 2 % churn", consensuses::day),
    scenario!("bridges", 60.0, false, "two bridges, and two fetches of the list of relays", bridges::bridges),
    scenario!(
        "routes-100",
        1.0,
        false,
        "100 routes with pools of eight within a minute, one request to each",
        routes::hundred
    ),
    scenario!("routes-1000", 20.0, false, "1,000 routes, likewise", routes::thousand),
    scenario!("full-pass", 30.0, false, "a full pass over all exits, as `test-exits` asks for it", pass::full),
    scenario!("exits-down", 60.0, false, "40 % of exits are down for half an hour", exits::many_down),
    scenario!("country-down", 60.0, false, "all exits of one country are down for half an hour", exits::country_down),
    scenario!("echo-down", 60.0, false, "the echo servers do not answer for half an hour", exits::echo_down),
    scenario!("echo-lying", 60.0, false, "an echo server names wrong addresses for half an hour", exits::echo_lying),
    scenario!("echo-slow", 60.0, false, "the echo servers take 10 s for half an hour", exits::echo_slow),
];

/// What a gateway's data folder holds at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Data {
    /// Nothing: a first start.
    Empty,
    /// All exits were tested a moment ago.
    Tested,
}

/// How long a gateway may take until it serves, on the wall.
const WARM: Duration = Duration::from_secs(90);

/// A network and a gateway on it.
struct Rig {
    world: World,
    gateway: Gateway,
    pace: Pace,
    /// Exits that were called bad when the scenario began.
    bad: f64,
}

impl Rig {
    /// A gateway that has tested all exits, with its engines connected.
    async fn warm(bed: &Bed, pace: Pace, lines: &str) -> anyhow::Result<Self> {
        let network = Network { speed: pace.0, ..Network::default() };
        Self::start(bed, pace, network, Data::Tested, lines).await?.warmed(bed).await
    }

    /// Waits until every engine has built a circuit and pages arrive: an engine says that it is ready before it has entered the
    /// network, and how long a start takes is for `restart` to say.
    async fn warmed(self, bed: &Bed) -> anyhow::Result<Self> {
        self.gateway.warm(WARM).await?;
        let (until, mut in_a_row) = (Instant::now() + WARM, 0);
        while in_a_row < 5 || self.engines().await?.iter().any(|engine| engine["circuits"].as_u64() == Some(0)) {
            ensure!(Instant::now() < until, "no pages arrive after {} s", WARM.as_secs());
            let answer = get(self.gateway.proxy(), "any-rotate", &bed.page(), patience(self.pace)).await;
            in_a_row = if answer.served() { in_a_row + 1 } else { 0 };
        }
        self.pace.wait(Duration::from_secs(20)).await; // what of its burst it has used comes back
        Ok(Self { bad: self.called_bad().await?, ..self })
    }

    async fn start(bed: &Bed, pace: Pace, network: Network, data: Data, lines: &str) -> anyhow::Result<Self> {
        let data = match data {
            Data::Empty => None,
            Data::Tested => Some(bed.tested().await?.to_owned()), // runs a network of its own when it is first asked for
        };
        let world = World::start(bed, network).await?;
        let gateway = Gateway::start(bed, &world, Setup { pace, data, lines: lines.to_owned() }).await?;
        Ok(Self { world, gateway, pace, bad: 0.0 })
    }

    /// Exits whose verdict is bad now.
    async fn called_bad(&self) -> anyhow::Result<f64> {
        self.gateway.metric("exitgate_exits", "state=\"bad\"").await
    }

    /// The bars that every scenario has: no wrong exit, nobody left hanging, and no relay that takes us for a flood.
    fn always(&self, row: &mut Row, answers: &[Answer]) -> anyhow::Result<()> {
        let stats = self.world.stats()?;
        let wrong = answers.iter().filter(|answer| answer.wrong_exit()).count();
        let hung = answers.iter().filter(|answer| answer.hung).count();
        row.never("wrong exits", wrong as f64);
        row.never("hung clients", hung as f64);
        row.never("circuits refused by relays' flood defence", stats.refused_by_defence as f64);
        if stats.over_rate > 0 {
            row.figure("circuits beyond relays' rate", stats.over_rate);
        }
        Ok(())
    }

    /// The bar on exits that were called bad since the scenario began.
    async fn nobody_called_bad(&self, row: &mut Row) -> anyhow::Result<()> {
        row.never("exits called bad", (self.called_bad().await? - self.bad).max(0.0));
        Ok(())
    }

    /// The engines as the API shows them.
    async fn engines(&self) -> anyhow::Result<Vec<Value>> {
        let (_, answer) = self.gateway.api("GET", "/engines").await?;
        Ok(answer["engines"].as_array().cloned().unwrap_or_default())
    }

    /// The engines' guards, by fingerprint.
    async fn guards(&self) -> anyhow::Result<Vec<String>> {
        let engines = self.engines().await?;
        Ok(engines.iter().filter_map(|engine| engine["guard"].as_str()).map(str::to_owned).collect())
    }
}

/// Of two lists of answers of the same clients, how many came from another address the second time. Whoever was not served
/// both times is not counted.
fn moved(before: &[Answer], after: &[Answer]) -> usize {
    let pairs = before.iter().zip(after).filter(|(before, after)| before.served() && after.served());
    pairs.filter(|(before, after)| before.seen != after.seen).count()
}
