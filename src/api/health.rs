//! Is it alive, is it ready, what does it count; and the reload, which is how an operator changes it.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Serialize;
use serde_json::json;
use tokio::sync::oneshot;

use super::error::ApiError;
use super::{ReloadAnswer, Wiring};

/// Whether traffic can leave, and by which source.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Readiness {
    /// One source or more has a usable exit.
    pub ready: bool,
    /// Each enabled source.
    pub sources: BTreeMap<&'static str, SourceReadiness>,
}

/// One source's part of it.
#[derive(Clone, Debug, Serialize)]
pub struct SourceReadiness {
    /// It has a tested exit that may be used now.
    pub ready: bool,
    /// Exits usable now.
    pub usable: usize,
    /// Why not, or what is still under way.
    pub reason: String,
}

/// `GET /health`: the process answers.
pub(super) async fn health() -> Response {
    Json(json!({ "status": "alive", "version": env!("CARGO_PKG_VERSION") })).into_response()
}

/// `GET /ready`: 200 when a tested exit of any enabled source is usable now, 503 with each source's reason until then.
pub(super) async fn ready(State(wiring): State<Wiring>) -> Response {
    let readiness = (wiring.readiness)();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

/// `GET /metrics`: Prometheus' text format.
pub(super) async fn metrics(State(wiring): State<Wiring>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (wiring.metrics)()).into_response()
}

/// `POST /reload`: reads the configuration again, all or nothing.
pub(super) async fn reload(State(wiring): State<Wiring>) -> Result<Response, ApiError> {
    let (answer, outcome) = oneshot::channel();
    wiring.reload.send(answer).await.map_err(|_| ApiError::ours("nobody takes reloads any more"))?;
    let outcome = outcome.await.map_err(|_| ApiError::ours("the reload was dropped"))?;
    match outcome {
        ReloadAnswer::Applied { .. } => Ok(Json(outcome).into_response()),
        ReloadAnswer::Refused { faults } => {
            let message = "the configuration has faults; nothing was changed";
            let details = json!({ "faults": faults });
            Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_config", message).with(details))
        }
    }
}
