//! The queries of `/list` and `/random`, and the filter that they describe.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;

use super::super::error::ApiError;
use super::super::extract::bad_query;
use crate::exit::country::{Country, CountrySet};
use crate::exit::{Anonymity, Exit, ExitId, Moment, Protocol};

/// The query of `GET /list` and `GET /random` as the caller wrote it.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct ListQuery {
    /// The most proxies in the answer; all without it.
    limit: Option<usize>,
    /// `http`, `https` (HTTP that reaches HTTPS sites), `socks4` or `socks5`.
    protocol: Option<String>,
    /// A country of two letters, or several with commas between them.
    country: Option<String>,
    /// `elite`, `anonymous` or `transparent`.
    anonymity: Option<String>,
    /// Only proxies that reach HTTPS sites, or only those that do not.
    https: Option<bool>,
    /// Only proxies that were checked within this time: `90s`, `10m`, `2h`.
    max_age: Option<String>,
    /// `txt`, `json`, `csv` or `proxychains`.
    #[param(default = "txt")]
    format: Option<String>,
}

/// The output format of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    /// One proxy URL per line.
    #[default]
    Text,
    Json,
    Csv,
    /// Lines such as `socks5 192.0.2.1 1080`, as the configuration file of proxychains needs them.
    Proxychains,
}

/// A validated query. A field that is `None` matches every proxy.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    pub(super) limit: usize,
    pub(super) format: Format,
    pub(super) protocol: Option<Protocol>,
    pub(super) countries: Option<CountrySet>,
    pub(super) anonymity: Option<Anonymity>,
    pub(super) https: Option<bool>,
    pub(super) max_age: Option<Duration>,
}

/// The fields of one proxy that queries can filter by. The fields are copied into this small struct, so the rows of
/// 10,000 proxies are contiguous in memory and a query scans them quickly.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    protocol: Option<Protocol>,
    country: Country,
    anonymity: Option<Anonymity>,
    https: Option<bool>,
    checked: Option<Moment>,
}

impl Row {
    pub(super) fn of(exit: &Exit) -> Self {
        let protocol = if let ExitId::Public(id) = exit.id() { Some(id.protocol) } else { None };
        let able = exit.known().public;
        Self {
            protocol,
            country: exit.country(),
            anonymity: able.map(|able| able.anonymity),
            https: able.map(|able| able.tls),
            checked: exit.known().checked,
        }
    }
}

impl Query {
    pub(super) fn read(written: &ListQuery) -> Result<Self, ApiError> {
        let https_proxies = written.protocol.as_deref() == Some("https");
        Ok(Self {
            limit: written.limit.unwrap_or(usize::MAX),
            format: read(&written.format, "format", "is `txt`, `json`, `csv` or `proxychains`", format)?
                .unwrap_or_default(),
            protocol: read(&written.protocol, "protocol", "is `http`, `https`, `socks4` or `socks5`", protocol)?,
            countries: read(
                &written.country,
                "country",
                "is two letters, or several with commas between them",
                countries,
            )?,
            anonymity: read(&written.anonymity, "anonymity", "is `elite`, `anonymous` or `transparent`", anonymity)?,
            https: if https_proxies { Some(true) } else { written.https },
            max_age: read(&written.max_age, "max_age", "is a time such as `90s`, `10m` or `2h`", span)?,
        })
    }

    /// Returns true if the query has no filter, so every proxy matches.
    pub(super) fn is_open(&self) -> bool {
        let Self { protocol, countries, anonymity, https, max_age, limit: _, format: _ } = self;
        protocol.is_none() && countries.is_none() && anonymity.is_none() && https.is_none() && max_age.is_none()
    }

    pub(super) fn matches(&self, row: &Row, now: Moment) -> bool {
        let age = || row.checked.map_or(Duration::MAX, |at| now.since(at));
        self.protocol.is_none_or(|protocol| row.protocol == Some(protocol))
            && self.countries.is_none_or(|countries| countries.contains(row.country))
            && self.anonymity.is_none_or(|anonymity| row.anonymity == Some(anonymity))
            && self.https.is_none_or(|https| row.https == Some(https))
            && self.max_age.is_none_or(|most| age() <= most)
    }
}

fn read<T>(
    text: &Option<String>,
    field: &str,
    want: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, ApiError> {
    let wrong = || bad_query(format!("`{field}` {want}")).with(json!({ "field": field }));
    text.as_deref().filter(|text| !text.is_empty()).map(|text| parse(text).ok_or_else(wrong)).transpose()
}

fn format(text: &str) -> Option<Format> {
    match text {
        "txt" | "text" => Some(Format::Text),
        "json" => Some(Format::Json),
        "csv" => Some(Format::Csv),
        "proxychains" => Some(Format::Proxychains),
        _ => None,
    }
}

fn protocol(text: &str) -> Option<Protocol> {
    match text {
        "http" | "https" => Some(Protocol::Http),
        "socks4" => Some(Protocol::Socks4),
        "socks5" => Some(Protocol::Socks5),
        _ => None,
    }
}

fn countries(text: &str) -> Option<CountrySet> {
    text.split(',').map(|code| Country::parse(code.trim())).collect()
}

fn anonymity(text: &str) -> Option<Anonymity> {
    Anonymity::ALL.into_iter().find(|anonymity| anonymity.as_str() == text)
}

/// Reads a duration: a number of seconds, or a number with a unit.
fn span(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten()?;
    Some(Duration::from_secs(number.checked_mul(unit)?))
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture;
    use super::*;

    fn query(text: &str) -> Result<Query, String> {
        let uri = format!("http://x/list?{text}").parse().unwrap();
        let written = axum::extract::Query::<ListQuery>::try_from_uri(&uri).map_err(|error| error.body_text())?;
        Query::read(&written).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn each_filter_narrows_the_list() {
        let snapshot = fixture::public(&[("US", 30), ("DE", 10), ("US", 20)]);
        let count = |text: &str| {
            let query = query(text).unwrap();
            snapshot.catalog.iter().filter(|exit| query.matches(&Row::of(exit), Moment(10_000_001))).count()
        };
        for (text, want) in [
            ("", 3),
            ("country=us", 2),
            ("country=us,de", 3),
            ("country=fr", 0),
            ("protocol=http", 3),
            ("protocol=socks5", 0),
            ("protocol=https", 3),
            ("https=false", 0),
            ("anonymity=elite", 3),
            ("anonymity=transparent", 0),
            ("max_age=10s", 3),
            ("max_age=9", 0),
            ("country=", 3),
        ] {
            assert_eq!(count(text), want, "{text}");
        }
    }

    #[test]
    fn a_wrong_query_names_its_field() {
        for (text, field) in [
            ("country=usa", "country"),
            ("protocol=ftp", "protocol"),
            ("anonymity=high", "anonymity"),
            ("max_age=soon", "max_age"),
            ("max_age=-1", "max_age"),
            ("format=xml", "format"),
            ("limit=x", "limit"),
            ("contry=us", "contry"),
        ] {
            let message = query(text).unwrap_err();
            assert!(message.contains(field), "{text}: {message}");
        }
    }
}
