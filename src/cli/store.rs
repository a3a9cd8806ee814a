//! `exitgate store …`: the database file, looked at, copied, or moved out of the way.
//!
//! Looking and copying work beside a running gateway. Moving away is the one thing that is never done unasked: pins are
//! promises, and they are in that file.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::{ConfigFile, Exit};
use crate::config::Config;
use crate::store::{self, Report};

/// The file's name in `data_dir`.
const FILE: &str = "exitgate.db";

#[derive(Clone, Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Read every page of the database and say what is damaged
    ///
    /// Works beside a running gateway. Exits with 70 if something is damaged.
    Check(ConfigFile),
    /// Copy the database as it is at one moment
    ///
    /// Works beside a running gateway. The copy has its name only once it is whole; no file is overwritten.
    Backup {
        /// The file to write
        to: PathBuf,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Move a damaged database out of the way, so that the next start begins with an empty one
    ///
    /// Refused while a gateway runs on it. Nothing is deleted; but the pins, sessions and API routes in it are not in force
    /// any more.
    Reset(ConfigFile),
}

impl Command {
    /// The configuration that says where the database is.
    pub(super) fn config(&self) -> ConfigFile {
        let (Self::Check(config) | Self::Reset(config) | Self::Backup { config, .. }) = self;
        config.clone()
    }
}

pub(super) fn run(config: &Config, command: &Command) -> anyhow::Result<Exit> {
    let path = config.data_dir.join(FILE);
    let mut stdout = std::io::stdout();
    match command {
        Command::Check(_) => {
            let report = store::check(&path)?;
            write!(stdout, "{}", told(&path, &report))?;
            Ok(if report.faults.is_empty() { Exit::Ok } else { Exit::Internal })
        }
        Command::Backup { to, .. } => {
            let size = store::backup(&path, to)?;
            writeln!(stdout, "{}: {size} bytes", to.display())?;
            Ok(Exit::Ok)
        }
        Command::Reset(_) => {
            let aside = store::set_aside(&path)?;
            writeln!(stdout, "moved to {}; the next start begins with an empty database", aside.display())?;
            Ok(Exit::Ok)
        }
    }
}

/// What a check found, in a person's words.
fn told(path: &Path, report: &Report) -> String {
    let rows: Vec<_> = report.rows.iter().map(|(table, rows)| format!("  {table}: {rows}\n")).collect();
    let head = format!("{}: schema {}, {} bytes\n", path.display(), report.version, report.bytes);
    let end = match report.faults.as_slice() {
        [] => "no damage\n".to_owned(),
        faults => faults.iter().map(|fault| format!("damaged: {fault}\n")).collect(),
    };
    format!("{head}{}{end}", rows.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_said_with_every_fault() {
        let mut report =
            Report { version: 1, bytes: 4096, rows: [("pins".to_owned(), 3)].into_iter().collect(), faults: vec![] };
        assert_eq!(told(Path::new("a.db"), &report), "a.db: schema 1, 4096 bytes\n  pins: 3\nno damage\n");
        report.faults = vec!["page 2 is torn".to_owned(), "page 3 too".to_owned()];
        assert!(told(Path::new("a.db"), &report).ends_with("damaged: page 2 is torn\ndamaged: page 3 too\n"));
    }
}
