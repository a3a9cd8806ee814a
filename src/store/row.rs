//! How values of our types are stored in columns: times and durations as microseconds, exits and addresses as text.
//!
//! Text is used because a person may have to read the file with the `sqlite3` shell.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use crate::exit::{ExitId, Moment, Protocol, PublicId, UpstreamId, UpstreamName};
use crate::route::Holder;
use crate::route::selector::SessionId;
use crate::route::session::Term;

/// Converts a value of one of our types into a column value, or back.
#[derive(Debug)]
pub(super) struct Sql<T>(pub(super) T);

fn invalid(what: &'static str) -> FromSqlError {
    FromSqlError::Other(what.into())
}

impl ToSql for Sql<Moment> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(i64::try_from(self.0.0).unwrap_or(i64::MAX).into())
    }
}

impl FromSql for Sql<Moment> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        u64::try_from(value.as_i64()?).map(|micros| Self(Moment(micros))).map_err(|_| invalid("a time before 1970"))
    }
}

impl ToSql for Sql<Duration> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX).into())
    }
}

impl FromSql for Sql<Duration> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let micros = u64::try_from(value.as_i64()?).map_err(|_| invalid("a negative duration"))?;
        Ok(Self(Duration::from_micros(micros)))
    }
}

impl ToSql for Sql<IpAddr> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.to_string().into())
    }
}

impl FromSql for Sql<IpAddr> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map(Self).map_err(|_| invalid("not an address"))
    }
}

/// An empty text means that there is no session.
impl FromSql for Sql<Option<SessionId>> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str()? {
            "" => Ok(Self(None)),
            id => SessionId::parse(id).map(|id| Self(Some(id))).ok_or_else(|| invalid("not a session's name")),
        }
    }
}

impl ToSql for Sql<&ExitId> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.to_string().into())
    }
}

impl FromSql for Sql<ExitId> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        read_exit(value.as_str()?).map(Self).ok_or_else(|| invalid("not an exit"))
    }
}

impl FromSql for Sql<PublicId> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        read_public(value.as_str()?).map(Self).ok_or_else(|| invalid("not the URL of a proxy"))
    }
}

/// Parses the text form of an [`ExitId`], which its `Display` implementation writes.
fn read_exit(text: &str) -> Option<ExitId> {
    if let Some(direct) = ExitId::parse_direct(text) {
        return Some(direct);
    }
    if let Ok(fingerprint) = text.parse() {
        return Some(ExitId::Tor(fingerprint));
    }
    // The source of a stored exit may have been removed from the configuration since.
    let upstream = || UpstreamId::parse(text, UpstreamName::intern).map(|id| ExitId::Upstream(Arc::new(id)));
    read_public(text).map(|id| ExitId::Public(Arc::new(id))).or_else(upstream)
}

fn read_public(text: &str) -> Option<PublicId> {
    let (scheme, addr) = text.split_once("://")?;
    let protocol = [Protocol::Http, Protocol::Socks4, Protocol::Socks5].into_iter().find(|p| p.as_str() == scheme)?;
    Some(PublicId { protocol, addr: addr.parse().ok()? })
}

/// Returns the session of a holder as a part of the key; empty if the holder has no session.
pub(super) fn session(holder: &Holder) -> &str {
    holder.session.as_ref().map_or("", SessionId::as_str)
}

/// Reads the holder (the owner of a pin or session) from the key of a row.
pub(super) fn holder(row: &Row<'_>) -> rusqlite::Result<Holder> {
    let text = |column| row.get::<_, String>(column).map(Arc::from);
    Ok(Holder { key: text("key")?, scope: text("scope")?, session: get(row, "session")? })
}

/// Reads how long a pin or session lasts.
pub(super) fn term(row: &Row<'_>) -> rusqlite::Result<Term> {
    Ok(Term { span: get(row, "span")?, fixed: row.get("fixed")? })
}

/// Returns the URL that identifies a public proxy.
pub(super) fn url(id: &PublicId) -> String {
    format!("{}://{}", id.protocol.as_str(), id.addr)
}

/// Reads a column that contains a value of one of our types.
pub(super) fn get<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    Sql<T>: FromSql,
{
    row.get::<_, Sql<T>>(column).map(|value| value.0)
}

/// Reads a column that contains a value of one of our types, or NULL.
pub(super) fn maybe<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>>
where
    Sql<T>: FromSql,
{
    row.get::<_, Option<Sql<T>>>(column).map(|value| value.map(|v| v.0))
}

/// Reads a column that contains one of the codes in `words`.
pub(super) fn word<T: Copy>(row: &Row<'_>, column: &str, words: &[(T, &'static str)]) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    let known = words.iter().find(|(_, word)| *word == text).map(|(value, _)| *value);
    known.ok_or_else(|| {
        let why = format!("{column}: {text:?} is not a value that this version knows");
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, why.into())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn an_exit_survives_being_written_and_read() {
        for text in [
            "0008D9640FE4947F73E355F67E20C2D290BBC72C",
            "direct",
            "acme:9f2c31ab44d0e1f2",
            "http://192.0.2.1:3128",
            "socks4://192.0.2.1:1080",
            "socks5://[2001:db8::1]:1080",
        ] {
            assert_eq!(read_exit(text).unwrap().to_string(), text);
        }
        for bad in ["", "Direct", "ftp://192.0.2.1:1", "http://example.com:80", "http://192.0.2.1", "00"] {
            assert_eq!(read_exit(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn times_and_addresses_survive(at in 0..=i64::MAX as u64, ip: u128, v4: bool) {
            let ip = if v4 { IpAddr::V4((ip as u32).into()) } else { IpAddr::V6(ip.into()) };
            let db = Connection::open_in_memory().unwrap();
            let (time, took, addr) = db
                .query_row("SELECT ?1 AS t, ?1 AS d, ?2 AS a", (Sql(Moment(at)), Sql(ip)), |row| {
                    Ok((get::<Moment>(row, "t")?, get::<Duration>(row, "d")?, get::<IpAddr>(row, "a")?))
                })
                .unwrap();
            prop_assert_eq!((time, took, addr), (Moment(at), Duration::from_micros(at), ip));
        }
    }
}
