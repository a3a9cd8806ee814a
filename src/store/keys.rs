//! Keys that the API created, and what all keys have used.
//!
//! The table has no secret: only the digest of each secret. `limit/keys.rs` computes the digests.

use rusqlite::{Connection, OptionalExtension as _, Row};

use super::row::{self, Sql};
use crate::exit::Moment;

/// A key that the API created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The name, which is the key of the row.
    pub name: String,
    pub digest: [u8; 32],
    /// The body of the request as JSON. A repeated request is recognized by this text.
    pub asked: String,
    pub created: Moment,
    pub expires: Option<Moment>,
}

/// A day or a month of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsagePeriod {
    pub index: u32,
    pub requests: u64,
    pub bytes: u64,
}

/// What a key has used of one source, or of all sources together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyUsage {
    pub key: String,
    /// When the API created the key. `Moment(0)` for a key of the configuration.
    pub created: Moment,
    /// The name of the source. Empty for all sources together.
    pub source: String,
    /// The present day and the day before it.
    pub days: [UsagePeriod; 2],
    /// The present month and the month before it.
    pub months: [UsagePeriod; 2],
}

pub(super) fn put(db: &Connection, key: &Key) -> rusqlite::Result<()> {
    let sql = "INSERT INTO keys (name, digest, asked, created, expires) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (name) DO UPDATE SET digest = ?2, asked = ?3, created = ?4, expires = ?5";
    let Key { name, digest, asked, created, expires } = key;
    db.prepare_cached(sql)?.execute((name, digest, asked, Sql(*created), expires.map(Sql)))?;
    Ok(())
}

pub(super) fn drop(db: &Connection, name: &str) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM keys WHERE name = ?1")?.execute([name])?;
    Ok(())
}

pub(super) fn get(db: &Connection, name: &str) -> rusqlite::Result<Option<Key>> {
    db.prepare_cached("SELECT * FROM keys WHERE name = ?1")?.query_row([name], read).optional()
}

pub(super) const ALL: &str = "SELECT * FROM keys ORDER BY name";

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Key> {
    Ok(Key {
        name: row.get("name")?,
        digest: row.get("digest")?,
        asked: row.get("asked")?,
        created: row::get(row, "created")?,
        expires: row::maybe(row, "expires")?,
    })
}

pub(super) fn put_usage(db: &Connection, usage: &KeyUsage) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO key_usage (key, created, source,
                 day, day_requests, day_bytes, before_day, before_day_requests, before_day_bytes,
                 month, month_requests, month_bytes, before_month, before_month_requests, before_month_bytes)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
    let KeyUsage { key, created, source, days: [day, before], months: [month, before_month] } = usage;
    // SQLite has no unsigned numbers. The largest number of bytes that fits is more than anybody uses in a month.
    let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    db.prepare_cached(sql)?.execute(rusqlite::params![
        key,
        Sql(*created),
        source,
        day.index,
        int(day.requests),
        int(day.bytes),
        before.index,
        int(before.requests),
        int(before.bytes),
        month.index,
        int(month.requests),
        int(month.bytes),
        before_month.index,
        int(before_month.requests),
        int(before_month.bytes),
    ])?;
    Ok(())
}

/// Deletes what a key of the API has used.
pub(super) fn drop_usage(db: &Connection, key: &str, created: Moment) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM key_usage WHERE key = ?1 AND created = ?2")?.execute((key, Sql(created)))?;
    Ok(())
}

pub(super) const ALL_USAGE: &str = "SELECT * FROM key_usage ORDER BY key, created, source";

pub(super) fn read_usage(row: &Row<'_>) -> rusqlite::Result<KeyUsage> {
    let period = |index: &str, requests: &str, bytes: &str| {
        let int = |column: &str| row.get::<_, i64>(column).map(i64::unsigned_abs);
        Ok::<_, rusqlite::Error>(UsagePeriod { index: row.get(index)?, requests: int(requests)?, bytes: int(bytes)? })
    };
    Ok(KeyUsage {
        key: row.get("key")?,
        created: row::get(row, "created")?,
        source: row.get("source")?,
        days: [
            period("day", "day_requests", "day_bytes")?,
            period("before_day", "before_day_requests", "before_day_bytes")?,
        ],
        months: [
            period("month", "month_requests", "month_bytes")?,
            period("before_month", "before_month_requests", "before_month_bytes")?,
        ],
    })
}
