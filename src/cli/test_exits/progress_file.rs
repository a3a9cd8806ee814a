//! What a pass has found so far, on disk: a line that says which pass it is, then a line a result.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The file's name in `data_dir`.
const FILE: &str = "test-exits.jsonl";

/// How old a pass may be that is gone on with. Arbitrary: its first results must still say something at its end.
const FRESH: Duration = Duration::from_secs(3600);

/// Which exits, and what they are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) country: Option<String>,
    pub(super) target: Option<String>,
}

/// The notes of one pass.
pub(super) struct ProgressFile {
    path: PathBuf,
    /// None where nothing can be written: such a pass cannot be gone on with.
    file: Option<File>,
    done: Vec<Value>,
    ids: HashSet<String>,
}

impl ProgressFile {
    /// The notes of a pass like this one that was cut short, or new ones.
    pub(super) fn open(folder: &Path, about: &About, anew: bool) -> Self {
        let path = folder.join(FILE);
        let done = if anew { None } else { read(&path, about) };
        let file = match &done {
            Some(_) => go_on(&path).ok(),
            None => begin(&path, about).ok(),
        };
        let done = done.unwrap_or_default();
        let ids = done.iter().filter_map(|line| line["id"].as_str()).map(str::to_owned).collect();
        Self { path, file, done, ids }
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// What was found before.
    pub(super) fn done(&self) -> Vec<Value> {
        self.done.clone()
    }

    /// Writes a result down. A disk that is full costs the going on, not the pass.
    pub(super) fn note(&mut self, line: &Value) {
        if let Some(file) = &mut self.file
            && writeln!(file, "{line}").is_err()
        {
            self.file = None;
        }
    }

    /// The pass is over.
    pub(super) fn close(self) {
        let _ = std::fs::remove_file(&self.path); // it was never there where nothing can be written
    }
}

/// The results in the file, if it is of such a pass and fresh. A line that was cut short is left out.
fn read(path: &Path, about: &About) -> Option<Vec<Value>> {
    let file = File::open(path).ok()?;
    let age = SystemTime::now().duration_since(file.metadata().ok()?.modified().ok()?).unwrap_or_default();
    let mut lines = BufReader::new(file).lines().map_while(Result::ok);
    let whose: About = serde_json::from_str(&lines.next()?).ok()?;
    let done = lines.filter_map(|line| serde_json::from_str(&line).ok()).collect();
    (whose == *about && age < FRESH).then_some(done)
}

/// The last line may have been cut short: what comes begins on a line of its own.
fn go_on(path: &Path) -> std::io::Result<File> {
    let mut file = File::options().append(true).open(path)?;
    writeln!(file)?;
    Ok(file)
}

fn begin(path: &Path, about: &About) -> std::io::Result<File> {
    let mut file = File::create(path)?;
    writeln!(file, "{}", serde_json::to_string(about)?)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pass_goes_on_where_it_ended_unless_it_is_another_or_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let us = About { country: Some("us".to_owned()), target: None };
        let mut book = ProgressFile::open(folder.path(), &us, false);
        book.note(&json!({ "id": "A" }));
        book.note(&json!({ "id": "B" }));
        drop(book);
        let torn = std::fs::read_to_string(folder.path().join(FILE)).unwrap() + "{\"id\": \"C";
        std::fs::write(folder.path().join(FILE), torn).unwrap();
        ProgressFile::open(folder.path(), &us, false).note(&json!({ "id": "E" }));
        let book = ProgressFile::open(folder.path(), &us, false);
        assert_eq!((book.has("A"), book.has("B"), book.has("C"), book.done().len()), (true, true, false, 3));
        assert!(book.has("E"), "what comes behind a torn line is whole");
        assert!(!ProgressFile::open(folder.path(), &About::default(), false).has("A"), "it is about other exits");
        let mut book = ProgressFile::open(folder.path(), &About::default(), false);
        book.note(&json!({ "id": "D" }));
        assert!(!ProgressFile::open(folder.path(), &About::default(), true).has("D"), "begun anew");
        ProgressFile::open(folder.path(), &us, false).close();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn where_nothing_can_be_written_a_pass_runs_all_the_same() {
        let mut book = ProgressFile::open(Path::new("/nonexistent"), &About::default(), false);
        book.note(&json!({ "id": "A" }));
        book.close();
    }
}
