//! Errors as clients of the API see them: one envelope, a stable code, a sentence that says what to do.
//!
//! `code` is for programs and never changes its meaning; `message` is for people and may. A fault of ours carries no
//! internal text: that goes to the log, once.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

/// One refusal of the API.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Value,
}

impl ApiError {
    /// A refusal without details.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: json!({}) }
    }

    /// A request that says something wrong: 400.
    pub fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// There is nothing of that name: 404.
    pub fn missing(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The same with machine-readable details.
    pub fn with(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    /// The stable word for it.
    #[cfg(test)]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The sentence.
    #[cfg(test)]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Something of ours broke; the log says what.
    pub fn ours(what: &'static str) -> Self {
        tracing::error!(what, "the API could not answer");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "exitgate failed to answer; its log says why")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({ "error": { "code": self.code, "message": self.message, "details": self.details } });
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let realm = HeaderValue::from_static("Bearer realm=\"exitgate\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
        }
        response
    }
}
