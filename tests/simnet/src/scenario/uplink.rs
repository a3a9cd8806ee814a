//! The uplink is gone for a while, or the whole machine was asleep: nothing that was promised may move for that.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{Rig, moved};
use crate::bed::Bed;
use crate::client::{Answer, get};
use crate::load::{Request, blaming, patience, send, served};
use crate::pace::Pace;
use crate::process::signal;
use crate::row::Row;

/// Two strict routes: one as shipped, and one whose operator wants a pin to move after a minute.
const SHIPPED: &str = "shippedpin";
const HASTY: &str = "hastypin";

pub async fn ten_seconds(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    cut(bed, pace, "uplink-10s", Duration::from_secs(10)).await
}

pub async fn two_minutes_and_a_half(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    cut(bed, pace, "uplink-150s", Duration::from_secs(150)).await
}

pub async fn quarter_of_an_hour(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    cut(bed, pace, "uplink-15m", Duration::from_secs(900)).await
}

async fn cut(bed: &Bed, pace: Pace, name: &'static str, length: Duration) -> anyhow::Result<Row> {
    let rig = Rig::warm(bed, pace, &lines(pace)).await?;
    let before = settled(bed, &rig).await;
    let entered = rig.world.entered()?;
    let fault = rig.world.order(&json!({ "fault": "uplink_cut" }))?;
    let during = clients(bed, &rig, length).await;
    rig.world.end(fault)?;
    finish(bed, rig, name, (before, during), entered, 5.0).await
}

/// Everything of ours stops for an hour; the network goes on.
pub async fn suspended(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    let rig = Rig::warm(bed, pace, &lines(pace)).await?;
    let before = settled(bed, &rig).await;
    let entered = rig.world.entered()?;
    sleep_for(&rig, Duration::from_secs(3600)).await?;
    finish(bed, rig, "suspend-1h", (before, Vec::new()), entered, 20.0).await
}

async fn sleep_for(rig: &Rig, length: Duration) -> anyhow::Result<()> {
    let engines = rig.gateway.engines();
    let all = || engines.iter().copied().chain([rig.gateway.pid()]);
    all().try_for_each(|pid| signal(pid, "STOP"))?;
    rig.pace.wait(length).await;
    all().try_for_each(|pid| signal(pid, "CONT"))
}

/// What a laptop goes through in a day, without the quiet hours between: ten times no uplink, in both of its kinds, and
/// three suspends.
pub async fn day(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    const CUTS: [u64; 10] = [5, 20, 40, 60, 90, 150, 300, 10, 120, 600];
    let rig = Rig::warm(bed, pace, &lines(pace)).await?;
    let before = settled(bed, &rig).await;
    let (entered, mut during) = (rig.world.entered()?, Vec::new());
    for (number, seconds) in CUTS.into_iter().enumerate() {
        let fault = if number % 2 == 0 { "uplink_cut" } else { "uplink_unreachable" };
        let fault = rig.world.order(&json!({ "fault": fault }))?;
        during.extend(clients(bed, &rig, Duration::from_secs(seconds)).await);
        rig.world.end(fault)?;
        pace.wait(Duration::from_secs(120)).await;
        if number % 3 == 2 {
            sleep_for(&rig, Duration::from_secs(1800)).await?;
            pace.wait(Duration::from_secs(120)).await;
        }
    }
    finish(bed, rig, "uplink-day", (before, during), entered, 20.0).await
}

fn lines(pace: Pace) -> String {
    format!(
        "[[routes]]\nname = \"{SHIPPED}\"\nselector = \"us-strict\"\n\n[[routes]]\nname = \"{HASTY}\"\nselector = \"de-strict\"\n\
         repin_after = \"{}\"\n",
        pace.written(Duration::from_secs(60))
    )
}

/// Two pins of each route and two sessions.
fn usernames() -> Vec<String> {
    let pins = |route: &str| (0..2).map(|number| format!("{route}-session-p{number}")).collect::<Vec<_>>();
    let sessions = (0..2).map(|number| format!("any-session-kept{number}")).collect();
    [pins(SHIPPED), pins(HASTY), sessions].concat()
}

/// Everybody has an exit: whoever was refused asks again, four times at most.
async fn settled(bed: &Bed, rig: &Rig) -> Vec<Answer> {
    let mut answers = ask_all(bed, rig).await;
    for _ in 0..4 {
        if served(&answers) == answers.len() {
            break;
        }
        rig.pace.wait(Duration::from_secs(10)).await;
        answers = ask_all(bed, rig).await;
    }
    answers
}

async fn ask_all(bed: &Bed, rig: &Rig) -> Vec<Answer> {
    let requests = usernames().into_iter().map(|username| Request { username, url: bed.page(), at: Duration::ZERO });
    send(rig.gateway.proxy(), requests.collect(), patience(rig.pace)).await
}

/// What clients do while nothing works: each asks again five seconds after it was refused.
async fn clients(bed: &Bed, rig: &Rig, length: Duration) -> Vec<Answer> {
    let (until, mut tasks) = (Instant::now() + rig.pace.wall(length), JoinSet::new());
    for username in usernames() {
        let (proxy, page, pace) = (rig.gateway.proxy(), bed.page(), rig.pace);
        tasks.spawn(async move {
            let mut answers = Vec::new();
            while Instant::now() < until {
                answers.push(get(proxy, &username, &page, patience(pace)).await);
                pace.wait(Duration::from_secs(5)).await;
            }
            answers
        });
    }
    let (answers, ()) = tokio::join!(tasks.join_all(), rig.pace.wait(length));
    answers.concat()
}

async fn finish(
    bed: &Bed,
    rig: Rig,
    name: &'static str,
    (before, during): (Vec<Answer>, Vec<Answer>),
    entered: usize,
    bar: f64,
) -> anyhow::Result<Row> {
    let mut row = Row::new(name, rig.pace.name());
    let (first, mut answers) = first_page(bed, &rig).await;
    row.at_most("first page after it s", first, bar);
    row.figure(
        "answers during it",
        format!("{} of {}; {}", served(&during), during.len(), crate::load::reasons(&during)),
    );
    row.at_most("errors that blame an exit", blaming(&during) as f64, 0.0);
    let (_, ready) = rig.gateway.api("GET", "/ready").await?;
    row.figure("what /ready says after it", ready["sources"]["tor"]["reason"].as_str().unwrap_or("–"));
    // A pin moves when its exit has been called bad for `repin_after`, and somebody asks for it then.
    let mut after = Vec::new();
    for _ in 0..2 {
        rig.pace.wait(Duration::from_secs(90)).await;
        answers.extend(after);
        after = ask_all(bed, &rig).await;
    }
    let of = |from: usize| moved(&before[from..from + 2], &after[from..from + 2]) as f64;
    row.at_least("pins and sessions served before it of 6", served(&before) as f64, 6.0);
    row.at_most("pins moved of 2", of(0), 0.0);
    row.at_most("pins moved of 2 with repin_after of a minute", of(2), 0.0);
    row.at_most("sessions moved of 2", of(4), 0.0);
    row.at_least("pins and sessions served after it of 6", served(&after) as f64, 6.0);
    row.at_most("relays entered besides", rig.world.entered()?.saturating_sub(entered) as f64, 0.0);
    rig.nobody_called_bad(&mut row).await?;
    answers.extend([before, during, after].concat());
    rig.always(&mut row, &answers)?;
    Ok(row)
}

/// Asks by `any` until a page arrives, for two minutes at most; how long that took, in seconds of the model.
async fn first_page(bed: &Bed, rig: &Rig) -> (f64, Vec<Answer>) {
    let (began, mut answers) = (Instant::now(), Vec::new());
    let longest = rig.pace.wall(Duration::from_secs(120)).max(Duration::from_secs(20));
    while began.elapsed() < longest {
        answers.push(get(rig.gateway.proxy(), "any", &bed.page(), patience(rig.pace)).await);
        if answers.last().is_some_and(Answer::served) {
            return (rig.pace.model(began.elapsed()), answers);
        }
        sleep(rig.pace.wall(Duration::from_secs(1))).await;
    }
    (f64::INFINITY, answers)
}
