//! The simulated network of one scenario: a `simtor` process, the faults that are ordered of it, and what it counts.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use exitgate_simtor::client::WorldClient;
use exitgate_simtor::world::stats::Stats;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::bed::{Bed, SEED};

/// How long the network may take to start: it draws 9,300 relays.
const PATIENCE: Duration = Duration::from_secs(30);

/// What may be set of a network.
#[derive(Clone, Debug)]
pub struct Network {
    /// By what its times are divided.
    pub speed: f64,
    /// Relays that vanish from one consensus to the next, as a fraction; the public network's if none is said.
    pub churn: Option<f64>,
    /// Any other setting of simtor, by its name.
    pub others: Vec<(&'static str, Value)>,
}

impl Default for Network {
    fn default() -> Self {
        Self { speed: 1.0, churn: None, others: Vec::new() }
    }
}

/// A network that runs; it ends with this value.
pub struct World {
    child: Child,
    client: WorldClient,
}

impl World {
    pub async fn start(bed: &Bed, network: Network) -> anyhow::Result<Self> {
        let folder = bed.sandbox.folder().join("world");
        let _ = fs::remove_dir_all(&folder); // of the scenario before
        fs::create_dir_all(&folder)?;
        let settings = folder.join("settings.json");
        fs::write(&settings, Self::settings(bed, &network).to_string())?;
        let socket = folder.join("world.sock");
        let log = File::create(bed.options.logs()?.join("world.log"))?;
        let simtor = &bed.options.simtor;
        let child = Command::new(simtor)
            .args(["world", "--settings"])
            .arg(&settings)
            .arg("--folder")
            .arg(&folder)
            .arg("--socket")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} cannot be run", simtor.display()))?;
        let mut world = Self { child, client: WorldClient::new(&socket) };
        let deadline = Instant::now() + PATIENCE;
        while world.stats().is_err() {
            if let Some(status) = world.child.try_wait()? {
                bail!("the simulated network ended: {status}; its log is world.log");
            }
            ensure!(Instant::now() < deadline, "the simulated network does not answer");
            sleep(Duration::from_millis(50)).await;
        }
        Ok(world)
    }

    fn settings(bed: &Bed, network: &Network) -> Value {
        let mut settings = json!({
            "seed": SEED,
            "size": bed.model.relays().len(),
            "speed": network.speed,
            "dns": bed.dns.address(),
        });
        if let Some(churn) = network.churn {
            settings["churn"] = json!(churn);
        }
        for (name, value) in &network.others {
            settings[name] = value.clone();
        }
        settings
    }

    /// The socket, for the environment of those who start engines.
    pub fn socket(&self) -> &Path {
        self.client.socket()
    }

    /// Orders a fault: its number, by which [`World::end`] ends it.
    pub fn order(&self, fault: &Value) -> anyhow::Result<u64> {
        self.client.order_text(&fault.to_string()).with_context(|| format!("the order {fault}"))
    }

    /// Ends a fault.
    pub fn end(&self, id: u64) -> anyhow::Result<()> {
        Ok(self.client.clear(id)?)
    }

    /// What was counted since the start.
    pub fn stats(&self) -> anyhow::Result<Stats> {
        Ok(self.client.stats()?)
    }

    /// Circuits that were asked for since the start.
    pub fn circuits(&self) -> anyhow::Result<f64> {
        Ok(self.stats()?.circuits as f64)
    }

    /// How many relays engines have been connected to since the start.
    pub fn entered(&self) -> anyhow::Result<usize> {
        Ok(self.stats()?.entered.len())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
