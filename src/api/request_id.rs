//! Assigns an id to each request. With this id, people can find the log lines that belong to an answer or to a user's
//! report.
//!
//! If the caller sends an id (`X-Request-Id`) that is short and printable, this id is used, because a proxy in front of
//! the API may have assigned it already. Otherwise the request gets a new id. The id is in the answer's `X-Request-Id`,
//! in the body of an error, and in all log lines of the request.
//!
//! The metrics count each request by its endpoint, never by its URL.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue, Method};
use tracing::Instrument as _;

use crate::telemetry::metrics::{API_REQUESTS, API_SECONDS};
use crate::telemetry::trace_id::{Kind, TraceId};

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The largest number of characters in a caller's id that is used. Not tuned: a UUID has 36 characters.
const LONGEST: usize = 64;

tokio::task_local! {
    static CURRENT: String;
}

/// Returns the id of the request that the current task answers. `None` if the task answers no request.
pub(super) fn current() -> Option<String> {
    CURRENT.try_with(Clone::clone).ok()
}

/// The outermost middleware: it assigns the id, counts the request, and logs it.
pub(super) async fn follow(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = id_of(request.headers().get(&HEADER));
    let (method, uri) = (request.method().clone(), request.uri().path().to_owned());
    let endpoint = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let span = tracing::debug_span!("request", id);
    let mut response = CURRENT.scope(id.clone(), next.run(request)).instrument(span).await;
    let status = response.status();
    tracing::debug!(id, %method, path = uri, status = status.as_u16(), ms = began.elapsed().as_millis(), "api");
    let (method, class) = (method_label(&method), status_label(status.as_u16()));
    metrics::counter!(API_REQUESTS, "endpoint" => endpoint.clone(), "method" => method, "status" => class).increment(1);
    metrics::histogram!(API_SECONDS, "endpoint" => endpoint).record(began.elapsed());
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, id);
    }
    response
}

/// Returns the method as a label for metrics. A client can send any word as a method, so all unknown methods get the
/// same label.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}

fn status_label(status: u16) -> &'static str {
    match status {
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    }
}

fn id_of(sent: Option<&HeaderValue>) -> String {
    let fits = |id: &&str| (1..=LONGEST).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    let sent = sent.and_then(|id| id.to_str().ok()).filter(fits);
    sent.map_or_else(|| TraceId::next(Kind::Request).to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn;
    use http_body_util::BodyExt as _;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;

    use super::super::error::ApiError;
    use super::*;

    #[test]
    fn a_callers_id_is_kept_if_it_is_short_and_printable() {
        let given = |text: &str| id_of(Some(&HeaderValue::from_str(text).unwrap()));
        assert_eq!(given("job-7"), "job-7");
        for odd in ["", "a b", &"x".repeat(65), "\u{e9}"] {
            assert!(given(odd).starts_with("r-"), "{odd}");
        }
        assert_ne!(id_of(None), id_of(None));
    }

    #[tokio::test]
    async fn an_error_has_the_id_of_its_answer() {
        let refuse = async || ApiError::missing("nothing here");
        let app = TowerToHyperService::new(Router::new().fallback(refuse).layer(from_fn(follow)));
        let response = app.call(Request::get("/x").body(Body::empty()).unwrap()).await.unwrap();
        let id = response.headers()[HEADER].to_str().unwrap().to_owned();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(id.starts_with("r-") && body["error"]["request_id"] == id, "{id} {body}");
    }
}
