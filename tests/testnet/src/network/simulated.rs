//! The same network without relays: `simtor` simulates them, and stands in for the tor of every client.
//!
//! Names, addresses and policies are those of the layout, and what is done to a relay is ordered of the simulation, so
//! that one test runs on both.

use std::collections::HashMap;
use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use exitgate_simtor::client::WorldClient;
use exitgate_simtor::world::settings::Settings;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};
use tokio::time::{Instant, sleep};

use super::{Network, NetworkState, Start, dns_address, write_program};
use crate::layout::{self, DIR_PORT, OR_PORT, Options, Relay};
use crate::process::Processes;
use crate::sandbox::Sandbox;

/// The environment variable with the path of `simtor`, for whoever keeps it elsewhere.
const PROGRAM: &str = "EXITGATE_SIMTOR";

/// How long a simulation may take to start. It takes a tenth of a second.
const DEADLINE: Duration = Duration::from_secs(30);

/// A simulation that runs.
#[derive(Debug)]
pub(super) struct Simulated {
    world: WorldClient,
    /// What was ordered of each relay.
    orders: Mutex<HashMap<String, Vec<u64>>>,
}

impl Network {
    pub(super) async fn simulate(sandbox: &Arc<Sandbox>, options: Options, begun: Instant) -> anyhow::Result<Self> {
        let folder = sandbox.folder();
        let simtor = program()?;
        let mut relays = layout::relays(&options, sandbox);
        for relay in &mut relays {
            relay.fingerprint = fingerprint(&relay.name, sandbox.octet());
        }
        let (list, settings, socket) =
            (folder.join("relays.json"), folder.join("world.json"), folder.join("world.sock"));
        std::fs::write(&list, serde_json::to_vec(&relays)?)?;
        std::fs::write(folder.join("geoip"), layout::geoip(&relays, sandbox))?;
        std::fs::write(folder.join("geoip6"), "# none\n")?;
        // The private network of real tor has no limit on a client's circuits either. Its tests say the rate themselves.
        let params = [("DoSCircuitCreationEnabled".to_owned(), 0)].into();
        let calm = Settings { relays: Some(list), dns: Some(dns_address(sandbox)), params, ..Settings::calm() };
        std::fs::write(&settings, serde_json::to_vec(&calm)?)?;
        let text = format!("#!/bin/sh\nexec env SIMTOR_WORLD='{}' '{}' \"$@\"\n", socket.display(), simtor.display());
        write_program(&folder.join("tor"), &text)?;
        let processes = Processes::new(sandbox.hold())?;
        let mut command = Command::new(simtor);
        command.arg("world").arg("--settings").arg(settings).arg("--folder").arg(folder).arg("--socket").arg(&socket);
        command.stdin(Stdio::null());
        processes.spawn("world", command).await?;
        let world = WorldClient::new(&socket);
        let deadline = Instant::now() + DEADLINE;
        while world.orders().is_err() {
            ensure!(processes.pid("world").await?.is_some(), "the simulated network ended at once");
            ensure!(Instant::now() < deadline, "the simulated network does not answer");
            sleep(Duration::from_millis(10)).await;
        }
        let authority = authority(&relays)?;
        let simulated = Some(Simulated { world, orders: Mutex::default() });
        let state = Arc::new(NetworkState { processes, sandbox: sandbox.clone(), shim: None, authority, simulated });
        Ok(Self { relays, options, start: Start::Cold, took: begun.elapsed(), state })
    }
}

impl Simulated {
    pub(super) fn down(&self, relay: &Relay) -> anyhow::Result<()> {
        self.order(relay, json!({"fault": "relay_down", "who": relay.fingerprint}))
    }

    pub(super) fn hang(&self, relay: &Relay) -> anyhow::Result<()> {
        self.order(relay, json!({"fault": "relay_hang", "who": relay.fingerprint}))
    }

    /// Lines that refuse ports, and one that takes all else.
    pub(super) fn set_policy(&self, relay: &Relay, lines: &[&str]) -> anyhow::Result<()> {
        let refused = lines.iter().filter_map(|line| line.strip_prefix("reject *:")?.parse::<u16>().ok());
        let refused: Vec<u16> = refused.collect();
        ensure!(refused.len() + 1 == lines.len(), "a simulated exit takes only lines that refuse a port: {lines:?}");
        self.order(relay, json!({"fault": "exit_policy", "who": relay.fingerprint, "reject": refused}))
    }

    pub(super) fn end_streams(&self, relay: &Relay, reason: u8) -> anyhow::Result<()> {
        self.order(relay, json!({"fault": "stream_ends", "who": relay.fingerprint, "reason": reason}))
    }

    /// Ends what was ordered of a relay.
    pub(super) fn back(&self, relay: &Relay) -> anyhow::Result<()> {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner).remove(&relay.name);
        orders.into_iter().flatten().try_for_each(|id| self.world.clear(id)).context("the simulated network is gone")
    }

    fn order(&self, relay: &Relay, order: Value) -> anyhow::Result<()> {
        let id = self.world.order_text(&order.to_string()).context("the simulated network takes no orders")?;
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.entry(relay.name.clone()).or_default().push(id);
        Ok(())
    }
}

/// `simtor` beside the program that runs, where cargo puts it.
fn program() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os(PROGRAM) {
        return Ok(path.into());
    }
    let own = env::current_exe()?;
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join("simtor"));
    let found = beside.into_iter().find(|path| path.is_file());
    found.with_context(|| format!("there is no simtor beside {}: cargo build -p exitgate-simtor", own.display()))
}

fn fingerprint(name: &str, octet: u8) -> String {
    Sha1::digest(format!("{name} 127.{octet}")).iter().map(|byte| format!("{byte:02X}")).collect()
}

/// A line as a tor in a private network needs it; nobody connects there.
fn authority(relays: &[Relay]) -> anyhow::Result<String> {
    let first = relays.first().context("no authority")?;
    let Relay { name, ip, fingerprint, .. } = first;
    Ok(format!("DirAuthority {name} orport={OR_PORT} no-v2 v3ident={fingerprint} {ip}:{DIR_PORT} {fingerprint}"))
}
