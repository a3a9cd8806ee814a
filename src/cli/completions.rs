//! `exitgate completions`: prints a completion script for a shell, which is generated from the commands and options.
//!
//! For bash, zsh and fish a piece of hand-written code is added to the generated script. This code completes the names
//! of routes. It gets the names from the hidden command `exitgate route-names`, which asks the running gateway. If the
//! gateway does not answer within a second, the hidden command prints nothing, and the shell completes all the rest.
//!
//! clap_complete has an engine that could replace the added code, but this engine is behind its feature
//! `unstable-dynamic`, whose API may change in any release.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::time::Duration;

use clap_complete::Shell;
use http::Method;
use serde_json::Value;
use tokio::time::timeout;

use super::client::Api;
use super::{ConfigFile, ExitStatus, load};
use crate::config::Config;

/// The code that is added for each shell.
const BASH: &str = include_str!("completions/route_names.bash");
const ZSH: &str = include_str!("completions/route_names.zsh");
const FISH: &str = include_str!("completions/route_names.fish");

/// The hidden command. It is not a command of clap, because clap_complete would offer it in the shells.
pub(super) const ROUTE_NAMES: &str = "route-names";

/// Parts of the lines of zsh's script that complete a route: its positional argument, the option `--route`, and the
/// username of `exitgate why`, which may be a route.
const ZSH_ROUTES: [&str; 3] = ["':route -- ", ":ROUTE:_default'", "':username -- "];

/// How long the user waits for the names of routes after they pressed Tab. Not tuned.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) fn run(shell: Shell, command: clap::Command) -> anyhow::Result<ExitStatus> {
    io::stdout().write_all(script(shell, command).as_bytes())?;
    Ok(ExitStatus::Ok)
}

/// Returns the completion script for a shell.
fn script(shell: Shell, mut command: clap::Command) -> String {
    // The text is first written into memory, because the generator panics if a write fails.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "exitgate", &mut text);
    let text = String::from_utf8_lossy(&text);
    match shell {
        Shell::Bash => format!("{text}\n{BASH}"),
        Shell::Fish => format!("{text}\n{FISH}"),
        Shell::Zsh => with_zsh_routes(&text),
        _ => text.into_owned(),
    }
}

/// Inserts the function before the first function of the script, and calls the inserted function in the lines that
/// complete a route.
fn with_zsh_routes(text: &str) -> String {
    let completes_route = |line: &str| ZSH_ROUTES.iter().any(|part| line.contains(part));
    let mut lines = Vec::new();
    for line in text.lines() {
        if line == "_exitgate() {" {
            lines.push(ZSH.to_owned());
        }
        let changed = completes_route(line).then(|| line.replace(":_default'", ":_exitgate_route_names'"));
        lines.push(changed.unwrap_or_else(|| line.to_owned()));
    }
    lines.join("\n") + "\n"
}

/// The options of the hidden command.
#[derive(Debug, clap::Parser)]
struct RouteNames {
    #[command(flatten)]
    file: ConfigFile,
}

/// Prints the names of the gateway's routes, one per line. Prints nothing if the gateway does not answer in time: the
/// user is in the middle of a command, and no error must be shown there.
pub(super) fn print_route_names(args: &[OsString]) -> ExitStatus {
    if let Some(answer) = routes(args) {
        _ = io::stdout().write_all(names(&answer).as_bytes());
    }
    ExitStatus::Ok
}

/// Asks the gateway for its routes.
fn routes(args: &[OsString]) -> Option<Value> {
    let RouteNames { file } = clap::Parser::try_parse_from(args).ok()?;
    // The address in EXITGATE_URL needs no configuration. Without it, a faulty configuration names no gateway.
    let config = match load(file) {
        Ok(loaded) => loaded.config,
        Err(_) if std::env::var_os("EXITGATE_URL").is_some() => Config::default(),
        Err(_) => return None,
    };
    let api = Api::from_env(&config).ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async { timeout(PATIENCE, api.send(Method::GET, "/proxies?limit=1000", None)).await }).ok()?.ok()
}

/// Returns the names in a list of routes, one per line.
fn names(answer: &Value) -> String {
    let routes = answer["proxies"].as_array().into_iter().flatten();
    routes.filter_map(|route| route["name"].as_str()).map(|name| format!("{name}\n")).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use serde_json::json;

    use super::super::CommandLine;
    use super::*;

    #[test]
    fn each_argument_of_zsh_that_is_a_route_completes_routes() {
        let text = script(Shell::Zsh, CommandLine::command());
        let calls = text.matches(":_exitgate_route_names'").count();
        // `routes show`, `patch`, `rotate`, `report` and `delete`, `connections --route`, and `why`.
        assert_eq!(calls, 7, "{text}");
        assert_eq!(text.matches("_exitgate_route_names() {").count(), 1, "the function is not defined");
    }

    #[test]
    fn the_hidden_command_is_completed_in_no_shell() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let generated = script(shell, CommandLine::command());
            assert_eq!(generated.matches("route-names").count(), 1, "{shell}: only the added code calls it");
        }
    }

    #[test]
    fn names_are_printed_one_per_line() {
        let answer = json!({ "proxies": [{ "name": "shop" }, { "name": "news" }], "next": null });
        assert_eq!(names(&answer), "shop\nnews\n");
        assert_eq!(names(&json!({ "error": {} })), "");
    }
}
