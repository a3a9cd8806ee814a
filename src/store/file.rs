//! The database file: how it is opened, migrated, checked, copied and moved aside.
//!
//! The gateway never moves a damaged file aside on its own. Clients rely on pins. A gateway that started with an empty
//! file without notice would break all pins and still look healthy. Instead, the gateway runs from memory, refuses
//! every commit, and logs an error. [`set_aside`] runs only on a person's command.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};

use super::fault::{Fault, StoreError};

/// All migrations, from an empty file to the newest schema. Only append to this list, because the position in the list
/// is the schema version.
const STEPS: &[M<'static>] = &[
    M::up(include_str!("migrations/0001_first.sql")),
    M::up(include_str!("migrations/0002_public.sql")),
    M::up(include_str!("migrations/0003_keys.sql")),
];

/// How long a statement waits for the lock of another process (a backup, or a person with an SQLite shell). Not tuned,
/// but the time must be shorter than the deadline of an API request.
const PATIENCE: Duration = Duration::from_secs(2);

/// The results of the command `exitgate store check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The schema version of the file.
    pub version: i64,
    /// The size of the data in bytes.
    pub bytes: u64,
    /// How many rows each table has.
    pub rows: Vec<(String, u64)>,
    /// The damage that was found; empty if the file is sound.
    pub faults: Vec<String>,
}

/// The lock of the file, which only one exitgate process can hold. The lock is released when this value is dropped, or
/// when the process ends.
#[derive(Debug)]
pub(super) struct Claim {
    _lock: Option<File>,
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn failed(path: &Path, fault: impl Into<Fault>) -> StoreError {
    StoreError::Open { path: path.to_owned(), fault: fault.into() }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            _ => Self::Io(error.to_string().into()),
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        // Key names, sessions and pins are private, so only the owner may read the file. SQLite gives the files with
        // the endings -wal and -shm the same mode.
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

/// Locks the file for this process. If the folder cannot be written, no lock is needed, because then no process can
/// write the file.
pub(super) fn claim(path: &Path) -> Result<Claim, StoreError> {
    let lock = match create(&beside(path, ".lock")).map_err(Fault::from) {
        Ok(file) => file,
        Err(Fault::ReadOnly) => return Ok(Claim { _lock: None }),
        Err(fault) => return Err(failed(path, fault)),
    };
    match lock.try_lock() {
        Ok(()) => Ok(Claim { _lock: Some(lock) }),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.to_owned() }),
        // Some network file systems have no locks. In that case the gateway runs without a lock.
        Err(TryLockError::Error(error)) => {
            tracing::warn!(%error, "this file system has no locks: make sure that only one exitgate uses the data_dir");
            Ok(Claim { _lock: Some(lock) })
        }
    }
}

/// Opens the file for writing. Creates the file and updates its schema if needed.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    match create(path).map_err(Fault::from) {
        Ok(_) | Err(Fault::ReadOnly) => {} // a read-only file can still be read; the first write will fail
        Err(fault) => return Err(failed(path, fault)),
    }
    let mut db = Connection::open(path).map_err(|error| failed(path, error))?;
    tune(&db).map_err(|error| failed(path, error))?;
    let (theirs, ours) = (version(&db).map_err(|error| failed(path, error))?, STEPS.len() as i64);
    if theirs > ours {
        return Err(StoreError::Newer { path: path.to_owned(), theirs, ours });
    }
    if theirs < ours {
        Migrations::from_slice(STEPS).to_latest(&mut db).map_err(|error| failed(path, migration_fault(error)))?;
        if theirs > 0 {
            tracing::info!(from = theirs, to = ours, "the database was migrated; older versions cannot read it");
        }
    }
    Ok(db)
}

fn migration_fault(error: rusqlite_migration::Error) -> Fault {
    match error {
        rusqlite_migration::Error::RusqliteError { err, .. } => err.into(),
        other => Fault::Io(other.to_string().into()),
    }
}

/// The size of the page cache of each of the two connections, in KiB: a quarter of SQLite's default, because the kernel
/// also caches the file.
const CACHE_KIB: i64 = 512;

fn tune(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(PATIENCE)?;
    let pages: i64 = db.pragma_query_value(None, "page_count", |row| row.get(0))?;
    if pages == 0 {
        // this setting works only before the first table exists, and takes a lock
        db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    let mode: String = db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        tracing::warn!(mode, "the database cannot use a write-ahead log here; queries may wait for writes");
    }
    db.pragma_update(None, "foreign_keys", true)?;
    db.pragma_update(None, "trusted_schema", false)?;
    db.pragma_update(None, "cell_size_check", true)?;
    db.pragma_update(None, "cache_size", -CACHE_KIB)?;
    db.pragma_update(None, "fullfsync", true)?; // on macOS, fsync alone does not write to the disk itself
    db.pragma_update(None, "temp_store", "MEMORY")?; // in a container, the folder /tmp may be read-only
    // not tuned; a write-ahead log that has grown beyond 16 MB is later cut to this size
    db.pragma_update(None, "journal_size_limit", 16 << 20)?;
    db.set_prepared_statement_cache_capacity(64); // twice the number of different statements
    Ok(())
}

/// Returns the schema version of the file.
fn version(db: &Connection) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Opens the file for reading only. A gateway may use the file at the same time.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(|error| failed(path, error))?;
    db.busy_timeout(PATIENCE).map_err(|error| failed(path, error))?;
    Ok(db)
}

/// Reads every page of the file, and reports the damage. A gateway may use the file at the same time.
pub fn check(path: &Path) -> Result<Report, StoreError> {
    let db = open_for_reading(path)?;
    examine(&db).map_err(|error| failed(path, error))
}

fn examine(db: &Connection) -> rusqlite::Result<Report> {
    let text = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
    let mut faults: Vec<String> =
        db.prepare("PRAGMA integrity_check")?.query_map([], text)?.collect::<Result<_, _>>()?;
    faults.retain(|line| line != "ok");
    let orphans: usize = db.prepare("PRAGMA foreign_key_check")?.query_map([], |_| Ok(()))?.count();
    if orphans > 0 {
        faults.push(format!("{orphans} rows refer to exits that do not exist"));
    }
    let list = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
    let tables: Vec<String> = db.prepare(list)?.query_map([], text)?.collect::<Result<_, _>>()?;
    let count = |table: String| {
        let rows = db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0))?;
        Ok((table, rows.unsigned_abs()))
    };
    let rows = tables.into_iter().map(count).collect::<rusqlite::Result<_>>()?;
    let pages: i64 = db.pragma_query_value(None, "page_count", |row| row.get(0))?;
    let page: i64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
    Ok(Report { version: version(db)?, bytes: (pages * page).unsigned_abs(), rows, faults })
}

/// Copies the file as it is at one moment, and returns the size of the copy. A gateway may use the file at the same
/// time. The copy gets its final name only after it is complete and on the disk.
pub fn backup(path: &Path, to: &Path) -> Result<u64, StoreError> {
    if to.exists() {
        return Err(StoreError::Exists { path: to.to_owned() });
    }
    let half = beside(to, ".partial");
    let copied = copy(path, &half, to);
    if copied.is_err() {
        let _ = fs::remove_file(&half); // this file may not exist; only the first error is returned
    }
    copied
}

fn copy(path: &Path, half: &Path, to: &Path) -> Result<u64, StoreError> {
    let db = open_for_reading(path)?;
    let file = create(half).map_err(|error| failed(half, error))?;
    file.set_len(0).map_err(|error| failed(half, error))?; // deletes the rest of an interrupted backup
    db.execute("VACUUM INTO ?1", [half.to_string_lossy()]).map_err(|error| failed(half, error))?;
    file.sync_all().map_err(|error| failed(half, error))?;
    fs::rename(half, to).map_err(|error| failed(to, error))?;
    fs::metadata(to).map(|data| data.len()).map_err(|error| failed(to, error))
}

/// Renames a file (and its write-ahead log), so the next start begins with an empty file. Returns the new path.
pub fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let _claim = claim(path)?;
    let stamp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let aside = beside(path, &format!(".aside-{stamp}"));
    fs::rename(path, &aside).map_err(|error| failed(path, error))?;
    for suffix in ["-wal", "-shm"] {
        match fs::rename(beside(path, suffix), beside(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(path, error)),
            _ => {}
        }
    }
    Ok(aside)
}
