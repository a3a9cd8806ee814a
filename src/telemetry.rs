//! Logging and metrics set-up.
//!
//! Logs go to standard error: as lines for a person when that is a terminal, as JSON otherwise, so that a container's
//! logs parse without anybody having to ask for it. The level can be changed while running, because the time to want
//! debug lines is when something is wrong, and a restart makes the wrong thing go away. Both writers are lossy rather
//! than blocking: a stuck terminal or a full disk must not stop traffic. What was lost is counted.
//!
//! Metrics have their names on one page, [`metrics`], and nowhere else. Series of what users make and unmake are kept
//! apart ([`passing`]), so that they can be forgotten.
//!
//! Next: `telemetry/metrics.rs`; [`crate::app`] calls [`init`] once.

pub mod ephemeral_series;
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

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For a person on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For a person.
    Human,
    /// One JSON object a line.
    Json,
}

/// When the log file is begun anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rotate {
    /// Never: something else rotates it.
    Never,
    /// Every hour.
    Hourly,
    /// Every day at midnight UTC.
    #[default]
    Daily,
    /// Every week.
    Weekly,
}

/// What to log, and where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `info`, or directives such as `info,exitgate::tor=debug`.
    pub level: String,
    /// How lines look on standard error; a file always gets JSON.
    pub format: Format,
    /// A file beside standard error.
    pub file: Option<PathBuf>,
    /// When that file is begun anew.
    pub rotate: Rotate,
    /// How many old files stay.
    pub keep: usize,
}

/// Why logging or metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is neither a word that we know nor a list of directives.
    #[error(
        "log.level: {given:?} is not understood ({reason}); write trace, debug, info, warn, error, or info,exitgate::tor=debug"
    )]
    Level {
        /// What the config says.
        given: String,
        /// What the parser says.
        reason: String,
    },
    /// The log file cannot be opened.
    #[error(
        "log.file: {path} cannot be written ({reason}); create its folder, or give exitgate the right to write there"
    )]
    File {
        /// The configured file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// Somebody else set the process-wide logger or recorder first.
    #[error("a logger or metrics recorder is already installed in this process")]
    Taken,
}

/// Logging and metrics while the process lives; dropping it flushes what is buffered.
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

/// Crates that would print what clients ask for, or drown everything else, whatever level is asked for.
const QUIET: &str = "hyper=info,rustls=warn,h2=warn,mio=info,rusqlite_migration=warn";

fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    let fault = |reason: String| TelemetryError::Level { given: level.to_owned(), reason };
    let known = ["trace", "debug", "info", "warn", "error", "off"];
    // EnvFilter takes any lone word for the name of a crate, so that `level = "wran"` would silence everything.
    let lone = level.split(',').filter(|part| !part.contains(['=', ':', '[']));
    if let Some(word) = lone.map(str::trim).find(|word| !known.contains(&word.to_ascii_lowercase().as_str())) {
        return Err(fault(format!("{word:?} is no level")));
    }
    EnvFilter::builder().parse(format!("{QUIET},{level}")).map_err(|error| fault(error.to_string()))
}

/// Checks a level without installing anything, for `check-config`.
pub fn check_level(level: &str) -> Result<(), TelemetryError> {
    filter(level).map(drop)
}

/// Lines that wait for a slow disk before they are lost, and counted: arbitrary. Each place costs 32 bytes from the start:
/// the 128,000 of the default are 4 MB.
const WAITING: usize = 16_384;

type Writer = (NonBlocking, WorkerGuard, ErrorCounter);

fn lossy(name: &'static str, to: impl io::Write + Send + 'static) -> Writer {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING)
        .thread_name(name)
        .finish(LogSanitizer(to));
    let lost = writer.error_counter();
    (writer, guard, lost)
}

fn open_file(settings: &Settings) -> Result<Option<Writer>, TelemetryError> {
    let Some(path) = &settings.file else { return Ok(None) };
    let fault = |reason: String| TelemetryError::File { path: path.clone(), reason };
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| fault("no file name".to_owned()))?;
    let rotation = match settings.rotate {
        Rotate::Never => rolling::Rotation::NEVER,
        Rotate::Hourly => rolling::Rotation::HOURLY,
        Rotate::Daily => rolling::Rotation::DAILY,
        Rotate::Weekly => rolling::Rotation::WEEKLY,
    };
    let folder = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let appender = rolling::Builder::new()
        .rotation(rotation)
        .filename_prefix(name)
        .max_log_files(settings.keep.max(1))
        .build(folder)
        .map_err(|error| fault(error.to_string()))?;
    Ok(Some(lossy("log-file", appender)))
}

/// Sets up logging and metrics for the whole process. Call it once.
pub fn init(settings: &Settings) -> Result<Telemetry, TelemetryError> {
    let (level, handle) = reload::Layer::new(filter(&settings.level)?);
    let file = open_file(settings)?;
    let human = match settings.format {
        Format::Human => true,
        Format::Json => false,
        Format::Auto => io::stderr().is_terminal(),
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
    /// Changes the level while running.
    pub fn set_level(&self, level: &str) -> Result<(), TelemetryError> {
        let new = filter(level)?;
        self.level.reload(new).map_err(|_| TelemetryError::Taken)
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> String {
        self.process.collect();
        let lost: usize = self.lost.iter().map(ErrorCounter::dropped_lines).sum();
        ::metrics::counter!(metrics::LOG_LINES_LOST).absolute(lost as u64);
        self.recorder.render() + &self.ephemeral.render()
    }

    /// Does what a scrape does to memory, for those whom nobody scrapes: empties the buffers of histograms, and forgets
    /// series of what is long gone.
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
            assert!(check_level(good).is_ok(), "{good}");
        }
        for (bad, hint) in [("wran", "wran"), ("info,exitgate=loud", "loud"), ("", "is no level")] {
            let said = check_level(bad).unwrap_err().to_string();
            assert!(said.contains(hint) && said.contains("write trace"), "{said}");
        }
    }

    #[test]
    fn an_unwritable_file_says_what_to_do() {
        let settings = Settings {
            level: "info".to_owned(),
            format: Format::Auto,
            file: Some("/proc/nowhere/exitgate.log".into()),
            rotate: Rotate::Daily,
            keep: 3,
        };
        let Err(fault) = open_file(&settings) else { panic!("/proc took a file") };
        let said = fault.to_string();
        assert!(said.contains("/proc/nowhere/exitgate.log") && said.contains("create its folder"), "{said}");
    }
}
