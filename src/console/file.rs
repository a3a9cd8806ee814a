//! One file of the console, stored in two forms: uncompressed and compressed with gzip. Each form has its own entity
//! tag.

use std::io::Write as _;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, StatusCode, header};
use sha2::{Digest as _, Sha256};

/// The number of bytes of a digest that are used. 64 bits are enough to distinguish versions, and a collision would
/// help no attacker.
const DIGEST: usize = 8;

/// A file of the console in both forms.
pub(super) struct File {
    kind: &'static str,
    plain: Variant,
    gzip: Variant,
}

struct Variant {
    body: Bytes,
    /// The entity tag. A strong tag identifies exact bytes, so each of the two forms has its own.
    tag: String,
}

/// Returns the digest of all pieces together, in hexadecimal.
pub(super) fn digest<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut sha = Sha256::new();
    pieces.into_iter().for_each(|piece| sha.update(piece));
    sha.finalize().iter().take(DIGEST).map(|byte| format!("{byte:02x}")).collect()
}

impl File {
    pub(super) fn new(name: &str, content: &[u8]) -> Self {
        let digest = digest([content]);
        let plain = Variant { body: Bytes::copy_from_slice(content), tag: format!("\"{digest}\"") };
        let gzip = Variant { body: compress(content), tag: format!("\"{digest}-gzip\"") };
        Self { kind: kind(name), plain, gzip }
    }

    /// Returns the answer to a `GET` request with these headers.
    pub(super) fn answer(&self, request: &HeaderMap) -> Response {
        let variant = if accepts_gzip(request) { &self.gzip } else { &self.plain };
        let head = [(header::ETAG, variant.tag.clone()), (header::VARY, "Accept-Encoding".to_owned())];
        if matches_tag(request, &variant.tag) {
            return (StatusCode::NOT_MODIFIED, head).into_response();
        }
        let mut response = (head, [(header::CONTENT_TYPE, self.kind)], variant.body.clone()).into_response();
        if std::ptr::eq(variant, &self.gzip) {
            let gzip = http::HeaderValue::from_static("gzip");
            response.headers_mut().insert(header::CONTENT_ENCODING, gzip);
        }
        response
    }

    /// Returns the number of bytes that a browser with gzip loads.
    #[cfg(test)]
    pub(super) fn compressed(&self) -> usize {
        self.gzip.body.len()
    }
}

fn compress(content: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(content).and_then(|()| encoder.finish());
    // Writing into memory does not fail. If it failed, the body would be empty, and a test would notice that.
    written.unwrap_or_default().into()
}

fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

/// Iterates over the items of a header whose value is a list.
fn items(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    items(headers, header::ACCEPT_ENCODING).any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let named = parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case("gzip"));
        let refused = |part: &str| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
        named && !parts.any(refused)
    })
}

/// Returns true if the client has this form of the file already. Weak tags are accepted too, as RFC 9110 requires for
/// `If-None-Match`.
fn matches_tag(headers: &HeaderMap, tag: &str) -> bool {
    items(headers, header::IF_NONE_MATCH).any(|item| item == "*" || item.strip_prefix("W/").unwrap_or(item) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(header::HeaderName, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn gzip_is_sent_to_clients_that_accept_it() {
        for (accept, want) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, br", false),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(accepts_gzip(&headers(&[(header::ACCEPT_ENCODING, accept)])), want, "{accept}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn a_matching_tag_gets_no_body() {
        let file = File::new("a.js", b"let a = 1;");
        let gzip = (header::ACCEPT_ENCODING, "gzip");
        let first = file.answer(&headers(std::slice::from_ref(&gzip)));
        let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        assert!(tag.starts_with('"') && tag.ends_with("-gzip\""), "{tag}");
        let status = |tag: &str, encoding| file.answer(&headers(&[(header::IF_NONE_MATCH, tag), encoding])).status();
        let none = (header::ACCEPT, "*/*");
        assert_eq!(status(&tag, gzip.clone()), StatusCode::NOT_MODIFIED);
        assert_eq!(status(&format!("\"x\", W/{tag}"), gzip.clone()), StatusCode::NOT_MODIFIED);
        assert_eq!(status(&tag, none.clone()), StatusCode::OK, "the plain form has another tag");
        assert_eq!(status("\"x\"", gzip), StatusCode::OK);
        assert_eq!(status("*", none), StatusCode::NOT_MODIFIED);
    }
}
