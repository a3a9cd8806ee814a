//! `/sources`: the sources of exits, and the result of the last download from each.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::Wiring;
use super::error::{ApiError, Problem};
use super::etag::tagged;
use super::extract::{Named, Nothing};
use super::timestamp::Timestamp;
use crate::gateway::meters::{BySource, Carried};
use crate::store::Source;

/// A source of exits.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Source)]
pub(super) struct SourceView {
    name: String,
    /// The outcome of the last attempt, in one word.
    outcome: String,
    /// The reason, if the last attempt failed.
    why: Option<String>,
    /// Exits in the last good answer.
    records: u32,
    /// Records of that answer that could not be used.
    skipped: u32,
    /// Failures in a row.
    failures: u32,
    /// The time of the last attempt.
    attempt: Option<Timestamp>,
    /// The time of the last good answer.
    good: Option<Timestamp>,
    /// The time of the next attempt.
    next: Option<Timestamp>,
    /// When the data was made, as the source says.
    published: Option<Timestamp>,
}

/// What the exits of a source have carried since the gateway started.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
#[schema(as = Carried)]
pub(super) struct CarriedShown {
    /// Requests that an exit of the source served.
    requests: u64,
    bytes_up: u64,
    bytes_down: u64,
}

impl CarriedShown {
    pub(super) fn of(carried: &Carried) -> Self {
        let (requests, [bytes_up, bytes_down]) = carried.read();
        Self { requests, bytes_up, bytes_down }
    }
}

/// The sources of exits.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Listed {
    sources: Vec<SourceView>,
    /// What the exits of each source have carried for all routes, by the name that usernames use: `tor`, `public`,
    /// `direct`, or that of an upstream source.
    carried: BTreeMap<&'static str, CarriedShown>,
}

/// Lists the sources of exits, with their last results.
#[utoipa::path(get, path = "/sources", tag = "sources",
    responses((status = 200, body = Listed), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn list(State(wiring): State<Wiring>, headers: HeaderMap) -> Result<Response, ApiError> {
    let carried = BySource::of_all_routes().list();
    let carried = carried.iter().map(|(source, carried)| (source.as_str(), CarriedShown::of(carried))).collect();
    tagged(&headers, &Listed { sources: wiring.sources.statuses().iter().map(shown).collect(), carried })
}

/// Reads a source now instead of at its next time.
#[utoipa::path(post, path = "/sources/{name}/refresh", tag = "sources",
    params(("name" = String, Path, description = "The name of the source")),
    request_body = Option<Nothing>,
    responses((status = 202, body = SourceView), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn refresh(
    State(wiring): State<Wiring>,
    Named(name): Named,
    _: Nothing,
) -> Result<Response, ApiError> {
    let Some(source) = wiring.sources.get(&name) else {
        let names: Vec<_> = wiring.sources.statuses().into_iter().map(|source| source.name).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let message = format!("no source has this name; the sources are: {there}");
        return Err(ApiError::missing(message).with(json!({ "sources": names })));
    };
    source.refresh();
    let status = source.status().borrow().clone();
    Ok((StatusCode::ACCEPTED, Json(shown(&status))).into_response())
}

pub(super) fn shown(source: &Source) -> SourceView {
    SourceView {
        name: source.name.clone(),
        outcome: source.outcome.clone(),
        why: Some(source.why.clone()).filter(|why| !why.is_empty()),
        records: source.records,
        skipped: source.skipped,
        failures: source.failures,
        attempt: source.attempt.map(Timestamp),
        good: source.good.map(Timestamp),
        next: source.next.map(Timestamp),
        published: source.published.map(Timestamp),
    }
}
