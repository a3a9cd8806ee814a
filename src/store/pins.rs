//! Pins: the exit that a strict session always uses. Clients rely on pins, so each change of a pin is on the disk
//! before the client gets its answer.

use rusqlite::{Connection, Row};

use super::row::{self, Sql};
use crate::route::Holder;
use crate::route::pin::PinRecord;
use crate::route::pinned::Pinned;

pub(super) fn put(db: &Connection, pin: &PinRecord) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO pins (key, scope, session, exit, ip, made, used, span, fixed, exclusive)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let PinRecord { holder, to: Pinned { exit, ip }, made, used, term, exclusive } = pin;
    db.prepare_cached(sql)?.execute(rusqlite::params![
        &*holder.key,
        &*holder.scope,
        row::session(holder),
        Sql(exit),
        ip.to_string(),
        Sql(*made),
        Sql(*used),
        Sql(term.span),
        term.fixed,
        exclusive,
    ])?;
    Ok(())
}

pub(super) fn drop(db: &Connection, holder: &Holder) -> rusqlite::Result<()> {
    let sql = "DELETE FROM pins WHERE key = ?1 AND scope = ?2 AND session = ?3";
    db.prepare_cached(sql)?.execute((&*holder.key, &*holder.scope, row::session(holder)))?;
    Ok(())
}

pub(super) const ALL: &str = "SELECT * FROM pins ORDER BY key, scope, session";

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<PinRecord> {
    Ok(PinRecord {
        holder: row::holder(row)?,
        to: Pinned { exit: row::get(row, "exit")?, ip: row::get(row, "ip")? },
        made: row::get(row, "made")?,
        used: row::get(row, "used")?,
        term: row::term(row)?,
        exclusive: row.get("exclusive")?,
    })
}
