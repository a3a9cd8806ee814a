//! Holds the lock of a database, for tests of what happens while a disk does not answer.

use std::path::Path;

/// The write lock of a database file. The store waits for this lock until this value is dropped.
pub(crate) struct WriteLock {
    _file: rusqlite::Connection,
}

impl WriteLock {
    pub(crate) fn take(path: &Path) -> Self {
        let file = rusqlite::Connection::open(path).unwrap();
        file.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self { _file: file }
    }
}
