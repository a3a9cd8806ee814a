//! `[log]`: what is written about what happens, and where.

use std::path::{Path, PathBuf};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::finding::{Findings, KeyPath};
use super::schema;

/// How exitgate writes its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// What is worth a line: a level, or `tracing` directives. Known to be well-formed.
    pub level: String,
    /// How the console's lines look.
    pub format: LogFormat,
    /// A file that gets the lines as well, as JSON.
    pub file: Option<PathBuf>,
    /// When a new file is begun.
    pub rotate: Rotate,
    /// How many old files are kept; 0 keeps all.
    pub keep: usize,
    /// Whether lines may name what clients ask for and the usernames that they ask with.
    pub targets: bool,
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// When a new log file is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rotate {
    /// One file for ever.
    Never,
    /// Each hour.
    Hourly,
    /// Each day.
    Daily,
    /// Each week.
    Weekly,
}

impl Log {
    pub(super) fn settle(file: &schema::Log, findings: &mut Findings) -> Self {
        // A bare word that is no level would be taken for the name of a module, and silence all others.
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

/// Reports a file to be written whose folder is not there.
fn check_folder(findings: &mut Findings, at: &KeyPath, path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.file_name().is_none() || path.is_dir() {
        findings.fault(at, format!("names {}, which is a folder", path.display()), "name a file in it");
    } else if !folder.is_dir() {
        let what = format!("names {}, whose folder does not exist", path.display());
        findings.fault(at, what, format!("mkdir -p {}", folder.display()));
    }
}
