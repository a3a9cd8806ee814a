//! The table of bans: which site refuses which exit, and until when.

use rusqlite::{Connection, Row};

use super::row::{self, Sql};
use crate::exit::{ExitId, Moment};

/// An exit that a site refuses for some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// The site: a registrable domain, or an IP address.
    pub site: String,
    pub exit: ExitId,
    pub since: Moment,
    pub until: Moment,
    /// The reason, in words.
    pub why: String,
}

pub(super) fn put(db: &Connection, ban: &Ban) -> rusqlite::Result<()> {
    let sql = "INSERT INTO bans (site, exit, since, until, why) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (site, exit) DO UPDATE SET since = ?3, until = ?4, why = ?5";
    let Ban { site, exit, since, until, why } = ban;
    db.prepare_cached(sql)?.execute((site, Sql(exit), Sql(*since), Sql(*until), why))?;
    Ok(())
}

/// Deletes the bans that have ended.
pub(super) fn sweep(db: &Connection, now: Moment) -> rusqlite::Result<usize> {
    db.prepare_cached("DELETE FROM bans WHERE until <= ?1")?.execute([Sql(now)])
}

pub(super) const ALL: &str = "SELECT * FROM bans ORDER BY site, exit";

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Ban> {
    Ok(Ban {
        site: row.get("site")?,
        exit: row::get(row, "exit")?,
        since: row::get(row, "since")?,
        until: row::get(row, "until")?,
        why: row.get("why")?,
    })
}
