//! Makes every part and connects them, in the order in which they need each other: ports, memory, Tor, exits, front.

mod exits;
mod gauges;
pub(super) mod listeners;
mod lists;
pub(super) mod orders;
mod recall;
pub(super) mod routes;
pub(super) mod settings;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, Semaphore, mpsc, watch};

use self::gauges::Gauges;
use self::listeners::Listeners;
use self::routes::Former;
use super::{StartError, files, secrets};
use crate::api::routes::Rules;
use crate::api::{self, Access, Journal, ReloadRequest, Wiring};
use crate::config::Config;
use crate::console;
use crate::exit::ExitId;
use crate::exit::country::GeoIp;
use crate::gateway::connection_table::ConnectionTable;
use crate::gateway::outbound::{Outbound, Parts, RefusalReporter};
use crate::lifecycle::{Ended, Lifecycle, Tasks};
use crate::limit::Limits;
use crate::limit::target::Own;
use crate::listen::{Listener, Permits, Reservation};
use crate::route::table::Origin;
use crate::state::{Change, Clock, State};
use crate::store::{self, Store};
use crate::telemetry::{self, Telemetry, metrics};
use crate::tor::Tor;

/// How often counters that somebody else keeps are copied into the metrics, and histograms emptied of their samples.
/// Arbitrary: below any scrape interval.
const UPKEEP: Duration = Duration::from_secs(5);

/// Reports of refusing sites that wait to become bans. Arbitrary.
const REPORTS: usize = 256;

/// The addresses that were really bound.
#[derive(Clone, Debug, Default)]
pub struct Bound {
    /// The shared port.
    pub gateway: Vec<SocketAddr>,
    /// The API.
    pub api: Vec<SocketAddr>,
}

/// A running gateway.
pub struct Running {
    /// What it runs with.
    pub config: Config,
    /// Where it listens.
    pub bound: Bound,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) state: State,
    pub(super) limits: Limits,
    pub(super) listeners: Arc<Mutex<Listeners>>,
    pub(super) rules: Arc<ArcSwap<Rules>>,
    pub(super) outbound: Arc<Outbound>,
    pub(super) tor: Option<Tor>,
    pub(super) own: Own,
    pub(super) access: Arc<ArcSwap<Access>>,
    lifecycle: Lifecycle,
    store: Store,
    stopping: watch::Sender<bool>,
}

/// Builds the gateway: binds every port first, so that one that is taken is an error before anything runs.
pub async fn build(
    mut config: Config,
    telemetry: Telemetry,
    reloads: mpsc::Sender<ReloadRequest>,
) -> Result<Running, StartError> {
    let lifecycle = Lifecycle::new();
    let tasks = lifecycle.tasks();
    let telemetry = Arc::new(telemetry);
    secrets::make_data_dir(&config.data_dir)?;
    make_secrets(&mut config)?;
    let ports = Ports::bind(&config)?;
    let geoip = settings::geoip(&config.tor);
    let Remembered { state, wished, store, sources, routes, ports: former } = remember(&config, &geoip).await?;
    let tor = start_tor(&config, &tasks, &state).await?;
    let limits = settings::limits(&config);
    let own = Own::new();
    let (reports, reported) = mpsc::channel(REPORTS);
    let (stopping, stopped) = watch::channel(false);
    let terms = settings::outbound_terms(&config, &own);
    let parts = exits::Parts {
        config: &config,
        tasks: &tasks,
        state: &state,
        store: &store,
        tor: tor.as_ref(),
        geoip: &geoip,
        rules: terms.rules.clone(),
        known: sources,
        wished,
        reported,
    };
    let started = exits::start(parts).await?;
    let outbound = Arc::new(Outbound::new(Parts {
        state: state.clone(),
        limits: limits.clone(),
        tor: tor.clone(),
        terms,
        refusals: RefusalReporter::new(reports),
        verify: exits::verify(started.tester.clone(), started.judge.clone()),
        stopping: stopped,
    }));
    let permits = Permits::new(settings::connections(&config.gateway, files::raise_limit()));
    let mut listeners = Listeners::new(outbound.clone(), permits, tasks.clone(), own.clone(), config.clone());
    let bound = Bound { gateway: addrs(&ports.gateway), api: addrs(&ports.api) };
    bound.api.iter().for_each(|addr| own.insert(*addr));
    ports.gateway.into_iter().try_for_each(|port| listeners.open_shared(port, &config))?;
    open_routes(&config, &state, &mut listeners, &former).await?;
    let connections = listeners.connections();
    let listeners = Arc::new(Mutex::new(listeners));
    let rules = Arc::new(ArcSwap::from_pointee(orders::rules(&config)));
    let reach = orders::start(&tasks, state.clone(), listeners.clone(), rules.clone(), routes);
    let access = Arc::new(ArcSwap::from_pointee(settings::access(&config)));
    let sight = Sight { outbound: outbound.clone(), connections, gateway: bound.gateway.clone(), tor: tor.clone() };
    let wiring = wiring(&config, &telemetry, (&state, &store), started, reach, sight, reloads);
    let pages = if config.api.console { console::router() } else { axum::Router::new() };
    let readiness = wiring.readiness.clone();
    api::start(ports.api, access.clone(), wiring, tasks.clone(), pages)
        .map_err(|error| StartError::Other(format!("the API could not start: {error}")))?;
    start_upkeep(&tasks, &telemetry, &state, &limits, &outbound);
    start_gauges(&tasks, &state, tor.clone(), readiness);
    say(&bound, &config);
    Ok(Running {
        config,
        bound,
        telemetry,
        state,
        limits,
        listeners,
        rules,
        outbound,
        tor,
        own,
        access,
        lifecycle,
        store,
        stopping,
    })
}

impl Running {
    /// Stops: no new connections, then up to `grace` for those that are open, then the end.
    pub async fn stop(self, grace: Duration, hurry: impl Future<Output = ()>) -> Ended {
        self.stopping.send_replace(true);
        self.listeners.lock().await.close().await;
        let ended = self.lifecycle.stop(grace, hurry).await;
        self.store.close().await;
        ended
    }
}

/// Every port of the configuration, bound and not yet listening.
struct Ports {
    gateway: Vec<Reservation>,
    api: Vec<Reservation>,
}

impl Ports {
    fn bind(config: &Config) -> Result<Self, StartError> {
        let all = |what: &str, addrs: &[SocketAddr]| {
            addrs.iter().map(|addr| bind(what, *addr)).collect::<Result<Vec<_>, _>>()
        };
        let gateway = all("gateway.listen", &config.gateway.listen)?;
        let api = all("api.listen", &config.api.listen)?;
        Ok(Self { gateway, api })
    }
}

/// Binds one port, or says what to do about it.
pub(super) fn bind(what: &str, addr: SocketAddr) -> Result<Reservation, StartError> {
    Listener::bind(addr).map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "the port is in use by another program (or another exitgate); stop that, or choose another port"
                    .to_owned()
            }
            std::io::ErrorKind::PermissionDenied => {
                "not permitted; choose a port from 1024 on, or give exitgate CAP_NET_BIND_SERVICE".to_owned()
            }
            std::io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
            _ => error.to_string(),
        };
        StartError::Port { what: what.to_owned(), addr, why }
    })
}

fn addrs(ports: &[Reservation]) -> Vec<SocketAddr> {
    ports.iter().map(Reservation::addr).collect()
}

/// Beyond loopback without a key or a token: makes them, and says where they are.
pub(super) fn make_secrets(config: &mut Config) -> Result<(), StartError> {
    if config.exposure.make_key {
        let (secret, new) = secrets::kept(&config.data_dir, secrets::KEY_FILE)?;
        tracing::warn!(file = %config.data_dir.join(secrets::KEY_FILE).display(), new, "clients need the key in this file as their password");
        config.gateway.keys.push(settings::made_key(secret));
    }
    if config.exposure.make_token {
        let (secret, new) = secrets::kept(&config.data_dir, secrets::TOKEN_FILE)?;
        tracing::warn!(file = %config.data_dir.join(secrets::TOKEN_FILE).display(), new, "the API needs the token in this file");
        config.api.token = Some(secret);
        if config.api.read_token.is_none() {
            config.api.read_token = Some(secrets::kept(&config.data_dir, secrets::READ_TOKEN_FILE)?.0);
        }
    }
    Ok(())
}

/// The state as the last run left it, and where it is kept.
struct Remembered {
    state: State,
    wished: mpsc::Receiver<ExitId>,
    store: Store,
    sources: Vec<store::Source>,
    /// Routes of the API.
    routes: Vec<store::Route>,
    /// Of the configuration's routes.
    ports: Former,
}

/// Opens the store and begins with what it remembers.
async fn remember(config: &Config, geoip: &GeoIp) -> Result<Remembered, StartError> {
    let path = config.data_dir.join("exitgate.db");
    let options = settings::store(&config.store);
    let file = path.clone();
    let opened = tokio::task::spawn_blocking(move || Store::open(&file, options)).await;
    let (store, mut loaded) = match opened.map_err(|error| StartError::Other(error.to_string()))? {
        // A damaged file must not keep a gateway down, nor be touched by one.
        Err(store::StoreError::Open { fault: fault @ store::Fault::Corrupt, .. }) => {
            (Store::refusing(&path, fault, options)?, store::Loaded::default())
        }
        opened => opened?,
    };
    let clock = Clock::start();
    let sources = std::mem::take(&mut loaded.sources);
    let routes = std::mem::take(&mut loaded.routes);
    let ports = routes::former(&loaded.meta);
    let (mut snapshot, memory) = recall::recall(config, loaded, geoip, clock.now());
    snapshot.routes = orders::recalled(&routes, snapshot.routes, &orders::rules(config));
    let (state, wished) = State::new(snapshot, memory, clock, Some(store.clone()));
    Ok(Remembered { state, wished, store, sources, routes, ports })
}

/// Takes over the configuration's routes, each with its port: bound first, so that one that is taken changes nothing.
pub(super) async fn open_routes(
    config: &Config,
    state: &State,
    listeners: &mut Listeners,
    former: &Former,
) -> Result<(), StartError> {
    let change = routes::configured(config, &state.snapshot(), former, state.now())?;
    let Change::Configured { routes, .. } = &change else { return Ok(()) };
    let mut wanted: Vec<_> = routes.iter().cloned().map(Arc::new).collect();
    let snapshot = state.snapshot();
    let of_api = snapshot.routes.iter().filter(|entry| entry.route.origin == Origin::Api);
    wanted.extend(of_api.map(|entry| entry.route.clone()));
    let bound = listeners.reserve(config, &wanted)?;
    state.apply(change).await.map_err(|refused| StartError::Other(refused.to_string()))?;
    listeners.routes(config, &wanted, bound).await
}

async fn start_tor(config: &Config, tasks: &Tasks, state: &State) -> Result<Option<Tor>, StartError> {
    if !config.tor.enabled {
        return Ok(None);
    }
    let settings = settings::tor(config).without_missing().await;
    let found = crate::tor::preflight(&settings).await?;
    found.warnings.iter().for_each(|warning| tracing::warn!("tor: {warning}"));
    if let Some(version) = found.version {
        tracing::info!(%version, "tor is here");
    }
    Ok(Some(Tor::start(settings, tasks.clone(), state.wanted())))
}

/// What the API watches.
struct Sight {
    outbound: Arc<Outbound>,
    connections: Arc<ConnectionTable>,
    gateway: Vec<SocketAddr>,
    tor: Option<Tor>,
}

/// What the API may ask of the rest.
fn wiring(
    config: &Config,
    telemetry: &Arc<Telemetry>,
    (state, store): (&State, &Store),
    started: exits::Started,
    reach: orders::Reach,
    Sight { outbound, connections, gateway, tor }: Sight,
    reload: mpsc::Sender<ReloadRequest>,
) -> Wiring {
    let (telemetry, readable, direct) = (telemetry.clone(), state.clone(), config.gateway.allow_direct);
    let public = config.sources.any_public();
    let engines = tor.clone();
    Wiring {
        metrics: Arc::new(move || telemetry.render()),
        readiness: Arc::new(move || exits::readiness(&readable, engines.as_ref(), direct, public)),
        reload,
        state: state.clone(),
        store: store.clone(),
        tester: started.tester,
        judge: started.judge,
        sources: started.sources,
        lists: started.lists,
        shelf: config.sources.any_public().then(|| api::list::Shelf::new(state)),
        tor,
        journal: Arc::new(Journal::new(state.now())),
        rules: reach.rules,
        orders: reach.orders,
        shut: reach.shut,
        outbound,
        connections,
        gateway,
        slow: Arc::new(Semaphore::new(api::SLOW)),
    }
}

/// The worker that copies what others count into the metrics.
fn start_upkeep(tasks: &Tasks, telemetry: &Arc<Telemetry>, state: &State, limits: &Limits, outbound: &Arc<Outbound>) {
    let (worker, telemetry, limits, outbound) = (tasks.clone(), telemetry.clone(), limits.clone(), outbound.clone());
    ::metrics::gauge!(metrics::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    tasks.supervise("upkeep", move || {
        let (tasks, telemetry, limits, outbound) =
            (worker.clone(), telemetry.clone(), limits.clone(), outbound.clone());
        async move {
            let mut tick = tokio::time::interval(UPKEEP);
            while !tasks.is_stopping() {
                tokio::select! {
                    () = tasks.stopping() => {}
                    _ = tick.tick() => {}
                }
                telemetry.upkeep();
                outbound.tidy();
                limits.tidy(std::time::Instant::now());
                ::metrics::counter!(metrics::PANICS).absolute(tasks.panics());
                ::metrics::gauge!(metrics::TASKS).set(tasks.running() as f64);
            }
        }
    });
    let (worker, state) = (tasks.clone(), state.clone());
    tasks.supervise("state", move || state.clone().run(worker.clone()));
}

/// The worker that measures by looking.
fn start_gauges(
    tasks: &Tasks,
    state: &State,
    tor: Option<Tor>,
    readiness: Arc<dyn Fn() -> api::Readiness + Send + Sync>,
) {
    let (worker, state) = (tasks.clone(), state.clone());
    tasks.supervise("gauges", move || {
        let (tasks, state, tor, readiness) = (worker.clone(), state.clone(), tor.clone(), readiness.clone());
        async move {
            let mut tick = tokio::time::interval(UPKEEP);
            let (mut gauges, mut standing) = (Gauges::default(), exits::Standing::default());
            while !tasks.is_stopping() {
                tokio::select! {
                    () = tasks.stopping() => {}
                    _ = tick.tick() => {
                        gauges.look(&state, tor.as_ref());
                        standing.look(&readiness());
                    }
                }
            }
        }
    });
}

fn say(bound: &Bound, config: &Config) {
    let list = |addrs: &[SocketAddr]| addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    tracing::info!(gateway = list(&bound.gateway), api = list(&bound.api), routes = config.routes.len(), "listening");
    if let Some(addr) = bound.gateway.first() {
        let ip = if addr.ip().is_unspecified() { std::net::Ipv4Addr::LOCALHOST.into() } else { addr.ip() };
        let at = SocketAddr::new(ip, addr.port());
        let user = if config.gateway.keys.is_empty() { "us" } else { "us:KEY" };
        tracing::info!("try: curl -x socks5h://{user}@{at} https://check.torproject.org/api/ip");
    }
}

/// The log's settings in telemetry's words.
pub(super) fn log_settings(log: &crate::config::Log) -> telemetry::LogSettings {
    settings::log(log)
}
