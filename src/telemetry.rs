//! Sets up the logging and the metrics of the process.
//!
//! Logs go to standard error. On a terminal the lines are text. Otherwise they are JSON, because the log collectors of
//! containers parse JSON. The level can be changed while the gateway runs: debug lines are needed when something is
//! wrong, and a restart often makes the fault disappear.
//!
//! The gateway never waits until a log line is written, because a stuck terminal or a full disk must not stop traffic.
//! If lines cannot be written fast enough, lines are dropped and counted.
//!
//! The names of all metrics are in [`metrics`] and nowhere else. Metric series about routes are kept apart
//! ([`ephemeral_series`]): users create and delete routes, and the series of a deleted route must be removed.
//!
//! The figures of the last 24 hours, which the console shows, are in [`history`].
//!
//! Next: `telemetry/metrics.rs`; `telemetry/trace_id.rs` (the ids in log lines); [`crate::app`] calls [`init`] once.

pub mod ephemeral_series;
pub mod history;
mod log_sanitizer;
pub mod metrics;
pub mod trace_id;

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use log_sanitizer::LogSanitizer;

/// The format of log lines on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LineFormat {
    /// Text if standard error is a terminal, otherwise JSON.
    #[default]
    Auto,
    /// Text for people.
    Human,
    /// One JSON object per line.
    Json,
}

/// When the gateway starts a new log file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogRotation {
    /// The gateway never starts a new file. Another program may rotate the file.
    Never,
    Hourly,
    /// The gateway starts a new file every day at midnight UTC.
    #[default]
    Daily,
    Weekly,
}

/// The settings of the log: what is logged, and where.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// A level such as `info`, or directives per module such as `info,exitgate::tor=debug`.
    pub level: String,
    /// The format of lines on standard error. Lines in a file are always JSON.
    pub format: LineFormat,
    /// A file that also gets every log line. `None` if no log file is written. If files are rotated, each file has the
    /// date in its name (`exitgate.log.2026-11-30`), and this path is a symbolic link to the newest file.
    pub file: Option<PathBuf>,
    pub rotate: LogRotation,
    /// The number of rotated log files that are kept. 0 keeps all files.
    pub keep: usize,
}

/// Why logging or metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error(
        "log.level: {given:?} is not understood ({reason}); write trace, debug, info, warn, error, or info,exitgate::tor=debug"
    )]
    Level { given: String, reason: String },
    #[error(
        "log.file: {path} cannot be written ({reason}); create its folder, or give exitgate the right to write there"
    )]
    File { path: PathBuf, reason: String },
    #[error("a logger or metrics recorder is already installed in this process")]
    Taken,
}

/// The logging and the metrics of the process. Dropping this value writes buffered lines to their destination.
pub struct Telemetry {
    level: reload::Handle<EnvFilter, Registry>,
    recorder: PrometheusHandle,
    ephemeral: ephemeral_series::EphemeralSeries,
    process: metrics_process::Collector,
    lost: Vec<ErrorCounter>,
    _writers: Vec<WorkerGuard>,
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

/// Log levels for crates that would otherwise log the targets of clients, or too many lines, at the user's level.
const QUIET: &str = "hyper=info,rustls=warn,h2=warn,mio=info,rusqlite_migration=warn";

fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    let fault = |reason: String| TelemetryError::Level { given: level.to_owned(), reason };
    let known = ["trace", "debug", "info", "warn", "error", "off"];
    // EnvFilter reads a word that is not a level as the name of a crate: `level = "wran"` would disable all log lines.
    let lone = level.split(',').filter(|part| !part.contains(['=', ':', '[']));
    if let Some(word) = lone.map(str::trim).find(|word| !known.contains(&word.to_ascii_lowercase().as_str())) {
        return Err(fault(format!("{word:?} is not a level")));
    }
    EnvFilter::builder().parse(format!("{QUIET},{level}")).map_err(|error| fault(error.to_string()))
}

/// The number of log lines that are buffered for a slow writer. When the buffer is full, new lines are dropped. Not
/// tuned. Each slot of the buffer takes 32 bytes from the start: the default of 128,000 slots would take 4 MB.
const BUFFERED_LINES: usize = 16_384;

type Writer = (NonBlocking, WorkerGuard, ErrorCounter);

fn lossy(name: &'static str, to: impl io::Write + Send + 'static) -> Writer {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(BUFFERED_LINES)
        .thread_name(name)
        .finish(LogSanitizer(to));
    let lost = writer.error_counter();
    (writer, guard, lost)
}

fn open_file(settings: &LogSettings) -> Result<Option<Writer>, TelemetryError> {
    let Some(path) = &settings.file else { return Ok(None) };
    let fault = |reason: String| TelemetryError::File { path: path.clone(), reason };
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| fault("no file name".to_owned()))?;
    let rotation = match settings.rotate {
        LogRotation::Never => rolling::Rotation::NEVER,
        LogRotation::Hourly => rolling::Rotation::HOURLY,
        LogRotation::Daily => rolling::Rotation::DAILY,
        LogRotation::Weekly => rolling::Rotation::WEEKLY,
    };
    let folder = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let mut appender = rolling::Builder::new().rotation(rotation).filename_prefix(name);
    if settings.keep > 0 {
        appender = appender.max_log_files(settings.keep);
    }
    // The crate `tracing-appender` deletes whatever file is at this path before it makes the symbolic link. A log file
    // that an earlier configuration wrote must not be lost.
    let free = path.symlink_metadata().map_or(true, |found| found.is_symlink());
    if settings.rotate != LogRotation::Never && free {
        appender = appender.latest_symlink(name);
    }
    let appender = appender.build(folder).map_err(|error| fault(error.to_string()))?;
    Ok(Some(lossy("log-file", appender)))
}

/// Sets up logging and metrics for the whole process. This function may be called only once.
pub fn init(settings: &LogSettings) -> Result<Telemetry, TelemetryError> {
    let (level, handle) = reload::Layer::new(filter(&settings.level)?);
    let file = open_file(settings)?;
    let human = match settings.format {
        LineFormat::Human => true,
        LineFormat::Json => false,
        LineFormat::Auto => io::stderr().is_terminal(),
    };
    let (console, guard, lost) = lossy("log-console", io::stderr());
    let (mut guards, mut losses) = (vec![guard], vec![lost]);
    let console = if human {
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        fmt::layer().with_writer(console).with_ansi(colour).boxed()
    } else {
        fmt::layer().json().flatten_event(true).with_writer(console).boxed()
    };
    let file = file.map(|(writer, guard, lost)| {
        guards.push(guard);
        losses.push(lost);
        fmt::layer().json().flatten_event(true).with_writer(writer)
    });
    let subscriber = tracing_subscriber::registry().with(level).with(console).with(file);
    subscriber.try_init().map_err(|_| TelemetryError::Taken)?;
    let process = metrics_process::Collector::default();
    let (recorder, ephemeral) = install_recorder()?;
    process.describe();
    Ok(Telemetry { level: handle, recorder, ephemeral, process, lost: losses, _writers: guards })
}

fn install_recorder() -> Result<(PrometheusHandle, ephemeral_series::EphemeralSeries), TelemetryError> {
    let lasting = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), metrics::SECONDS)
        .map_err(|_| TelemetryError::Taken)?
        .build_recorder();
    let handle = lasting.handle();
    let (recorder, ephemeral) = ephemeral_series::Recorder::new(lasting);
    ::metrics::set_global_recorder(recorder).map_err(|_| TelemetryError::Taken)?;
    metrics::describe();
    Ok((handle, ephemeral))
}

impl Telemetry {
    /// Changes the log level while the gateway runs.
    pub fn set_level(&self, level: &str) -> Result<(), TelemetryError> {
        let new = filter(level)?;
        self.level.reload(new).map_err(|_| TelemetryError::Taken)
    }

    /// Returns all metrics in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.process.collect();
        let lost: usize = self.lost.iter().map(ErrorCounter::dropped_lines).sum();
        ::metrics::counter!(metrics::LOG_LINES_LOST).absolute(lost as u64);
        self.recorder.render() + &self.ephemeral.render()
    }

    /// Frees memory that otherwise only a scrape of the metrics frees: empties the buffers of histograms, and removes
    /// the series of deleted routes. Call this every few seconds, because not every gateway is scraped.
    pub fn upkeep(&self) {
        self.recorder.run_upkeep();
        self.ephemeral.sweep(std::time::Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_word_or_directives() {
        for good in ["info", "DEBUG", "info,exitgate::tor=debug", "warn,access=off", "off"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for (bad, hint) in [("wran", "wran"), ("info,exitgate=loud", "loud"), ("", "is not a level")] {
            let text = filter(bad).unwrap_err().to_string();
            assert!(text.contains(hint) && text.contains("write trace"), "{text}");
        }
    }

    fn settings(file: impl Into<PathBuf>, rotate: LogRotation, keep: usize) -> LogSettings {
        LogSettings { level: "info".to_owned(), format: LineFormat::Auto, file: Some(file.into()), rotate, keep }
    }

    /// Returns the file names in a folder. The name of a symbolic link ends with `@`.
    fn names(folder: &std::path::Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let name = |entry: std::fs::DirEntry| {
            let mark = if entry.file_type().unwrap().is_symlink() { "@" } else { "" };
            format!("{}{mark}", entry.file_name().to_str().unwrap())
        };
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn the_configured_path_leads_to_the_newest_log_file() {
        use std::io::Write as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exitgate.log");
        let write = |rotate, text: &str| {
            let (mut writer, guard, _) = open_file(&settings(&path, rotate, 3)).unwrap().unwrap();
            writer.write_all(text.as_bytes()).unwrap();
            drop(guard);
        };
        write(LogRotation::Daily, "one\n");
        let found = names(folder.path());
        assert!(
            found.len() == 2 && found[0].starts_with("exitgate.log.20") && found[1] == "exitgate.log@",
            "{found:?}"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n");

        std::fs::remove_file(&path).unwrap();
        write(LogRotation::Never, "two\n");
        write(LogRotation::Daily, "three\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n", "a file of that name is not replaced by a link");
        assert_eq!(std::fs::read_to_string(folder.path().join(&found[0])).unwrap(), "one\nthree\n");
    }

    #[test]
    fn old_files_are_deleted_unless_all_are_kept() {
        for (keep, left) in [(2, 2), (0, 4)] {
            let folder = tempfile::tempdir().unwrap();
            for day in 1..=3 {
                std::fs::write(folder.path().join(format!("exitgate.log.2020-01-0{day}")), "old").unwrap();
            }
            drop(open_file(&settings(folder.path().join("exitgate.log"), LogRotation::Daily, keep)).unwrap());
            let found = names(folder.path());
            assert_eq!(found.iter().filter(|name| !name.ends_with('@')).count(), left, "keep {keep}: {found:?}");
        }
    }

    #[test]
    fn an_unwritable_file_says_what_to_do() {
        let settings = settings("/proc/nowhere/exitgate.log", LogRotation::Daily, 3);
        let Err(fault) = open_file(&settings) else { panic!("/proc took a file") };
        let text = fault.to_string();
        assert!(text.contains("/proc/nowhere/exitgate.log") && text.contains("create its folder"), "{text}");
    }
}
