//! Routes that the API made. Those of the config live in the config.

use rusqlite::{Connection, Row};

use super::row::{self, Sql};
use crate::exit::Moment;

/// A route as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its name, and the key.
    pub name: String,
    /// Its selector in canonical form.
    pub selector: String,
    /// The port of its own, if it has one: no two routes share one.
    pub port: Option<u16>,
    /// The request's body as JSON, only what was said in it: defaults may change under a route that did not say, and
    /// "the same body again" can be told from another.
    pub asked: String,
    /// When it was made.
    pub created: Moment,
    /// When it ends by itself.
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
