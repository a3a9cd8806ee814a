//! The exits as their sources describe them, the addresses of exits that echo servers saw, and the verdicts on exits.
//! With this data, a gateway can serve clients after a start before a source answers or a check ends.

use std::net::IpAddr;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use super::row::{self, Sql};
use crate::exit::country::Country;
use crate::exit::facts::Flags;
use crate::exit::policy::PortPolicy;
use crate::exit::{ExitId, Listing, Moment};

/// An exit as a source described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The facts about the exit. The id in this listing is the key of the row.
    pub listing: Listing,
    /// When a source listed the exit for the first time.
    pub first_seen: Moment,
    /// When a source listed the exit for the last time.
    pub last_seen: Moment,
}

/// An address from which the traffic of an exit reached an echo server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub exit: ExitId,
    pub ip: IpAddr,
    /// When an echo server saw this address for the first time.
    pub first: Moment,
    /// When an echo server saw this address for the last time.
    pub last: Moment,
    /// How many checks found this address.
    pub times: u32,
}

/// The verdict on an exit at one check target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TargetVerdict {
    Good,
    /// The exit fails at present, and is checked again later.
    Bad,
    /// The exit tampers or intercepts, and is not used until the condemnation ends.
    Condemned,
}

const VERDICTS: &[(TargetVerdict, &str)] =
    &[(TargetVerdict::Good, "good"), (TargetVerdict::Bad, "bad"), (TargetVerdict::Condemned, "condemned")];

impl TargetVerdict {
    /// The code of this verdict in the store, the API, logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Condemned => "condemned",
        }
    }
}

/// The verdict on one exit at one check target, with the results that led to the verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub exit: ExitId,
    /// The name of the check target, or `echo` for the exit itself.
    pub target: String,
    pub verdict: TargetVerdict,
    /// How many checks in a row ended the same way: positive for good checks, negative for bad ones.
    pub streak: i32,
    /// When the exit was last checked.
    pub checked: Moment,
    /// When the exit was last good. `None` if the exit was never good.
    pub good: Option<Moment>,
    /// How long the opening of a stream took in the last good check. `None` if this is not known.
    pub latency: Option<Duration>,
    /// Why the exit is bad, in words; empty if the exit is good.
    pub why: String,
}

/// Returns the row number of an exit, by which other tables refer to it. An exit that no source has listed gets a row
/// without facts.
pub(super) fn number(db: &Connection, id: &ExitId, now: Moment) -> rusqlite::Result<i64> {
    let known =
        db.prepare_cached("SELECT number FROM exits WHERE id = ?1")?.query_row([Sql(id)], |r| r.get(0)).optional()?;
    if let Some(number) = known {
        return Ok(number);
    }
    let sql = "INSERT INTO exits (id, facts, first_seen, last_seen) VALUES (?1, '', ?2, ?2)";
    db.prepare_cached(sql)?.insert((Sql(id), Sql(now)))
}

/// A listing as stored in one column. The format is JSON, so a new fact needs no migration. No query searches in this
/// column.
#[derive(Serialize, Deserialize)]
struct Facts {
    #[serde(default)]
    nickname: Box<str>,
    announced: Vec<IpAddr>,
    country: Country,
    asn: Option<u32>,
    as_name: Option<Box<str>>,
    policy: PortPolicy,
    policy_v6: PortPolicy,
    running: bool,
    stable: bool,
    fast: bool,
    bad_exit: bool,
    weight: u32,
    /// Since when the source has not listed the exit, in µs since 1970.
    #[serde(default)]
    unlisted: Option<u64>,
}

fn write_facts(listing: &Listing) -> rusqlite::Result<String> {
    let Listing {
        id: _,
        nickname,
        announced,
        country,
        asn,
        as_name,
        policy,
        policy_v6,
        flags,
        weight,
        unlisted,
        public: _,
        upstream: _,
    } = listing.clone();
    let Flags { running, stable, fast, bad_exit } = flags;
    let as_name = as_name.map(|name| Box::from(&*name));
    let facts = Facts {
        nickname,
        announced,
        country,
        asn,
        as_name,
        policy,
        policy_v6,
        running,
        stable,
        fast,
        bad_exit,
        weight,
        unlisted: unlisted.map(|since| since.0),
    };
    serde_json::to_string(&facts).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn read_facts(id: ExitId, text: &str) -> rusqlite::Result<Listing> {
    let unusable = |error: serde_json::Error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
    };
    let facts: Facts = serde_json::from_str(text).map_err(unusable)?;
    let Facts { running, stable, fast, bad_exit, .. } = facts;
    let flags = Flags { running, stable, fast, bad_exit };
    let Facts { nickname, announced, country, asn, as_name, policy, policy_v6, weight, unlisted, .. } = facts;
    let (as_name, unlisted) = (as_name.map(Into::into), unlisted.map(Moment));
    Ok(Listing {
        id,
        nickname,
        announced,
        country,
        asn,
        as_name,
        policy,
        policy_v6,
        flags,
        weight,
        unlisted,
        public: None,
        upstream: None,
    })
}

pub(super) fn put(db: &Connection, exit: &Exit) -> rusqlite::Result<()> {
    let sql = "INSERT INTO exits (id, facts, first_seen, last_seen) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (id) DO UPDATE SET facts = ?2, first_seen = min(first_seen, ?3), last_seen = max(last_seen, ?4)";
    let Exit { listing, first_seen, last_seen } = exit;
    let facts = write_facts(listing)?;
    db.prepare_cached(sql)?.execute((Sql(&listing.id), facts, Sql(*first_seen), Sql(*last_seen)))?;
    Ok(())
}

pub(super) fn drop(db: &Connection, id: &ExitId) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM exits WHERE id = ?1")?.execute([Sql(id)])?;
    Ok(())
}

pub(super) fn saw(db: &Connection, seen: &Observed) -> rusqlite::Result<()> {
    let sql = "INSERT INTO observed (exit, ip, first, last, times) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (exit, ip) DO UPDATE
               SET first = min(first, ?3), last = max(last, ?4), times = min(times + ?5, 4294967295)";
    let Observed { exit, ip, first, last, times } = seen;
    let number = number(db, exit, *first)?;
    db.prepare_cached(sql)?.execute((number, Sql(*ip), Sql(*first), Sql(*last), times))?;
    Ok(())
}

pub(super) fn put_verdict(db: &Connection, row: &Verdict) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO verdicts (exit, target, standing, streak, checked, good, latency, why)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let Verdict { exit, target, verdict, streak, checked, good, latency, why } = row;
    let number = number(db, exit, *checked)?;
    let standing = verdict.as_str();
    let (good, latency) = (good.map(Sql), latency.map(Sql));
    db.prepare_cached(sql)?.execute((number, target, standing, streak, Sql(*checked), good, latency, why))?;
    Ok(())
}

/// Selects the exits that a source has listed. A row without facts exists only because checks or verdicts refer to it.
pub(super) const ALL: &str = "SELECT * FROM exits WHERE facts <> '' ORDER BY id";

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Exit> {
    Ok(Exit {
        listing: read_facts(row::get(row, "id")?, &row.get::<_, String>("facts")?)?,
        first_seen: row::get(row, "first_seen")?,
        last_seen: row::get(row, "last_seen")?,
    })
}

pub(super) const ALL_OBSERVED: &str = "SELECT * FROM observed JOIN exits ON number = exit ORDER BY id, last DESC, ip";

pub(super) fn read_observed(row: &Row<'_>) -> rusqlite::Result<Observed> {
    Ok(Observed {
        exit: row::get(row, "id")?,
        ip: row::get(row, "ip")?,
        first: row::get(row, "first")?,
        last: row::get(row, "last")?,
        times: row.get("times")?,
    })
}

pub(super) const ALL_VERDICTS: &str = "SELECT * FROM verdicts JOIN exits ON number = exit ORDER BY id, target";

pub(super) fn read_verdict(row: &Row<'_>) -> rusqlite::Result<Verdict> {
    Ok(Verdict {
        exit: row::get(row, "id")?,
        target: row.get("target")?,
        verdict: row::word(row, "standing", VERDICTS)?,
        streak: row.get("streak")?,
        checked: row::get(row, "checked")?,
        good: row::maybe(row, "good")?,
        latency: row::maybe(row, "latency")?,
        why: row.get("why")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_as_they_were_written_and_older_facts_are_read_too() {
        let listing = Listing { weight: 7, unlisted: Some(Moment(5)), ..Listing::new(ExitId::Direct) };
        let text = write_facts(&listing).unwrap();
        assert_eq!(read_facts(ExitId::Direct, &text).unwrap(), listing);
        let older = text.replace(",\"unlisted\":5", "");
        assert_ne!(older, text);
        assert_eq!(read_facts(ExitId::Direct, &older).unwrap(), Listing { unlisted: None, ..listing });
    }
}
