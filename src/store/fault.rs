//! Why the store failed. Failures that are handled in the same way are one kind.

use std::fmt;
use std::path::PathBuf;

use rusqlite::ErrorCode;

/// What is wrong with the file, or with a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no free space on the disk, or the quota is used up.
    Full,
    /// The file, its folder or its file system cannot be written.
    ReadOnly,
    /// Another process holds the write lock of the file for longer than we wait.
    Locked,
    /// The disk does not finish a write, and reports no error either.
    Hung,
    /// The file is damaged, or is not a database.
    Corrupt,
    /// Another error of the operating system.
    Io(Box<str>),
    /// The change contradicts the stored data (for example, a route's name exists already). The file itself is in
    /// order.
    Conflict(Box<str>),
}

impl Fault {
    /// The code of this fault in metric labels and logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::ReadOnly => "read_only",
            Self::Locked => "locked",
            Self::Hung => "hung",
            Self::Corrupt => "corrupt",
            Self::Io(_) => "io",
            Self::Conflict(_) => "conflict",
        }
    }

    /// Returns true if the file caused the fault, and a later try may succeed. Returns false if the change itself
    /// caused the fault.
    pub(super) fn is_the_file(&self) -> bool {
        !matches!(self, Self::Conflict(_))
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly) => Self::ReadOnly,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt,
            Some(ErrorCode::ConstraintViolation) => Self::Conflict(error.to_string().into()),
            _ => Self::Io(error.to_string().into()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the disk is full; free some space, and writing goes on by itself"),
            Self::ReadOnly => f.write_str("the file cannot be written; give exitgate the right to write there"),
            Self::Locked => f.write_str("another process holds the file's lock; end it or wait"),
            Self::Hung => f.write_str(
                "the disk has not finished a write for 5 s; check the disk or its network. The change has no effect, \
                 unless exitgate is killed before the disk answers",
            ),
            Self::Corrupt => f.write_str(
                "the file is damaged; restore a backup, or move it aside with `exitgate store reset` (pins and sessions \
                 are in it)",
            ),
            Self::Io(why) => write!(f, "the system reports: {why}"),
            Self::Conflict(why) => write!(f, "it contradicts what is stored: {why}"),
        }
    }
}

/// Why a call of the store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The file could not be opened, or its schema could not be updated, or its data could not be read.
    #[error("cannot open {path}: {fault}", path = path.display())]
    Open { path: PathBuf, fault: Fault },
    /// Another exitgate process uses this file.
    #[error("{path} is in use by another exitgate: stop that one, or give this one a `data_dir` of its own", path = path.display())]
    InUse { path: PathBuf },
    /// The file was written by a newer version of exitgate.
    #[error("{path} was written by a newer exitgate (its schema is {theirs}, ours is {ours}): install that version again", path = path.display())]
    Newer {
        path: PathBuf,
        /// The schema version of the file.
        theirs: i64,
        /// The newest schema version that this program knows.
        ours: i64,
    },
    /// A file exists already that must not exist.
    #[error("{path} exists already; name another file", path = path.display())]
    Exists { path: PathBuf },
    /// A query or a change failed. After a failed change, no part of the change is stored.
    #[error("the store refused: {0}")]
    Refused(Fault),
    #[error("the store is closed")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Refused(error.into())
    }
}
