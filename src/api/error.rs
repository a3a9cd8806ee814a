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
