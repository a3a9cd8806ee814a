//! Sessions: the exit that a client's session key uses. The time of the last use of a session is written without a
//! caller that waits for the disk. If a power cut loses this time, the session ends a few seconds too early.

use rusqlite::{Connection, Row};

use super::row::{self, Sql};
use crate::exit::Moment;
use crate::route::Holder;
use crate::route::session::SessionRecord;

pub(super) fn put(db: &Connection, session: &SessionRecord) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO sessions (key, scope, session, exit, bound, used, span, fixed, ends)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let SessionRecord { holder, exit, bound, used, term } = session;
    let ends = if term.fixed { bound } else { used }.after(term.span);
    db.prepare_cached(sql)?.execute((
        &*holder.key,
        &*holder.scope,
        row::session(holder),
        Sql(exit),
        Sql(*bound),
        Sql(*used),
        Sql(term.span),
        term.fixed,
        Sql(ends),
    ))?;
    Ok(())
}

pub(super) fn drop(db: &Connection, holder: &Holder) -> rusqlite::Result<()> {
    let sql = "DELETE FROM sessions WHERE key = ?1 AND scope = ?2 AND session = ?3";
    db.prepare_cached(sql)?.execute((&*holder.key, &*holder.scope, row::session(holder)))?;
    Ok(())
}

/// Deletes sessions that have ended. The gateway normally deletes a session when it ends, but a killed gateway could
/// not do so.
pub(super) fn sweep(db: &Connection, now: Moment) -> rusqlite::Result<usize> {
    db.prepare_cached("DELETE FROM sessions WHERE ends <= ?1")?.execute([Sql(now)])
}

pub(super) const ALL: &str = "SELECT * FROM sessions ORDER BY key, scope, session";

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<SessionRecord> {
    Ok(SessionRecord {
        holder: row::holder(row)?,
        exit: row::get(row, "exit")?,
        bound: row::get(row, "bound")?,
        used: row::get(row, "used")?,
        term: row::term(row)?,
    })
}
