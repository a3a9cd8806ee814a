//! `/checks`: how the tester's pages fare, and one pass over many exits, whose results are told as they come.
//!
//! A pass goes at the tester's own pace, behind whatever live requests wait for: it is the polite way to have thousands
//! of exits tested, where `POST /exits/{id}/check` is the quick way to have one. Its answer is a line of JSON for each
//! exit (`application/x-ndjson`), so that a reader shows each when it is there. Who hangs up loses nothing: the checks go
//! on, and what they find is at `/exits`.

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
use super::exits::{Shown as Exit, read_id, word};
use super::extract::Body as Fields;
use super::timestamp::Timestamp;
use crate::check::{CheckBatch, Checked, CheckedSite, Handle, PageHealth};
use crate::exit::country::Country;
use crate::exit::{ExitId, Source};
use crate::state;

/// A page that exits are asked to fetch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Check)]
pub(super) struct Shown {
    /// What it tells: `echo`, `canary` or `site`.
    kind: String,
    /// Its name, or its URL.
    name: String,
    /// Since when it is to blame for what fails there, and does not count.
    suspended: Option<Timestamp>,
    /// Exits that passed it lately and did not fail since.
    passing: usize,
    /// Exits that failed it and wait for what others say.
    held: usize,
}

/// The tester's pages.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Checks)]
pub(super) struct Listed {
    checks: Vec<Shown>,
}

/// Every page of the tester, whether it counts now, and who passes it.
#[utoipa::path(get, path = "/checks", tag = "exits",
    responses((status = 200, body = Listed), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn list(State(wiring): State<Wiring>, headers: HeaderMap) -> Result<Response, ApiError> {
    let standing = wiring.tester.as_ref().map(Handle::page_health).unwrap_or_default();
    tagged(&headers, &Listed { checks: standing.iter().map(of_page).collect() })
}

fn of_page(page: &PageHealth) -> Shown {
    Shown {
        kind: page.kind.to_owned(),
        name: page.name.to_string(),
        suspended: page.suspended.map(Timestamp),
        passing: page.passing,
        held: page.pending,
    }
}

/// What a pass may be asked for.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = PassAsked)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Only exits of this country.
    country: Option<String>,
    /// Only these.
    exits: Option<Vec<String>>,
    /// A page to ask through each that works.
    target: Option<String>,
}

/// Tests many exits, and tells each result on a line of its own.
#[utoipa::path(post, path = "/checks", tag = "exits", request_body = Wanted,
    responses((status = 200, description = "How many, then a line of JSON for each", content_type = "application/x-ndjson", body = String),
        (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn begin(State(wiring): State<Wiring>, Fields(fields): Fields) -> Result<Response, ApiError> {
    let wanted: Wanted = serde_json::from_value(Value::Object(fields))
        .map_err(|why| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_field", why.to_string()))?;
    let tester = wiring.tester.as_ref().ok_or_else(|| {
        ApiError::new(StatusCode::CONFLICT, "untestable", "nothing here tests exits: `tor.enabled` is false")
    })?;
    let pass = CheckBatch { exits: exits(&wiring, &wanted)?, extra: wanted.target.as_deref().map(page).transpose()? };
    let target = pass.extra.as_ref().map(|extra| extra.name.clone());
    let first = line(&json!({ "total": pass.exits.len() }));
    let results = tester.pass(pass).await;
    let lines = Lines { first: Some(first), results, state: wiring.state.clone(), target };
    let types = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok((types, axum::body::Body::new(lines)).into_response())
}

/// Those that can be tested, by id.
fn exits(wiring: &Wiring, wanted: &Wanted) -> Result<Vec<ExitId>, ApiError> {
    let wrong = |field: &str, want: String| {
        let error = ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_field", format!("`{field}` {want}"));
        error.with(json!({ "field": field }))
    };
    let country = wanted.country.as_deref().map(|text| {
        Country::parse(text).ok_or_else(|| wrong("country", "is two letters, or `??` for those nobody knows".into()))
    });
    let country = country.transpose()?;
    let named = wanted.exits.as_ref().map(|all| {
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

/// The body of an answer that grows with the results.
struct Lines {
    first: Option<Bytes>,
    results: mpsc::UnboundedReceiver<(ExitId, Option<Checked>)>,
    state: state::State,
    target: Option<Arc<str>>,
}

impl Lines {
    fn of(&self, id: &ExitId, checked: Option<Checked>) -> Bytes {
        let snapshot = self.state.load();
        let exit = snapshot.catalog.get(id).map(|exit| Exit::of(exit));
        let Some(checked) = checked else {
            let why = "it is gone, or was condemned meanwhile";
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
    fn a_page_is_a_whole_url() {
        assert_eq!(&*page("https://shop.example/a?b=c").unwrap().name, "https://shop.example/a?b=c");
        for text in ["", "shop.example", "ftp://shop.example/", "https:///x", "/x"] {
            assert_eq!(page(text).err().map(|error| error.code()), Some("bad_field"), "{text}");
        }
    }
}
