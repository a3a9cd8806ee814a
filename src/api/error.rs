//! Errors as clients of the API see them: one envelope, a stable code, a sentence that says what to do.
//!
//! `code` is for programs and never changes its meaning; `message` is for people and may. A fault of ours carries no
//! internal text: that goes to the log, once.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

/// One refusal of the API.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Value,
    retry_after: Option<u16>,
}

/// What every refusal looks like.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    error: ProblemBody,
}

/// What a refusal says.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProblemBody)]
struct ProblemBody {
    /// For programs; never changes its meaning.
    #[schema(example = "bad_field")]
    code: &'static str,
    /// For people: what is wrong, and what to do.
    message: String,
    /// For programs too: `field` names the one that is wrong, `funnel` the counts that explain a want of exits.
    #[schema(value_type = Object)]
    details: Value,
}

impl ApiError {
    /// A refusal without details.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: json!({}), retry_after: None }
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

    /// There is too much of this already: 429, and when to come back.
    pub fn too_much(code: &'static str, message: impl Into<String>, retry_after: u16) -> Self {
        let retry_after = Some(retry_after);
        Self { retry_after, ..Self::new(StatusCode::TOO_MANY_REQUESTS, code, message) }
    }

    /// The stable word for it.
    #[cfg(test)]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What programs read beside it.
    #[cfg(test)]
    pub fn details(&self) -> &Value {
        &self.details
    }

    /// The sentence.
    #[cfg(test)]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Something of ours broke; the log says what.
    pub fn internal(what: &'static str) -> Self {
        tracing::error!(what, "the API could not answer");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "exitgate failed to answer; its log says why")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, code, message, details, retry_after } = self;
        let mut response = (status, Json(Problem { error: ProblemBody { code, message, details } })).into_response();
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
