//! The file with the results of a run of `exitgate test-exits`. The first line contains the options of the run. Each
//! further line is one result.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The name of the file in `data_dir`.
const FILE: &str = "test-exits.jsonl";

/// The largest age of an interrupted run that can be continued. Older results may be wrong, and a full run takes only
/// minutes. Not tuned.
const FRESH: Duration = Duration::from_secs(3600);

/// The options of a run. An interrupted run is continued only with the same options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Scope {
    pub(super) country: Option<String>,
    pub(super) target: Option<String>,
}

pub(super) struct ProgressFile {
    path: PathBuf,
    /// `None` if the file cannot be written. Such a run works, but cannot be continued.
    file: Option<File>,
    done: Vec<Value>,
    ids: HashSet<String>,
}

impl ProgressFile {
    /// Opens the file of an interrupted run that had the options `scope`. If there is no such file, or if `anew` is
    /// true, a new file is created.
    pub(super) fn open(folder: &Path, scope: &Scope, anew: bool) -> Self {
        let path = folder.join(FILE);
        let done = if anew { None } else { read(&path, scope) };
        let file = match &done {
            Some(_) => reopen(&path).ok(),
            None => begin(&path, scope).ok(),
        };
        let done = done.unwrap_or_default();
        let ids = done.iter().filter_map(|line| line["id"].as_str()).map(str::to_owned).collect();
        Self { path, file, done, ids }
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    pub(super) fn done(&self) -> Vec<Value> {
        self.done.clone()
    }

    /// Writes a result into the file. If the disk is full, the run goes on, but it cannot be continued after an
    /// interruption.
    pub(super) fn note(&mut self, line: &Value) {
        if let Some(file) = &mut self.file
            && writeln!(file, "{line}").is_err()
        {
            self.file = None;
        }
    }

    /// Deletes the file, because the run is complete.
    pub(super) fn close(self) {
        let _ = std::fs::remove_file(&self.path); // the file does not exist if nothing could be written
    }
}

/// Returns the results in the file. `None` if there is no file, if the run that wrote the file had options other than
/// `scope`, or if the file is older than [`FRESH`]. An incomplete last line is skipped.
fn read(path: &Path, scope: &Scope) -> Option<Vec<Value>> {
    let file = File::open(path).ok()?;
    let age = SystemTime::now().duration_since(file.metadata().ok()?.modified().ok()?).unwrap_or_default();
    let mut lines = BufReader::new(file).lines().map_while(Result::ok);
    let found: Scope = serde_json::from_str(&lines.next()?).ok()?;
    let done = lines.filter_map(|line| serde_json::from_str(&line).ok()).collect();
    (found == *scope && age < FRESH).then_some(done)
}

/// Opens the file to append results. A line break is written first, because the last line may be incomplete.
fn reopen(path: &Path) -> std::io::Result<File> {
    let mut file = File::options().append(true).open(path)?;
    writeln!(file)?;
    Ok(file)
}

fn begin(path: &Path, scope: &Scope) -> std::io::Result<File> {
    let mut file = File::create(path)?;
    writeln!(file, "{}", serde_json::to_string(scope)?)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_continues_where_it_ended_unless_its_options_differ_or_it_starts_anew() {
        let folder = tempfile::tempdir().unwrap();
        let us = Scope { country: Some("us".to_owned()), target: None };
        let mut progress = ProgressFile::open(folder.path(), &us, false);
        progress.note(&json!({ "id": "A" }));
        progress.note(&json!({ "id": "B" }));
        drop(progress);
        let torn = std::fs::read_to_string(folder.path().join(FILE)).unwrap() + "{\"id\": \"C";
        std::fs::write(folder.path().join(FILE), torn).unwrap();
        ProgressFile::open(folder.path(), &us, false).note(&json!({ "id": "E" }));
        let progress = ProgressFile::open(folder.path(), &us, false);
        assert_eq!(
            (progress.has("A"), progress.has("B"), progress.has("C"), progress.done().len()),
            (true, true, false, 3)
        );
        assert!(progress.has("E"), "a line after a half-written one is whole");
        assert!(!ProgressFile::open(folder.path(), &Scope::default(), false).has("A"), "a run over other exits");
        let mut progress = ProgressFile::open(folder.path(), &Scope::default(), false);
        progress.note(&json!({ "id": "D" }));
        assert!(!ProgressFile::open(folder.path(), &Scope::default(), true).has("D"), "started anew");
        ProgressFile::open(folder.path(), &us, false).close();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_run_works_where_nothing_can_be_written() {
        let mut progress = ProgressFile::open(Path::new("/nonexistent"), &Scope::default(), false);
        progress.note(&json!({ "id": "A" }));
        progress.close();
    }
}
