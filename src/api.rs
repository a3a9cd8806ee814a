//! The HTTP API: how people and programs watch and change a running gateway.
//!
//! The API has its own thread and its own runtime. So a large `/metrics` or a slow reader delays only this thread and
//! not the relayed connections. The API reads the data that other rooms publish. It changes routes through
//! [`crate::admin`], and it requests reloads through a channel to `app/serve.rs`.
//!
//! `api/auth.rs` checks every request before a handler is called. All URLs are in one table in `api/endpoints.rs`. All
//! errors have the form that `api/error.rs` defines.
//!
//! Next: `api/endpoints.rs`.

mod auth;
mod bans;
mod check_history;
mod checks;
mod connections;
mod draining;
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
mod history;
mod identity;
mod keys;
pub mod list;
mod openapi;
mod request_id;
mod routes;
mod sources;
mod timestamp;
mod write_timeout;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

pub use auth::Access;
pub use events::Journal;
pub use health::{Readiness, SourceReadiness};

use auth::{Gate, Peer};
use error::ApiError;
use write_timeout::WriteTimeout;

use crate::admin::RouteAdmin;
use crate::admin::keys::KeyAdmin;
use crate::check;
use crate::exit::identity::Identities;
use crate::gateway::connection_table::ConnectionTable;
use crate::gateway::outbound::Outbound;
use crate::lifecycle::Tasks;
use crate::limit::target::OnlyTor;
use crate::listen::{self, Arrival, Permits, Reservation};
use crate::source::handle::Sources;
use crate::state::State;
use crate::store::Store;
use crate::telemetry::history::History;
use crate::tor::Tor;

/// The largest number of connections at the same time. Further connections wait in the kernel's queue. Not tuned: a few
/// browsers and metrics scrapers need some dozens.
const CONNECTIONS: usize = 512;

/// The time limit for a client to send the head of its request. Not tuned.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// How long a client may read nothing while there is more of an answer to send. Then the API closes the connection,
/// because the number of connections is limited and other clients may be waiting. Not tuned.
const READ_DEADLINE: Duration = Duration::from_secs(30);

/// The age at which the API closes a connection. A reader of `/events` then connects again and continues where it
/// stopped.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(3600);

/// A request to reload the configuration: the channel to which the answer is sent.
pub type ReloadRequest = oneshot::Sender<ReloadAnswer>;

/// The outcome of a reload.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ReloadAnswer {
    /// The new configuration is in force, except the keys that need a restart.
    Applied {
        /// Keys whose new values are in force.
        changed: Vec<String>,
        /// Keys whose new values wait for a restart. Until then the gateway behaves as if they had not changed.
        needs_restart: Vec<String>,
    },
    /// The configuration has faults, and nothing was changed.
    Refused {
        /// Every fault, as `check-config` prints them.
        faults: String,
    },
}

/// The parts of the gateway that the API's handlers use.
#[derive(Clone)]
pub struct Wiring {
    /// Returns all metrics in Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Returns which sources have a tested exit, and why the others have none.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// True from the stop signal on.
    pub draining: Arc<AtomicBool>,
    /// The channel to `app/serve.rs` for reload requests.
    pub reload: mpsc::Sender<ReloadRequest>,
    /// The current exits, routes, pins and sessions.
    pub state: State,
    /// The database, which has the history of checks.
    pub store: Store,
    /// Tests Tor exits. `None` if Tor is switched off.
    pub tester: Option<check::Handle>,
    /// Tests public proxies. `None` if the configuration has no lists of them.
    pub public_tester: Option<check::public::Handle>,
    /// Tests own addresses. `None` if the configuration has none.
    pub own_tester: Option<check::Handle>,
    /// Tests the exits of upstream sources. `None` if the configuration has no such source.
    pub upstream_tester: Option<check::Handle>,
    /// The sources of exits.
    pub sources: Sources,
    /// The names of the sources that are lists of public proxies.
    pub lists: Vec<String>,
    /// The index of working public proxies. `None` if the configuration has no lists of them.
    pub public_list: Option<list::ListCache>,
    /// The engines (tor processes). `None` if Tor is switched off.
    pub tor: Option<Tor>,
    /// Whether the gateway itself connects to nothing but Tor.
    pub only_tor: OnlyTor,
    /// The figures of the last 24 hours, which `/history` reads.
    pub history: Arc<History>,
    /// The journal that `/events` reads.
    pub journal: Arc<Journal>,
    /// Creates, changes and closes routes.
    pub routes: RouteAdmin,
    /// The outbound side of the gateway: it has the counters of routes, rotates exits, and receives reports about
    /// exits.
    pub outbound: Arc<Outbound>,
    /// The open connections of clients.
    pub connections: Arc<ConnectionTable>,
    /// Creates, changes and deletes keys.
    pub keys: KeyAdmin,
    /// The addresses of the shared port.
    pub gateway: Vec<SocketAddr>,
    /// Finds the time zone, locale and place of exits.
    pub identities: Identities,
    /// The permits for requests that take seconds (checks and rotations).
    pub slow: Arc<Semaphore>,
    /// Starts the API's workers, and signals when the gateway stops.
    pub tasks: Tasks,
}

/// The largest number of checks and rotations at the same time. Not tuned: each of them builds circuits, and by default
/// an engine builds one circuit per second.
pub const SLOW: usize = 64;

impl Wiring {
    fn slow(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.slow.clone().try_acquire_owned().map_err(|_| {
            let message = format!("{SLOW} checks and rotations are running already; try again in a moment");
            ApiError::too_much("too_many_checks", message, 2)
        })
    }
}

/// Serves the API on ports that are bound already. This function returns as soon as the API's thread runs.
///
/// `serving` are the tasks that serve the API. They are stopped after all other tasks, because health and metrics
/// matter most while the gateway drains.
pub fn start(
    ports: Vec<Reservation>,
    access: Arc<ArcSwap<Access>>,
    wiring: Wiring,
    extra: Router,
    serving: Tasks,
) -> std::io::Result<()> {
    let tasks = wiring.tasks.clone();
    if let Some(public_list) = wiring.public_list.clone() {
        // Sorting 10,000 proxies would delay requests, so a background thread creates the index.
        let (state, worker) = (wiring.state.clone(), tasks.clone());
        tasks.background("lists", move || list::watch(public_list.clone(), state.clone(), worker.clone()))?;
    }
    let gate = Gate { access, throttle: Arc::default() };
    let gate = axum::middleware::from_fn_with_state(gate, auth::gate);
    // The layer that is added last handles a request first. Here this is the layer that assigns ids, so a request that
    // `gate` refuses also has an id.
    let draining = axum::middleware::from_fn_with_state(tasks.clone(), draining::refuse_changes);
    let app = endpoints::router(wiring.clone(), extra)
        .layer(draining)
        .layer(gate)
        .layer(axum::middleware::from_fn(request_id::follow));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (failed, outcome) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("api".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let (watched, worker) = (wiring, tasks.clone());
            let (sampled, sampler) = (watched.clone(), worker.clone());
            tasks.supervise("events", move || events::watch(watched.clone(), worker.clone()));
            tasks.supervise("history", move || history::watch(sampled.clone(), sampler.clone()));
            let permits = Permits::new(CONNECTIONS);
            let mut listeners = Vec::new();
            for port in ports {
                let app = app.clone();
                let serve = move |arrival| connection(app.clone(), arrival);
                match listen::start(port, &permits, CONNECTIONS, &serving, serve) {
                    Ok(listener) => listeners.push(listener),
                    Err(error) => return drop(failed.send(Err(error))),
                }
            }
            let _ = failed.send(Ok(()));
            serving.killed().await;
        });
    })?;
    outcome.recv().unwrap_or_else(|_| Err(std::io::Error::other("the API's thread ended before it served anything")))
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
