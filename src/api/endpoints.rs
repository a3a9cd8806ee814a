//! Every URL of the API, on one page.

use axum::Router;
use axum::routing::{get, post};
use http::StatusCode;

use super::error::ApiError;
use super::{Wiring, health};

/// All of them. `extra` is what other rooms serve on the same port (the console).
pub(super) fn router(wiring: Wiring, extra: Router) -> Router {
    Router::new()
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/reload", post(health::reload))
        .with_state(wiring)
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
