//! `[log]`: what is logged, and where.

use std::path::{Path, PathBuf};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::choice::{LogFormat, Rotate};
use super::findings::Findings;
use super::key_path::KeyPath;
use super::schema;

/// The settings of `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A level (such as `info`) or `tracing` directives. The text has been validated.
    pub level: String,
    /// The format of log lines on standard error.
    pub format: LogFormat,
    /// A file into which every log line is also written, as JSON. `None`: no file is written.
    pub file: Option<PathBuf>,
    /// How often a new log file is started.
    pub rotate: Rotate,
    /// The number of old log files that are kept. 0 means that all are kept.
    pub keep: usize,
    /// True if log lines may contain targets and usernames.
    pub targets: bool,
}

impl Log {
    pub(super) fn validate(file: &schema::Log, findings: &mut Findings) -> Self {
        // `EnvFilter` would read a word that is not a level as the name of a module, and then log nothing from all
        // other modules.
        let mut bare = file.level.split(',').map(str::trim).filter(|part| !part.contains(['=', '[']));
        if bare.any(|word| word.parse::<LevelFilter>().is_err()) || EnvFilter::builder().parse(&file.level).is_err() {
            let hint = "write error, warn, info, debug or trace, or directives such as \"info,exitgate::tor=debug\"";
            findings.fault("log.level", format!("is {:?}", file.level), hint);
        }
        if let Some(path) = &file.file {
            check_folder(findings, &"log.file".into(), path);
        }
        Self {
            level: file.level.clone(),
            format: file.format,
            file: file.file.clone(),
            rotate: file.rotate,
            keep: file.keep.0 as usize,
            targets: file.targets,
        }
    }
}

/// Reports a log file whose folder does not exist.
fn check_folder(findings: &mut Findings, at: &KeyPath, path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.file_name().is_none() || path.is_dir() {
        findings.fault(at, format!("names {}, which is a folder", path.display()), "name a file in this folder");
    } else if !folder.is_dir() {
        let what = format!("names {}, whose folder does not exist", path.display());
        findings.fault(at, what, format!("mkdir -p {}", folder.display()));
    }
}
