//! Sessions: which exit a client's sticky key stays with. Their last use is noted, not committed: losing the last
//! seconds of it in a power cut lets a session end a little early.

use rusqlite::{Connection, Row};

use super::row::{self, Sql};
use crate::exit::{ExitId, Moment};

/// Whose session it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    /// The client's key name; empty where no keys are configured.
    pub key: String,
    /// The route's name or the canonical selector.
    pub scope: String,
    /// The session's id.
    pub session: String,
}

/// Which exit a sticky key stays with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whose.
    pub key: SessionKey,
    /// The exit.
    pub exit: ExitId,
    /// When it was last used.
    pub used: Moment,
    /// When it ends.
    pub expires: Moment,
}

pub(super) fn put(db: &Connection, session: &Session) -> rusqlite::Result<()> {
    let sql =
        "INSERT OR REPLACE INTO sessions (key, scope, session, exit, used, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let Session { key: SessionKey { key, scope, session }, exit, used, expires } = session;
    db.prepare_cached(sql)?.execute((key, scope, session, Sql(exit), Sql(*used), Sql(*expires)))?;
    Ok(())
}

pub(super) fn drop(db: &Connection, SessionKey { key, scope, session }: &SessionKey) -> rusqlite::Result<()> {
    let sql = "DELETE FROM sessions WHERE key = ?1 AND scope = ?2 AND session = ?3";
    db.prepare_cached(sql)?.execute((key, scope, session))?;
    Ok(())
}

/// Forgets sessions that have ended.
pub(super) fn sweep(db: &Connection, now: Moment) -> rusqlite::Result<usize> {
    db.prepare_cached("DELETE FROM sessions WHERE expires <= ?1")?.execute([Sql(now)])
}

pub(super) const ALL: &str = "SELECT * FROM sessions ORDER BY key, scope, session";

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        key: SessionKey { key: row.get("key")?, scope: row.get("scope")?, session: row.get("session")? },
        exit: row::get(row, "exit")?,
        used: row::get(row, "used")?,
        expires: row::get(row, "expires")?,
    })
}
