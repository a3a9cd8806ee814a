//! `/sources`: where exits come from, and how that fares.

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
use crate::store::Source;

/// One source.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Source)]
pub(super) struct Shown {
    name: String,
    /// What the last attempt came to, in one word.
    outcome: String,
    /// The same in a sentence, where it did not go well.
    why: Option<String>,
    /// Exits that its last good answer describes.
    records: u32,
    /// Records of it that could not be used.
    skipped: u32,
    /// Failures in a row.
    failures: u32,
    /// When it was last asked.
    attempt: Option<Timestamp>,
    /// When it last answered well.
    good: Option<Timestamp>,
    /// When it will be asked next.
    next: Option<Timestamp>,
    /// When its data was made, by its own word.
    published: Option<Timestamp>,
}

/// Where exits come from.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Listed {
    sources: Vec<Shown>,
}

/// Where exits come from, and how that fares.
#[utoipa::path(get, path = "/sources", tag = "sources",
    responses((status = 200, body = Listed), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn list(State(wiring): State<Wiring>, headers: HeaderMap) -> Result<Response, ApiError> {
    tagged(&headers, &Listed { sources: wiring.sources.statuses().iter().map(shown).collect() })
}

/// Asks a source now rather than when it is due.
#[utoipa::path(post, path = "/sources/{name}/refresh", tag = "sources",
    params(("name" = String, Path, description = "Its name")),
    request_body = Option<Nothing>,
    responses((status = 202, body = Shown), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn refresh(
    State(wiring): State<Wiring>,
    Named(name): Named,
    _: Nothing,
) -> Result<Response, ApiError> {
    let Some(source) = wiring.sources.get(&name) else {
        let names: Vec<_> = wiring.sources.statuses().into_iter().map(|source| source.name).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let message = format!("no source of that name is in use; there are: {there}");
        return Err(ApiError::missing(message).with(json!({ "sources": names })));
    };
    source.refresh();
    let status = source.status().borrow().clone();
    Ok((StatusCode::ACCEPTED, Json(shown(&status))).into_response())
}

/// One source.
pub(super) fn shown(source: &Source) -> Shown {
    Shown {
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
