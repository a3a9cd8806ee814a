//! Pins: which exit a strict identity belongs to. A promise to its owner, so its changes are committed, never noted.

use std::net::IpAddr;

use rusqlite::{Connection, Row};

use super::row::{self, Sql};
use crate::exit::{ExitId, Moment};

/// Whose pin it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PinKey {
    /// The client's key name; empty where no keys are configured.
    pub key: String,
    /// The route's name or the canonical selector.
    pub scope: String,
    /// The session; empty if there is none.
    pub session: String,
}

/// Which exit a strict identity belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Whose.
    pub key: PinKey,
    /// The exit.
    pub exit: ExitId,
    /// The address that it had when it was pinned.
    pub ip: IpAddr,
    /// Since when.
    pub made: Moment,
    /// When it was last used.
    pub used: Moment,
}

pub(super) fn put(db: &Connection, pin: &Pin) -> rusqlite::Result<()> {
    let sql =
        "INSERT OR REPLACE INTO pins (key, scope, session, exit, ip, made, used) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let Pin { key: PinKey { key, scope, session }, exit, ip, made, used } = pin;
    db.prepare_cached(sql)?.execute((key, scope, session, Sql(exit), Sql(*ip), Sql(*made), Sql(*used)))?;
    Ok(())
}

pub(super) fn drop(db: &Connection, PinKey { key, scope, session }: &PinKey) -> rusqlite::Result<()> {
    let sql = "DELETE FROM pins WHERE key = ?1 AND scope = ?2 AND session = ?3";
    db.prepare_cached(sql)?.execute((key, scope, session))?;
    Ok(())
}

pub(super) const ALL: &str = "SELECT * FROM pins ORDER BY key, scope, session";

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Pin> {
    Ok(Pin {
        key: PinKey { key: row.get("key")?, scope: row.get("scope")?, session: row.get("session")? },
        exit: row::get(row, "exit")?,
        ip: row::get(row, "ip")?,
        made: row::get(row, "made")?,
        used: row::get(row, "used")?,
    })
}
