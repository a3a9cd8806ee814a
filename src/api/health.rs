//! The endpoints for operators and monitoring: `/health`, `/ready`, `/metrics` and `/reload`.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Serialize;
use serde_json::json;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::error::{ApiError, Problem};
use super::extract::Nothing;
use super::{ReloadAnswer, Wiring};

/// Whether traffic can leave, and through which sources.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Readiness {
    /// True if at least one source has a usable exit, and the gateway is not shutting down.
    pub ready: bool,
    /// True if the gateway is shutting down: open connections may finish, and new ones are not wanted.
    pub draining: bool,
    /// The enabled sources by name.
    #[schema(value_type = BTreeMap<String, SourceReadiness>)]
    pub sources: BTreeMap<&'static str, SourceReadiness>,
}

impl Readiness {
    /// Returns the readiness of a gateway that drains, if `draining` is true.
    fn unless(self, draining: bool) -> Self {
        Self { ready: self.ready && !draining, draining, ..self }
    }
}

/// Whether a source is ready.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SourceReadiness {
    /// True if the source has a tested exit that is usable now.
    pub ready: bool,
    /// The number of exits usable now.
    pub usable: usize,
    /// Why the source is not ready, or the counts.
    pub reason: String,
}

/// The process answers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Alive {
    #[schema(example = "alive")]
    status: &'static str,
    version: &'static str,
}

/// Answers as long as the process runs.
#[utoipa::path(get, path = "/health", tag = "gateway", security(()),
    responses((status = 200, body = Alive), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn health() -> Json<Alive> {
    Json(Alive { status: "alive", version: env!("CARGO_PKG_VERSION") })
}

/// Whether traffic can leave: 200 when a tested exit of any enabled source is usable now, 503 with each source's reason
/// until then, and while the gateway is shutting down.
#[utoipa::path(get, path = "/ready", tag = "gateway", security(()),
    responses((status = 200, body = Readiness), (status = 503, body = Readiness, description = "Not yet"),
        (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn ready(State(wiring): State<Wiring>) -> Response {
    let readiness = (wiring.readiness)().unless(wiring.draining.load(Ordering::Relaxed));
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

/// All metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "gateway",
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn metrics(State(wiring): State<Wiring>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (wiring.metrics)()).into_response()
}

/// Reads the configuration again, all or nothing.
#[utoipa::path(post, path = "/reload", tag = "gateway", request_body = Option<Nothing>,
    responses((status = 200, body = ReloadAnswer), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn reload(State(wiring): State<Wiring>, _: Nothing) -> Result<Response, ApiError> {
    let (answer, outcome) = oneshot::channel();
    wiring.reload.send(answer).await.map_err(|_| ApiError::internal("the reload channel is closed"))?;
    let outcome = outcome.await.map_err(|_| ApiError::internal("the reload ended without an answer"))?;
    match outcome {
        ReloadAnswer::Applied { .. } => Ok(Json(outcome).into_response()),
        ReloadAnswer::Refused { faults } => {
            let message = "the configuration has faults; nothing was changed";
            let details = json!({ "faults": faults });
            Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_config", message).with(details))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_drains_is_not_ready() {
        for (ready, draining, want) in [(true, false, true), (true, true, false), (false, false, false)] {
            let shown = Readiness { ready, ..Readiness::default() }.unless(draining);
            assert_eq!((shown.ready, shown.draining), (want, draining));
        }
    }
}
