//! Reads the Tor directory from an engine's folder, or over the control port of a tor that runs elsewhere.
//!
//! The files contain the same text as tor's answers. Reading the files costs the engine nothing, while `GETINFO md/all`
//! makes the memory of tor 11 MB larger until tor ends. One directory serves all engines: the first engine that
//! learns of a new directory reads it.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::control::Control;
use super::fleet::Fleet;
use super::netdir::Netdir;

/// The directory is read again while more than one microdescriptor in this number is missing (100 means 1 %).
const MISSING_PART: usize = 100;

/// The place that the directory of relays is read from.
#[derive(Clone, Copy, Debug)]
pub(super) enum From<'a> {
    /// The folder of an engine.
    Folder(&'a Path),
    /// The control connection of an engine.
    Control(&'a Control),
}

/// Reads the directory if our copy is older or lacks microdescriptors. Returns true if our copy was replaced.
pub(super) async fn refresh(fleet: &Fleet, from: From<'_>) -> Result<bool, String> {
    let _one_at_a_time = fleet.loading.lock().await;
    let have = fleet.netdir();
    let gaps = |dir: &Netdir| dir.missing_microdescs() > dir.len() / MISSING_PART;
    let is_stale = match (&have, from) {
        (None, _) => true,
        (Some(dir), From::Folder(path)) => gaps(dir) || newer(path, dir).await,
        (Some(_), From::Control(_)) => true,
    };
    if !is_stale {
        return Ok(false);
    }
    let (consensus, microdescs) = read(from).await?;
    let parsed = tokio::task::spawn_blocking(move || Netdir::parse(&consensus, &microdescs)).await;
    let dir = parsed.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    let better = have.is_none_or(|old| {
        dir.valid_after() > old.valid_after()
            || (dir.valid_after() == old.valid_after() && dir.missing_microdescs() < old.missing_microdescs())
    });
    if better {
        tracing::debug!(relays = dir.len(), missing = dir.missing_microdescs(), "a new directory");
        fleet.directory.send_replace(Some(Arc::new(dir)));
    }
    Ok(better)
}

async fn read(from: From<'_>) -> Result<(String, String), String> {
    match from {
        From::Control(control) => {
            let consensus = control.getinfo_directory("dir/status-vote/current/consensus-microdesc").await;
            let microdescs = control.getinfo_directory("md/all").await;
            Ok((consensus.map_err(|e| e.to_string())?, microdescs.map_err(|e| e.to_string())?))
        }
        From::Folder(path) => {
            let path = path.to_owned();
            let read = tokio::task::spawn_blocking(move || read_folder(&path)).await;
            read.map_err(|e| e.to_string())?.map_err(|e| format!("cannot read the directory: {e}"))
        }
    }
}

fn read_folder(path: &Path) -> io::Result<(String, String)> {
    let text = |name: &str| match fs::read(path.join(name)) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(e),
    };
    let microdescs = text("cached-microdescs")? + &text("cached-microdescs.new")?;
    Ok((text("cached-microdesc-consensus")?, microdescs))
}

/// Returns true if the consensus file in this folder may be newer than our copy. A file that was written before our
/// consensus became valid cannot be newer.
async fn newer(path: &Path, have: &Netdir) -> bool {
    let written = tokio::fs::metadata(path.join("cached-microdesc-consensus")).await.and_then(|meta| meta.modified());
    written.is_ok_and(|written| have.valid_after().is_none_or(|valid| written >= valid))
}
