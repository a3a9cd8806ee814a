//! An engine: the program that is started in tor's place, with tor's arguments.
//!
//! It does what tor does as a client: reads its torrc, listens, keeps its files, and tells its controller what happens.
//! What happens is decided by the world, to which it is connected. Without a world it still says its version and
//! verifies configurations.
//!
//! Next: `tor/engine.rs` (its state), `tor/control.rs` (its controllers), `tor/port.rs` (its clients), `tor/directory.rs`
//! (its bootstrap), `tor/home.rs` (its folder).

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::client::WorldClient;
use crate::link::WORLD;
use crate::torrc::Torrc;

mod arguments;
mod circuits;
mod control;
mod directory;
mod engine;
mod event;
mod home;
mod log;
mod onion;
mod port;
mod socks;
mod stream;
mod streams;
mod upkeep;
mod uplink;

use arguments::{Arguments, Mode};
use engine::Engine;
use home::Home;
use log::Log;

/// The version where no world says another: the one that the project's measurements were made with.
const VERSION: &str = "0.4.9.11";

/// Runs as tor does. The arguments are those behind the program's name.
pub fn run(arguments: &[String]) -> ExitCode {
    let world = std::env::var_os(WORLD).map(PathBuf::from).map(|path| WorldClient::new(&path));
    let known = world.as_ref().and_then(|world| world.version().ok());
    let version = known.map_or_else(|| VERSION.to_owned(), |(version, _)| version);
    let arguments = Arguments::read(arguments);
    let log = Log::new(arguments.quiet);
    match prepare(&arguments, &version, &log) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(torrc)) => match world {
            Some(world) => serve(arguments, torrc, &world, log),
            None => {
                log.err(&format!("This is simtor, and there is no network for it: set {WORLD} to the socket of one."));
                ExitCode::FAILURE
            }
        },
        Err(why) => {
            log.notice("Tor can't help you if you use it wrong! Learn how to be safe at https://support.torproject.org/faq/staying-anonymous/");
            log.warn(&why);
            log.err("Reading config failed--see warnings above.");
            ExitCode::FAILURE
        }
    }
}

/// Reads the configuration; none if the answer was all that was wanted.
#[expect(clippy::print_stdout, reason = "what tor prints is read by whoever started it")]
fn prepare(arguments: &Arguments, version: &str, log: &Log) -> Result<Option<Torrc>, String> {
    if arguments.mode == Mode::Version {
        println!("Tor version {version}.\nThis is simtor, which stands in for tor in exitgate's tests.");
        return Ok(None);
    }
    if arguments.mode == Mode::ListOptions {
        print!("{}", crate::torrc::names());
        return Ok(None);
    }
    if let Mode::HashPassword(password) = &arguments.mode {
        println!("{}", control::hashed(password));
        return Ok(None);
    }
    log.notice(&format!("Tor {version} running on Linux (simulated)."));
    let torrc = arguments.load(log)?;
    if arguments.mode == Mode::Verify {
        println!("Configuration was valid");
        return Ok(None);
    }
    log.follow(&torrc);
    Ok(Some(torrc))
}

fn serve(arguments: Arguments, torrc: Torrc, world: &WorldClient, log: Log) -> ExitCode {
    crate::files::allow();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    let code = runtime.block_on(live(arguments, torrc, world, &log));
    runtime.shutdown_background();
    match code {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            log.err(&why);
            ExitCode::FAILURE
        }
    }
}

/// One life, until a signal, an owner or a fault ends it.
async fn live(arguments: Arguments, torrc: Torrc, world: &WorldClient, log: &Log) -> Result<(), String> {
    let home = Home::open(&torrc, log).await?;
    let bridges = circuits::bridges(&torrc);
    let (link, welcome) = uplink::connect(world.socket(), bridges).await?;
    let engine = Engine::new(arguments, torrc, home, world.socket(), &link, welcome, log.clone());
    let (control, socks) = engine.listen().await?;
    engine.home.say_pid(&engine.torrc())?;
    for listener in control {
        tokio::spawn(control::accept(engine.clone(), listener));
    }
    for (listener, port) in socks {
        tokio::spawn(port::accept(engine.clone(), listener, port));
    }
    tokio::spawn(onion::serve(engine.clone()));
    tokio::spawn(engine.clone().keep_up());
    tokio::spawn(directory::bootstrap(engine.clone()));
    let lost = uplink::run(engine.clone(), link);
    tokio::select! {
        () = lost => Err("The simulated network is gone.".to_owned()),
        () = signals(engine.clone()) => Ok(()),
        () = engine.quitting() => Ok(()),
    }
}

/// A client's SIGTERM and SIGINT end it at once; SIGHUP reads the configuration again.
async fn signals(engine: Arc<Engine>) {
    let of = |kind| signal(kind).ok();
    let (Some(mut term), Some(mut int), Some(mut hup)) =
        (of(SignalKind::terminate()), of(SignalKind::interrupt()), of(SignalKind::hangup()))
    else {
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = term.recv() => return,
            _ = int.recv() => return,
            _ = hup.recv() => engine.reload(),
        }
    }
}
