//! A fake Onionoo and a fake exit list, which describe exactly this network.
//!
//! Answers have the format of the real service, one relay on each line. A test can order faults that a gateway must survive: errors, half
//! an answer, old data, a 304 to every request ([`Onionoo::behave`]).

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;

pub use self::details::Details;
use self::query::Query;
use crate::dates;
use crate::fake_runtime::{self, Task};
use crate::http_response::{self, HttpResponse, header_text};
use crate::layout::{Relay, Role};
use crate::sandbox::Sandbox;
pub use crate::source_behaviour::Behaviour;

mod details;
mod policy;
mod query;

/// Third octet of its address.
pub(crate) const SUBNET: u8 = 81;
/// Its port.
pub const PORT: u16 = 8080;

const JSON: &str = "application/json; charset=utf-8";

/// A request to the fake.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The address that the request came from.
    pub from: IpAddr,
    /// Path and query.
    pub path: String,
    /// The `If-Modified-Since` header; empty if there was none.
    pub if_modified_since: String,
    /// Status of the answer; 0 if there was none.
    pub status: u16,
}

/// A running fake; dropping this ends it.
#[derive(Debug)]
pub struct Onionoo {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _task: Task,
    _sandbox: Arc<Sandbox>,
}

#[derive(Debug)]
struct State {
    relays: Vec<Details>,
    /// When the consensus was published and when the data last changed, in seconds since 1970.
    published: u64,
    modified: u64,
    details: Behaviour,
    exit_list: Behaviour,
    asked: Vec<Asked>,
}

impl Onionoo {
    /// Starts with the true data of `relays`.
    pub async fn start(sandbox: &Arc<Sandbox>, relays: &[Relay]) -> anyhow::Result<Self> {
        let address = SocketAddr::from((sandbox.ip(SUBNET, 1), PORT));
        let now = dates::now();
        let published = now - now % 3600;
        let exits = relays.iter().filter(|relay| relay.role == Role::Exit).count();
        let state = Arc::new(Mutex::new(State {
            relays: relays.iter().map(|relay| Details::of(relay, exits, published)).collect(),
            published,
            modified: now,
            details: Behaviour::Normal,
            exit_list: Behaviour::Normal,
            asked: Vec::new(),
        }));
        let (listener, shared) = (fake_runtime::listen(address).await?, state.clone());
        let task = fake_runtime::accept(listener, move |stream, from| {
            let state = shared.clone();
            async move {
                let _ = http_response::serve(stream, |request| answer(state.clone(), from.ip(), request)).await; // an error is a client that left
            }
        });
        Ok(Self { address, state, _task: task, _sandbox: sandbox.clone() })
    }

    /// The beginning of its URLs, before `/details`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL of the exit list, which has TorDNSEL's format.
    pub fn exit_list_url(&self) -> String {
        format!("{}/exit-addresses", self.url())
    }

    /// Sets how `/details` answers from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        self.lock().details = behaviour;
    }

    /// Sets how the exit list answers from now on.
    pub fn exit_list_behaves(&self, behaviour: Behaviour) {
        self.lock().exit_list = behaviour;
    }

    /// Changes the data and publishes it: the next conditional request gets the new data.
    pub fn edit(&self, change: impl FnOnce(&mut Vec<Details>)) {
        let mut state = self.lock();
        change(&mut state.relays);
        state.publish();
    }

    /// Adds `count` relays that do not exist, half of them exits.
    pub fn add_synthetic(&self, count: u32) {
        self.edit(|relays| {
            let known = u32::try_from(relays.len()).unwrap_or(u32::MAX);
            let published = dates::now();
            relays.extend((known..known + count).map(|index| Details::synthetic(index, published)));
        });
    }

    /// Publishes the same data again, as the real service does every hour.
    pub fn publish(&self) {
        self.lock().publish();
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.lock().asked.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Dates have a resolution of seconds. Two publications within one second must still have different dates.
    fn publish(&mut self) {
        self.modified = dates::now().max(self.modified + 1);
    }

    fn tag(&self) -> String {
        format!("\"{:x}\"", self.modified)
    }

    fn is_known_to(&self, request: &Request<Incoming>) -> bool {
        let tag = header_text(request, &header::IF_NONE_MATCH);
        if !tag.is_empty() {
            return tag == "*" || tag.split(',').any(|known| known.trim().trim_start_matches("W/") == self.tag());
        }
        let since = dates::parse_http_date(header_text(request, &header::IF_MODIFIED_SINCE));
        since.is_some_and(|since| since >= self.modified)
    }

    /// The details document, with one relay on each line.
    fn document(&self, query: &Query<'_>, hours_old: u64) -> String {
        let (shown, skipped, truncated) = query.choose(&self.relays);
        let fields = query.fields();
        let lines: Vec<String> = shown.iter().map(|relay| relay.line(fields.as_deref())).collect();
        let count =
            |name: &str, number: usize| if number > 0 { format!("\"{name}\":{number},\n") } else { String::new() };
        let published = dates::stamp(self.published - hours_old * 3600);
        format!(
            "{{\"version\":\"8.0\",\n\"build_revision\":\"89598ea\",\n\"relays_published\":\"{published}\",\n{}\
             \"relays\":[\n{}\n],\n{}\"bridges_published\":\"{published}\",\n\"bridges\":[\n]}}\n",
            count("relays_skipped", skipped),
            lines.join(",\n"),
            count("relays_truncated", truncated),
        )
    }

    /// The exit list: what a scanner found in the last day.
    fn exit_list(&self, hours_old: u64) -> String {
        let at = |minutes: u64| dates::stamp(self.published - hours_old * 3600 - minutes * 60);
        let mut list = String::new();
        for relay in &self.relays {
            let Some(addresses) = relay.get("exit_addresses").and_then(|addresses| addresses.as_array()) else {
                continue;
            };
            let print = relay.text("fingerprint");
            list += &format!("ExitNode {print}\nPublished {}\nLastStatus {}\n", at(600), at(60));
            for address in addresses.iter().filter_map(|address| address.as_str()) {
                list += &format!("ExitAddress {address} {}\n", at(40));
            }
        }
        list
    }
}

async fn answer(state: Arc<Mutex<State>>, from: IpAddr, request: Request<Incoming>) -> HttpResponse {
    let page = decide(&state, &request);
    let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let if_modified_since = header_text(&request, &header::IF_MODIFIED_SINCE).to_owned();
    let status = page.as_ref().map_or(0, |page| page.status().as_u16());
    let asked = Asked { from, path, if_modified_since, status };
    state.lock().unwrap_or_else(PoisonError::into_inner).asked.push(asked);
    match page {
        Some(page) => page,
        None => std::future::pending().await,
    }
}

/// The answer; none if the fake does not answer.
fn decide(state: &Mutex<State>, request: &Request<Incoming>) -> Option<HttpResponse> {
    let state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let (behaviour, kind) = match request.uri().path() {
        "/details" => (state.details, JSON),
        "/exit-addresses" => (state.exit_list, "text/plain; charset=utf-8"),
        _ => return Some(http_response::status(StatusCode::NOT_FOUND)),
    };
    let hours_old = if let Behaviour::Stale(hours) = behaviour { hours } else { 0 };
    let body = match Query::parse(request.uri().query().unwrap_or_default()) {
        Err(_) => return Some(http_response::status(StatusCode::BAD_REQUEST)),
        Ok(query) if kind == JSON => Bytes::from(state.document(&query, hours_old)),
        Ok(_) => Bytes::from(state.exit_list(hours_old)),
    };
    match behaviour.instead(kind, &body) {
        Some(instead) => instead.into_response(),
        None if state.is_known_to(request) => {
            let mut page = http_response::of(http_body_util::Empty::new());
            *page.status_mut() = StatusCode::NOT_MODIFIED;
            Some(dated(&state, page))
        }
        None => Some(dated(&state, packed(request, kind, body))),
    }
}

/// Adds the headers for caches.
fn dated(state: &State, mut page: HttpResponse) -> HttpResponse {
    let age = dates::now().saturating_sub(state.modified);
    let max_age = (2700u64.saturating_sub(age) / 300 * 300).max(300); // the real service's own formula
    let values = [
        (header::LAST_MODIFIED, dates::http_date(state.modified)),
        (header::ETAG, state.tag()),
        (header::CACHE_CONTROL, format!("public, max-age={max_age}")),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*".into()),
    ];
    for (name, value) in values {
        if let Ok(value) = HeaderValue::from_str(&value) {
            page.headers_mut().insert(name, value);
        }
    }
    page
}

/// Compresses the body if the client accepts gzip.
fn packed(request: &Request<Incoming>, kind: &'static str, body: Bytes) -> HttpResponse {
    if !header_text(request, &header::ACCEPT_ENCODING).contains("gzip") {
        return http_response::typed(kind, body);
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = encoder.write_all(&body).and_then(|()| encoder.finish());
    let mut page = http_response::typed(kind, packed.unwrap_or_default()); // writing to memory does not fail
    page.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    page
}
