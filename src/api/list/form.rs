//! The output formats of `/list` and `/random`: text, JSON, CSV, and lines for proxychains.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::timestamp::Timestamp;
use super::query::Format;
use crate::exit::{Abilities, Exit, ExitId, Moment, PublicId};
use crate::lifecycle::yielding;

/// A public proxy.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PublicProxy)]
pub(in crate::api) struct PublicProxy {
    url: String,
    protocol: &'static str,
    #[schema(value_type = String)]
    ip: IpAddr,
    port: u16,
    /// The address that sites see.
    #[schema(value_type = Option<String>)]
    exit_ip: Option<IpAddr>,
    /// The country of that address.
    country: Option<String>,
    /// `elite`, `anonymous`, `transparent` or `unknown`.
    anonymity: &'static str,
    /// True if HTTPS sites can be reached through it with their own certificates.
    https: bool,
    /// True if it opens tunnels; false if it only forwards plain HTTP.
    connect: bool,
    /// How long its last good check took.
    response_ms: u64,
    /// The share of successful requests in the long test, from 0 to 1; null until the test was made.
    reliability: Option<f32>,
    /// The time of the last check.
    checked: Option<Timestamp>,
    age_seconds: Option<u64>,
    /// The list that the proxy is from.
    list: String,
}

impl PublicProxy {
    fn of(exit: &Exit, id: &PublicId, able: &Abilities, now: Moment) -> Self {
        let share = f32::from(able.passed) / f32::from(able.asked.max(1));
        Self {
            url: exit.id().to_string(),
            protocol: id.protocol.as_str(),
            ip: id.addr.ip(),
            port: id.addr.port(),
            exit_ip: exit.ip(),
            country: exit.country().is_known().then(|| exit.country().to_string()),
            anonymity: able.anonymity.as_str(),
            https: able.tls,
            connect: able.tunnels,
            response_ms: u64::try_from(able.took.as_millis()).unwrap_or(u64::MAX),
            reliability: (able.asked > 0).then_some(share),
            checked: exit.known().checked.map(Timestamp),
            age_seconds: exit.known().checked.map(|at| now.since(at).as_secs()),
            list: exit.listing().public.as_ref().map(|offer| offer.list.to_string()).unwrap_or_default(),
        }
    }
}

const CSV_HEAD: &str = "url,protocol,ip,port,exit_ip,country,anonymity,https,response_ms,age_seconds\n";

/// All proxies as lines of text. The text is created once, and answers are copied from parts of it.
#[derive(Debug)]
pub(super) struct Lines {
    text: Bytes,
    /// The offset in `text` at which each line ends.
    ends: Vec<usize>,
}

impl Lines {
    pub(super) fn of(exits: &[Arc<Exit>]) -> Self {
        let (mut text, mut ends) = (String::new(), Vec::with_capacity(exits.len()));
        for exit in exits {
            yielding::yield_if_due();
            let _ = writeln!(text, "{}", exit.id());
            ends.push(text.len());
        }
        Self { text: text.into(), ends }
    }

    /// Returns the first `count` lines.
    pub(super) fn first(&self, count: usize) -> Bytes {
        let end = self.ends[..count.min(self.ends.len())].last().copied().unwrap_or_default();
        self.text.slice(..end)
    }

    /// Returns the lines at these positions.
    pub(super) fn of_places(&self, places: impl Iterator<Item = usize>) -> Bytes {
        let mut text = Vec::new();
        for place in places {
            let begin = place.checked_sub(1).map_or(0, |before| self.ends[before]);
            text.extend_from_slice(&self.text[begin..self.ends[place]]);
        }
        text.into()
    }
}

/// Writes a list of proxies in the given format.
pub(super) fn write<'a>(format: Format, exits: impl Iterator<Item = &'a Arc<Exit>>, now: Moment) -> Bytes {
    let shown =
        exits.inspect(|_| yielding::yield_if_due()).filter_map(|exit| parts(exit).map(|(id, able)| (exit, id, able)));
    let mut text = String::new();
    match format {
        Format::Json => {
            let all: Vec<_> = shown.map(|(exit, id, able)| PublicProxy::of(exit, id, &able, now)).collect();
            return serde_json::to_vec(&all).unwrap_or_default().into();
        }
        Format::Text => shown.for_each(|(exit, ..)| _ = writeln!(text, "{}", exit.id())),
        Format::Proxychains => shown.for_each(|(_, id, _)| {
            _ = writeln!(text, "{} {} {}", id.protocol.as_str(), id.addr.ip(), id.addr.port());
        }),
        Format::Csv => {
            text.push_str(CSV_HEAD);
            for (exit, id, able) in shown {
                let PublicProxy {
                    url,
                    protocol,
                    ip,
                    port,
                    exit_ip,
                    country,
                    anonymity,
                    https,
                    response_ms,
                    age_seconds,
                    ..
                } = PublicProxy::of(exit, id, &able, now);
                let exit_ip = exit_ip.map(|ip| ip.to_string()).unwrap_or_default();
                let (country, age) = (country.unwrap_or_default(), age_seconds.unwrap_or_default());
                let _ = writeln!(
                    text,
                    "{url},{protocol},{ip},{port},{exit_ip},{country},{anonymity},{https},{response_ms},{age}"
                );
            }
        }
    }
    text.into()
}

/// Writes one proxy. In JSON it is an object and not a list.
pub(super) fn write_one(format: Format, exit: &Arc<Exit>, now: Moment) -> Bytes {
    match (format, parts(exit)) {
        (Format::Json, Some((id, able))) => {
            serde_json::to_vec(&PublicProxy::of(exit, id, &able, now)).unwrap_or_default().into()
        }
        _ => write(format, std::iter::once(exit), now),
    }
}

fn parts(exit: &Exit) -> Option<(&PublicId, Abilities)> {
    let ExitId::Public(id) = exit.id() else { return None };
    Some((id, exit.known().public?))
}

/// Returns the HTTP answer with the content type of the format.
pub(super) fn answer(format: Format, body: Bytes) -> Response {
    let kind = match format {
        Format::Json => "application/json",
        Format::Csv => "text/csv; charset=utf-8",
        Format::Text | Format::Proxychains => "text/plain; charset=utf-8",
    };
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture;
    use super::*;

    #[test]
    fn a_list_is_written_in_every_format() {
        let snapshot = fixture::public(&[("US", 30), ("DE", 10)]);
        let exits: Vec<_> = snapshot.catalog.iter().cloned().collect();
        let text = |format| String::from_utf8(write(format, exits.iter(), Moment(3_000_001)).to_vec()).unwrap();
        assert_eq!(text(Format::Text), "http://192.0.2.1:80\nhttp://192.0.2.2:80\n");
        assert_eq!(text(Format::Proxychains), "http 192.0.2.1 80\nhttp 192.0.2.2 80\n");
        assert_eq!(
            text(Format::Csv).lines().nth(1),
            Some("http://192.0.2.1:80,http,192.0.2.1,80,198.51.100.1,US,elite,true,30,3")
        );
        let json: serde_json::Value = serde_json::from_str(&text(Format::Json)).unwrap();
        assert_eq!((&json[0]["country"], &json[0]["age_seconds"]), (&"US".into(), &3.into()));
        assert_eq!((&json[1]["response_ms"], &json[1]["reliability"]), (&10.into(), &serde_json::Value::Null));
        let one: serde_json::Value = serde_json::from_slice(&write_one(Format::Json, &exits[1], Moment(1))).unwrap();
        assert_eq!(one["url"], "http://192.0.2.2:80");
    }
}
