//! The control path: what people and programs ask of a running gateway over HTTP.
//!
//! It runs on a thread and a runtime of its own: rendering a large `/metrics` or a slow reader of an answer then costs
//! this thread and not the relays. It reads what other rooms publish and asks the app for changes through channels; it
//! never reaches into the data path.
//!
//! Every request passes one gate, `api/auth.rs`, before any endpoint sees it. Every URL stands on one page,
//! `api/endpoints.rs`. Every error has one shape, `api/error.rs`.
//!
//! Next: `api/endpoints.rs`.

mod auth;
mod check_history;
mod checks;
mod connections;
mod endpoints;
mod engines;
mod error;
mod etag;
mod events;
mod exits;
mod explain;
mod extract;
#[cfg(test)]
mod fixture;
mod health;
pub mod list;
mod openapi;
pub mod orders;
mod request_id;
pub mod routes;
mod sources;
mod timestamp;
mod write_timeout;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

pub use auth::Access;
pub use events::Journal;
pub use health::{Readiness, SourceReadiness};

use auth::{Gate, Peer};
use error::ApiError;
use write_timeout::WriteTimeout;

use crate::check;
use crate::gateway::connection_table::ConnectionTable;
use crate::gateway::outbound::Outbound;
use crate::lifecycle::Tasks;
use crate::listen::{self, Arrival, Permits, Reservation};
use crate::source::handle::Sources;
use crate::state::State;
use crate::store::Store;
use crate::tor::Tor;

/// Connections at once. Arbitrary: scrapers of metrics and a few people's browsers; the rest waits in the kernel's queue.
const CONNECTIONS: usize = 512;

/// How long a peer may take over its request head. Arbitrary, generous for a person's connection.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// How long a peer may take over nothing of an answer while there is more of it. Arbitrary: a page that is asked for is
/// read; whoever holds a place without reading would keep others out.
const READ_DEADLINE: Duration = Duration::from_secs(30);

/// How long a whole connection may live: who follows events comes again.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(3600);

/// A reload that somebody asked for, and where the answer goes.
pub type ReloadRequest = oneshot::Sender<ReloadAnswer>;

/// What a reload came to.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ReloadAnswer {
    /// The new configuration is in force, but for the keys that need a restart.
    Applied {
        /// Keys whose new values are in force.
        changed: Vec<String>,
        /// Keys whose new values wait for a restart.
        needs_restart: Vec<String>,
    },
    /// Nothing was changed.
    Refused {
        /// Every fault, as `check-config` prints them.
        faults: String,
    },
}

/// What the endpoints need of the rest of the gateway.
#[derive(Clone)]
pub struct Wiring {
    /// Everything in Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Which sources have a tested exit, and why not.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// Takes reload requests.
    pub reload: mpsc::Sender<ReloadRequest>,
    /// Exits, routes, what was promised.
    pub state: State,
    /// The history of checks.
    pub store: Store,
    /// Tests exits, where anything does.
    pub tester: Option<check::Handle>,
    /// Tests public proxies, where there are any.
    pub judge: Option<check::public::Handle>,
    /// Where exits come from.
    pub sources: Sources,
    /// Those of them that are lists of public proxies.
    pub lists: Vec<String>,
    /// Working public proxies, unless there are no lists of them.
    pub shelf: Option<list::Shelf>,
    /// The engines, unless Tor is switched off.
    pub tor: Option<Tor>,
    /// What happened lately.
    pub journal: Arc<Journal>,
    /// What the configuration says of all routes.
    pub rules: Arc<ArcSwap<routes::Rules>>,
    /// Takes orders for routes.
    pub orders: mpsc::Sender<orders::Order>,
    /// Routes of the API whose port another program has.
    pub shut: watch::Receiver<BTreeSet<String>>,
    /// The way out: what routes count, and another exit for those who ask.
    pub outbound: Arc<Outbound>,
    /// Connections that are alive.
    pub connections: Arc<ConnectionTable>,
    /// Where the shared port listens.
    pub gateway: Vec<SocketAddr>,
    /// Places for what takes seconds: tests and rotations that somebody waits for.
    pub slow: Arc<Semaphore>,
}

/// Tests and rotations at once. Arbitrary: each builds circuits, and a guard takes one a second.
pub const SLOW: usize = 64;

impl Wiring {
    /// A place for something slow.
    fn slow(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.slow.clone().try_acquire_owned().map_err(|_| {
            let message = format!("{SLOW} tests and rotations are under way already; try again in a moment");
            ApiError::too_much("too_many_checks", message, 2)
        })
    }
}

/// Serves the API on ports that are already bound, until shutdown. Returns once its thread runs.
pub fn start(
    ports: Vec<Reservation>,
    access: Arc<ArcSwap<Access>>,
    wiring: Wiring,
    tasks: Tasks,
    extra: Router,
) -> std::io::Result<()> {
    if let Some(shelf) = wiring.shelf.clone() {
        // Sorting ten thousand proxies must hold up neither a request nor a tunnel.
        let (state, worker) = (wiring.state.clone(), tasks.clone());
        tasks.background("lists", move || list::watch(shelf.clone(), state.clone(), worker.clone()))?;
    }
    let gate = Gate { access, throttle: Arc::default() };
    let gate = axum::middleware::from_fn_with_state(gate, auth::gate);
    let app = endpoints::router(wiring.clone(), tasks.clone(), extra).layer(gate);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (failed, outcome) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("api".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let (watched, worker) = (wiring, tasks.clone());
            tasks.supervise("events", move || events::watch(watched.clone(), worker.clone()));
            let permits = Permits::new(CONNECTIONS);
            let mut listeners = Vec::new();
            for port in ports {
                let app = app.clone();
                let serve = move |arrival| connection(app.clone(), arrival);
                match listen::start(port, &permits, CONNECTIONS, &tasks, serve) {
                    Ok(listener) => listeners.push(listener),
                    Err(error) => return drop(failed.send(Err(error))),
                }
            }
            let _ = failed.send(Ok(()));
            // Alive until the kill and not only until draining: health and metrics are wanted most while we drain.
            tasks.killed().await;
        });
    })?;
    outcome.recv().unwrap_or_else(|_| Err(std::io::Error::other("the API's thread ended before it served")))
}

async fn connection(app: Router, arrival: Arrival) {
    let Arrival { stream, cut, peer } = arrival;
    let app = TowerToHyperService::new(app);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        app.call(request)
    });
    let serve = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(WriteTimeout::new(stream, READ_DEADLINE)), service);
    let ended = cut.race(tokio::time::timeout(CONNECTION_DEADLINE, serve)).await;
    if let Some(Ok(Err(error))) = ended {
        tracing::debug!(%error, "an API connection ended early");
    }
}
