//! A full pass over all exits, which a person asked for.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::Rig;
use crate::bed::Bed;
use crate::pace::Pace;
use crate::row::{Row, number};

pub async fn full(bed: &Bed, pace: Pace) -> anyhow::Result<Row> {
    let rig = Rig::warm(bed, pace, "").await?;
    let (circuits, began) = (rig.world.circuits()?, Instant::now());
    bed.web.forget();
    let lines = rig.gateway.pass(&json!({})).await?;
    let took = pace.model(began.elapsed());
    let with = |verdict: &str| lines.iter().filter(|line| line["verdict"] == *verdict).count();
    let mut row = Row::new("full-pass", pace.name());
    row.figure("minutes", number(took / 60.0));
    row.figure("exits tested", lines.iter().filter(|line| line["verdict"].is_string()).count());
    row.figure("good, bad, untested", format!("{} {} {}", with("good"), with("bad"), with("untested")));
    let circuits = rig.world.circuits()? - circuits;
    row.figure("circuits asked for", circuits);
    row.figure("circuits a second", number(circuits / took));
    row.figure("requests to echo servers and pages", bed.web.seen().len());
    let exits = bed.exits() as f64;
    row.at_least("good %", with("good") as f64 / exits * 100.0, 95.0);
    row.at_most("marked as a flood by relays", rig.world.stats()?.marked_as_flooding as f64, 0.0);
    rig.always(&mut row, &[])?;
    Ok(row)
}

impl crate::gateway::Gateway {
    /// `POST /checks`: a line of JSON for each exit.
    async fn pass(&self, asked: &Value) -> anyhow::Result<Vec<Value>> {
        let (status, body) = crate::client::raw(self.api_address(), "POST", "/checks", Some(asked)).await?;
        anyhow::ensure!(status == 200, "POST /checks: {status} {}", String::from_utf8_lossy(&body));
        let text = String::from_utf8_lossy(&body).into_owned();
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
}
