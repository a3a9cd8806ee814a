//! A place of one's own: a /16 of loopback addresses and a folder.
//!
//! Tests run side by side, in many processes and from several checkouts, so nothing may be chosen by number. The /16
//! is claimed by binding an abstract Unix socket named after it: the name lives in the same network namespace as the
//! addresses, and the kernel frees it when the last process that holds it is gone. Tor processes hold it too, so a /16
//! is never handed out while a dying relay still has its ports.
//!
//! The folder must go even when we are killed, when no destructor runs. A guardian, three lines of shell at the other
//! end of a pipe, outlives us by a moment and removes it. Should the guardian be killed too, the next start sweeps: a
//! folder whose lock nobody holds belongs to nobody.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;

/// The second octets that are handed out, lowest free one first so that cached snapshots are met again. Arbitrary: out
/// of the way of 127.0/16 and of small numbers that people pick by hand, and more than tests ever run side by side.
const OCTETS: std::ops::Range<u8> = 100..200;

/// What every folder's name begins with; the sweep looks for it.
const FOLDER_PREFIX: &str = "exitgate-testnet-";

/// The file in a folder that its owner keeps locked.
const LOCK: &str = "owner.lock";

/// Longest path of a folder. A Unix socket's path has 107 bytes, and `/client-…/control` goes behind the folder's.
const MAX_FOLDER_PATH: usize = 70;

/// A /16 and a folder that nobody else uses until this is dropped, when the folder is removed.
#[derive(Debug)]
pub struct Ground {
    octet: u8,
    claim: UnixListener,
    folder: Folder,
}

impl Ground {
    /// Claims the lowest free /16 and makes a folder; first clears away what dead processes left.
    pub fn claim() -> anyhow::Result<Arc<Self>> {
        sweep();
        let (octet, claim) = claim_octet()?;
        Ok(Arc::new(Self { octet, claim, folder: Folder::new()? }))
    }

    /// The address `127.<ours>.c.d`.
    pub fn ip(&self, c: u8, d: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.octet, c, d)
    }

    /// Our /16, as `127.100`.
    pub fn prefix(&self) -> String {
        format!("127.{}", self.octet)
    }

    /// The second octet of our addresses: a number that no other network on this machine has.
    pub fn octet(&self) -> u8 {
        self.octet
    }

    /// A folder (mode 0700) that is removed with us.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The descriptor that holds the claim.
    pub(crate) fn hold(&self) -> RawFd {
        self.claim.as_raw_fd()
    }
}

fn claim_octet() -> anyhow::Result<(u8, UnixListener)> {
    for octet in OCTETS {
        let name = SocketAddr::from_abstract_name(format!("exitgate-testnet/127.{octet}"))?;
        match UnixListener::bind_addr(&name) {
            Ok(claim) => return Ok((octet, claim)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error).context("cannot claim a /16 of loopback"),
        }
    }
    bail!("every /16 of 127.{}-{} is in use: are {} networks really running?", OCTETS.start, OCTETS.end, OCTETS.len())
}

#[derive(Debug)]
struct Folder {
    guardian: Child,
    dir: Option<TempDir>,
    /// Held, never read: the sweep of others tries to lock it.
    _lock: File,
}

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir().context("cannot make a temporary folder")?;
        let length = dir.path().as_os_str().len();
        ensure!(length <= MAX_FOLDER_PATH, "{} is too long for the sockets in it: set TMPDIR", dir.path().display());
        let unlocked = dir.path().join("owner.new");
        let lock = File::create(&unlocked)?;
        lock.lock()?;
        fs::rename(unlocked, dir.path().join(LOCK))?; // never seen unlocked under its name, or a sweep could take it
        let guardian = guard(dir.path()).context("cannot start sh to guard the folder")?;
        Ok(Self { guardian, dir: Some(dir), _lock: lock })
    }

    fn path(&self) -> &Path {
        self.dir.as_ref().expect("only drop takes it").path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.dir.take());
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait(); // it only runs rm on what is gone already
    }
}

/// Waits for the end of its input, which is our end, and removes the folder; again while dying relays still write there.
fn guard(folder: &Path) -> io::Result<Child> {
    const SCRIPT: &str = r#"cat >/dev/null; for try in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$1" && exit; sleep 0.2; done"#;
    Command::new("sh")
        .args(["-c", SCRIPT, "guardian"])
        .arg(folder)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0) // whoever kills our group must not kill the one who cleans up
        .spawn()
}

/// Removes folders whose owner is dead. Best effort: another process may be sweeping the same.
fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    let ours = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FOLDER_PREFIX));
    for folder in entries.flatten().map(|entry| entry.path()).filter(ours) {
        // A folder without a lock file is only just being made.
        let Ok(lock) = File::open(folder.join(LOCK)) else { continue };
        if lock.try_lock().is_ok() {
            let _ = fs::remove_dir_all(&folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_grounds_share_nothing() {
        let (one, two) = (Ground::claim().unwrap(), Ground::claim().unwrap());
        assert_ne!(one.octet(), two.octet());
        assert_ne!(one.folder(), two.folder());
        assert_eq!(one.ip(7, 9).octets(), [127, one.octet(), 7, 9]);
    }

    #[test]
    fn the_folder_goes_with_its_owner_and_the_sweep_spares_the_living() {
        let living = Ground::claim().unwrap();
        fs::write(living.folder().join("file"), "x").unwrap();
        let path = {
            let ground = Ground::claim().unwrap();
            fs::write(ground.folder().join("file"), "x").unwrap();
            ground.folder().to_owned()
        };
        assert!(!path.exists());
        sweep();
        assert!(living.folder().join("file").exists());
    }

    #[test]
    fn the_sweep_removes_what_nobody_holds() {
        let dir = tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir().unwrap();
        File::create(dir.path().join(LOCK)).unwrap();
        sweep();
        assert!(!dir.path().exists());
    }
}
