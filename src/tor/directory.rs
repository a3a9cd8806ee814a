//! Reads the Tor directory from an engine's folder, or over the control port of a tor that runs elsewhere.
//!
//! The files contain the same text as tor's answers. Reading the files costs the engine nothing, while `GETINFO md/all`
//! makes the memory of tor 11 MB larger until tor ends. One directory serves all engines: the first engine that
//! learns of a new directory reads it.
//!
//! Once a minute each engine checks whether the directory must be read: if the directory has changed, or if missing
//! microdescriptors (the descriptions of relays) may have arrived (`directory/due.rs`). The files of the directory have
//! 13 MB on the public network. They are read piece by piece on a thread for blocking work, so the reading neither
//! delays the engine's loop nor needs much memory.

mod due;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use self::due::{Edition, FileState, Files, Repair};
use super::control::Control;
use super::netdir::{self, Netdir};

const CONSENSUS: &str = "cached-microdesc-consensus";

/// The files with microdescriptors. tor appends new ones to the second file, and sometimes merges it into the first.
const MICRODESCS: [&str; 2] = ["cached-microdescs", "cached-microdescs.new"];

/// Where the directory of relays is read from.
#[derive(Clone, Debug)]
pub(super) enum From {
    /// The folder of an engine.
    Folder(PathBuf),
    /// The control connection of an engine.
    Control(Control),
}

/// What the last reads of a directory found. All engines share this value and keep it locked while they read, so two
/// engines never read the same directory.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// The folder of an engine → the state of its directory files when they were last read.
    folders: HashMap<PathBuf, Files>,
    repair: Repair,
}

/// Reads the directory if our copy is older or lacks microdescriptors. Returns true if our copy was replaced.
pub(super) async fn refresh(
    published: &watch::Sender<Option<Arc<Netdir>>>,
    reads: &Mutex<Reads>,
    from: &From,
) -> Result<bool, String> {
    let mut reads = reads.lock().await;
    let copy = published.borrow().as_deref().map(Edition::of);
    let files = match from {
        From::Folder(path) => Some((path.clone(), blocking(path, Files::look).await?)),
        From::Control(_) => None,
    };
    let last = files.as_ref().and_then(|(path, _)| reads.folders.get(path)).copied();
    let is_due = match (&files, from) {
        (Some((_, now)), _) => due::in_folder(copy, *now, last, &reads.repair, Instant::now()),
        (None, From::Control(control)) if copy.is_some() => {
            let offered = control.getinfo("consensus/valid-after").await.ok();
            let offered = offered.and_then(|text| netdir::parse_time(text.trim()));
            due::at_control_port(copy, offered, &reads.repair, Instant::now())
        }
        (None, _) => true,
    };
    if !is_due {
        return Ok(false);
    }
    if let Some((path, now)) = files {
        reads.folders.insert(path, now);
    }
    let dir = read(from).await?;
    let found = Edition::of(&dir);
    reads.repair.note(found, Instant::now());
    let better = copy.is_none_or(|copy| found.is_better_than(copy));
    if better {
        tracing::debug!(relays = dir.len(), missing = dir.missing_microdescs(), "a new directory");
        published.send_replace(Some(Arc::new(dir)));
    }
    Ok(better)
}

async fn read(from: &From) -> Result<Netdir, String> {
    match from {
        From::Control(control) => {
            let consensus = control.getinfo_directory("dir/status-vote/current/consensus-microdesc").await;
            let microdescs = control.getinfo_directory("md/all").await;
            let texts = (consensus.map_err(|e| e.to_string())?, microdescs.map_err(|e| e.to_string())?);
            let parsed = tokio::task::spawn_blocking(move || Netdir::parse(&texts.0, &texts.1)).await;
            parsed.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
        }
        From::Folder(path) => {
            let read = blocking(path, read_folder).await?;
            read.map_err(|e| format!("cannot read the directory: {e}"))?.map_err(|e| e.to_string())
        }
    }
}

async fn blocking<T: Send + 'static>(path: &Path, work: fn(&Path) -> T) -> Result<T, String> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || work(&path)).await.map_err(|e| e.to_string())
}

/// Opens a file for reading. A missing file is read as an empty one.
fn open(path: PathBuf) -> io::Result<BufReader<Box<dyn Read>>> {
    /// Not tuned: any size above some kB makes reading much cheaper than parsing.
    const PIECE: usize = 64 * 1024;
    let file: Box<dyn Read> = match File::open(path) {
        Ok(file) => Box::new(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Box::new(io::empty()),
        Err(e) => return Err(e),
    };
    Ok(BufReader::with_capacity(PIECE, file))
}

fn read_folder(path: &Path) -> io::Result<Result<Netdir, netdir::BadNetdir>> {
    let [old, new] = MICRODESCS.map(|name| open(path.join(name)));
    let microdescs = io::Read::chain(old?, new?);
    Netdir::read(open(path.join(CONSENSUS))?, microdescs)
}

impl Files {
    /// Reads the state of the directory files in this folder. Of the consensus, only the header is read.
    fn look(path: &Path) -> Self {
        let state = |name: &str| {
            let data = fs::metadata(path.join(name)).ok()?;
            Some(FileState { modified: data.modified().ok()?, bytes: data.len() })
        };
        let valid_after = open(path.join(CONSENSUS)).and_then(netdir::valid_after).ok().flatten();
        Self { consensus: state(CONSENSUS), valid_after, microdescs: MICRODESCS.map(state) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::netdir::synth::{Fake, WEIGHTS, texts};
    use super::*;

    fn write(folder: &Path, hour: u32, relays: u16, known: u16) {
        let relays: Vec<Fake> = (1..=relays).map(|n| Fake { known: n <= known, ..Fake::new(n) }).collect();
        let (consensus, microdescs) = texts(&relays, "", WEIGHTS);
        let consensus = consensus.replace("valid-after 2026-11-21 12", &format!("valid-after 2026-11-21 {hour}"));
        fs::write(folder.join(CONSENSUS), consensus).unwrap();
        fs::write(folder.join(MICRODESCS[1]), microdescs).unwrap();
    }

    /// This test prevents an old fault: the files were read again every minute, because a file is always written later
    /// than the time from which its consensus is valid.
    #[tokio::test(start_paused = true)]
    async fn the_files_are_read_when_they_have_changed_and_once_for_all_engines() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (published, reads) = (watch::Sender::new(None), Mutex::default());
        let refresh = async |from: &From| refresh(&published, &reads, from).await;
        let netdir = || published.borrow().clone();
        let [one_at, two_at] = [&one, &two].map(|folder| From::Folder(folder.path().to_owned()));
        let relays = || netdir().map(|dir| dir.len());
        assert!(refresh(&one_at).await.is_err(), "no directory yet");
        write(one.path(), 12, 3, 3);
        assert_eq!((refresh(&one_at).await, relays()), (Ok(true), Some(3)));
        let edition = netdir().unwrap();
        for _ in 0..120 {
            tokio::time::advance(Duration::from_secs(60)).await;
            write(two.path(), 12, 3, 3);
            assert_eq!(refresh(&one_at).await, Ok(false));
            assert_eq!(refresh(&two_at).await, Ok(false), "the other engine has the same edition");
        }
        assert!(Arc::ptr_eq(&edition, &netdir().unwrap()), "not replaced by an equal one");
        write(two.path(), 13, 4, 4);
        assert_eq!((refresh(&two_at).await, relays()), (Ok(true), Some(4)));
        write(one.path(), 11, 5, 5);
        assert_eq!((refresh(&one_at).await, relays()), (Ok(false), Some(4)), "an older edition");
    }

    #[tokio::test(start_paused = true)]
    async fn missing_microdescriptors_are_read_when_they_may_have_arrived() {
        let folder = tempfile::tempdir().unwrap();
        let (published, reads) = (watch::Sender::new(None), Mutex::default());
        let refresh = async |from: &From| refresh(&published, &reads, from).await;
        let netdir = || published.borrow().clone();
        let from = From::Folder(folder.path().to_owned());
        let missing = || netdir().map(|dir| dir.missing_microdescs());
        write(folder.path(), 12, 10, 5);
        assert_eq!((refresh(&from).await, missing()), (Ok(true), Some(5)));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(refresh(&from).await, Ok(false), "the files are the same");
        write(folder.path(), 12, 10, 9);
        assert_eq!((refresh(&from).await, missing()), (Ok(true), Some(1)));
        write(folder.path(), 12, 10, 10);
        assert_eq!((refresh(&from).await, missing()), (Ok(false), Some(1)), "not twice in a minute");
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!((refresh(&from).await, missing()), (Ok(true), Some(0)));
    }
}
