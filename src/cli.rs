//! The command line: its commands and options, and the exit codes of the process.
//!
//! Every command has three steps: clap parses the arguments, this file loads the configuration if the command needs it,
//! and then the command does its work. No command runs with a faulty configuration. The work of `serve`, `reload` and
//! `health` is passed in as [`Actions`], a set of functions that tests can replace.
//!
//! Some commands send requests to the API of a running gateway. `cli/client.rs` sends the requests, and `cli/remote.rs`
//! contains what these commands have in common.
//!
//! Next: `cli/check_config.rs`, the shortest command; `cli/routes.rs`, the longest.

mod bans;
mod check_config;
mod client;
mod completions;
mod health;
mod init;
mod keys;
mod lists;
mod man;
mod reload;
mod remote;
mod routes;
mod rule;
mod store;
mod table;
mod test_exits;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use self::remote::{Remote, Watch};
use crate::app::{self, End};
use crate::config::{self, Loaded, SelectorCheck};

/// The function that validates the selectors in a configuration.
const SELECTORS: Option<SelectorCheck<'static>> = Some(&app::validate_selector);

/// The exit code of the process. The numbers are those of `sysexits.h`, or 128 + n if the signal n ended the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// 0: success. A shutdown after the first signal is also a success, even if open tunnels were cut.
    Ok,
    /// 64: the command line, the configuration or the request is wrong.
    Usage,
    /// 69: a port is taken, tor is missing, or no gateway answers. The same command may work later.
    Unavailable,
    /// 70: a fault of exitgate or of the machine.
    Internal,
    /// 128 + the number of the signal: a second signal ended the process before the shutdown was complete.
    Signal(u8),
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(match status {
            ExitStatus::Ok => 0,
            ExitStatus::Usage => 64,
            ExitStatus::Unavailable => 69,
            ExitStatus::Internal => 70,
            ExitStatus::Signal(number) => 128_u8.saturating_add(number),
        })
    }
}

impl From<End> for ExitStatus {
    fn from(end: End) -> Self {
        match end {
            End::Stopped => Self::Ok,
            End::Signal(number) => Self::Signal(number),
            End::Unavailable => Self::Unavailable,
            End::Broken => Self::Internal,
        }
    }
}

/// The functions that do the work of the commands `serve`, `reload` and `health`. Each function gets the loaded
/// configuration and the value of `--config`.
#[derive(Clone, Copy, Debug)]
pub struct Actions {
    /// Runs the gateway until a signal stops it.
    pub serve: fn(Loaded, Option<PathBuf>) -> anyhow::Result<ExitStatus>,
    /// Makes the running gateway read its configuration again.
    pub reload: fn(Loaded, Option<PathBuf>) -> anyhow::Result<ExitStatus>,
    /// Checks that the running gateway is alive.
    pub health: fn(Loaded, Option<PathBuf>) -> anyhow::Result<ExitStatus>,
}

impl Actions {
    /// The real functions of the program. Tests use other functions.
    pub const REAL: Self = Self {
        serve: |loaded, config| Ok(app::serve(loaded, config).into()),
        reload: reload::run,
        health: health::run,
    };
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done, or stopped by a signal
  64   the command line, the configuration or the request is wrong
  69   a port is taken, tor is missing, or no gateway answers
  70   an internal error
  130  stopped at once by a second SIGINT (143: SIGTERM)

Configuration:
  --config FILE, or the first of ./exitgate.toml and /etc/exitgate/exitgate.toml, or the defaults alone.
  Then the environment: EXITGATE__GATEWAY__LISTEN=0.0.0.0:1080 sets `listen` in [gateway].";

const REMOTE_HELP: &str = "\
This command asks a running gateway over its API. The address is EXITGATE_URL (http:// or https://), else api.listen of \
the configuration. The token is EXITGATE_TOKEN, else api.token, else the file that the gateway wrote into data_dir.";

/// One gateway, many exits.
#[derive(Debug, Parser)]
#[command(name = "exitgate", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
#[command(long_about = "One gateway, many exits.\n\n\
    A scraper connects to one port and names the exits that it wants in the username (us, nonus-strict, \
    de+fr-session-cart42). exitgate chooses a tested Tor exit or public proxy, carries the connection through it, and \
    tells which one it was.")]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a configuration and its secrets, and print the next commands
    ///
    /// Writes exitgate.toml with comments, a key for clients and a token for the API (both readable by this user only).
    /// An existing key or token is used again, and no file is overwritten.
    Init(init::Args),
    /// Run the gateway
    ///
    /// Runs until SIGTERM or SIGINT. Then it takes no new connections, open ones may finish for `lifecycle.drain`, and a
    /// second signal ends everything at once. SIGHUP reads the configuration again.
    Serve(ConfigFile),
    /// Check a configuration and list everything that is wrong with it
    ///
    /// Prints each fault with its line, its key and what to write instead. Opens no port and changes nothing.
    CheckConfig(ConfigFile),
    /// Make the running gateway read its configuration again
    ///
    /// All or nothing: if the new configuration has a fault, the running one stays. Prints what changed, and what takes
    /// effect only after a restart. Does the same as SIGHUP, but prints the result.
    Reload(ConfigFile),
    /// Check that the running gateway answers
    ///
    /// Exits with 0 if it does and with 69 if not. An answer does not mean that an exit is usable: GET /ready tells that.
    Health(ConfigFile),
    /// Test exits now, and print each result
    ///
    /// The running gateway does the tests at its configured rate (check.per_second), and uses the results at once, as
    /// after any check. Ctrl-C stops the command; the same command, given again within an hour, continues from there.
    TestExits(test_exits::Args),
    /// Check the database, copy it, or move it away
    #[command(subcommand)]
    Store(store::Command),
    /// List, create, change and delete routes
    ///
    /// exitgate routes create shop --country us --strict --port 20001
    #[command(after_help = REMOTE_HELP)]
    Routes {
        #[command(subcommand)]
        action: routes::Routes,
        #[command(flatten)]
        remote: Remote,
    },
    /// List, create, change and delete keys of clients
    ///
    /// exitgate keys create team-a --ttl 30d --budget bytes_per_month=100GB
    #[command(after_help = REMOTE_HELP)]
    Keys {
        #[command(subcommand)]
        action: keys::Keys,
        #[command(flatten)]
        remote: Remote,
    },
    /// List exits, show one, or test one now
    #[command(after_help = REMOTE_HELP)]
    Exits {
        #[command(flatten)]
        args: lists::ExitsArgs,
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        watch: Watch,
    },
    /// List, make and lift bans: which exits are not used for which sites
    #[command(after_help = REMOTE_HELP)]
    Bans {
        #[command(subcommand)]
        action: bans::Bans,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show the tor processes that the gateway drives
    #[command(after_help = REMOTE_HELP)]
    Engines {
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        watch: Watch,
    },
    /// Show where exits come from, or fetch a source now
    #[command(after_help = REMOTE_HELP)]
    Sources {
        #[command(flatten)]
        args: lists::SourcesArgs,
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        watch: Watch,
    },
    /// List open connections, or close one
    #[command(after_help = REMOTE_HELP)]
    Connections {
        #[command(flatten)]
        args: lists::ConnectionsArgs,
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        watch: Watch,
    },
    /// Explain which exits a username can use and why the others are excluded
    ///
    /// exitgate why us-strict-asn-3320 --port 443
    #[command(after_help = REMOTE_HELP)]
    Why {
        #[command(flatten)]
        args: lists::WhyArgs,
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        watch: Watch,
    },
    /// Print the manual page
    Man {
        /// Write a page for each command into this folder
        #[arg(value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
    /// Print completions for a shell
    ///
    /// In bash, zsh and fish they also complete the names of routes, which they ask the running gateway for.
    ///
    /// For bash: exitgate completions bash > /etc/bash_completion.d/exitgate
    Completions {
        /// The shell that will read them
        shell: clap_complete::Shell,
    },
}

#[derive(Clone, Debug, clap::Args)]
struct ConfigFile {
    /// The configuration file [default: ./exitgate.toml, /etc/exitgate/exitgate.toml, or none]
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the command of a command line. The first item of `args` is the program's name.
pub fn run(args: impl IntoIterator<Item = OsString>, actions: Actions) -> ExitStatus {
    let args: Vec<OsString> = args.into_iter().collect();
    if args.get(1).is_some_and(|word| word == completions::ROUTE_NAMES) {
        return completions::print_route_names(&args[1..]);
    }
    let line = match CommandLine::try_parse_from(args) {
        Ok(line) => line,
        Err(error) => {
            // If the terminal is closed, the error cannot be shown anywhere.
            _ = error.print();
            let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if help { ExitStatus::Ok } else { ExitStatus::Usage };
        }
    };
    match line.command {
        None => {
            _ = CommandLine::command().print_help();
            ExitStatus::Ok
        }
        Some(Command::Init(args)) => finish(init::run(&args)),
        Some(Command::Serve(file)) => with_config(file, actions.serve),
        Some(Command::CheckConfig(file)) => check_config::run(file),
        Some(Command::Reload(file)) => with_config(file, actions.reload),
        Some(Command::Health(file)) => with_config(file, actions.health),
        Some(Command::TestExits(args)) => {
            with_config(args.config.clone(), |loaded, _| test_exits::run(&loaded.config, &args))
        }
        Some(Command::Store(command)) => with_config(command.config(), |loaded, _| store::run(&loaded, &command)),
        Some(Command::Routes { action, remote }) => action.run(remote),
        Some(Command::Keys { action, remote }) => action.run(remote),
        Some(Command::Exits { args, remote, watch }) => args.run(remote, watch),
        Some(Command::Bans { action, remote }) => action.run(remote),
        Some(Command::Engines { remote, watch }) => lists::engines(remote, watch),
        Some(Command::Sources { args, remote, watch }) => args.run(remote, watch),
        Some(Command::Connections { args, remote, watch }) => args.run(remote, watch),
        Some(Command::Why { args, remote, watch }) => args.run(remote, watch),
        Some(Command::Man { folder }) => finish(man::run(CommandLine::command(), folder)),
        Some(Command::Completions { shell }) => finish(completions::run(shell, CommandLine::command())),
    }
}

/// Loads the configuration. If it has no fault, calls the function that does the command's work.
fn with_config(
    file: ConfigFile,
    work: impl FnOnce(Loaded, Option<PathBuf>) -> anyhow::Result<ExitStatus>,
) -> ExitStatus {
    let path = file.config.clone();
    match load(file) {
        Ok(loaded) => finish(work(loaded, path)),
        Err(faults) => {
            _ = writeln!(io::stderr(), "{faults}");
            ExitStatus::Usage
        }
    }
}

/// Prints the error of a command that failed. If the program that reads the output has closed the pipe (`exitgate man |
/// head`), that is not treated as an error.
fn finish(result: anyhow::Result<ExitStatus>) -> ExitStatus {
    result.unwrap_or_else(|error| {
        let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
        if io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe) {
            return ExitStatus::Ok;
        }
        _ = writeln!(io::stderr(), "exitgate: {error:#}");
        ExitStatus::Internal
    })
}

fn load(file: ConfigFile) -> Result<Loaded, config::Faults> {
    config::load(config::find(file.config.as_deref()), SELECTORS)
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn a_closed_pipe_is_success_and_every_other_failure_is_70() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(finish(Err(closed).context("cannot print")), ExitStatus::Ok);
        assert_eq!(finish(Err(io::Error::from(io::ErrorKind::NotFound).into())), ExitStatus::Internal);
        assert_eq!(finish(Err(anyhow!("broken"))), ExitStatus::Internal);
        assert_eq!(finish(Ok(ExitStatus::Usage)), ExitStatus::Usage);
    }

    #[test]
    fn watch_is_offered_where_something_is_shown() {
        let parses = |line: &str| CommandLine::try_parse_from(line.split(' ')).is_ok();
        for line in [
            "exitgate routes list --watch",
            "exitgate routes show shop --watch 5",
            "exitgate exits --watch",
            "exitgate engines --watch 1 --json",
            "exitgate why us --watch",
        ] {
            assert!(parses(line), "{line}");
        }
        for line in [
            "exitgate routes create shop --watch",
            "exitgate routes rotate shop --watch",
            "exitgate routes delete shop --watch",
            "exitgate routes report shop --site a.example --watch",
            "exitgate exits 192.0.2.1 --check --watch",
            "exitgate sources --refresh onionoo --watch",
            "exitgate connections --cut 7 --watch",
            "exitgate routes list --watch 0",
        ] {
            assert!(!parses(line), "{line}");
        }
    }
}
