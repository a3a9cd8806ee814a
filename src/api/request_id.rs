//! A number for each request, so that an answer, a line of the log and a word of a user's complaint can be joined.
//!
//! What the caller sends as `X-Request-Id` is kept if it is short and printable, because whoever stands in front of us
//! has numbered it already; otherwise it gets one of ours. Each request is counted by its endpoint, never by its URL.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue, Method};

use crate::telemetry::metrics::{API_REQUESTS, API_SECONDS};

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The longest number of another's that is kept. Arbitrary: a UUID has 36 characters.
const LONGEST: usize = 64;

/// The middleware that every request passes first.
pub(super) async fn follow(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = number(request.headers().get(&HEADER));
    let (method, uri) = (request.method().clone(), request.uri().path().to_owned());
    let endpoint = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let mut response = next.run(request).await;
    let status = response.status();
    tracing::debug!(id = ?id, %method, path = uri, status = status.as_u16(), ms = began.elapsed().as_millis(), "api");
    let (word, class) = (word(&method), class(status.as_u16()));
    metrics::counter!(API_REQUESTS, "endpoint" => endpoint.clone(), "method" => word, "status" => class).increment(1);
    metrics::histogram!(API_SECONDS, "endpoint" => endpoint).record(began.elapsed());
    response.headers_mut().insert(HEADER, id);
    response
}

/// Methods are words of the client's: those that we do not know are one.
fn word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}

fn class(status: u16) -> &'static str {
    match status {
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    }
}

fn number(sent: Option<&HeaderValue>) -> HeaderValue {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let fits = |id: &&HeaderValue| (1..=LONGEST).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    sent.filter(fits).cloned().unwrap_or_else(|| {
        let (start, count) = (std::process::id(), LAST.fetch_add(1, Ordering::Relaxed) + 1);
        HeaderValue::from_str(&format!("{start:x}-{count:x}")).unwrap_or(HeaderValue::from_static("none"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_number_is_kept_if_it_is_one() {
        let given = |text: &str| number(Some(&HeaderValue::from_str(text).unwrap()));
        assert_eq!(given("job-7"), "job-7");
        for odd in ["", "a b", &"x".repeat(65), "\u{e9}"] {
            assert_ne!(given(odd), HeaderValue::from_str(odd).unwrap());
        }
        assert_ne!(number(None), number(None));
    }
}
