//! What a request carries, read so that a refusal has the one shape of all errors and names what is wrong.

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

/// The longest body that is read. Arbitrary: a hundred times the longest sensible one.
const BODY: usize = 64 * 1024;

/// How long it may take. Arbitrary, as for the head: a body that never comes would hold a place for an hour.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// Entries of a list that did not say how many, and the most that may be asked for. Arbitrary: a page for people, and
/// about a megabyte.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1000;

/// The query; unknown words in it are refused by the type that reads it.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let read = Query::try_from_uri(&parts.uri);
        read.map(|Query(asked)| Self(asked)).map_err(|why| wrong_query(clause(&why.body_text())))
    }
}

/// The one piece of the path that varies, percent-decoded.
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read = Path::<String>::from_request_parts(parts, state).await;
        read.map(|Path(name)| Self(name)).map_err(|_| ApiError::bad("bad_path", "the path is no percent-encoded UTF-8"))
    }
}

/// A body that is a JSON object; no body at all is an empty one.
pub(super) struct Body(pub(super) Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let body = http_body_util::Limited::new(request.into_body(), BODY);
        let read = tokio::time::timeout(BODY_DEADLINE, http_body_util::BodyExt::collect(body)).await;
        let late = |_| {
            let message = format!("the body did not come within {} seconds", BODY_DEADLINE.as_secs());
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_late", message)
        };
        let too_long = || {
            let message = format!("the body is longer than {BODY} bytes, or broke off");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_long", message)
        };
        let bytes: Bytes = read.map_err(late)?.map_err(|_| too_long())?.to_bytes();
        if bytes.is_empty() {
            return Ok(Self(Map::new()));
        }
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(ApiError::bad("bad_body", "the body must be a JSON object: { … }")),
            Err(why) => Err(ApiError::bad("bad_body", format!("the body is no JSON: {why}"))),
        }
    }
}

/// A request that says all in its URL: its body is empty, or `{}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

impl<S: Send + Sync> FromRequest<S> for Nothing {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let Body(fields) = Body::from_request(request, state).await?;
        let Some(field) = fields.keys().next() else { return Ok(Self {}) };
        let message = format!("`{field}` is not known here: the body is empty, or {{}}");
        let refusal = ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_field", message);
        Err(refusal.with(json!({ "field": field })))
    }
}

/// The same, with the field that the sentence begins with or names.
fn wrong_query(why: &str) -> ApiError {
    let named = why.strip_prefix("missing field `").and_then(|rest| rest.split_once('`'));
    let begun = why.split_once(": ").filter(|(field, _)| field.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
    let refusal = bad_query(why);
    match named.or(begun) {
        Some((field, _)) => refusal.with(json!({ "field": field })),
        None => refusal,
    }
}

/// A query that says something wrong.
pub(super) fn bad_query(why: impl Into<String>) -> ApiError {
    ApiError::bad("bad_query", why)
}

/// How many entries a list shows.
pub(super) fn limit(asked: Option<usize>) -> Result<usize, ApiError> {
    match asked {
        None => Ok(LIMIT),
        Some(limit @ 1..=LIMIT_MAX) => Ok(limit),
        Some(_) => {
            Err(bad_query(format!("`limit` is a number from 1 to {LIMIT_MAX}")).with(json!({ "field": "limit" })))
        }
    }
}

/// The part of a rejection that says what is wrong.
fn clause(text: &str) -> &str {
    text.strip_prefix("Failed to deserialize query string: ").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Words {
        limit: Option<usize>,
    }

    async fn query(uri: &str) -> Result<Option<usize>, String> {
        let (mut parts, ()) = http::Request::get(uri).body(()).unwrap().into_parts();
        let read = Params::<Words>::from_request_parts(&mut parts, &()).await;
        read.map(|Params(words)| words.limit).map_err(|error| error.message().to_owned())
    }

    #[tokio::test]
    async fn a_query_is_read_or_its_fault_is_named() {
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
