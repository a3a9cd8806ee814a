//! Every URL of the API, on one page.

use axum::Router;
use axum::routing::{get, post};
use http::StatusCode;

use super::error::ApiError;
use super::{Wiring, checks, engines, events, exits, explain, health, proxies, sources};
use crate::lifecycle::Tasks;

/// All of them. `extra` is what other rooms serve on the same port (the console).
pub(super) fn router(wiring: Wiring, tasks: Tasks, extra: Router) -> Router {
    Router::new()
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/reload", post(health::reload))
        .route("/exits", get(exits::list))
        .route("/exits/{id}", get(exits::one))
        .route("/exits/{id}/check", post(exits::check))
        .route("/exits/{id}/checks", get(checks::checks))
        .route("/countries", get(exits::countries))
        .route("/engines", get(engines::list))
        .route("/sources", get(sources::list))
        .route("/sources/{name}/refresh", post(sources::refresh))
        .route("/explain", get(explain::explain))
        .route("/proxies", get(proxies::list).post(proxies::create))
        .route("/proxies/{route}", get(proxies::one).delete(proxies::delete))
        .route("/proxies/{route}/exits", get(proxies::exits))
        .with_state(wiring.clone())
        .merge(Router::new().route("/events", get(events::events)).with_state((wiring, tasks)))
        .merge(extra)
        .fallback(nowhere)
        .method_not_allowed_fallback(wrong_method)
}

async fn nowhere() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "no_such_url", "there is nothing at this URL")
}

async fn wrong_method() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "this URL does not take that method")
}
