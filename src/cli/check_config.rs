//! `exitgate check-config`: everything that is wrong with a configuration, before anybody depends on it.

use std::io::Write as _;

use super::{ConfigFile, Exit, load};

/// Faults and warnings go to stderr, the good news to stdout.
pub(super) fn run(file: ConfigFile) -> Exit {
    let (mut stdout, mut stderr) = (std::io::stdout(), std::io::stderr());
    match load(file) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                _ = writeln!(stderr, "warning: {warning}");
            }
            _ = writeln!(stdout, "config ok: {}", loaded.origin);
            Exit::Ok
        }
        Err(faults) => {
            _ = writeln!(stderr, "{faults}");
            Exit::Usage
        }
    }
}
