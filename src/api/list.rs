//! `/list`, `/random` and `/stats`: working public proxies, for programs that only need a line of text for each proxy.
//!
//! Requests are answered from a [`ListIndex`]: the working proxies of a recent moment, sorted by speed. A background
//! thread creates a new index at most once a second. So a request only reads a pointer to the index, and the answers of
//! repeated queries are already prepared.
//!
//! Proxies that need a login are not listed, because the list would then contain passwords. But routes use these
//! proxies too.
//!
//! Next: `list/index.rs` (the index), `list/query.rs` (the queries), `list/form.rs` (the output formats).

mod form;
mod index;
mod query;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::{StatusCode, Uri};
use rand::RngExt;
use serde::Serialize;
use utoipa::ToSchema;

pub use index::ListCache;
pub(super) use index::watch;

use self::form::PublicProxy;
use self::index::{Counts, ListIndex};
use self::query::{ListQuery, Query};
use super::Wiring;
use super::error::{ApiError, Problem};
use super::extract::Params;
use super::timestamp::Timestamp;
use crate::exit::Exit;
use crate::store::Source;

/// The share of `/random` answers that are chosen only from the faster half of the proxies. Not tuned: the answers are
/// fast on average, and every proxy is used sometimes.
const FROM_FASTER: f64 = 0.7;

fn index(wiring: &Wiring) -> Result<Arc<ListIndex>, ApiError> {
    wiring.public_list.as_ref().map(ListCache::newest).ok_or_else(|| {
        let message = "public proxies are switched off; set `sources.proxifly.enabled` or a `sources.list`";
        ApiError::new(StatusCode::CONFLICT, "no_public", message)
    })
}

/// Lists working public proxies, the fastest first.
#[utoipa::path(get, path = "/list", tag = "public proxies", params(ListQuery),
    responses((status = 200, content((String = "text/plain"), (Vec<PublicProxy> = "application/json"), (String = "text/csv"))),
        (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn list(
    State(wiring): State<Wiring>,
    uri: Uri,
    Params(written): Params<ListQuery>,
) -> Result<Response, ApiError> {
    let index = index(&wiring)?;
    let query = Query::read(&written)?;
    Ok(form::answer(query.format, index.list(uri.query().unwrap_or_default(), &query)))
}

/// Picks a working public proxy at random, seven times in ten from the faster half.
#[utoipa::path(get, path = "/random", tag = "public proxies", params(ListQuery),
    responses((status = 200, content((String = "text/plain"), (PublicProxy = "application/json"), (String = "text/csv"))),
        (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn random(
    State(wiring): State<Wiring>,
    uri: Uri,
    Params(written): Params<ListQuery>,
) -> Result<Response, ApiError> {
    let index = index(&wiring)?;
    let query = Query::read(&written)?;
    let mut rng = rand::rng();
    let (share, place) = (rng.random_range(0.0..1.0), rng.random_range(0.0..1.0));
    let drawn = index.one(uri.query().unwrap_or_default(), &query, |count| draw(count, share, place));
    let exit = drawn.ok_or_else(|| {
        let message = "no working public proxy fits this query now; GET /stats counts what there is";
        ApiError::new(StatusCode::NOT_FOUND, "no_proxy", message)
    })?;
    Ok(form::answer(query.format, form::write_one(query.format, exit, index.at())))
}

/// Picks a position in a list of `count` entries that is sorted by speed. `share` and `place` are random numbers from 0
/// to 1. `share` decides whether only the faster half is used, and `place` selects the entry.
fn draw(count: usize, share: f64, place: f64) -> Option<usize> {
    let among = if share < FROM_FASTER { count.div_ceil(2) } else { count };
    (among > 0).then_some((place * among as f64) as usize)
}

/// A list of public proxies.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PublicList)]
pub(super) struct ListStatus {
    name: String,
    /// The outcome of the last attempt, in one word.
    outcome: String,
    /// Proxies in the last good answer.
    proxies: u32,
    /// Entries of that answer that could not be used.
    skipped: u32,
}

/// Counts of public proxies.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PublicStats)]
pub(super) struct Stats {
    #[serde(flatten)]
    counts: Counts,
    /// False if the configuration has no lists of public proxies.
    enabled: bool,
    /// When the newest list was made, or read if it does not say when it was made.
    last_meta_update: Option<Timestamp>,
    lists: Vec<ListStatus>,
}

/// Counts public proxies by state, protocol, anonymity and country.
#[utoipa::path(get, path = "/stats", tag = "public proxies",
    responses((status = 200, body = Stats), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn stats(State(wiring): State<Wiring>) -> Json<Stats> {
    let counts = wiring.public_list.as_ref().map(|cache| cache.newest().counts()).unwrap_or_default();
    let mut lists = wiring.sources.statuses();
    lists.retain(|source| wiring.lists.contains(&source.name));
    let last_meta_update = lists.iter().filter_map(|list| list.published.or(list.good)).max().map(Timestamp);
    let status = |list: Source| ListStatus {
        name: list.name,
        outcome: list.outcome,
        proxies: list.records,
        skipped: list.skipped,
    };
    let lists = lists.into_iter().map(status).collect();
    Json(Stats { counts, enabled: wiring.public_list.is_some(), last_meta_update, lists })
}

/// Returns true if lists show this exit.
fn is_shown(exit: &Exit) -> bool {
    exit.usable() && exit.listing().public.as_ref().is_some_and(|offer| offer.login.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_faster_half_is_drawn_from_more_often() {
        let mut counts = [0; 10];
        for share in (0..100).map(|n| f64::from(n) / 100.0) {
            for place in (0..100).map(|n| f64::from(n) / 100.0) {
                counts[draw(10, share, place).unwrap()] += 1;
            }
        }
        assert_eq!(counts[..5], [1700; 5], "a fifth of 70 %, and a tenth of 30 %");
        assert_eq!(counts[5..], [300; 5]);
        assert_eq!(draw(1, 0.0, 0.999), Some(0));
        assert_eq!(draw(0, 0.0, 0.0), None);
    }
}
