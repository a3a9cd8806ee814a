//! The folder of an engine: its lock, its cookie, its sockets.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::log::Log;
use crate::torrc::{Listen, Torrc};

/// How long tor waits for another one to leave its folder.
const OTHER: Duration = Duration::from_secs(5);

/// A folder that is ours.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    cookie: [u8; 32],
    _lock: File,
}

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Listener {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener, SocketAddr),
}

/// A connection of either kind.
#[derive(Debug)]
pub(super) enum Connection {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Home {
    pub(super) async fn open(torrc: &Torrc, log: &Log) -> Result<Self, String> {
        let path = match torrc.text("DataDirectory") {
            path if path.is_empty() => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".tor"),
            path => PathBuf::from(path),
        };
        let fault = |e: io::Error| format!("Couldn't access private data directory \"{}\": {e}", path.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(fault)?;
        let lock = File::options().create(true).truncate(false).write(true).open(path.join("lock")).map_err(fault)?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            log.warn(
                "It looks like another Tor process is running with the same data directory.  Waiting 5 seconds to see if \
                 it goes away.",
            );
            tokio::time::sleep(OTHER).await;
            lock.try_lock().map_err(|_| "No, it's still there.  Exiting.".to_owned())?;
        }
        let cookie: [u8; 32] = rand::random();
        let home = Self { path, cookie, _lock: lock };
        if torrc.is_on("CookieAuthentication") {
            home.write("control_auth_cookie", &cookie).map_err(|e| format!("Error writing auth cookie: {e}"))?;
        }
        home.write("state", b"# simtor state file\nTorVersion Tor (simulated)\n").map_err(|e| e.to_string())?;
        Ok(home)
    }

    pub(super) fn cookie(&self) -> &[u8; 32] {
        &self.cookie
    }

    pub(super) fn cookie_path(&self) -> PathBuf {
        self.path("control_auth_cookie")
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file, whole or not at all, that only we may read.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let (path, new) = (self.path(name), self.path(&format!("{name}.tmp")));
        fs::write(&new, bytes)?;
        fs::set_permissions(&new, Permissions::from_mode(0o600))?;
        fs::rename(new, path)
    }

    pub(super) fn say_pid(&self, torrc: &Torrc) -> Result<(), String> {
        match torrc.text("PidFile") {
            path if path.is_empty() => Ok(()),
            path => fs::write(&path, format!("{}\n", std::process::id())).map_err(|e| format!("{path}: {e}")),
        }
    }
}

impl Listener {
    /// Listens; none for a port that is off.
    pub(super) async fn open(at: &Listen) -> io::Result<Option<Self>> {
        match at {
            Listen::Off => Ok(None),
            Listen::Unix(path) => {
                let _ = fs::remove_file(path); // of an earlier run, whose lock is ours now
                let listener = UnixListener::bind(path)?;
                fs::set_permissions(path, Permissions::from_mode(0o600))?;
                Ok(Some(Self::Unix(listener, path.clone())))
            }
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                let address = listener.local_addr()?;
                Ok(Some(Self::Tcp(listener, address)))
            }
        }
    }

    /// As `GETINFO net/listeners` names it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Unix(_, path) => unix_name(path),
            Self::Tcp(_, address) => format!("\"{address}\""),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Unix(listener, _) => Ok(Connection::Unix(listener.accept().await?.0)),
            Self::Tcp(listener, _) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Connection::Tcp(stream))
            }
        }
    }
}

fn unix_name(path: &Path) -> String {
    format!("\"unix:{}\"", path.display())
}

/// One half of a connection to read from.
pub(super) type Reader = Box<dyn tokio::io::AsyncRead + Send + Sync + Unpin>;
/// The other half.
pub(super) type Writer = Box<dyn tokio::io::AsyncWrite + Send + Sync + Unpin>;

impl Connection {
    pub(super) fn split(self) -> (Reader, Writer) {
        match self {
            Self::Unix(stream) => {
                let (read, write) = stream.into_split();
                (Box::new(read), Box::new(write))
            }
            Self::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (Box::new(read), Box::new(write))
            }
        }
    }
}
