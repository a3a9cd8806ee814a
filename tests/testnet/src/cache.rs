//! What is worth keeping between runs, in cargo's target folder: never in git, gone with `cargo clean`.
//!
//! Several processes may write here at once, so everything is made under a name of its own and moved into place.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use sha1::{Digest as _, Sha1};
use tokio::process::Command;

use crate::layout::{DIR_PORT, OR_PORT};

const SHIM: &str = include_str!("shim.c");

/// `target/testnet`, made if need be.
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

/// The path of the compiled shim. `cc` is there: rustc links with it.
pub(crate) async fn shim(cache: &Path) -> anyhow::Result<PathBuf> {
    let library = cache.join(format!("bind-{}.so", name_of(SHIM)));
    if library.exists() {
        return Ok(library);
    }
    let mut source = tempfile::Builder::new().suffix(".c").tempfile()?;
    source.write_all(SHIM.as_bytes())?;
    let made = tempfile::Builder::new().tempfile_in(cache)?.into_temp_path();
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-w"])
        .args([format!("-DTESTNET_OR_PORT={OR_PORT}"), format!("-DTESTNET_DIR_PORT={DIR_PORT}")])
        .arg("-o")
        .args([&*made, source.path()])
        .arg("-ldl")
        .stdin(Stdio::null())
        .output()
        .await
        .context("cannot run cc")?;
    if !output.status.success() {
        bail!("cc cannot build the shim: {}", String::from_utf8_lossy(&output.stderr));
    }
    made.persist(&library)?;
    Ok(library)
}
