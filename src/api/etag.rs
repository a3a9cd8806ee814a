//! Entity tags. If a caller has the present answer already, it gets the status 304 (not modified) instead of the
//! answer.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::error::ApiError;

/// Returns the answer with its entity tag, or 304 if the header `If-None-Match` of the request contains this tag.
pub(super) fn tagged(headers: &HeaderMap, answer: &impl Serialize) -> Result<Response, ApiError> {
    let body = serde_json::to_vec(answer).map_err(|_| ApiError::internal("an answer could not be serialized"))?;
    let digest = Sha256::digest(&body);
    let tag: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{tag}\"");
    let value = HeaderValue::from_str(&tag).map_err(|_| ApiError::internal("a tag could not be written"))?;
    if headers.get_all(header::IF_NONE_MATCH).iter().any(|given| names(given, &tag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, value)]).into_response());
    }
    let kind = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, kind), (header::ETAG, value)], body).into_response())
}

/// Returns true if the value of `If-None-Match` contains this tag, weak or strong.
fn names(given: &HeaderValue, tag: &str) -> bool {
    let given = given.to_str().unwrap_or_default();
    given.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_with_the_tag_gets_304() {
        let ask = |if_none: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(tags) = if_none {
                headers.insert(header::IF_NONE_MATCH, tags.parse().unwrap());
            }
            let response = tagged(&headers, &[1, 2]).unwrap();
            (response.status().as_u16(), response.headers()[header::ETAG].to_str().unwrap().to_owned())
        };
        let (status, tag) = ask(None);
        assert_eq!(status, 200);
        for (tags, status) in
            [(tag.clone(), 304), (format!("\"x\", W/{tag}"), 304), ("*".to_owned(), 304), ("\"x\"".to_owned(), 200)]
        {
            assert_eq!(ask(Some(&tags)), (status, tag.clone()), "{tags}");
        }
    }
}
