//! Routes that the API created. Routes in the configuration are not stored.

use rusqlite::{Connection, OptionalExtension as _, Row};

use super::row::{self, Sql};
use crate::exit::Moment;

/// A route as a client of the API requested it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The route's name, which is the key of the row.
    pub name: String,
    /// The route's selector in canonical form.
    pub selector: String,
    /// The route's own port, if the route has one. No two routes have the same port.
    pub port: Option<u16>,
    /// The body of the request as JSON, without default values, because the defaults may change in a later version. A
    /// repeated request is recognized by this text.
    pub asked: String,
    pub created: Moment,
    pub expires: Option<Moment>,
}

pub(super) fn put(db: &Connection, route: &Route) -> rusqlite::Result<()> {
    let sql = "INSERT INTO routes (name, selector, port, asked, created, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
               ON CONFLICT (name) DO UPDATE SET selector = ?2, port = ?3, asked = ?4, created = ?5, expires = ?6";
    let Route { name, selector, port, asked, created, expires } = route;
    db.prepare_cached(sql)?.execute((name, selector, port, asked, Sql(*created), expires.map(Sql)))?;
    Ok(())
}

pub(super) fn drop(db: &Connection, name: &str) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM routes WHERE name = ?1")?.execute([name])?;
    Ok(())
}

pub(super) fn get(db: &Connection, name: &str) -> rusqlite::Result<Option<Route>> {
    db.prepare_cached("SELECT * FROM routes WHERE name = ?1")?.query_row([name], read).optional()
}

pub(super) const ALL: &str = "SELECT * FROM routes ORDER BY name";

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Route> {
    Ok(Route {
        name: row.get("name")?,
        selector: row.get("selector")?,
        port: row.get("port")?,
        asked: row.get("asked")?,
        created: row::get(row, "created")?,
        expires: row::maybe(row, "expires")?,
    })
}
