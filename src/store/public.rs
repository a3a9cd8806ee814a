//! Public proxies: what the judge found of each, and the lists that people ask for.

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

/// A public proxy and what the judge found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Public {
    /// Its URL, and the key.
    pub id: PublicId,
    /// The list that named it.
    pub list: String,
    /// What it wants to hear before it serves.
    pub login: Option<Login>,
    /// The way to it.
    pub through: Through,
    /// True if it passed its last test.
    pub working: bool,
    /// How long its last good test took.
    pub response_time: Option<Duration>,
    /// Tests failed in a row.
    pub failed_count: u32,
    /// When it was last tested.
    pub last_tested: Option<Moment>,
    /// When it last passed.
    pub last_working: Option<Moment>,
    /// When it was first written down: a later write does not change it.
    pub created_at: Moment,
    /// What it gives away.
    pub anonymity: Anonymity,
    /// True if an HTTPS site was reached through it with its own certificate.
    pub https: bool,
    /// True if it tunnels (CONNECT or SOCKS) rather than only forwarding plain HTTP.
    pub connect: bool,
    /// The country of its exit address, two upper-case letters.
    pub country: Option<String>,
    /// The address that the far side sees.
    pub exit_ip: Option<IpAddr>,
    /// The far side sees several.
    pub several: bool,
    /// It was caught tampering or intercepting.
    pub condemned: bool,
    /// Requests of the long test.
    pub asked: u16,
    /// Those that came back well.
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
    exits::drop(db, &ExitId::Public(Arc::new(id.clone()))) // its checks go with it
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

/// A user name holds no colon, as in HTTP Basic.
fn login(text: &str) -> Option<Login> {
    let (user, password) = text.split_once(':')?;
    Some(Login { user: user.into(), password: Secret::new(password) })
}
