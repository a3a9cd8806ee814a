//! Reads all data that a gateway needs at its start.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row};

use super::bans::{self, Ban};
use super::exits::{self, Exit, Observed, Verdict};
use super::keys::{self, Key, KeyUsage};
use super::meta::{self, Source};
use super::pins;
use super::public::{self, Public};
use super::routes::{self, Route};
use super::sessions;
use crate::route::pin::PinRecord;
use crate::route::session::SessionRecord;

/// The data that was on the disk when the file was opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// The routes that the API created, sorted by name.
    pub routes: Vec<Route>,
    /// The keys that the API created, sorted by name.
    pub keys: Vec<Key>,
    /// What the keys have used, also keys that no longer exist.
    pub key_usage: Vec<KeyUsage>,
    pub pins: Vec<PinRecord>,
    /// All stored sessions, including sessions that have ended in the meantime.
    pub sessions: Vec<SessionRecord>,
    /// All stored bans, including bans that have ended in the meantime.
    pub bans: Vec<Ban>,
    /// The exits that a source has listed.
    pub exits: Vec<Exit>,
    pub verdicts: Vec<Verdict>,
    /// The addresses of exits that echo servers saw. For each exit, the newest address is first.
    pub observed: Vec<Observed>,
    pub sources: Vec<Source>,
    pub public: Vec<Public>,
    /// Single values that are stored by name: name → value.
    pub meta: BTreeMap<String, String>,
    /// How many rows this version cannot read, for example because a person edited them. These rows stay in the file.
    pub skipped: u32,
}

/// Reads all data in one transaction.
pub(super) fn load(db: &Connection) -> rusqlite::Result<Loaded> {
    let tx = db.unchecked_transaction()?;
    let mut skipped = 0;
    let mut loaded = Loaded {
        routes: all(&tx, routes::ALL, routes::read, &mut skipped)?,
        keys: all(&tx, keys::ALL, keys::read, &mut skipped)?,
        key_usage: all(&tx, keys::ALL_USAGE, keys::read_usage, &mut skipped)?,
        pins: all(&tx, pins::ALL, pins::read, &mut skipped)?,
        sessions: all(&tx, sessions::ALL, sessions::read, &mut skipped)?,
        bans: all(&tx, bans::ALL, bans::read, &mut skipped)?,
        exits: all(&tx, exits::ALL, exits::read, &mut skipped)?,
        verdicts: all(&tx, exits::ALL_VERDICTS, exits::read_verdict, &mut skipped)?,
        observed: all(&tx, exits::ALL_OBSERVED, exits::read_observed, &mut skipped)?,
        sources: all(&tx, meta::ALL_SOURCES, meta::read_source, &mut skipped)?,
        public: all(&tx, public::ALL, public::read, &mut skipped)?,
        meta: all(&tx, meta::ALL, meta::read, &mut skipped)?.into_iter().collect(),
        skipped: 0,
    };
    loaded.skipped = skipped;
    Ok(loaded)
}

/// Reads all rows. A row that cannot be read is skipped and counted, because a single wrong value must not stop the
/// gateway from starting. An error of the file itself is returned.
fn all<T>(
    db: &Connection,
    sql: &str,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
    skipped: &mut u32,
) -> rusqlite::Result<Vec<T>> {
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        match read(row) {
            Ok(record) => found.push(record),
            Err(error) if error.sqlite_error_code().is_some() => return Err(error),
            Err(error) => {
                tracing::warn!(%error, sql, "skipping a row of the store");
                *skipped += 1;
            }
        }
    }
    Ok(found)
}
