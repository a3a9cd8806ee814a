//! The words of the command line, and what the process says with its exit code.
//!
//! A command is judged in three steps: its words (clap), its configuration (here, so that no command begins with one
//! that is broken), and then its work, which [`Work`] hands in. The last step is a pair of functions and not a call, so
//! that tests can see that a broken configuration never reaches it.
//!
//! Next: `cli/check_config.rs`, the only command that is all here; `cli/remote.rs` and `cli/client.rs`, how the others reach a
//! running gateway.

mod check_config;
mod client;
mod health;
mod lists;
mod man;
mod reload;
mod remote;
mod routes;
mod store;
mod table;
mod test_exits;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use self::remote::Remote;
use crate::app::{self, End};
use crate::config::{self, Loaded, SelectorCheck};

/// Who judges selectors while a configuration is read.
const SELECTORS: Option<SelectorCheck<'static>> = Some(&app::validate_selector);

/// What a process that ends says to its caller; the numbers are those of `sysexits.h`, and 128 + n for a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All went well; also a shutdown on the first signal, however many tunnels it cut.
    Ok,
    /// The command line or the configuration is wrong (64).
    Usage,
    /// A port is taken, tor is missing, or no gateway answers (69): nothing is wrong with us, and trying again may help.
    Unavailable,
    /// A fault of our own, or of the machine below us (70).
    Internal,
    /// A second signal ended us before the work was done (128 + its number).
    Signal(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Usage => 64,
            Exit::Unavailable => 69,
            Exit::Internal => 70,
            Exit::Signal(number) => 128_u8.saturating_add(number),
        })
    }
}

/// The commands whose work is done elsewhere, each given the configuration that was loaded for it and the file that was
/// asked for.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Runs the gateway until it is told to stop.
    pub serve: fn(Loaded, Option<PathBuf>) -> anyhow::Result<Exit>,
    /// Makes the running gateway read its configuration again.
    pub reload: fn(Loaded, Option<PathBuf>) -> anyhow::Result<Exit>,
    /// Asks the running gateway whether it is alive.
    pub health: fn(Loaded, Option<PathBuf>) -> anyhow::Result<Exit>,
}

impl Work {
    /// What the program does.
    pub const REAL: Self =
        Self { serve: |loaded, asked| Ok(app::serve(loaded, asked).into()), reload: reload::run, health: health::run };
}

impl From<End> for Exit {
    fn from(end: End) -> Self {
        match end {
            End::Stopped => Self::Ok,
            End::Signal(number) => Self::Signal(number),
            End::Unavailable => Self::Unavailable,
            End::Broken => Self::Internal,
        }
    }
}

const CODES: &str = "\
Exit codes:
  0    done, or stopped by a signal
  64   the command line or the configuration is wrong
  69   a port is taken, tor is missing, or no gateway answers
  70   an internal error
  130  stopped at once by a second SIGINT (143: SIGTERM)

Configuration:
  --config FILE, or the first of ./exitgate.toml and /etc/exitgate/exitgate.toml, or the defaults alone.
  Then the environment: EXITGATE__GATEWAY__LISTEN=0.0.0.0:1080 sets `listen` in [gateway].";

const OVER: &str = "\
The gateway is asked over its API: where and with which token say EXITGATE_URL and EXITGATE_TOKEN, else the
configuration, else the token that the gateway made under data_dir.";

/// One gateway, many exits.
#[derive(Debug, Parser)]
#[command(name = "exitgate", version, after_help = CODES, disable_help_subcommand = true)]
#[command(long_about = "One gateway, many exits.\n\n\
    Point a scraper at one port and say in the username which way out it wants (us, nonus-strict, de+fr-session-cart42): \
    exitgate finds a tested Tor exit or public proxy, carries the connection there, and says which one it was.")]
struct Line {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    ///
    /// Runs until SIGTERM or SIGINT: then no new connections are taken, open ones may finish for `lifecycle.drain`, and a
    /// second signal ends all of it at once. SIGHUP reads the configuration again.
    Serve(ConfigFile),
    /// Say everything that is wrong with a configuration
    ///
    /// Prints each fault with its line, its key and what to write instead. Opens no port and changes nothing.
    CheckConfig(ConfigFile),
    /// Make the running gateway read its configuration again
    ///
    /// All or nothing: with a single fault in it the running configuration stays. Says what changed, and what has to wait
    /// for a restart. As SIGHUP, but with an answer.
    Reload(ConfigFile),
    /// Say whether the running gateway answers
    ///
    /// Exits with 0 if it does and with 69 if not. That it answers does not mean that an exit is usable: GET /ready says so.
    Health(ConfigFile),
    /// Test exits once, now, and show how each fares
    ///
    /// The running gateway tests them at its own polite pace, so that the guards are not burdened twice; what is found is
    /// in force at once, as after any check. Ctrl-C ends it, and the same command goes on where it ended.
    TestExits(test_exits::Args),
    /// Look at the database, copy it, or move it out of the way
    #[command(subcommand)]
    Store(store::Command),
    /// List, make, change and close routes
    ///
    /// exitgate routes create shop --country us --strict --port 20001
    #[command(after_help = OVER)]
    Routes {
        #[command(subcommand)]
        what: routes::Routes,
        #[command(flatten)]
        remote: Remote,
    },
    /// List exits, show one, or test one now
    #[command(after_help = OVER)]
    Exits {
        #[command(flatten)]
        which: lists::Exits,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show the tor processes that the gateway drives
    #[command(after_help = OVER)]
    Engines {
        #[command(flatten)]
        remote: Remote,
    },
    /// Show where exits come from, or ask a source now
    #[command(after_help = OVER)]
    Sources {
        #[command(flatten)]
        which: lists::Sources,
        #[command(flatten)]
        remote: Remote,
    },
    /// List connections that are alive, or end one
    #[command(after_help = OVER)]
    Connections {
        #[command(flatten)]
        which: lists::Connections,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show where all exits went that a username does not use
    ///
    /// exitgate why us-strict-asn-3320 --port 443
    #[command(after_help = OVER)]
    Why {
        #[command(flatten)]
        whom: lists::Why,
        #[command(flatten)]
        remote: Remote,
    },
    /// Print the manual page
    Man {
        /// Write a page for each command into this folder
        #[arg(value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
    /// Print completions for a shell
    ///
    /// For bash: exitgate completions bash > /etc/bash_completion.d/exitgate
    Completions {
        /// The shell that they are for
        shell: clap_complete::Shell,
    },
}

#[derive(Clone, Debug, clap::Args)]
struct ConfigFile {
    /// The configuration file [default: ./exitgate.toml, /etc/exitgate/exitgate.toml, or none]
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs a command line, the program's name first.
pub fn run(args: impl IntoIterator<Item = OsString>, work: Work) -> Exit {
    let line = match Line::try_parse_from(args) {
        Ok(line) => line,
        Err(said) => {
            // Nothing can be done about a closed terminal.
            _ = said.print();
            let asked_for = matches!(said.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked_for { Exit::Ok } else { Exit::Usage };
        }
    };
    match line.command {
        None => {
            _ = Line::command().print_help();
            Exit::Ok
        }
        Some(Command::Serve(file)) => with_config(file, work.serve),
        Some(Command::CheckConfig(file)) => check_config::run(file),
        Some(Command::Reload(file)) => with_config(file, work.reload),
        Some(Command::Health(file)) => with_config(file, work.health),
        Some(Command::TestExits(args)) => {
            with_config(args.config.clone(), |loaded, _| test_exits::run(&loaded.config, &args))
        }
        Some(Command::Store(command)) => {
            with_config(command.config(), |loaded, _| store::run(&loaded.config, &command))
        }
        Some(Command::Routes { what, remote }) => what.run(remote),
        Some(Command::Exits { which, remote }) => which.run(remote),
        Some(Command::Engines { remote }) => lists::engines(remote),
        Some(Command::Sources { which, remote }) => which.run(remote),
        Some(Command::Connections { which, remote }) => which.run(remote),
        Some(Command::Why { whom, remote }) => whom.run(remote),
        Some(Command::Man { folder }) => man::run(Line::command(), folder),
        Some(Command::Completions { shell }) => {
            clap_complete::generate(shell, &mut Line::command(), "exitgate", &mut std::io::stdout());
            Exit::Ok
        }
    }
}

/// Does a command's work with its configuration, if that is without fault.
fn with_config(file: ConfigFile, work: impl FnOnce(Loaded, Option<PathBuf>) -> anyhow::Result<Exit>) -> Exit {
    let mut stderr = std::io::stderr();
    let asked = file.config.clone();
    let loaded = match load(file) {
        Ok(loaded) => loaded,
        Err(faults) => {
            _ = writeln!(stderr, "{faults}");
            return Exit::Usage;
        }
    };
    work(loaded, asked).unwrap_or_else(|why| {
        _ = writeln!(stderr, "exitgate: {why:#}");
        Exit::Internal
    })
}

fn load(file: ConfigFile) -> Result<Loaded, config::Faults> {
    config::load(config::find(file.config.as_deref()), SELECTORS)
}
