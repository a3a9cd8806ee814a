//! `exitgate store …`: checks the database file, copies the file, or moves it away.
//!
//! Checking and copying also work while a gateway is running. A damaged file is moved only by this command, never
//! automatically, because it contains pins, and a pin promises a user to keep the same exit.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::{ConfigFile, ExitStatus};
use crate::config::{Loaded, Origin};
use crate::store::{self, Report};

/// The name of the database file in `data_dir`.
const FILE: &str = "exitgate.db";

#[derive(Clone, Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Read every page of the database and report damage
    ///
    /// Works beside a running gateway. Exits with 70 if something is damaged.
    Check(ConfigFile),
    /// Copy the database as it is at one moment
    ///
    /// Works beside a running gateway. The copy gets its name only when it is complete; no file is overwritten.
    Backup {
        /// The file to write
        to: PathBuf,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Move a damaged database out of the way; the next start begins with an empty one
    ///
    /// Refused while a gateway uses it. Nothing is deleted, but the pins, sessions and API routes in it are no longer in
    /// force.
    Reset(ConfigFile),
}

impl Command {
    /// Returns the options that select the configuration, which contains `data_dir`.
    pub(super) fn config(&self) -> ConfigFile {
        let (Self::Check(config) | Self::Reset(config) | Self::Backup { config, .. }) = self;
        config.clone()
    }
}

pub(super) fn run(loaded: &Loaded, command: &Command) -> anyhow::Result<ExitStatus> {
    let path = loaded.config.data_dir.join(FILE);
    if !path.exists() {
        writeln!(io::stderr(), "exitgate: {}", missing(&path, &loaded.origin))?;
        return Ok(ExitStatus::Usage);
    }
    let mut stdout = io::stdout();
    match command {
        Command::Check(_) => {
            let report = store::check(&path)?;
            write!(stdout, "{}", describe(&path, &report))?;
            Ok(if report.faults.is_empty() { ExitStatus::Ok } else { ExitStatus::Internal })
        }
        Command::Backup { to, .. } => {
            let size = store::backup(&path, to)?;
            writeln!(stdout, "{}: {size} bytes", to.display())?;
            Ok(ExitStatus::Ok)
        }
        Command::Reset(_) => {
            let aside = store::set_aside(&path)?;
            writeln!(stdout, "moved to {}; the next start begins with an empty database", aside.display())?;
            Ok(ExitStatus::Ok)
        }
    }
}

fn missing(path: &Path, origin: &Origin) -> String {
    let from = match origin {
        Origin::File(file) => format!("data_dir is set by {}", file.display()),
        Origin::Defaults => "data_dir is the default, as no configuration file was found".to_owned(),
    };
    format!(
        "there is no database at {} ({from})\n  if the gateway runs with another configuration, name it with -c FILE",
        path.display()
    )
}

fn describe(path: &Path, report: &Report) -> String {
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
    fn a_report_lists_every_fault() {
        let mut report =
            Report { version: 1, bytes: 4096, rows: [("pins".to_owned(), 3)].into_iter().collect(), faults: vec![] };
        assert_eq!(describe(Path::new("a.db"), &report), "a.db: schema 1, 4096 bytes\n  pins: 3\nno damage\n");
        report.faults = vec!["page 2 is torn".to_owned(), "page 3 too".to_owned()];
        assert!(describe(Path::new("a.db"), &report).ends_with("damaged: page 2 is torn\ndamaged: page 3 too\n"));
    }

    #[test]
    fn a_missing_database_names_its_place_and_the_option_that_changes_it() {
        let text = missing(Path::new("data/exitgate.db"), &Origin::File("x.toml".into()));
        assert!(text.contains("data/exitgate.db (data_dir is set by x.toml)") && text.contains("-c FILE"), "{text}");
        assert!(missing(Path::new("data/exitgate.db"), &Origin::Defaults).contains("the default"));
    }
}
