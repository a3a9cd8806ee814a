//! Public proxies that have worked, with the results of their checks.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, Row};

use super::exits;
use super::row::{self, Sql};
use crate::exit::{Anonymity, ExitId, Login, Moment, PublicId, Through};
use crate::net::Secret;

const ANONYMITIES: &[(Anonymity, &str)] = &[
    (Anonymity::Unknown, "unknown"),
    (Anonymity::Transparent, "transparent"),
    (Anonymity::Anonymous, "anonymous"),
    (Anonymity::Elite, "elite"),
];

const THROUGHS: &[(Through, &str)] = &[(Through::Direct, "direct"), (Through::Tor, "tor")];

/// A public proxy and the results of its checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Public {
    /// The proxy's identity. Its URL is the key of the row.
    pub id: PublicId,
    /// The name of the list that contains the proxy.
    pub list: String,
    pub login: Option<Login>,
    /// How the gateway reaches the proxy: directly, or through Tor.
    pub through: Through,
    /// True if the proxy passed its last test.
    pub working: bool,
    /// How long the last good test took. `None` if no test was good.
    pub response_time: Option<Duration>,
    /// How many tests in a row failed.
    pub failed_count: u32,
    pub last_tested: Option<Moment>,
    /// When the proxy last passed a test. `None` if the proxy never passed a test.
    pub last_working: Option<Moment>,
    /// When the proxy was first stored. Later writes do not change this value.
    pub created_at: Moment,
    /// What the proxy reveals about its clients.
    pub anonymity: Anonymity,
    /// True if an HTTPS site was reached through the proxy with the site's own certificate.
    pub https: bool,
    /// True if the proxy opens tunnels (CONNECT or SOCKS). Otherwise it only forwards plain HTTP.
    pub connect: bool,
    /// The country of the address from which the proxy leaves, as two upper-case letters. `None` if the country is not
    /// known.
    pub country: Option<String>,
    /// The address from which the proxy leaves. `None` if the address is not known.
    pub exit_ip: Option<IpAddr>,
    /// True if the proxy leaves from several addresses.
    pub several: bool,
    /// True if the proxy tampers or intercepts. Nobody uses such a proxy until the condemnation ends.
    pub condemned: bool,
    /// How many requests the long test made.
    pub asked: u16,
    /// How many requests of the long test were answered.
    pub passed: u16,
}

pub(super) fn put(db: &Connection, public: &Public) -> rusqlite::Result<()> {
    let sql =
        "INSERT OR REPLACE INTO public_proxies (url, protocol, list, working, response_time, failed_count, last_tested,
                 last_working, created_at, anonymity, https, connect, country, exit_ip, login, through, several, condemned,
                 asked, passed)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8,
                 coalesce((SELECT created_at FROM public_proxies WHERE url = ?1), ?9), ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)";
    db.prepare_cached(sql)?.execute(rusqlite::params![
        row::url(&public.id),
        public.id.protocol.as_str(),
        public.list,
        public.working,
        public.response_time.map(Sql),
        public.failed_count,
        public.last_tested.map(Sql),
        public.last_working.map(Sql),
        Sql(public.created_at),
        public.anonymity.as_str(),
        public.https,
        public.connect,
        public.country,
        public.exit_ip.map(Sql),
        public.login.as_ref().map(|login| format!("{}:{}", login.user, login.password.expose())),
        public.through.as_str(),
        public.several,
        public.condemned,
        public.asked,
        public.passed,
    ])?;
    Ok(())
}

pub(super) fn drop(db: &Connection, id: &PublicId) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM public_proxies WHERE url = ?1")?.execute([row::url(id)])?;
    exits::drop(db, &ExitId::Public(Arc::new(id.clone()))) // the foreign key also deletes the checks of the proxy
}

pub(super) const ALL: &str = "SELECT * FROM public_proxies";

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Public> {
    Ok(Public {
        id: row::get(row, "url")?,
        list: row.get("list")?,
        login: row.get::<_, Option<String>>("login")?.as_deref().and_then(login),
        through: row::word(row, "through", THROUGHS)?,
        working: row.get("working")?,
        response_time: row::maybe(row, "response_time")?,
        failed_count: row.get("failed_count")?,
        last_tested: row::maybe(row, "last_tested")?,
        last_working: row::maybe(row, "last_working")?,
        created_at: row::get(row, "created_at")?,
        anonymity: row::word(row, "anonymity", ANONYMITIES)?,
        https: row.get("https")?,
        connect: row.get("connect")?,
        country: row.get("country")?,
        exit_ip: row::maybe(row, "exit_ip")?,
        several: row.get("several")?,
        condemned: row.get("condemned")?,
        asked: row.get("asked")?,
        passed: row.get("passed")?,
    })
}

/// Parses `username:password`. The username contains no colon, as in HTTP Basic authentication.
fn login(text: &str) -> Option<Login> {
    let (user, password) = text.split_once(':')?;
    Some(Login { user: user.into(), password: Secret::new(password) })
}
