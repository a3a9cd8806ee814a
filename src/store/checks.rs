//! The history of checks, which the page of an exit shows. Old checks are deleted.

use std::net::IpAddr;
use std::time::Duration;

use rusqlite::{Connection, Row};

use super::exits;
use super::row::{self, Sql};
use crate::exit::{ExitId, Moment};

/// How many checks of one public proxy are kept at most. The limit by age also applies. With 100 checks each, two
/// thousand proxies need about 20 MB.
const PUBLIC_CHECKS: u32 = 100;

/// One check of one exit against one check target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// A number that the store assigns in the order of writing. 0 in a check that is not written yet.
    pub id: i64,
    pub exit: ExitId,
    /// The name of the check target, or `echo` for a check of the exit itself.
    pub target: String,
    /// When the check ended.
    pub at: Moment,
    /// The code of the outcome.
    pub outcome: String,
    /// Why the check failed, in words; empty if the check passed.
    pub detail: String,
    /// The address of the exit that the echo server saw. `None` if no address was seen.
    pub ip: Option<IpAddr>,
    /// The HTTP status of the site's answer. `None` if there is no status to report.
    pub status: Option<u16>,
    pub timings: Timings,
}

/// How long each stage of a check took. A stage that was not reached is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// The wait for a circuit to the exit.
    pub circuit: Option<Duration>,
    /// The time from the request for a stream until the stream to the target was open.
    pub connect: Option<Duration>,
    /// The time of the TLS handshake.
    pub tls: Option<Duration>,
    /// The time from sending the request until the first byte of the answer.
    pub first_byte: Option<Duration>,
    /// The time of all stages together.
    pub total: Option<Duration>,
}

/// Which page of a history to read. The history is sorted newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The largest number of rows on the page.
    pub limit: u32,
    /// Only rows older than the row with this id are read: the last row of the page before. `None` reads the first
    /// page.
    pub before: Option<i64>,
}

pub(super) fn put(db: &Connection, check: &Check) -> rusqlite::Result<()> {
    let sql =
        "INSERT INTO checks (exit, target, at, outcome, detail, ip, status, circuit, connect, tls, first_byte, total)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    let Check { id: _, exit, target, at, outcome, detail, ip, status, timings } = check;
    let number = exits::number(db, exit, *at)?;
    if let ExitId::Public(_) = exit {
        forget_all_but_the_newest(db, number)?;
    }
    let Timings { circuit, connect, tls, first_byte, total } = *timings;
    db.prepare_cached(sql)?.execute(rusqlite::params![
        number,
        target,
        Sql(*at),
        outcome,
        detail,
        ip.map(Sql),
        status,
        circuit.map(Sql),
        connect.map(Sql),
        tls.map(Sql),
        first_byte.map(Sql),
        total.map(Sql),
    ])?;
    Ok(())
}

/// Deletes the oldest checks of a public proxy to make room for one more check. There may be thousands of proxies, and
/// each may be checked every few minutes.
fn forget_all_but_the_newest(db: &Connection, number: i64) -> rusqlite::Result<()> {
    let sql = "DELETE FROM checks WHERE exit = ?1 AND id <=
               (SELECT id FROM checks WHERE exit = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
    db.prepare_cached(sql)?.execute((number, PUBLIC_CHECKS - 1))?;
    Ok(())
}

pub(super) fn list(db: &Connection, exit: &ExitId, target: Option<&str>, page: Page) -> rusqlite::Result<Vec<Check>> {
    let sql = "SELECT checks.*, exits.id AS name FROM checks JOIN exits ON number = exit
               WHERE exits.id = ?1 AND (?2 IS NULL OR target = ?2) AND checks.id < ?3 ORDER BY checks.id DESC LIMIT ?4";
    let before = page.before.unwrap_or(i64::MAX);
    db.prepare_cached(sql)?.query_map((Sql(exit), target, before, page.limit), read)?.collect()
}

/// Deletes checks that are older than `horizon`, at most `limit` of them. Returns how many checks were deleted.
pub(super) fn forget(db: &Connection, horizon: Moment, limit: u32) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM checks WHERE id IN (SELECT id FROM checks WHERE at < ?1 ORDER BY at LIMIT ?2)";
    db.prepare_cached(sql)?.execute((Sql(horizon), limit))
}

fn read(row: &Row<'_>) -> rusqlite::Result<Check> {
    Ok(Check {
        id: row.get("id")?,
        exit: row::get(row, "name")?,
        target: row.get("target")?,
        at: row::get(row, "at")?,
        outcome: row.get("outcome")?,
        detail: row.get("detail")?,
        ip: row::maybe(row, "ip")?,
        status: row.get("status")?,
        timings: Timings {
            circuit: row::maybe(row, "circuit")?,
            connect: row::maybe(row, "connect")?,
            tls: row::maybe(row, "tls")?,
            first_byte: row::maybe(row, "first_byte")?,
            total: row::maybe(row, "total")?,
        },
    })
}
