//! The status of the sources, and single values that are stored by name.

use rusqlite::{Connection, OptionalExtension as _, Row};

use super::row::{self, Sql};
use crate::exit::Moment;

/// The status of a source of exits, with the validators of its next request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The name of the source: `onionoo`, `exit-addresses`, `consensus`, or the name of a list.
    pub name: String,
    /// The `ETag` header of the last good answer. `None` if there was no such header.
    pub etag: Option<String>,
    /// The `Last-Modified` header of the last good answer. `None` if there was no such header.
    pub last_modified: Option<String>,
    /// When the last request was made. `None` if no request was made yet.
    pub attempt: Option<Moment>,
    /// When the last good answer arrived. The answer `unchanged` is also a good answer. `None` before the first good
    /// answer.
    pub good: Option<Moment>,
    /// When the next request will be made.
    pub next: Option<Moment>,
    /// When the source made the data, according to the source. `None` if the source gives no time.
    pub published: Option<Moment>,
    /// The code of the outcome of the last request.
    pub outcome: String,
    /// The reason for this outcome, in words; empty after a good answer.
    pub why: String,
    /// How many exits the last good answer described.
    pub records: u32,
    /// How many records of the last good answer could not be used.
    pub skipped: u32,
    /// How many requests in a row failed.
    pub failures: u32,
}

pub(super) fn put_source(db: &Connection, source: &Source) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO sources
                 (name, etag, last_modified, attempt, good, next, published, outcome, why, records, skipped, failures)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    db.prepare_cached(sql)?.execute(rusqlite::params![
        source.name,
        source.etag,
        source.last_modified,
        source.attempt.map(Sql),
        source.good.map(Sql),
        source.next.map(Sql),
        source.published.map(Sql),
        source.outcome,
        source.why,
        source.records,
        source.skipped,
        source.failures,
    ])?;
    Ok(())
}

pub(super) const ALL_SOURCES: &str = "SELECT * FROM sources ORDER BY name";

pub(super) fn read_source(row: &Row<'_>) -> rusqlite::Result<Source> {
    Ok(Source {
        name: row.get("name")?,
        etag: row.get("etag")?,
        last_modified: row.get("last_modified")?,
        attempt: row::maybe(row, "attempt")?,
        good: row::maybe(row, "good")?,
        next: row::maybe(row, "next")?,
        published: row::maybe(row, "published")?,
        outcome: row.get("outcome")?,
        why: row.get("why")?,
        records: row.get("records")?,
        skipped: row.get("skipped")?,
        failures: row.get("failures")?,
    })
}

pub(super) fn put(db: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?.execute((key, value))?;
    Ok(())
}

pub(super) fn get(db: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    db.prepare_cached("SELECT value FROM meta WHERE key = ?1")?.query_row([key], |row| row.get("value")).optional()
}

pub(super) fn drop(db: &Connection, key: &str) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM meta WHERE key = ?1")?.execute([key])?;
    Ok(())
}

pub(super) const ALL: &str = "SELECT * FROM meta";

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<(String, String)> {
    Ok((row.get("key")?, row.get("value")?))
}
