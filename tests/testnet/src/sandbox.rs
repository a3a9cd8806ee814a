//! What a test has for itself: a /16 of loopback addresses and a temporary folder.
//!
//! Tests run at the same time, in many processes and from several checkouts, so no address can be fixed. A process claims a /16 when it binds
//! an abstract Unix socket that is named after it. The name belongs to the same network namespace as the addresses, and the kernel frees it
//! when the last process that holds the socket is gone. tor processes hold it too, so nobody gets a /16 while a dying relay still has its
//! ports.
//!
//! The folder must be removed even if this process is killed and no destructor runs. A small shell script at the other end of a pipe,
//! the cleaner, lives a little longer than this process and removes it. If the cleaner was killed too, the next sandbox removes the folder:
//! a folder whose lock nobody holds has no owner.

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

/// The second octets, lowest free one first so that a cached snapshot fits again. Above 127.0/16 and the small numbers that people choose
/// by hand, and more than there are tests at the same time.
const OCTETS: std::ops::Range<u8> = 100..200;

/// The beginning of every folder's name, by which [`remove_abandoned`] finds it.
const FOLDER_PREFIX: &str = "exitgate-testnet-";

/// The file in the folder that the owner keeps locked.
const LOCK: &str = "owner.lock";

/// The longest path of a folder. The path of a Unix socket has at most 107 bytes, and ends with `/client-…/control`.
const MAX_FOLDER_PATH: usize = 70;

/// A /16 and a folder that nobody else uses until this is dropped. Dropping it removes the folder.
#[derive(Debug)]
pub struct Sandbox {
    octet: u8,
    claim: UnixListener,
    folder: Folder,
}

impl Sandbox {
    /// Claims the lowest free /16 and creates a folder. Removes the folders of dead processes first.
    pub fn claim() -> anyhow::Result<Arc<Self>> {
        remove_abandoned();
        let (octet, claim) = claim_octet()?;
        Ok(Arc::new(Self { octet, claim, folder: Folder::new()? }))
    }

    /// The address `127.OCTET.c.d`.
    pub fn ip(&self, c: u8, d: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.octet, c, d)
    }

    /// The /16, as `127.100`.
    pub fn prefix(&self) -> String {
        format!("127.{}", self.octet)
    }

    /// The second octet of the addresses: a number that no other sandbox on this machine has.
    pub fn octet(&self) -> u8 {
        self.octet
    }

    /// The folder (mode 0700).
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The descriptor of the claim, for processes that must hold it too.
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
    bail!(
        "every /16 of 127.{}-{} is in use: are there {} sandboxes at the same time?",
        OCTETS.start,
        OCTETS.end,
        OCTETS.len()
    )
}

#[derive(Debug)]
struct Folder {
    cleaner: Child,
    dir: Option<TempDir>,
    /// Held, never read: other processes try to lock it.
    _lock: File,
}

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir().context("cannot make a temporary folder")?;
        let length = dir.path().as_os_str().len();
        ensure!(
            length <= MAX_FOLDER_PATH,
            "the path {} is too long for the sockets in it: set TMPDIR to a shorter one",
            dir.path().display()
        );
        let unlocked = dir.path().join("owner.new");
        let lock = File::create(&unlocked)?;
        lock.lock()?;
        fs::rename(unlocked, dir.path().join(LOCK))?; // under its final name it is always locked, or another process could remove the folder
        let cleaner = start_cleaner(dir.path()).context("cannot start sh to remove the folder later")?;
        Ok(Self { cleaner, dir: Some(dir), _lock: lock })
    }

    fn path(&self) -> &Path {
        self.dir.as_ref().expect("only drop takes it").path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.dir.take());
        drop(self.cleaner.stdin.take());
        let _ = self.cleaner.wait(); // it finds no folder any more
    }
}

/// Starts the script that waits for the end of its input, which is the end of this process, and then removes the folder. It tries again while dying
/// relays still write there.
fn start_cleaner(folder: &Path) -> io::Result<Child> {
    const SCRIPT: &str = r#"cat >/dev/null; for try in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$1" && exit; sleep 0.2; done"#;
    Command::new("sh")
        .args(["-c", SCRIPT, "cleaner"])
        .arg(folder)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0) // a signal to the group of this process must not end the cleaner
        .spawn()
}

/// Removes folders whose owner is dead. An error is ignored: another process may be removing the same folder.
fn remove_abandoned() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    let ours = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FOLDER_PREFIX));
    for folder in entries.flatten().map(|entry| entry.path()).filter(ours) {
        // A folder without a lock file is just being created.
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
    fn two_sandboxes_share_nothing() {
        let (one, two) = (Sandbox::claim().unwrap(), Sandbox::claim().unwrap());
        assert_ne!(one.octet(), two.octet());
        assert_ne!(one.folder(), two.folder());
        assert_eq!(one.ip(7, 9).octets(), [127, one.octet(), 7, 9]);
    }

    #[test]
    fn the_folder_is_removed_with_its_owner_and_not_before() {
        let living = Sandbox::claim().unwrap();
        fs::write(living.folder().join("file"), "x").unwrap();
        let path = {
            let sandbox = Sandbox::claim().unwrap();
            fs::write(sandbox.folder().join("file"), "x").unwrap();
            sandbox.folder().to_owned()
        };
        assert!(!path.exists());
        remove_abandoned();
        assert!(living.folder().join("file").exists());
    }

    #[test]
    fn an_abandoned_folder_is_removed() {
        let dir = tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir().unwrap();
        File::create(dir.path().join(LOCK)).unwrap();
        remove_abandoned();
        assert!(!dir.path().exists());
    }
}
