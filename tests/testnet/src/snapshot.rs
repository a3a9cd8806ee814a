//! A network on disk: keys, descriptors and consensus, so that the next start needs no vote.
//!
//! A snapshot belongs to one layout, one tor version and one /16, because the consensus names the addresses; the key of a
//! snapshot says all three. It is taken when a network has just become ready, when nothing is being written, and moved
//! into place whole. It is only ever a guess: a start that fails from one throws it away and starts cold.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::layout::Relay;

/// How long a consensus must still be valid to be worth starting from. Arbitrary: longer than any run of tests.
const MIN_LIFE: Duration = Duration::from_secs(6 * 3600);

/// The file that describes the snapshot.
const INDEX: &str = "network.json";

/// Files that belong to one run of a relay.
const TRANSIENT: [&str; 8] = ["log", "stdout", "lock", "control", "torrc", "diff-cache", "pid", "control_auth_cookie"];

/// What a start needs to know beside the files.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Index {
    pub relays: Vec<Relay>,
    /// The `DirAuthority` line.
    pub authority: String,
    /// When the consensus ends, in seconds since 1970.
    pub valid_until: u64,
}

/// Copies the snapshot at `from` into `folder`; nothing, if there is none or it is too old.
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

/// Keeps a snapshot of the network in `folder` as `to`.
pub(crate) fn keep(folder: &Path, index: &Index, to: &Path) -> anyhow::Result<()> {
    let parent = to.parent().context("a snapshot has a parent folder")?;
    let made = tempfile::Builder::new().prefix("new-").tempdir_in(parent)?;
    for relay in &index.relays {
        copy(&folder.join(&relay.name), &made.path().join(&relay.name))?;
    }
    fs::write(made.path().join(INDEX), serde_json::to_vec_pretty(index)?)?;
    let made = made.keep();
    if fs::rename(&made, to).is_err() {
        fs::remove_dir_all(&made)?; // somebody else's is there already and as good
    }
    Ok(())
}

/// Throws a snapshot away.
pub(crate) fn forget(snapshot: &Path) {
    let _ = fs::remove_dir_all(snapshot); // gone, or somebody else is throwing it away
}

/// Where the snapshot called `name` is kept.
pub(crate) fn path(cache: &Path, name: &str) -> PathBuf {
    cache.join(format!("snapshot-{name}"))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?; // tor refuses key folders that others may read
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
    fn what_was_kept_comes_back_and_the_second_keeper_loses_quietly() {
        let (cache, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let to = path(cache.path(), "a");
        let fresh = index(SystemTime::now() + 2 * MIN_LIFE);
        keep(folder.path(), &fresh, &to).unwrap();
        keep(folder.path(), &fresh, &to).unwrap();
        assert_eq!(restore(&to, folder.path()).unwrap().unwrap().authority, "DirAuthority x");
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1, "nothing half-made is left");
    }

    #[test]
    fn an_old_one_is_thrown_away() {
        let (cache, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let to = path(cache.path(), "a");
        keep(folder.path(), &index(SystemTime::now() + MIN_LIFE / 2), &to).unwrap();
        assert!(restore(&to, folder.path()).unwrap().is_none());
        assert!(!to.exists());
    }

    #[test]
    fn what_belongs_to_one_run_stays_behind() {
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
