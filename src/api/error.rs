//! Errors as callers of the API see them. All have the same form, with a code for programs and a sentence that says
//! what to do.
//!
//! `code` is for programs, and its meaning never changes. `message` is for people and may change. For an internal
//! failure the answer contains no detail. The detail is logged once.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::request_id;

/// An answer that refuses a request.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Value,
    retry_after: Option<u16>,
}

/// The body of every refusal.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    error: ProblemBody,
}

/// Why a request was refused.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProblemBody)]
struct ProblemBody {
    /// For programs; a code never changes its meaning.
    #[schema(example = "bad_field")]
    code: &'static str,
    /// For people: what is wrong, and what to do.
    message: String,
    /// For programs: `field` names the wrong field, `funnel` counts the exits that are left after each condition.
    #[schema(value_type = Object)]
    details: Value,
    /// The id of the request, as in the answer's `X-Request-Id` and in the log.
    #[schema(required = false, value_type = String, example = "r-3f9a-000001b2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: json!({}), retry_after: None }
    }

    /// Creates the error 400: the request is wrong.
    pub fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// Creates the error 404: nothing has that name.
    pub fn missing(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// Creates the error 429: too many requests at the same time. `retry_after` is in seconds.
    pub fn too_much(code: &'static str, message: impl Into<String>, retry_after: u16) -> Self {
        let retry_after = Some(retry_after);
        Self { retry_after, ..Self::new(StatusCode::TOO_MANY_REQUESTS, code, message) }
    }

    /// Creates the error 500: something in this process failed. `what` is logged and not sent to the caller.
    pub fn internal(what: &'static str) -> Self {
        tracing::error!(what, "the API could not answer");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "exitgate failed to answer; its log says why")
    }

    /// Adds `details` to the error.
    pub fn with(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    #[cfg(test)]
    pub fn code(&self) -> &'static str {
        self.code
    }

    #[cfg(test)]
    pub fn details(&self) -> &Value {
        &self.details
    }

    #[cfg(test)]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, code, message, details, retry_after } = self;
        let error = ProblemBody { code, message, details, request_id: request_id::current() };
        let mut response = (status, Json(Problem { error })).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            let realm = HeaderValue::from_static("Bearer realm=\"exitgate\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
        }
        response
    }
}
