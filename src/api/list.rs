//! `/list`, `/random` and `/stats`: working public proxies, for programs that want no more than a line of text.
//!
//! They are answered from an [`Edition`], the working ones in the order of their speed as of a moment ago, made once a
//! second at most by a worker on the runtime of the data path. So a request reads one pointer, whatever the judge is
//! doing meanwhile, and a list that many ask for alike is written once an edition.
//!
//! Proxies that want a login are not shown: a list with passwords in it is not for everybody who may read lists. They
//! serve routes all the same.
//!
//! Next: `list/edition.rs` (what is shown), `list/query.rs` (what may be asked), `list/form.rs` (how it is written).

mod edition;
mod form;
mod query;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, Uri};
use rand::RngExt;
use serde_json::{Value, json};

pub use edition::Shelf;
pub(super) use edition::watch;

use self::edition::Edition;
use self::query::{Query, Wanted};
use super::Wiring;
use super::ask::Asked;
use super::error::ApiError;
use super::when::When;
use crate::exit::Exit;

/// The share of `/random` that is drawn from the faster half alone: quick on the whole, and no proxy is left out.
const FROM_FASTER: f64 = 0.7;

fn edition(wiring: &Wiring) -> Result<Arc<Edition>, ApiError> {
    wiring.shelf.as_ref().map(Shelf::newest).ok_or_else(|| {
        let message = "public proxies are switched off; set `sources.proxifly.enabled` or a `sources.list`";
        ApiError::new(StatusCode::CONFLICT, "no_public", message)
    })
}

/// `GET /list`: working proxies, the fastest first.
pub(super) async fn list(
    State(wiring): State<Wiring>,
    uri: Uri,
    Asked(wanted): Asked<Wanted>,
) -> Result<Response, ApiError> {
    let edition = edition(&wiring)?;
    let query = Query::read(&wanted)?;
    let body = edition.written(uri.query().unwrap_or_default(), || {
        let shown = edition.exits().iter().filter(|exit| query.wants(exit, edition.at()));
        form::write(query.format, shown.take(query.limit), edition.at())
    });
    Ok(form::answer(query.format, body))
}

/// `GET /random`: one working proxy.
pub(super) async fn random(State(wiring): State<Wiring>, Asked(wanted): Asked<Wanted>) -> Result<Response, ApiError> {
    let edition = edition(&wiring)?;
    let query = Query::read(&wanted)?;
    let mut rng = rand::rng();
    let (share, place) = (rng.random_range(0.0..1.0), rng.random_range(0.0..1.0));
    let drawn = if query.is_open() {
        draw(edition.exits(), share, place)
    } else {
        let fit: Vec<_> = edition.exits().iter().filter(|exit| query.wants(exit, edition.at())).collect();
        draw(&fit, share, place).copied()
    };
    let exit = drawn.ok_or_else(|| {
        let message = "no working public proxy is like that now; see /stats for how many there are";
        ApiError::new(StatusCode::NOT_FOUND, "no_proxy", message)
    })?;
    Ok(form::answer(query.format, form::write_one(query.format, exit, edition.at())))
}

/// One of a list that is sorted by speed; `share` and `place` are between 0 and 1.
fn draw<T>(sorted: &[T], share: f64, place: f64) -> Option<&T> {
    let half = sorted.len().div_ceil(2);
    let among = if share < FROM_FASTER { &sorted[..half] } else { sorted };
    among.get((place * among.len() as f64) as usize)
}

/// `GET /stats`: how many there are of which kind.
pub(super) async fn stats(State(wiring): State<Wiring>) -> Response {
    let counts = wiring.shelf.as_ref().map(|shelf| shelf.newest().counts()).unwrap_or_default();
    let lists: Vec<_> =
        wiring.sources.statuses().into_iter().filter(|source| wiring.lists.contains(&source.name)).collect();
    let updated = lists.iter().filter_map(|list| list.published.or(list.good)).max();
    let named: Vec<Value> = lists
        .iter()
        .map(|list| json!({ "name": list.name, "outcome": list.outcome, "proxies": list.records, "skipped": list.skipped }))
        .collect();
    let mut answer = json!(counts);
    answer["enabled"] = wiring.shelf.is_some().into();
    answer["last_meta_update"] = json!(updated.map(When));
    answer["lists"] = named.into();
    Json(answer).into_response()
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
        let sorted: Vec<usize> = (0..10).collect();
        let mut counts = [0; 10];
        for share in (0..100).map(|n| f64::from(n) / 100.0) {
            for place in (0..100).map(|n| f64::from(n) / 100.0) {
                counts[*draw(&sorted, share, place).unwrap()] += 1;
            }
        }
        assert_eq!(counts[..5], [1700; 5], "a fifth of 70 %, and a tenth of 30 %");
        assert_eq!(counts[5..], [300; 5]);
        assert_eq!(draw(&[7], 0.0, 0.999), Some(&7));
        assert_eq!(draw::<u8>(&[], 0.0, 0.0), None);
    }
}
