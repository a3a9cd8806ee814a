//! `exitgate check-config`: lists all faults of a configuration, before a gateway is started with it.

use std::io::Write as _;

use super::{ConfigFile, ExitStatus, load};

/// Prints faults and warnings to stderr. If there is no fault, prints one line to stdout.
pub(super) fn run(file: ConfigFile) -> ExitStatus {
    let (mut stdout, mut stderr) = (std::io::stdout(), std::io::stderr());
    match load(file) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                _ = writeln!(stderr, "warning: {warning}");
            }
            _ = writeln!(stdout, "config ok: {}", loaded.origin);
            ExitStatus::Ok
        }
        Err(faults) => {
            _ = writeln!(stderr, "{faults}");
            ExitStatus::Usage
        }
    }
}
