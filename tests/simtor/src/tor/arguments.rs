//! tor's command line.

use std::path::{Path, PathBuf};

use super::log::{Log, Quiet};
use crate::torrc::Torrc;

/// What tor is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Run,
    Verify,
    Version,
    ListOptions,
    HashPassword(String),
}

/// The command line, read.
#[derive(Clone, Debug)]
pub(super) struct Arguments {
    pub(super) mode: Mode,
    pub(super) quiet: Quiet,
    pub(super) file: Option<PathBuf>,
    defaults: Option<PathBuf>,
    may_be_missing: bool,
    options: Vec<(String, String)>,
    /// An option without its value.
    incomplete: Option<String>,
}

impl Arguments {
    pub(super) fn read(words: &[String]) -> Self {
        let mut read = Self {
            mode: Mode::Run,
            quiet: Quiet::Not,
            file: None,
            defaults: None,
            may_be_missing: false,
            options: Vec::new(),
            incomplete: None,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--version" => read.mode = Mode::Version,
                "--verify-config" => read.mode = Mode::Verify,
                "--list-torrc-options" => read.mode = Mode::ListOptions,
                "--hash-password" => read.mode = Mode::HashPassword(words.next().cloned().unwrap_or_default()),
                "--hush" => read.quiet = Quiet::Hush,
                "--quiet" => read.quiet = Quiet::All,
                "--ignore-missing-torrc" => read.may_be_missing = true,
                "-f" | "--torrc-file" => read.file = words.next().map(PathBuf::from),
                "--defaults-torrc" => read.defaults = words.next().map(PathBuf::from),
                option => match words.next() {
                    Some(value) => read.options.push((option.trim_start_matches('-').to_owned(), value.clone())),
                    None => read.incomplete = Some(option.to_owned()),
                },
            }
        }
        read
    }

    /// Reads the configuration that they name; the error is in tor's words.
    pub(super) fn load(&self, log: &Log) -> Result<Torrc, String> {
        if let Some(option) = &self.incomplete {
            return Err(format!("Command-line option '{option}' with no value. Failing."));
        }
        let unreadable = |path: &Path| format!("Unable to open configuration file \"{}\".", path.display());
        let text = |path: &Option<PathBuf>| match path {
            Some(path) => std::fs::read_to_string(path).map_err(|_| unreadable(path)),
            None => Ok(String::new()),
        };
        let defaults = text(&self.defaults).unwrap_or_default();
        let own = match text(&self.file) {
            Err(_) if self.may_be_missing => String::new(),
            own => own?,
        };
        let parsed = Torrc::parse(&format!("{defaults}\n{own}"), &self.options);
        let (torrc, warnings) = parsed.map_err(|why| format!("Failed to parse/validate config: {why}"))?;
        warnings.iter().for_each(|warning| log.warn(warning));
        Ok(torrc)
    }
}
