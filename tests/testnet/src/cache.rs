//! Files that are kept between runs, in cargo's target folder: never in git, and removed by `cargo clean`.
//!
//! Several processes may write here at once, so each writes under a unique name and then moves the file into place.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sha1::{Digest as _, Sha1};

/// `target/testnet`; created if it does not exist.
pub(crate) fn dir() -> anyhow::Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let dir = workspace.join(target).join("testnet"); // an absolute CARGO_TARGET_DIR replaces the workspace
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// A short name for a text: the first 16 hex digits of its SHA-1.
pub(crate) fn name_of(text: &str) -> String {
    Sha1::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
