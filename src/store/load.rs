//! Everything that a gateway needs at its start, read in one go.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row};

use super::bans::{self, Ban};
use super::exits::{self, Exit, Observed, Verdict};
use super::meta::{self, Source};
use super::pins;
use super::public::{self, Public};
use super::routes::{self, Route};
use super::sessions;
use crate::route::pin::PinRecord;
use crate::route::session::SessionRecord;

/// What was durable when the file was opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// Routes of the API, by name.
    pub routes: Vec<Route>,
    /// Pins.
    pub pins: Vec<PinRecord>,
    /// Sessions, also those that have ended meanwhile.
    pub sessions: Vec<SessionRecord>,
    /// Bans, also those that have ended meanwhile.
    pub bans: Vec<Ban>,
    /// Exits that a source has named.
    pub exits: Vec<Exit>,
    /// How exits stand.
    pub verdicts: Vec<Verdict>,
    /// The addresses that exits were seen with, the newest first of each exit.
    pub observed: Vec<Observed>,
    /// How the sources fared.
    pub sources: Vec<Source>,
    /// Public proxies.
    pub public: Vec<Public>,
    /// Small facts by name.
    pub meta: BTreeMap<String, String>,
    /// Rows that this version cannot read (somebody edited the file); they stay where they are.
    pub skipped: u32,
}

/// Reads it all, as of one moment.
pub(super) fn load(db: &Connection) -> rusqlite::Result<Loaded> {
    let tx = db.unchecked_transaction()?;
    let mut skipped = 0;
    let mut loaded = Loaded {
        routes: all(&tx, routes::ALL, routes::read, &mut skipped)?,
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

/// Every row that can be read. One that cannot is skipped and counted: a single odd value must not keep a gateway down.
/// An error of the file itself is an error.
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
