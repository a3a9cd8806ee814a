//! A saved network: keys, descriptors and consensus, so that the next start needs no vote.
//!
//! A snapshot fits one layout, one version of tor and one /16, because the consensus contains the addresses. Its name is a digest of all
//! three. It is taken when a network has just become ready and no file is being written, and it is moved into place as a whole. If a start from
//! a snapshot fails, the snapshot is deleted and the network starts cold.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::layout::Relay;

/// How long the consensus of a snapshot must still be valid: longer than any run of tests.
const MIN_LIFE: Duration = Duration::from_secs(6 * 3600);

/// The file that describes the snapshot.
const INDEX: &str = "network.json";

/// Files of one run of a relay, which are not saved.
const TRANSIENT: [&str; 8] = ["log", "stdout", "lock", "control", "torrc", "diff-cache", "pid", "control_auth_cookie"];

/// What a start needs besides the files.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Index {
    pub relays: Vec<Relay>,
    /// The `DirAuthority` line.
    pub authority: String,
    /// The end of the consensus, in seconds since 1970.
    pub valid_until: u64,
}

/// Copies the snapshot at `from` into `folder`. None if there is no snapshot or it is too old.
pub(crate) fn restore(from: &Path, folder: &Path) -> anyhow::Result<Option<Index>> {
    let Ok(text) = fs::read(from.join(INDEX)) else { return Ok(None) };
    let index: Index = serde_json::from_slice(&text).with_context(|| format!("{} is damaged", from.display()))?;
    if SystemTime::now() + MIN_LIFE > SystemTime::UNIX_EPOCH + Duration::from_secs(index.valid_until) {
        forget(from);
        return Ok(None);
    }
    for relay in &index.relays {
        copy(&from.join(&relay.name), &folder.join(&relay.name))?;
    }
    Ok(Some(index))
}

/// Saves a snapshot of the network in `folder` as `to`.
pub(crate) fn keep(folder: &Path, index: &Index, to: &Path) -> anyhow::Result<()> {
    let parent = to.parent().context("a snapshot has a parent folder")?;
    let made = tempfile::Builder::new().prefix("new-").tempdir_in(parent)?;
    for relay in &index.relays {
        copy(&folder.join(&relay.name), &made.path().join(&relay.name))?;
    }
    fs::write(made.path().join(INDEX), serde_json::to_vec_pretty(index)?)?;
    let made = made.keep();
    if fs::rename(&made, to).is_err() {
        fs::remove_dir_all(&made)?; // another process has saved the same snapshot
    }
    Ok(())
}

/// Deletes a snapshot.
pub(crate) fn forget(snapshot: &Path) {
    let _ = fs::remove_dir_all(snapshot); // an error means that another process has deleted it
}

/// The path of a snapshot.
pub(crate) fn path(cache: &Path, name: &str) -> PathBuf {
    cache.join(format!("snapshot-{name}"))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?; // tor refuses folders of keys that other users may read
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if TRANSIENT.iter().any(|name| entry.file_name() == *name)
            || entry.file_name().to_string_lossy().ends_with(".tmp")
        {
            continue;
        }
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(valid_until: SystemTime) -> Index {
        let seconds = valid_until.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        Index { relays: vec![], authority: "DirAuthority x".into(), valid_until: seconds }
    }

    #[test]
    fn a_saved_snapshot_is_restored_and_saving_it_twice_is_no_error() {
        let (cache, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let to = path(cache.path(), "a");
        let fresh = index(SystemTime::now() + 2 * MIN_LIFE);
        keep(folder.path(), &fresh, &to).unwrap();
        keep(folder.path(), &fresh, &to).unwrap();
        assert_eq!(restore(&to, folder.path()).unwrap().unwrap().authority, "DirAuthority x");
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1, "no incomplete snapshot is left");
    }

    #[test]
    fn an_old_one_is_deleted() {
        let (cache, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let to = path(cache.path(), "a");
        keep(folder.path(), &index(SystemTime::now() + MIN_LIFE / 2), &to).unwrap();
        assert!(restore(&to, folder.path()).unwrap().is_none());
        assert!(!to.exists());
    }

    #[test]
    fn files_of_one_run_are_not_saved() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("keys")).unwrap();
        for name in ["keys/secret", "log", "state", "state.tmp"] {
            fs::write(from.path().join(name), "x").unwrap();
        }
        copy(from.path(), to.path()).unwrap();
        let has = |name: &str| to.path().join(name).exists();
        assert!(has("keys/secret") && has("state") && !has("log") && !has("state.tmp"));
    }
}
