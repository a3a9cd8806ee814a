//! `exitgate check-config`: lists everything that is wrong with a configuration, before a gateway starts with it.

use std::io::Write as _;

use super::{ConfigFile, ExitStatus, load};

/// Faults and warnings go to stderr; the line that all is well goes to stdout.
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
