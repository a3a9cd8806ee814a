//! The library that is preloaded into relays. `shim.c` says what it does and why tor needs it.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use tokio::process::Command;

use crate::cache;
use crate::layout::{DIR_PORT, OR_PORT, Relay, Role};

const SOURCE: &str = include_str!("shim.c");

/// The compiled library, and the folder in which it keeps long keys.
#[derive(Clone, Debug)]
pub(crate) struct Shim {
    library: PathBuf,
    keys: PathBuf,
}

impl Shim {
    /// Compiles the library unless it is in `cache`. Every machine with rustc has a `cc`, because rustc links with it.
    pub(crate) async fn get(cache: &Path) -> anyhow::Result<Self> {
        let library = cache.join(format!("shim-{}.so", cache::name_of(SOURCE)));
        let keys = cache.join("keys");
        fs::create_dir_all(&keys)?;
        if !library.exists() {
            compile(cache, &library).await?;
        }
        Ok(Self { library, keys })
    }

    /// The environment for a program that makes keys.
    pub(crate) fn env(&self) -> Vec<(&'static str, OsString)> {
        vec![("LD_PRELOAD", self.library.clone().into()), ("TESTNET_KEYS", self.keys.clone().into())]
    }

    /// The environment for a client.
    pub(crate) fn env_of_client(&self) -> Vec<(&'static str, OsString)> {
        let mut env = self.env();
        env.push(("TESTNET_NODELAY", "1".into()));
        env
    }

    /// A script that runs tor as relays run it, except for the addresses: without Nagle's algorithm, and with the kept keys.
    pub(crate) fn wrapper(&self) -> String {
        let (library, keys) = (self.library.display(), self.keys.display());
        format!("#!/bin/sh\nexec env LD_PRELOAD='{library}' TESTNET_KEYS='{keys}' TESTNET_NODELAY=1 tor \"$@\"\n")
    }

    /// The environment for a relay.
    pub(crate) fn env_of(&self, relay: &Relay) -> Vec<(&'static str, OsString)> {
        let mut env = self.env_of_client();
        env.push(("TESTNET_BIND_OR", relay.ip.to_string().into()));
        if relay.role == Role::Exit {
            env.push(("TESTNET_BIND", relay.outbound.to_string().into()));
        }
        env
    }
}

async fn compile(cache: &Path, library: &Path) -> anyhow::Result<()> {
    let mut source = tempfile::Builder::new().suffix(".c").tempfile()?;
    source.write_all(SOURCE.as_bytes())?;
    let made = tempfile::Builder::new().tempfile_in(cache)?.into_temp_path();
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-w", "-o"])
        .args([&*made, source.path()])
        .args([format!("-DTESTNET_OR_PORT={OR_PORT}"), format!("-DTESTNET_DIR_PORT={DIR_PORT}")])
        .arg("-ldl")
        .stdin(Stdio::null())
        .output()
        .await
        .context("cannot run cc")?;
    if !output.status.success() {
        bail!("cc cannot build the shim: {}", String::from_utf8_lossy(&output.stderr));
    }
    made.persist(library)?;
    Ok(())
}
