//! What the API does while the gateway drains, that is between the stop signal and the end of the last connection. The
//! API still answers questions, because health and metrics matter most then. It refuses changes.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};

use super::error::ApiError;
use crate::lifecycle::Tasks;

/// Refuses requests that change something once the gateway has stopped taking new work. A connection may still be cut.
pub(super) async fn refuse_changes(State(tasks): State<Tasks>, request: Request, next: Next) -> Response {
    if tasks.is_stopping() && changes(request.method(), request.uri().path()) {
        let message = "the gateway is shutting down: it answers questions and takes no changes";
        return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "draining", message).into_response();
    }
    next.run(request).await
}

fn changes(method: &Method, path: &str) -> bool {
    let cuts = *method == Method::DELETE && path.starts_with("/connections/");
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) && !cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_cuts_are_no_changes() {
        for (method, path, want) in [
            (Method::GET, "/proxies", false),
            (Method::HEAD, "/ready", false),
            (Method::DELETE, "/connections/7", false),
            (Method::DELETE, "/proxies/shop", true),
            (Method::POST, "/proxies", true),
            (Method::PATCH, "/proxies/shop", true),
        ] {
            assert_eq!(changes(&method, path), want, "{method} {path}");
        }
    }
}
