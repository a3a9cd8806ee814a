//! The authority's keys. They must exist before a network starts, because every torrc names their fingerprints.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::layout::{DIR_PORT, OR_PORT, Relay};
use crate::shim::Shim;

/// Makes the authority's keys and returns the `DirAuthority` line. Other relays make their keys when they start.
pub(super) async fn make(folder: &Path, authority: &Relay, shim: &Shim) -> anyhow::Result<String> {
    let home = folder.join(&authority.name);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(home.join("keys"))?;
    let address = format!("{}:{DIR_PORT}", authority.ip);
    let (fingerprint, vote_key) =
        tokio::try_join!(identity(&home, &authority.name, shim), certificate(home.join("keys"), &address, shim))?;
    Ok(format!("DirAuthority {} orport={OR_PORT} no-v2 v3ident={vote_key} {address} {fingerprint}", authority.name))
}

/// Reads the fingerprint that a relay has written into its folder; none if it has not yet.
pub(super) fn written_fingerprint(home: &Path, name: &str) -> Option<String> {
    fingerprint(&fs::read_to_string(home.join("fingerprint")).ok()?, name)
}

/// Makes identity keys in `home` by tor, and returns their fingerprint.
async fn identity(home: &Path, name: &str, shim: &Shim) -> anyhow::Result<String> {
    let output = Command::new("tor")
        .args(["--ignore-missing-torrc", "-f"])
        .arg(home.join("none"))
        .args(["--list-fingerprint", "--quiet", "--ORPort", "1", "--SocksPort", "0", "--AddressDisableIPv6", "1"])
        .args(["--Address", "127.0.0.1", "--Nickname", name, "--DataDirectory"])
        .arg(home)
        .args(["--DirAuthority", &format!("x 127.0.0.1:1 {}", "F".repeat(40))]) // without it, tor requires a public address
        .envs(shim.env())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run tor: is it installed?")?;
    let text = String::from_utf8_lossy(&output.stdout);
    fingerprint(&text, name)
        .with_context(|| format!("tor made no keys for {name}: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// The fingerprint in tor's line `name 0123 4567 …`, in which spaces may be missing.
fn fingerprint(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    let hex: String = line.split_whitespace().collect();
    (hex.len() == 40 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(hex)
}

/// Makes the authority's voting keys by `tor-gencert`, and returns the fingerprint of the identity that signs them.
async fn certificate(keys: PathBuf, address: &str, shim: &Shim) -> anyhow::Result<String> {
    let mut child = Command::new("tor-gencert")
        .args(["--create-identity-key", "-m", "24", "-a", address, "--passphrase-fd", "0"])
        .args(["-i", "authority_identity_key", "-s", "authority_signing_key", "-c", "authority_certificate"])
        .current_dir(&keys)
        .envs(shim.env())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot run tor-gencert: it comes with tor")?;
    child.stdin.take().context("tor-gencert has no stdin")?.write_all(b"testnet\n").await?;
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        bail!("tor-gencert: {}", String::from_utf8_lossy(&output.stderr));
    }
    let certificate = fs::read_to_string(keys.join("authority_certificate"))?;
    let identity = certificate.lines().find_map(|line| line.strip_prefix("fingerprint "));
    Ok(identity.context("the authority's certificate names no fingerprint")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_read_from_what_tor_says() {
        let hex = "0123 4567 89AB CDEF 0123 4567 89AB CDEF 0123 4567";
        let found = fingerprint(&format!("a notice\nus1 {hex}\n"), "us1").unwrap();
        assert_eq!(found, "0123456789ABCDEF0123456789ABCDEF01234567");
        for said in ["", "us1 0123\n", "us10 0123", "us1 zzzz zzzz zzzz zzzz zzzz zzzz zzzz zzzz zzzz zzzz"] {
            assert_eq!(fingerprint(said, "us1"), None, "{said:?}");
        }
    }
}
