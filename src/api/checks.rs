//! `/checks`: lists the pages that the tester fetches through exits, and starts a batch of checks of many exits.
//!
//! A batch runs at the tester's own rate, and exits that live requests wait for are checked first. It is meant for
//! thousands of exits. To check one exit quickly there is `POST /exits/{id}/check`. The answer is one line of JSON for
//! each exit (`application/x-ndjson`), sent as soon as the exit's result is known. If the caller disconnects, the
//! checks continue, and their results can be read at `/exits`.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri, header};
use hyper::body::{Body, Frame};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use utoipa::ToSchema;

use super::Wiring;
use super::error::{ApiError, Problem};
use super::etag::tagged;
use super::exits::{ExitView, read_id, word};
use super::extract::Body as Fields;
use super::timestamp::Timestamp;
use crate::check::{CheckBatch, Checked, CheckedSite, Handle, PageHealth};
use crate::exit::country::Country;
use crate::exit::{ExitId, Source};
use crate::state;

/// A page that the tester fetches through exits.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Check)]
pub(super) struct CheckView {
    /// `echo` answers with the address it sees, `canary` is known word for word and shows tampering, `site` is a site that
    /// routes name.
    kind: String,
    /// The page's name, or its URL.
    name: String,
    /// Since when failures of this page do not count, because it fails for most exits; null if they count.
    suspended: Option<Timestamp>,
    /// The number of exits whose last check of it passed.
    passing: usize,
    /// The number of exits that failed it, and whose failure waits for results of other exits.
    held: usize,
    /// True for an echo server that names wrong addresses for most exits, and is not used for an hour.
    wrong: bool,
    /// The number of requests to an echo server since the start; null for other pages.
    requests: Option<u64>,
    /// The number of requests that checks may make to an echo server now by themselves (`check.echo_per_hour`); null for
    /// other pages.
    budget_left: Option<u64>,
}

/// The pages that the tester fetches.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Checks)]
pub(super) struct Listed {
    checks: Vec<CheckView>,
}

/// Lists the pages that the tester fetches, whether each counts now, and how many exits pass it.
#[utoipa::path(get, path = "/checks", tag = "exits",
    responses((status = 200, body = Listed), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn list(State(wiring): State<Wiring>, headers: HeaderMap) -> Result<Response, ApiError> {
    // All testers fetch the same pages. Without Tor, another tester says how they do.
    let testers = [&wiring.tester, &wiring.own_tester, &wiring.upstream_tester];
    let pages = testers.into_iter().flatten().next().map(Handle::page_health).unwrap_or_default();
    tagged(&headers, &Listed { checks: pages.iter().map(of_page).collect() })
}

fn of_page(page: &PageHealth) -> CheckView {
    CheckView {
        kind: page.kind.to_owned(),
        name: page.name.to_string(),
        suspended: page.suspended.map(Timestamp),
        passing: page.passing,
        held: page.pending,
        wrong: page.wrong,
        requests: page.budget.map(|(requests, _)| requests),
        budget_left: page.budget.map(|(_, left)| left),
    }
}

/// Which exits to check, and an extra page.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = PassAsked)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchRequest {
    /// Only exits of this country.
    country: Option<String>,
    /// Only the exits with these ids.
    exits: Option<Vec<String>>,
    /// A page to fetch through each exit that works.
    target: Option<String>,
}

/// Checks many exits, and sends each result as a line of its own.
#[utoipa::path(post, path = "/checks", tag = "exits", request_body = BatchRequest,
    responses((status = 200, description = "A line with the number of exits, then a line of JSON for each exit", content_type = "application/x-ndjson", body = String),
        (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn begin(State(wiring): State<Wiring>, Fields(fields): Fields) -> Result<Response, ApiError> {
    let request: BatchRequest = serde_json::from_value(Value::Object(fields))
        .map_err(|why| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_field", why.to_string()))?;
    let tester = wiring.tester.as_ref().ok_or_else(|| {
        ApiError::new(StatusCode::CONFLICT, "untestable", "no tester runs, because `tor.enabled` is false")
    })?;
    let batch =
        CheckBatch { exits: exits(&wiring, &request)?, extra: request.target.as_deref().map(page).transpose()? };
    let target = batch.extra.as_ref().map(|extra| extra.name.clone());
    let first = line(&json!({ "total": batch.exits.len() }));
    let results = tester.pass(batch).await;
    let lines = Lines { first: Some(first), results, state: wiring.state.clone(), target };
    let types = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok((types, axum::body::Body::new(lines)).into_response())
}

/// Returns the exits of the request that can be checked, sorted by id.
fn exits(wiring: &Wiring, request: &BatchRequest) -> Result<Vec<ExitId>, ApiError> {
    let wrong = |field: &str, want: String| {
        let error = ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_field", format!("`{field}` {want}"));
        error.with(json!({ "field": field }))
    };
    let country = request.country.as_deref().map(|text| {
        Country::parse(text)
            .ok_or_else(|| wrong("country", "is two letters, or `??` for exits of an unknown country".into()))
    });
    let country = country.transpose()?;
    let named = request.exits.as_ref().map(|all| {
        let read =
            |text: &String| read_id(text).ok_or_else(|| wrong("exits", format!("names {text:?}, which is no id")));
        all.iter().map(read).collect::<Result<BTreeSet<_>, _>>()
    });
    let named = named.transpose()?;
    let snapshot = wiring.state.snapshot();
    let testable = snapshot.catalog.iter().filter(|exit| {
        exit.id().source() == Source::Tor
            && exit.alive()
            && country.is_none_or(|country| exit.country() == country)
            && named.as_ref().is_none_or(|named| named.contains(exit.id()))
    });
    let mut ids: Vec<ExitId> = testable.map(|exit| exit.id().clone()).collect();
    ids.sort_unstable();
    Ok(ids)
}

fn page(text: &str) -> Result<Arc<CheckedSite>, ApiError> {
    let wrong = |why: String| {
        let message = format!("`target`: {why}; write the whole URL, as in https://shop.example/");
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_field", message).with(json!({ "field": "target" }))
    };
    let url: Uri = text.parse().map_err(|why| wrong(format!("{text:?} is no URL: {why}")))?;
    CheckedSite::at(&url).map(Arc::new).map_err(|why| wrong(why.to_string()))
}

/// The body of the answer: one line for each result. It ends after the last result.
struct Lines {
    first: Option<Bytes>,
    results: mpsc::UnboundedReceiver<(ExitId, Option<Checked>)>,
    state: state::State,
    target: Option<Arc<str>>,
}

impl Lines {
    fn of(&self, id: &ExitId, checked: Option<Checked>) -> Bytes {
        let snapshot = self.state.load();
        let exit = snapshot.catalog.get(id).map(|exit| ExitView::of(exit));
        let Some(checked) = checked else {
            let why = "it is gone, or has been condemned meanwhile";
            return line(&json!({ "id": id.to_string(), "verdict": "untestable", "why": why, "exit": exit }));
        };
        let of_target = |name: &Arc<str>| checked.sites.iter().find(|(site, _)| site == name);
        let target = self.target.as_ref().and_then(of_target);
        line(&json!({
            "id": id.to_string(),
            "verdict": word(checked.verdict),
            "why": checked.why,
            "ips": checked.ips,
            "ms": checked.timings.connect.map(|took| took.as_secs_f64() * 1e3),
            "target": target.map(|(_, why)| json!({ "passed": why.is_none(), "why": why })),
            "exit": exit,
        }))
    }
}

fn line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let Some((id, checked)) = ready!(self.results.poll_recv(cx)) else { return Poll::Ready(None) };
        Poll::Ready(Some(Ok(Frame::data(self.of(&id, checked)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_whole_url() {
        assert_eq!(&*page("https://shop.example/a?b=c").unwrap().name, "https://shop.example/a?b=c");
        for text in ["", "shop.example", "ftp://shop.example/", "https:///x", "/x"] {
            assert_eq!(page(text).err().map(|error| error.code()), Some("bad_field"), "{text}");
        }
    }
}
