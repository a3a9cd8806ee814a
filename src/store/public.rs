//! Public proxies: what the judge found of each, and the lists that people ask for.

use std::net::IpAddr;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::row::{self, Sql};
use crate::exit::{Anonymity, Login, Moment, Protocol, PublicId, Through};
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

/// Which of them to list; what is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicFilter {
    /// Working ones, or failed ones.
    pub working: Option<bool>,
    /// Of this protocol.
    pub protocol: Option<Protocol>,
    /// Of this country.
    pub country: Option<String>,
    /// Of this anonymity.
    pub anonymity: Option<Anonymity>,
    /// Able to reach HTTPS sites, or not.
    pub https: Option<bool>,
    /// Tested after this.
    pub tested_after: Option<Moment>,
    /// Leaves out so many of the fastest.
    pub offset: u32,
    /// At most so many rows.
    pub limit: u32,
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
    Ok(())
}

/// The list's SQL names only what is asked for, so that the planner sees which index fits.
fn list_sql(filter: &PublicFilter) -> (String, Vec<Value>) {
    let word = |word: &str| Value::Text(word.to_owned());
    let flag = |flag: bool| Value::Integer(i64::from(flag));
    let conditions = [
        ("working = ?", filter.working.map(flag)),
        ("protocol = ?", filter.protocol.map(|p| word(p.as_str()))),
        ("country = ?", filter.country.as_deref().map(word)),
        ("anonymity = ?", filter.anonymity.map(|a| word(a.as_str()))),
        ("https = ?", filter.https.map(flag)),
        ("last_tested > ?", filter.tested_after.map(|at| Value::Integer(i64::try_from(at.0).unwrap_or(i64::MAX)))),
    ];
    let (wanted, mut values): (Vec<_>, Vec<_>) =
        conditions.into_iter().filter_map(|(sql, value)| value.map(|value| (sql, value))).unzip();
    let mut sql = "SELECT * FROM public_proxies".to_owned();
    if !wanted.is_empty() {
        sql = format!("{sql} WHERE {}", wanted.join(" AND "));
    }
    sql.push_str(" ORDER BY response_time NULLS LAST LIMIT ? OFFSET ?");
    values.extend([filter.limit, filter.offset].map(|n| Value::Integer(n.into())));
    (sql, values)
}

pub(super) fn list(db: &Connection, filter: &PublicFilter) -> rusqlite::Result<Vec<Public>> {
    let (sql, values) = list_sql(filter);
    db.prepare_cached(&sql)?.query_map(params_from_iter(values), read)?.collect()
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
