//! Starts a tor process, reads its log, and ends it.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::lifecycle::Tasks;
use crate::tor::control::{Control, commands::Signal};
use crate::tor::version::{INSTALL, UPDATE, Version};

/// The number of tor's last log lines that are kept. The reason why tor ended is usually among them.
const KEPT_LINES: usize = 8;

/// The longest log line in bytes. Longer lines are cut; tor's own lines are shorter.
const LINE: usize = 1000;

/// How long tor may take to end after the command to end. tor takes 20 ms on a quiet machine. Two of these times must
/// fit into the time that the shutdown of the gateway gives to killed tasks.
const END: Duration = Duration::from_secs(3);

/// How long the commands `tor --version` and `tor --verify-config` may take. They usually take about 30 ms.
const ONE_SHOT: Duration = Duration::from_secs(20);

/// Why tor cannot be started. Trying again does not help until the operator changes something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BinaryError {
    /// The program does not exist or cannot be run.
    #[error("cannot start tor ({binary}): {why}; {INSTALL}")]
    Missing { binary: String, why: String },
    /// The program is not tor.
    #[error("{binary} is not tor: it does not say its version; {INSTALL}")]
    NotTor { binary: String },
    #[error(
        "tor {found} ({binary}) is too old, because the Tor network no longer supports series before 0.4.9; {UPDATE}"
    )]
    TooOld { binary: String, found: Version },
}

/// Runs `tor --version` and returns the version of a tor program.
pub(in crate::tor) async fn version(binary: &Path) -> Result<Version, BinaryError> {
    let name = binary.display().to_string();
    let mut command = Command::new(binary);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(ONE_SHOT, command.output()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let output = output.map_err(|e| BinaryError::Missing { binary: name.clone(), why: e.to_string() })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found: Version = match text.strip_prefix("Tor version").map(str::parse) {
        Some(Ok(version)) => version,
        _ => return Err(BinaryError::NotTor { binary: name }),
    };
    if found < Version::OLDEST { Err(BinaryError::TooOld { binary: name, found }) } else { Ok(found) }
}

/// Runs `tor --verify-config` on a torrc file. Returns tor's warnings on success, or tor's errors.
pub(in crate::tor) async fn verify(binary: &Path, torrc: &Path) -> Result<Vec<String>, String> {
    let mut command = arguments(binary, torrc);
    command.arg("--verify-config");
    let output = timeout(ONE_SHOT, command.output()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let output = output.map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let of = |level: &str| text.lines().map(logged).filter(|(l, _)| *l == level).map(|(_, m)| m.to_owned()).collect();
    let warnings: Vec<String> = of("warn");
    if output.status.success() {
        return Ok(warnings);
    }
    let errors: Vec<String> = of("err");
    Err([warnings, errors].concat().join("; "))
}

fn arguments(binary: &Path, torrc: &Path) -> Command {
    let mut command = Command::new(binary);
    // The file defaults-torrc is not read, because its options (user, log, port) are meant for the tor service of the
    // system.
    command.arg("-f").arg(torrc).args(["--defaults-torrc", "/dev/null"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// A tor process that we started. Dropping this value kills the process.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    last: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    pub(super) fn start(binary: &Path, torrc: &Path, engine: u8, tasks: &Tasks) -> io::Result<Self> {
        let mut command = arguments(binary, torrc);
        // tor gets its own process group, because Ctrl-C in a terminal must not end tor while the gateway drains.
        command.process_group(0);
        let mut child = command.spawn()?;
        let last = Arc::new(Mutex::new(VecDeque::with_capacity(KEPT_LINES)));
        if let Some(stdout) = child.stdout.take() {
            tasks.spawn("tor log", follow(stdout, engine, last.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            tasks.spawn("tor log", follow(stderr, engine, last.clone()));
        }
        Ok(Self { child, last })
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Resolves when the tor process has ended. Returns the reason as text.
    pub(super) async fn ended(&mut self) -> String {
        let how = match self.child.wait().await {
            Ok(status) => describe(status),
            Err(e) => e.to_string(),
        };
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match last.iter().rev().find(|line| line.contains("[err]")).or_else(|| last.back()) {
            Some(line) => format!("tor ended ({how}): {}", logged(line).1),
            None => format!("tor ended ({how})"),
        }
    }

    /// Sends tor the command to end, and kills the process if tor does not end within the time [`END`].
    pub(super) async fn end(mut self, control: Option<Control>) {
        if let Some(control) = control {
            // tor's answer is ignored, because tor also ends when the connection that owns it is closed.
            drop(timeout(END, control.signal(Signal::Shutdown)).await);
            drop(control);
            if timeout(END, self.child.wait()).await.is_ok() {
                return;
            }
        }
        drop(self.child.kill().await); // this also waits for the end of the process
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "for an unknown reason".to_owned(),
    }
}

/// Copies the lines of tor's log into our log.
async fn follow(output: impl AsyncRead + Unpin, engine: u8, last: Arc<Mutex<VecDeque<String>>>) {
    let mut lines = BufReader::new(output);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        line.truncate(LINE);
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        let (level, message) = logged(&text);
        match level {
            "err" => tracing::error!(engine, "tor: {message}"),
            "warn" if !of_bootstrap(message) => tracing::warn!(engine, "tor: {message}"),
            // tor's notices become debug lines of our log, because the engine's state already shows what is important.
            _ => tracing::debug!(engine, "tor: {message}"),
        }
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == KEPT_LINES {
            last.pop_front();
        }
        last.push_back(text);
    }
}

/// Returns true for tor's warnings about failed connections during the bootstrap. tor writes many of these warnings,
/// and `session/progress.rs` logs the cause itself.
fn of_bootstrap(message: &str) -> bool {
    message.starts_with("Problem bootstrapping.")
        || message.ends_with(" connections have failed:")
        || message.contains(" connections died in state ")
}

/// Splits a log line such as `Nov 21 12:04:47.315 [notice] Bootstrapped…` into level and message.
fn logged(line: &str) -> (&str, &str) {
    let split = line.split_once(" [").and_then(|(_, rest)| rest.split_once("] "));
    match split {
        Some((level @ ("err" | "warn" | "notice" | "info" | "debug"), message)) => (level, message),
        _ => ("", line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_is_split_by_its_level() {
        for (line, want) in [
            (
                "Nov 21 12:04:47.315 [notice] Bootstrapped 5% (conn): x [y] z",
                ("notice", "Bootstrapped 5% (conn): x [y] z"),
            ),
            ("Nov 21 12:04:47.315 [warn] careful", ("warn", "careful")),
            ("a [strange] line", ("", "a [strange] line")),
            ("", ("", "")),
        ] {
            assert_eq!(logged(line), want, "{line}");
        }
    }

    #[test]
    fn what_tor_says_of_each_failed_connection_is_told_apart() {
        for (line, want) in [
            ("Problem bootstrapping. Stuck at 14% (handshake): Handshaking with a relay. (DONE; count 10)", true),
            ("10 connections have failed:", true),
            (
                " 10 connections died in state handshaking (TLS) with SSL state SSLv3/TLS write client hello in HANDSHAKE",
                true,
            ),
            ("Your system clock just jumped 700 seconds forward; assuming established circuits no longer work.", false),
        ] {
            assert_eq!(of_bootstrap(line), want, "{line}");
        }
    }

    #[tokio::test]
    async fn a_missing_tor_comes_with_the_way_to_get_one() {
        let message = version(Path::new("/nonexistent/tor")).await.unwrap_err().to_string();
        for word in ["/nonexistent/tor", "apt install tor", "apk add tor", "dnf install tor", "brew install tor"] {
            assert!(message.contains(word), "{word} is not in: {message}");
        }
        assert_eq!(message.lines().count(), 1);
    }

    #[tokio::test]
    async fn something_else_and_something_old_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        for (text, want) in [("Tor version 0.4.6.10.", "too old"), ("GNU bash", "is not tor"), ("", "is not tor")] {
            let path = dir.path().join(format!("tor{}", text.len()));
            std::fs::write(&path, format!("#!/bin/sh\necho '{text}'\n")).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
            let error = version(&path).await.unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
