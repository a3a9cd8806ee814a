//! The folder of an engine. Only our user may read this folder, only one gateway uses it, and no tor process that an
//! earlier gateway started runs in it.
//!
//! Two lock files show whether the folder is free. This process holds the gateway's lock as long as it lives. If
//! another process holds that lock, another gateway uses the same data_dir, which is an error.
//!
//! tor holds a lock of its own while it runs. If tor's lock is held although the gateway's lock was free, an earlier
//! gateway died and its tor has not noticed this yet. That tor is then told to end over its control socket, and killed
//! if it does not answer.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::EngineId;
use crate::lifecycle::Tasks;
use crate::tor::control::{Addr, Auth, Control, commands::Signal};
use crate::tor::torrc::CONTROL_SOCKET;

/// The longest path of a unix socket that works on every system, in bytes (macOS: 104 with the closing zero; Linux:
/// 108).
const SOCKET_PATH: usize = 100;

/// The length in bytes of the longest socket name, with the slash before it.
const SOCKET_NAME: usize = "/control".len();

/// How long we wait for the end of a tor of an earlier gateway. Such a tor usually ends in about 20 ms.
const ORPHAN_END: Duration = Duration::from_secs(5);

/// The pause between two checks of whether the tor of an earlier gateway has ended. Not tuned.
const ORPHAN_LOOK: Duration = Duration::from_millis(50);

/// The names of the files in which tor stores its directory of relays.
const DIRECTORY_FILES: [&str; 4] =
    ["cached-certs", "cached-microdesc-consensus", "cached-microdescs", "cached-microdescs.new"];

/// An engine's folder, which this process has locked.
#[derive(Debug)]
pub(in crate::tor) struct Folder {
    path: PathBuf,
    sockets: PathBuf,
    _owner: File,
}

impl Folder {
    /// Creates the folder if it does not exist, and locks it. The error is a text for the operator.
    pub(in crate::tor) async fn open(data_dir: &Path, name: String) -> Result<Self, String> {
        let path = std::path::absolute(data_dir.join(name)).map_err(|e| e.to_string())?;
        let made = tokio::task::spawn_blocking(move || Self::make(path)).await;
        made.unwrap_or_else(|_| Err("cannot prepare the folder".to_owned()))
    }

    fn make(path: PathBuf) -> Result<Self, String> {
        let fault = |e: io::Error| format!("cannot prepare {}: {e}", path.display());
        private(&path).map_err(fault)?;
        let owner = File::options().create(true).truncate(false).write(true).open(path.join("owner")).map_err(fault)?;
        match owner.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!("another exitgate is using {}: give each its own data_dir", path.display()));
            }
            Err(TryLockError::Error(e)) => return Err(fault(e)),
        }
        let sockets = if path.as_os_str().len() + SOCKET_NAME <= SOCKET_PATH {
            path.clone()
        } else {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let short = std::env::temp_dir().join(format!("exitgate-{}-{name}", std::process::id()));
            private(&short).map_err(fault)?;
            short
        };
        Ok(Self { path, sockets, _owner: owner })
    }

    pub(in crate::tor) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the folder of tor's sockets. It is the engine's folder, or a folder with a shorter path if the path of
    /// the engine's folder is too long for a socket.
    pub(in crate::tor) fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// Ends a tor that an earlier gateway left running in this folder, if there is one. The error is a text for the
    /// operator.
    pub(super) async fn end_orphan(&self, id: EngineId, tasks: &Tasks) -> Result<(), String> {
        if !self.is_taken() {
            return Ok(());
        }
        let pid = fs::read_to_string(self.path.join("pid")).ok().and_then(|text| text.trim().parse::<u32>().ok());
        tracing::warn!(engine = id.0, pid, "a tor of an earlier run is still alive; ending it");
        let addr = Addr::Unix(self.sockets.join(CONTROL_SOCKET));
        let asked = async {
            let (control, _events) =
                Control::connect(&addr, &Auth::Offered, Instant::now() + ORPHAN_END, tasks).await?;
            control.signal(Signal::Shutdown).await
        };
        let asked = timeout(ORPHAN_END, asked).await;
        if self.is_free_within(ORPHAN_END).await {
            return Ok(());
        }
        // The operating system may have given this process id to another process by now. So the process is killed only
        // if it was started with the torrc of our folder.
        if let Some(pid) = pid.filter(|pid| runs_in(*pid, &self.path)) {
            drop(Command::new("kill").args(["-KILL", &pid.to_string()]).status().await);
        }
        if self.is_free_within(ORPHAN_END).await {
            return Ok(());
        }
        let pid = pid.map_or("unknown".to_owned(), |pid| pid.to_string());
        tracing::debug!(?asked, "the orphan did not listen");
        Err(format!(
            "a tor of an earlier run (process {pid}) holds {} and does not end: end it by hand",
            self.path.display()
        ))
    }

    async fn is_free_within(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while self.is_taken() {
            if Instant::now() >= until {
                return false;
            }
            sleep(ORPHAN_LOOK).await;
        }
        true
    }

    /// Returns true while a tor runs in this folder. A running tor locks its file `lock`.
    fn is_taken(&self) -> bool {
        let Ok(file) = File::options().write(true).open(self.path.join("lock")) else { return false };
        matches!(file.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Writes a file that only our user may read. After a crash the file has either its old or its new content.
    pub(super) async fn write(&self, name: &str, text: String) -> io::Result<()> {
        let (path, new) = (self.path.join(name), self.path.join(format!("{name}.new")));
        let write = move || {
            fs::write(&new, text)?;
            fs::set_permissions(&new, Permissions::from_mode(0o600))?;
            fs::rename(&new, &path)
        };
        tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
    }

    /// Replaces a file that must not be lost. After a crash or a loss of power, the file has either its old or its new
    /// content. The old content is kept in the file `before`, unless it is empty.
    pub(super) async fn replace(&self, name: &str, before: &str, text: String) -> io::Result<()> {
        let (path, before, folder) = (self.path.join(name), self.path.join(before), self.path.clone());
        let new = self.path.join(format!("{name}.new"));
        let write = move || {
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            if fs::metadata(&path).is_ok_and(|old| old.len() > 0) {
                fs::rename(&path, &before)?;
            }
            fs::rename(&new, &path)?;
            File::open(&folder)?.sync_all()
        };
        tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
    }

    /// Reads a file of at most one megabyte. Returns `None` if there is no such file.
    pub(super) async fn read(&self, name: &str) -> io::Result<Option<String>> {
        let path = self.path.join(name);
        let read = move || {
            let mut text = String::new();
            match File::open(path) {
                Ok(file) => file.take(1 << 20).read_to_string(&mut text).map(|_| Some(text)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(e),
            }
        };
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }

    /// Copies the directory of relays from another engine's folder, so that this engine does not have to download it.
    pub(super) async fn seed(&self, from: PathBuf) -> io::Result<()> {
        let to = self.path.clone();
        let copy = move || {
            for name in DIRECTORY_FILES {
                match fs::copy(from.join(name), to.join(name)) {
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(())
        };
        tokio::task::spawn_blocking(copy).await.map_err(io::Error::other)?
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.sockets != self.path {
            drop(fs::remove_dir_all(&self.sockets)); // if this fails, an empty folder stays behind
        }
    }
}

/// Returns true if the folder contains tor's directory of relays.
pub(in crate::tor) fn has_directory(folder: &Path) -> bool {
    folder.join(DIRECTORY_FILES[1]).exists()
}

/// Creates a folder that only our user may access (mode 0700).
fn private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o700))
}

/// Returns true if this process was started with the torrc file of our folder.
fn runs_in(pid: u32, folder: &Path) -> bool {
    let ours = folder.join("torrc");
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split(|b| *b == 0).any(|arg| arg == ours.as_os_str().as_encoded_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_is_private_and_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), "engine-0".into()).await.unwrap();
        assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
        let second = Folder::open(dir.path(), "engine-0".into()).await;
        assert!(second.unwrap_err().contains("another exitgate is using"));
        assert!(Folder::open(dir.path(), "engine-1".into()).await.is_ok());
        drop(folder);
        assert!(Folder::open(dir.path(), "engine-0".into()).await.is_ok());
    }

    #[tokio::test]
    async fn a_long_path_gets_its_sockets_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), "e".repeat(120)).await.unwrap();
        let sockets = folder.sockets().to_owned();
        assert!(sockets != folder.path() && sockets.is_dir());
        drop(folder);
        assert!(!sockets.exists());
    }

    #[tokio::test]
    async fn files_are_private_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), "engine-0".into()).await.unwrap();
        assert_eq!(folder.read("torrc").await.unwrap(), None);
        folder.write("torrc", "A 1\n".into()).await.unwrap();
        assert_eq!(folder.read("torrc").await.unwrap().as_deref(), Some("A 1\n"));
        let mode = fs::metadata(folder.path().join("torrc")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_leaves_what_it_was_before() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), "engine-0".into()).await.unwrap();
        let read = async |name| folder.read(name).await.unwrap();
        for (text, before) in [("1", None), ("2", Some("1")), ("3", Some("2"))] {
            folder.replace("guards", "guards.before", text.into()).await.unwrap();
            assert_eq!(read("guards").await.as_deref(), Some(text));
            assert_eq!(read("guards.before").await.as_deref(), before);
        }
        // An empty file must not replace the copy with the last good content.
        fs::write(folder.path().join("guards"), "").unwrap();
        folder.replace("guards", "guards.before", "4".into()).await.unwrap();
        assert_eq!(read("guards.before").await.as_deref(), Some("2"));
        let mode = fs::metadata(folder.path().join("guards")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(folder.path().join("guards"), [0xff]).unwrap();
        assert!(folder.read("guards").await.is_err(), "bytes that are no text are damage, not absence");
    }

    #[tokio::test]
    async fn a_folder_without_an_orphan_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let life = crate::lifecycle::Lifecycle::new();
        let folder = Folder::open(dir.path(), "engine-0".into()).await.unwrap();
        assert_eq!(folder.end_orphan(EngineId(0), &life.tasks()).await, Ok(()));
    }
}
