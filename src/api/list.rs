//! `/list`, `/random` and `/stats`: working public proxies, for programs that want no more than a line of text.
//!
//! They are answered from an [`ListIndex`], the working ones in the order of their speed as of a moment ago, made once a
//! second at most by a thread that yields to all others. So a request reads one pointer, whatever the judge is doing
//! meanwhile, and a list that is asked for again and again is written before it is asked for.
//!
//! Proxies that want a login are not shown: a list with passwords in it is not for everybody who may read lists. They
//! serve routes all the same.
//!
//! Next: `list/index.rs` (what is shown), `list/query.rs` (what may be asked), `list/form.rs` (how it is written).

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

use self::form::Shown;
use self::index::{Counts, ListIndex};
use self::query::{Query, Wanted};
use super::Wiring;
use super::error::{ApiError, Problem};
use super::extract::Params;
use super::timestamp::Timestamp;
use crate::exit::Exit;
use crate::store::Source;

/// The share of `/random` that is drawn from the faster half alone: quick on the whole, and no proxy is left out.
const FROM_FASTER: f64 = 0.7;

fn index(wiring: &Wiring) -> Result<Arc<ListIndex>, ApiError> {
    wiring.public_list.as_ref().map(ListCache::newest).ok_or_else(|| {
        let message = "public proxies are switched off; set `sources.proxifly.enabled` or a `sources.list`";
        ApiError::new(StatusCode::CONFLICT, "no_public", message)
    })
}

/// Working public proxies, the fastest first.
#[utoipa::path(get, path = "/list", tag = "public proxies", params(Wanted),
    responses((status = 200, content((String = "text/plain"), (Vec<Shown> = "application/json"), (String = "text/csv"))),
        (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn list(
    State(wiring): State<Wiring>,
    uri: Uri,
    Params(wanted): Params<Wanted>,
) -> Result<Response, ApiError> {
    let index = index(&wiring)?;
    let query = Query::read(&wanted)?;
    Ok(form::answer(query.format, index.list(uri.query().unwrap_or_default(), &query)))
}

/// One working public proxy: seven times in ten of the faster half.
#[utoipa::path(get, path = "/random", tag = "public proxies", params(Wanted),
    responses((status = 200, content((String = "text/plain"), (Shown = "application/json"), (String = "text/csv"))),
        (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn random(
    State(wiring): State<Wiring>,
    uri: Uri,
    Params(wanted): Params<Wanted>,
) -> Result<Response, ApiError> {
    let index = index(&wiring)?;
    let query = Query::read(&wanted)?;
    let mut rng = rand::rng();
    let (share, place) = (rng.random_range(0.0..1.0), rng.random_range(0.0..1.0));
    let drawn = index.one(uri.query().unwrap_or_default(), &query, |count| draw(count, share, place));
    let exit = drawn.ok_or_else(|| {
        let message = "no working public proxy is like that now; see /stats for how many there are";
        ApiError::new(StatusCode::NOT_FOUND, "no_proxy", message)
    })?;
    Ok(form::answer(query.format, form::write_one(query.format, exit, index.at())))
}

/// A place in a list of so many that is sorted by speed; `share` and `place` are between 0 and 1.
fn draw(count: usize, share: f64, place: f64) -> Option<usize> {
    let among = if share < FROM_FASTER { count.div_ceil(2) } else { count };
    (among > 0).then_some((place * among as f64) as usize)
}

/// One list of public proxies.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PublicList)]
pub(super) struct Named {
    name: String,
    /// What the last attempt came to, in one word.
    outcome: String,
    /// Proxies that its last good answer names.
    proxies: u32,
    /// Entries of it that could not be used.
    skipped: u32,
}

/// How many public proxies there are of which kind.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PublicStats)]
pub(super) struct Stats {
    #[serde(flatten)]
    counts: Counts,
    /// Public proxies are in use at all.
    enabled: bool,
    /// When the lists' data were made, or, where they do not say, read.
    last_meta_update: Option<Timestamp>,
    lists: Vec<Named>,
}

/// How many public proxies there are of which kind.
#[utoipa::path(get, path = "/stats", tag = "public proxies",
    responses((status = 200, body = Stats), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn stats(State(wiring): State<Wiring>) -> Json<Stats> {
    let counts = wiring.public_list.as_ref().map(|cache| cache.newest().counts()).unwrap_or_default();
    let mut lists = wiring.sources.statuses();
    lists.retain(|source| wiring.lists.contains(&source.name));
    let last_meta_update = lists.iter().filter_map(|list| list.published.or(list.good)).max().map(Timestamp);
    let named =
        |list: Source| Named { name: list.name, outcome: list.outcome, proxies: list.records, skipped: list.skipped };
    let lists = lists.into_iter().map(named).collect();
    Json(Stats { counts, enabled: wiring.public_list.is_some(), last_meta_update, lists })
}

/// True of an exit that lists show.
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
