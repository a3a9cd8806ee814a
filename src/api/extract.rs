//! Reads the path, the query and the body of a request. Errors have the form of all API errors and name the wrong
//! field.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::StatusCode;
use http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::error::ApiError;

/// The longest request body that is read, in bytes. A route with the largest number of rules, 10,000, has about 600 KB.
const BODY: usize = 1024 * 1024;

/// The time limit for receiving the body of a request. The limit for the head is the same. Not tuned.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// The number of entries in a list if the query has no `limit`. Not tuned.
const LIMIT: usize = 100;

/// The largest `limit` that a query may have. An answer of that length has about a megabyte. Not tuned.
const LIMIT_MAX: usize = 1000;

/// The query of a URL as a `T`. The type `T` should refuse unknown fields.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let read = Query::try_from_uri(&parts.uri);
        read.map(|Query(asked)| Self(asked)).map_err(|why| wrong_query(clause(&why.body_text())))
    }
}

/// The variable part of the URL's path, percent-decoded.
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read = Path::<String>::from_request_parts(parts, state).await;
        read.map(|Path(name)| Self(name))
            .map_err(|_| ApiError::bad("bad_path", "the path is not percent-encoded UTF-8"))
    }
}

/// A request body that is a JSON object. An empty body counts as an empty object.
pub(super) struct Body(pub(super) Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let body = http_body_util::Limited::new(request.into_body(), BODY);
        let read = tokio::time::timeout(BODY_DEADLINE, http_body_util::BodyExt::collect(body)).await;
        let late = |_| {
            let message = format!("the body did not arrive within {} seconds", BODY_DEADLINE.as_secs());
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_late", message)
        };
        let too_long = || {
            let message = format!("the body is longer than {BODY} bytes, or incomplete");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_long", message)
        };
        let bytes: Bytes = read.map_err(late)?.map_err(|_| too_long())?.to_bytes();
        if bytes.is_empty() {
            return Ok(Self(Map::new()));
        }
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(ApiError::bad("bad_body", "the body must be a JSON object: { … }")),
            Err(why) => Err(ApiError::bad("bad_body", format!("the body is not JSON: {why}"))),
        }
    }
}

/// The body of a request whose URL says everything: empty, or `{}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

impl<S: Send + Sync> FromRequest<S> for Nothing {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let Body(fields) = Body::from_request(request, state).await?;
        let Some(field) = fields.keys().next() else { return Ok(Self {}) };
        let message = format!("`{field}` is not known here: leave the body empty, or send {{}}");
        let refusal = ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_field", message);
        Err(refusal.with(json!({ "field": field })))
    }
}

/// Creates the error for a wrong query. If the text names a field, the error names it too.
fn wrong_query(why: &str) -> ApiError {
    let named = why.strip_prefix("missing field `").and_then(|rest| rest.split_once('`'));
    let begun = why.split_once(": ").filter(|(field, _)| field.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
    let refusal = bad_query(why);
    match named.or(begun) {
        Some((field, _)) => refusal.with(json!({ "field": field })),
        None => refusal,
    }
}

/// Creates the error for a wrong query. `why` is the message for the caller.
pub(super) fn bad_query(why: impl Into<String>) -> ApiError {
    ApiError::bad("bad_query", why)
}

/// Validates the `limit` of a list. If the query has no `limit`, returns the default.
pub(super) fn limit(asked: Option<usize>) -> Result<usize, ApiError> {
    match asked {
        None => Ok(LIMIT),
        Some(limit @ 1..=LIMIT_MAX) => Ok(limit),
        Some(_) => {
            Err(bad_query(format!("`limit` is a number from 1 to {LIMIT_MAX}")).with(json!({ "field": "limit" })))
        }
    }
}

/// Returns the text of axum's rejection without its fixed beginning.
fn clause(text: &str) -> &str {
    text.strip_prefix("Failed to deserialize query string: ").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct LimitQuery {
        limit: Option<usize>,
    }

    async fn query(uri: &str) -> Result<Option<usize>, String> {
        let (mut parts, ()) = http::Request::get(uri).body(()).unwrap().into_parts();
        let read = Params::<LimitQuery>::from_request_parts(&mut parts, &()).await;
        read.map(|Params(query)| query.limit).map_err(|error| error.message().to_owned())
    }

    #[tokio::test]
    async fn a_query_is_read_or_the_error_names_the_field() {
        assert_eq!(query("/x").await, Ok(None));
        assert_eq!(query("/x?limit=5").await, Ok(Some(5)));
        for (uri, hint) in [("/x?limit=a", "limit"), ("/x?limt=5", "limt"), ("/x?limit=-1", "limit")] {
            let message = query(uri).await.unwrap_err();
            assert!(message.contains(hint), "{uri}: {message}");
        }
        for (why, field) in
            [("missing field `username`", "username"), ("limit: invalid digit", "limit"), ("no such: thing", "")]
        {
            assert_eq!(wrong_query(why).details()["field"].as_str().unwrap_or_default(), field, "{why}");
        }
        assert!(limit(Some(0)).is_err() && limit(Some(1001)).is_err());
        assert_eq!((limit(None).unwrap(), limit(Some(1000)).unwrap()), (100, 1000));
    }

    #[tokio::test]
    async fn a_body_is_an_object_of_bounded_length() {
        let read = async |body: String| {
            let request = Request::post("/x").body(axum::body::Body::from(body)).unwrap();
            Body::from_request(request, &()).await.map(|Body(fields)| fields.len()).map_err(|error| error.code())
        };
        assert_eq!(read(String::new()).await, Ok(0));
        assert_eq!(read("{\"a\": 1}".to_owned()).await, Ok(1));
        for (body, code) in
            [("[]".to_owned(), "bad_body"), ("{".to_owned(), "bad_body"), (" ".repeat(BODY + 1), "body_too_long")]
        {
            assert_eq!(read(body).await, Err(code));
        }
    }
}
