//! What `simtor` does beside being a tor: run a network, order faults, show figures.

#![expect(clippy::print_stdout, reason = "a program for a terminal and for scripts")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use serde_json::{Map, Value};
use tokio::net::UnixListener;

use crate::client::WorldClient;
use crate::link::WORLD;
use crate::world::World;
use crate::world::settings::Settings;

/// Words that begin our own commands; tor has none of these.
const WORDS: &[&str] = &["world", "order", "orders", "clear", "faults", "stats", "relays", "geoip", "settings", "help"];

/// True of the first word of a command of ours.
pub fn is_one(word: &str) -> bool {
    WORDS.contains(&word)
}

#[derive(Debug, Parser)]
#[command(
    name = "simtor",
    about = "Stands in for tor in a simulated network. Without one of these words it takes tor's arguments."
)]
struct Cli {
    /// The socket of the network.
    #[arg(long, global = true, env = WORLD)]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a network until SIGTERM.
    World {
        /// A JSON file of settings (see `simtor settings`).
        #[arg(long)]
        settings: Option<PathBuf>,
        /// Where the editions of the directory are kept; the folder of the socket by default.
        #[arg(long)]
        folder: Option<PathBuf>,
        /// A setting: `speed=60`, `size=300`, `dns="127.100.53.1:5353"`.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// Order a fault: its name, then its fields as KEY=VALUE. `for=SECONDS` ends it by itself.
    Order {
        /// The fault, such as `uplink_cut` or `relay_down`.
        name: String,
        /// Its fields, such as `who=exits share=0.4 for=60`.
        fields: Vec<String>,
    },
    /// Show what can be ordered: each fault's name stands below its comment, and above its fields.
    Faults,
    /// Show the faults in force.
    Orders,
    /// End a fault, or all.
    Clear {
        /// Its number.
        id: Option<u64>,
    },
    /// Show what was counted.
    Stats,
    /// Show the relays.
    Relays,
    /// Write a GeoIP file of the relays that these settings draw.
    Geoip {
        /// A JSON file of settings.
        #[arg(long)]
        settings: Option<PathBuf>,
    },
    /// Show all settings with their defaults.
    Settings,
}

/// Runs one of our own commands.
pub fn run() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Cli {
    fn run(self) -> anyhow::Result<()> {
        let socket = self.socket.clone();
        let world =
            || socket.as_deref().map(WorldClient::new).with_context(|| format!("--socket or {WORLD} is missing"));
        match self.command {
            Command::World { settings, folder, set } => {
                let socket = self.socket.with_context(|| format!("--socket or {WORLD} is missing"))?;
                let settings = changed(read(settings.as_deref())?, &set)?;
                serve(&socket, folder, settings)
            }
            Command::Order { name, fields } => {
                let order = object(&[vec![format!("fault={name}")], fields].concat())?;
                println!("{}", world()?.order(&serde_json::from_value(Value::Object(order))?)?);
                Ok(())
            }
            Command::Faults => {
                print!("{}", crate::fault::list());
                Ok(())
            }
            Command::Orders => show(&world()?.orders()?),
            Command::Clear { id: Some(id) } => Ok(world()?.clear(id)?),
            Command::Clear { id: None } => Ok(world()?.clear_all()?),
            Command::Stats => show(&serde_json::to_value(world()?.stats()?)?),
            Command::Relays => show(&world()?.relays()?),
            Command::Geoip { settings } => {
                let settings = read(settings.as_deref())?;
                print!("{}", crate::model::Model::new(settings.seed, settings.size).geoip());
                Ok(())
            }
            Command::Settings => show(&serde_json::to_value(Settings::default())?),
        }
    }
}

fn read(path: Option<&Path>) -> anyhow::Result<Settings> {
    path.map_or_else(|| Ok(Settings::default()), Settings::read)
}

fn show(value: &Value) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// `key=value` pairs as a JSON object; a value that is no JSON is a text.
fn object(pairs: &[String]) -> anyhow::Result<Map<String, Value>> {
    let pair = |pair: &String| {
        let (key, value) = pair.split_once('=').with_context(|| format!("{pair} is not KEY=VALUE"))?;
        let text = || Value::String(value.to_owned());
        Ok((key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| text())))
    };
    pairs.iter().map(pair).collect()
}

fn changed(settings: Settings, set: &[String]) -> anyhow::Result<Settings> {
    let mut value = serde_json::to_value(settings)?;
    for (key, new) in object(set)? {
        let known = value.get_mut(&key).with_context(|| format!("there is no setting {key}"))?;
        *known = new;
    }
    Ok(serde_json::from_value(value)?)
}

/// Runs a network until a signal ends it.
fn serve(socket: &Path, folder: Option<PathBuf>, settings: Settings) -> anyhow::Result<()> {
    crate::files::allow();
    let folder = folder.or_else(|| socket.parent().map(Path::to_owned)).context("a socket lies in a folder")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let world = World::new(settings, folder)?;
        let _ = std::fs::remove_file(socket); // of an earlier run
        let listener = UnixListener::bind(socket).with_context(|| format!("cannot listen at {}", socket.display()))?;
        tokio::spawn(world.clone().keep_time());
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            () = world.serve(listener) => {}
            _ = term.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        let _ = std::fs::remove_file(socket); // nobody listens there any more
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_changed_by_key() {
        let set =
            |pairs: &[&str]| changed(Settings::default(), &pairs.iter().map(|&pair| pair.into()).collect::<Vec<_>>());
        let settings = set(&["speed=60", "dns=127.0.0.1:53", "version=0.4.9.14"]).unwrap();
        assert_eq!((settings.speed, settings.dns), (60.0, Some("127.0.0.1:53".parse().unwrap())));
        assert_eq!(settings.version, "0.4.9.14");
        assert!(set(&["spede=60"]).is_err() && set(&["speed"]).is_err() && set(&["speed=fast"]).is_err());
    }
}
