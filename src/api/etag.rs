//! Entity tags. If a caller has the present answer already, it gets the status 304 (not modified) instead of the
//! answer. A request that changes something may name the version that it was made for (`If-Match`), so it does not undo
//! the change of somebody else.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::error::ApiError;

/// Stands between the version and the digest in an entity tag. Neither of the two contains it.
const SEPARATOR: char = '.';

/// Returns the answer with its entity tag, or 304 if the header `If-None-Match` of the request contains this tag.
pub(super) fn tagged(headers: &HeaderMap, answer: &impl Serialize) -> Result<Response, ApiError> {
    with_tag(headers, answer, |digest| format!("\"{digest}\""))
}

/// Returns the answer with the entity tag that `tag` makes from the digest of the answer, or 304.
fn with_tag(
    headers: &HeaderMap,
    answer: &impl Serialize,
    tag: impl FnOnce(&str) -> String,
) -> Result<Response, ApiError> {
    let body = serde_json::to_vec(answer).map_err(|_| ApiError::internal("an answer could not be serialized"))?;
    let digest = Sha256::digest(&body);
    let digest: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    let tag = tag(&digest);
    let value = HeaderValue::from_str(&tag).map_err(|_| ApiError::internal("a tag could not be written"))?;
    if headers.get_all(header::IF_NONE_MATCH).iter().any(|given| names(given, &tag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, value)]).into_response());
    }
    let kind = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, kind), (header::ETAG, value)], body).into_response())
}

/// Returns the answer with an entity tag that also contains `version`: the part of the answer that only requests of
/// operators change. `If-Match` compares this part alone, because counters in the answer change all the time.
pub(super) fn versioned(headers: &HeaderMap, version: &str, answer: &impl Serialize) -> Result<Response, ApiError> {
    with_tag(headers, answer, |digest| format!("\"{version}{SEPARATOR}{digest}\""))
}

/// Returns the versions in the header `If-Match`. `None` means that every version fits: there is no such header, or it
/// contains `*`. A weak tag fits no version, as RFC 9110 requires.
pub(super) fn wanted_versions(headers: &HeaderMap) -> Option<Vec<String>> {
    let mut given = headers.get_all(header::IF_MATCH).iter().peekable();
    given.peek()?;
    let tags = given.flat_map(|line| line.to_str().unwrap_or_default().split(',')).map(str::trim);
    let mut versions = Vec::new();
    for tag in tags {
        if tag == "*" {
            return None;
        }
        let text = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
        versions.extend(text.map(|text| text.split(SEPARATOR).next().unwrap_or_default().to_owned()));
    }
    Some(versions)
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

    #[test]
    fn the_version_of_a_tag_is_what_if_match_names() {
        let headers =
            |lines: &[&str]| lines.iter().map(|line| (header::IF_MATCH, line.parse().unwrap())).collect::<HeaderMap>();
        let response = versioned(&HeaderMap::new(), "v1", &[1]).unwrap();
        let tag = response.headers()[header::ETAG].to_str().unwrap().to_owned();
        assert!(tag.starts_with("\"v1.") && tag.len() == 29, "{tag}");
        let other = versioned(&HeaderMap::new(), "v1", &[2]).unwrap();
        assert_ne!(other.headers()[header::ETAG].to_str().unwrap(), tag, "a counter changed");
        let cached = HeaderMap::from_iter([(header::IF_NONE_MATCH, tag.parse().unwrap())]);
        assert_eq!(versioned(&cached, "v1", &[1]).unwrap().status(), StatusCode::NOT_MODIFIED);
        assert_eq!(versioned(&cached, "v1", &[2]).unwrap().status(), StatusCode::OK);
        for (lines, want) in [
            (&[][..], None),
            (&["*"], None),
            (&["\"a\", *"], None),
            (&[tag.as_str()], Some(vec!["v1"])),
            (&["\"v2\"", "\"v3.x\" , \"v4\""], Some(vec!["v2", "v3", "v4"])),
            (&["W/\"v1\""], Some(vec![])),
            (&["v1"], Some(vec![])),
            (&[""], Some(vec![])),
        ] {
            let want = want.map(|list| list.into_iter().map(str::to_owned).collect());
            assert_eq!(wanted_versions(&headers(lines)), want, "{lines:?}");
        }
    }
}
