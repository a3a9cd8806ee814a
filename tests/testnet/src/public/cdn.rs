//! A fake CDN that serves the list: `meta`, `all`, by protocol and by country, each as JSON, text and CSV.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;

use super::list::{self, Scope};
use super::mix::Proxy;
use crate::dates;
use crate::fake_runtime::{self, Task};
use crate::http_response::{self, HttpResponse, header_text};
use crate::sandbox::Sandbox;
use crate::source_behaviour::Behaviour;

/// Third octet of its address.
pub(crate) const SUBNET: u8 = 82;
/// Its port.
pub const PORT: u16 = 8080;

/// A running CDN; dropping this ends it.
#[derive(Debug)]
pub struct Cdn {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _task: Task,
}

#[derive(Debug)]
struct State {
    proxies: Vec<Proxy>,
    published: u64,
    behaviour: Behaviour,
    asked: Vec<String>,
}

impl Cdn {
    pub(super) async fn start(sandbox: &Sandbox, proxies: Vec<Proxy>) -> anyhow::Result<Self> {
        let address = SocketAddr::from((sandbox.ip(SUBNET, 1), PORT));
        let state = State { proxies, published: dates::now(), behaviour: Behaviour::Normal, asked: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let (listener, shared) = (fake_runtime::listen(address).await?, state.clone());
        let task = fake_runtime::accept(listener, move |stream, _| {
            let state = shared.clone();
            async move {
                let _ = http_response::serve(stream, |request| answer(state.clone(), request)).await; // an error is a client that left
            }
        });
        Ok(Self { address, state, _task: task })
    }

    /// The beginning of its URLs, before `all/data.json`.
    pub fn url(&self) -> String {
        format!("http://{}/proxies/", self.address)
    }

    /// Sets how it answers from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        self.lock().behaviour = behaviour;
    }

    /// Changes the list and publishes it. The proxies themselves do not change.
    pub fn edit(&self, change: impl FnOnce(&mut Vec<Proxy>)) {
        let mut state = self.lock();
        change(&mut state.proxies);
        state.published = dates::now().max(state.published + 1);
    }

    pub fn asked(&self) -> Vec<String> {
        self.lock().asked.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> HttpResponse {
    match decide(&state, &request) {
        Some(page) => page,
        None => std::future::pending().await,
    }
}

/// The answer; none if the CDN does not answer.
fn decide(state: &Mutex<State>, request: &Request<Incoming>) -> Option<HttpResponse> {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.asked.push(request.uri().path().to_owned());
    let hours_old = if let Behaviour::Stale(hours) = state.behaviour { hours } else { 0 };
    let path = request.uri().path().strip_prefix("/proxies/").unwrap_or_default();
    let Some((kind, body)) = document(&state, path, hours_old) else {
        return Some(http_response::status(StatusCode::NOT_FOUND));
    };
    let tag = format!("\"{:x}\"", state.published - hours_old * 3600);
    let known = header_text(request, &header::IF_NONE_MATCH).trim_start_matches("W/") == tag;
    let mut page = match state.behaviour.instead(kind, &body) {
        Some(instead) => return instead.into_response(),
        None if known => http_response::with(
            StatusCode::NOT_MODIFIED,
            http_response::of(http_body_util::Empty::new()),
            header::ETAG,
            &tag,
        ),
        None => http_response::with(StatusCode::OK, http_response::typed(kind, body), header::ETAG, &tag),
    };
    let cached = HeaderValue::from_static("public, max-age=604800, s-maxage=43200"); // the value that jsDelivr sends for a branch
    page.headers_mut().insert(header::CACHE_CONTROL, cached);
    Some(page)
}

fn document(state: &State, path: &str, hours_old: u64) -> Option<(&'static str, Bytes)> {
    let (kind, text) = match path.rsplit_once('/')? {
        ("meta", "data.json") => {
            ("application/json; charset=utf-8", list::meta(&state.proxies, state.published - hours_old * 3600))
        }
        (scope, file) => list::document(&state.proxies, Scope::parse(scope)?, file)?,
    };
    Some((kind, text.into()))
}
