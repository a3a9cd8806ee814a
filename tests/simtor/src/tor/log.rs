//! tor's log: lines with a time and a level, on standard output or in files.

use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::model::text;
use crate::torrc::Torrc;

/// What is left out at the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quiet {
    Not,
    /// Everything below a warning.
    Hush,
    /// Everything.
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Debug,
    Info,
    Notice,
    Warn,
    Err,
}

/// The log of a process.
#[derive(Clone, Debug)]
pub(super) struct Log {
    quiet: Quiet,
    outputs: Arc<Mutex<Vec<Output>>>,
}

#[derive(Debug)]
struct Output {
    level: Level,
    /// Standard output if there is none.
    file: Option<File>,
}

impl Log {
    pub(super) fn new(quiet: Quiet) -> Self {
        Self { quiet, outputs: Arc::new(Mutex::new(vec![Output { level: Level::Notice, file: None }])) }
    }

    /// Goes by the `Log` lines of a configuration.
    pub(super) fn follow(&self, torrc: &Torrc) {
        let output = |line: &str| {
            let (level, place) = line.split_once(' ').unwrap_or((line, "stdout"));
            let file = match place.trim().strip_prefix("file ") {
                Some(path) => Some(File::options().create(true).append(true).open(path.trim()).ok()?),
                None => None,
            };
            Some(Output { level: Level::read(level), file })
        };
        let outputs: Vec<Output> = torrc.all("Log").filter_map(output).collect();
        if !outputs.is_empty() {
            *self.outputs.lock().unwrap_or_else(PoisonError::into_inner) = outputs;
        }
    }

    pub(super) fn notice(&self, text: &str) {
        self.write(Level::Notice, text);
    }

    pub(super) fn warn(&self, text: &str) {
        self.write(Level::Warn, text);
    }

    pub(super) fn err(&self, text: &str) {
        self.write(Level::Err, text);
    }

    fn write(&self, level: Level, message: &str) {
        let line = format!("{} [{}] {message}\n", now(), level.word());
        for output in self.outputs.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            let hushed = output.file.is_none()
                && match self.quiet {
                    Quiet::Not => false,
                    Quiet::Hush => level < Level::Warn,
                    Quiet::All => true,
                };
            if hushed || level < output.level {
                continue;
            }
            // A log that cannot be written is no reason to stop, as with tor.
            let _ = match &mut output.file {
                Some(file) => file.write_all(line.as_bytes()),
                None => std::io::stdout().lock().write_all(line.as_bytes()),
            };
        }
    }
}

impl Level {
    fn read(word: &str) -> Self {
        match word.split('-').next() {
            Some("debug") => Self::Debug,
            Some("info") => Self::Info,
            Some("warn") => Self::Warn,
            Some("err") => Self::Err,
            _ => Self::Notice,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warn => "warn",
            Self::Err => "err",
        }
    }
}

/// `Nov 21 12:04:47.315`.
fn now() -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let now = SystemTime::now();
    let stamp = text::stamp(text::seconds(now));
    let millis = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_millis());
    let month = stamp[5..7].parse::<usize>().map_or("Jan", |month| MONTHS[(month - 1) % 12]);
    format!("{month} {} {}.{millis:03}", &stamp[8..10], &stamp[11..])
}
