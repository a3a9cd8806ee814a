//! Is it alive, is it ready, what does it count; and the reload, which is how an operator changes it.

use std::collections::BTreeMap;

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

/// Whether traffic can leave, and by which source.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Readiness {
    /// One source or more has a usable exit.
    pub ready: bool,
    /// Each enabled source.
    #[schema(value_type = BTreeMap<String, SourceReadiness>)]
    pub sources: BTreeMap<&'static str, SourceReadiness>,
}

/// One source's part of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SourceReadiness {
    /// It has a tested exit that may be used now.
    pub ready: bool,
    /// Exits usable now.
    pub usable: usize,
    /// Why not, or what is still under way.
    pub reason: String,
}

/// A process that answers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Alive {
    #[schema(example = "alive")]
    status: &'static str,
    version: &'static str,
}

/// The process answers.
#[utoipa::path(get, path = "/health", tag = "gateway", security(()),
    responses((status = 200, body = Alive), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn health() -> Json<Alive> {
    Json(Alive { status: "alive", version: env!("CARGO_PKG_VERSION") })
}

/// Whether traffic can leave: 200 when a tested exit of any enabled source is usable now, 503 with each source's reason until then.
#[utoipa::path(get, path = "/ready", tag = "gateway", security(()),
    responses((status = 200, body = Readiness), (status = 503, body = Readiness, description = "Not yet"),
        (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn ready(State(wiring): State<Wiring>) -> Response {
    let readiness = (wiring.readiness)();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

/// Everything that is counted, in Prometheus' text format.
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
    wiring.reload.send(answer).await.map_err(|_| ApiError::internal("nobody takes reloads any more"))?;
    let outcome = outcome.await.map_err(|_| ApiError::internal("the reload was dropped"))?;
    match outcome {
        ReloadAnswer::Applied { .. } => Ok(Json(outcome).into_response()),
        ReloadAnswer::Refused { faults } => {
            let message = "the configuration has faults; nothing was changed";
            let details = json!({ "faults": faults });
            Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_config", message).with(details))
        }
    }
}
