//! `/sources`: where exits come from, and how that fares.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::Wiring;
use super::ask::Named;
use super::error::ApiError;
use super::when::When;
use crate::store::Source;

/// `GET /sources`.
pub(super) async fn list(State(wiring): State<Wiring>) -> Response {
    let list: Vec<_> = wiring.sources.statuses().iter().map(shown).collect();
    Json(json!({ "sources": list })).into_response()
}

/// `POST /sources/{name}/refresh`: asks it now rather than when it is due.
pub(super) async fn refresh(State(wiring): State<Wiring>, Named(name): Named) -> Result<Response, ApiError> {
    let Some(source) = wiring.sources.get(&name) else {
        let names: Vec<_> = wiring.sources.statuses().into_iter().map(|source| source.name).collect();
        let message = format!("no source of that name is in use; there are: {}", names.join(", "));
        return Err(ApiError::missing(message).with(json!({ "sources": names })));
    };
    source.refresh();
    let status = source.status().borrow().clone();
    Ok((StatusCode::ACCEPTED, Json(shown(&status))).into_response())
}

/// One source.
pub(super) fn shown(source: &Source) -> Value {
    json!({
        "name": source.name,
        "outcome": source.outcome,
        "why": (!source.why.is_empty()).then_some(&source.why),
        "records": source.records,
        "skipped": source.skipped,
        "failures": source.failures,
        "attempt": source.attempt.map(When),
        "good": source.good.map(When),
        "next": source.next.map(When),
        "published": source.published.map(When),
    })
}
