//! Creates all parts of the gateway and connects them. They are created in the order in which they need each other:
//! ports, stored state, Tor, sources and testers of exits, client ports, the API.

mod announce;
pub(super) mod cities;
mod exits;
mod gauges;
mod keys;
mod lists;
mod own;
mod recall;
pub(super) mod routes;
pub(super) mod settings;
mod upkeep;
mod upstream;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, Semaphore, mpsc, watch};

use self::announce::{Bound, announce};
use self::cities::CityFile;
use self::routes::FormerPorts;
use self::upkeep::{start_gauges, start_upkeep};
use self::workers::{ExitWorkers, WorkerInputs};
use super::{StartError, files, secrets};
use crate::admin::keys::KeyAdmin;
use crate::admin::{self, Listeners, RouteAdmin, RouteRules};
use crate::api::{self, Access, Journal, ReloadRequest, Wiring};
use crate::check::EchoBudget;
use crate::config::Config;
use crate::console;
use crate::exit::ExitId;
use crate::exit::country::GeoIp;
use crate::exit::identity::Identities;
use crate::gateway::connection_table::ConnectionTable;
use crate::gateway::outbound::{Outbound, Parts, RefusalReporter};
use crate::lifecycle::{Ended, Lifecycle, Tasks};
use crate::limit::Limits;
use crate::limit::target::{OnlyTor, Own};
use crate::listen::{Inherited, Permits, Reservation};
use crate::route::table::Origin;
use crate::state::{Change, Clock, State};
use crate::store::{self, Store};
use crate::telemetry::history::{History, TOTALS};
use crate::telemetry::{self, Telemetry};
use crate::tor::Tor;

/// The length of the queue of reports. A report says that a site refuses an exit, and a worker makes a ban from it. Not
/// tuned.
const REPORTS: usize = 256;

/// A running gateway: the parts that a reload changes, and those that are needed to stop it.
pub struct Running {
    pub(super) config: Config,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) state: State,
    pub(super) limits: Limits,
    pub(super) listeners: Arc<Mutex<Listeners>>,
    pub(super) routes: RouteAdmin,
    pub(super) outbound: Arc<Outbound>,
    pub(super) tor: Option<Tor>,
    pub(super) own: Own,
    pub(super) only_tor: OnlyTor,
    pub(super) cities: CityFile,
    pub(super) access: Arc<ArcSwap<Access>>,
    keys: KeyAdmin,
    lifecycle: Lifecycle,
    /// The tasks that serve the API. They are stopped last.
    api: Lifecycle,
    store: Store,
    stopping: watch::Sender<bool>,
    /// True from the stop signal on. The API reads it.
    draining: Arc<AtomicBool>,
}

/// How long open requests to the API may take after everything else has ended. An answer of the API takes milliseconds;
/// the rest of this time is for idle connections, which are cut.
const API_GRACE: Duration = Duration::from_millis(200);

/// Builds and starts the gateway. It binds every port first, so a port that is taken is an error before anything runs.
pub async fn build(
    mut config: Config,
    telemetry: Telemetry,
    reloads: mpsc::Sender<ReloadRequest>,
    inherited: Inherited,
) -> Result<Running, StartError> {
    let lifecycle = Lifecycle::new();
    let tasks = lifecycle.tasks();
    let telemetry = Arc::new(telemetry);
    secrets::make_data_dir(&config.data_dir)?;
    make_secrets(&mut config)?;
    let ports = Ports::bind(&config, &inherited)?;
    let cities = CityFile::start(&tasks, config.geo.mmdb.clone()).await;
    let geoip = settings::geoip(&config.tor, cities.identities(), config.geo.mmdb.is_some());
    let Stored { state, wished, store, sources, routes, ports: former, keys: stored_keys, key_usage, keys_lost } =
        load(&config, &geoip).await?;
    let tor = start_tor(&config, &tasks, &state).await?;
    let limits = settings::limits(&config);
    if keys_lost {
        tracing::error!(
            "the keys that the API created are lost with the database, so every client needs a key of the configuration"
        );
        limits.close();
    }
    let stored_keys = keys::restore(&config, &limits, (stored_keys, key_usage), state.now())?;
    let own = Own::new();
    own.set_networks(config.sources.direct.bind.clone());
    let (reports, reported) = mpsc::channel(REPORTS);
    let (stopping, stopped) = watch::channel(false);
    let only_tor = OnlyTor::default();
    only_tor.set(settings::wants_only_tor(&config).await);
    settings::announce_only_tor(&config, &only_tor);
    let terms = settings::outbound_terms(&config, &own, &only_tor);
    let parts = WorkerInputs {
        config: &config,
        tasks: &tasks,
        state: &state,
        store: &store,
        tor: tor.as_ref(),
        geoip: &geoip,
        rules: terms.rules.clone(),
        echo_budget: EchoBudget::of(&config.check),
        only_tor: only_tor.is_on(),
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
        identities: cities.identities(),
        refusals: RefusalReporter::new(reports),
        verify: exits::verify(&started),
        stopping: stopped,
    }));
    let permits = Permits::new(settings::connections(&config.gateway, files::raise_limit()));
    let mut listeners = Listeners::new(outbound.clone(), permits, tasks.clone(), own.clone(), config.clone());
    let inherited = Arc::new(inherited);
    listeners.inherit(inherited.clone());
    let bound = Bound { gateway: addrs(&ports.gateway), api: addrs(&ports.api) };
    bound.api.iter().for_each(|addr| own.insert(*addr));
    ports.gateway.into_iter().try_for_each(|port| listeners.open_shared(port, &config))?;
    open_routes(&config, &state, &mut listeners, &former).await?;
    let connections = listeners.connections();
    let listeners = Arc::new(Mutex::new(listeners));
    let routes = RouteAdmin::start(&tasks, state.clone(), listeners.clone(), RouteRules::of(&config), routes);
    let keys = keys::start(&config, &tasks, (&state, &store, &limits), (&listeners, &connections), stored_keys);
    let access = Arc::new(ArcSwap::from_pointee(settings::access(&config)));
    let front = Front {
        tasks: tasks.clone(),
        outbound: outbound.clone(),
        connections,
        keys: keys.clone(),
        gateway: bound.gateway.clone(),
        tor: tor.clone(),
        identities: cities.identities(),
    };
    let wiring =
        wiring(&config, &telemetry, (&state, &store), started, routes.clone(), front, (reloads, only_tor.clone()));
    let pages = if config.api.console { console::router() } else { axum::Router::new() };
    let (readiness, draining, api) = (wiring.readiness.clone(), wiring.draining.clone(), Lifecycle::new());
    api::start(ports.api, access.clone(), wiring, pages, api.tasks())
        .map_err(|error| StartError::Other(format!("the API could not start: {error}")))?;
    start_upkeep(&tasks, &telemetry, &state, &limits, &outbound);
    start_gauges(&tasks, &state, tor.clone(), readiness);
    announce(&bound, &config, &inherited.unused());
    Ok(Running {
        config,
        telemetry,
        state,
        limits,
        listeners,
        routes,
        outbound,
        tor,
        own,
        only_tor,
        cities,
        access,
        keys,
        lifecycle,
        api,
        store,
        stopping,
        draining,
    })
}

impl Running {
    /// Stops the gateway. `GET /ready` answers 503 from now on. After the time `delay` the gateway accepts no new
    /// connections, waits for open ones for the time `grace`, and cuts the rest. If `hurry` completes, both waits end
    /// early. The API answers until the last connection has ended.
    pub async fn stop(self, delay: Duration, grace: Duration, hurry: impl Future<Output = ()>) -> Ended {
        self.draining.store(true, Ordering::Relaxed);
        let mut hurry = std::pin::pin!(hurry);
        let hurried = tokio::select! {
            () = &mut hurry => true,
            () = tokio::time::sleep(delay) => false,
        };
        self.stopping.send_replace(true);
        self.listeners.lock().await.close().await;
        let rest = async {
            if !hurried {
                hurry.await;
            }
        };
        let stopped = self.lifecycle.stop(grace, rest);
        let ended = tokio::select! {
            ended = stopped => ended,
            () = self.keys.keep_saving() => Ended::Drained, // never returns
        };
        self.keys.save();
        self.api.stop(API_GRACE, std::future::pending()).await;
        self.store.close().await;
        ended
    }
}

/// The ports of the configuration. They are bound but do not listen yet.
struct Ports {
    gateway: Vec<Reservation>,
    api: Vec<Reservation>,
}

impl Ports {
    fn bind(config: &Config, inherited: &Inherited) -> Result<Self, StartError> {
        let all = |what: &str, addrs: &[SocketAddr]| {
            addrs.iter().map(|addr| admin::bind(what, *addr, inherited)).collect::<Result<Vec<_>, _>>()
        };
        let gateway = all("gateway.listen", &config.gateway.listen)?;
        let api = all("api.listen", &config.api.listen)?;
        Ok(Self { gateway, api })
    }
}

fn addrs(ports: &[Reservation]) -> Vec<SocketAddr> {
    ports.iter().map(Reservation::addr).collect()
}

/// Generates a key or a token if the configuration has none and a port is open beyond loopback. Logs the path of the
/// file that contains the new secret.
pub(super) fn make_secrets(config: &mut Config) -> Result<(), StartError> {
    if config.exposure.make_key {
        let (secret, new) = secrets::load_or_make(&config.data_dir, secrets::KEY_FILE)?;
        tracing::warn!(file = %config.data_dir.join(secrets::KEY_FILE).display(), new, "clients need the key in this file as their password");
        config.gateway.keys.push(settings::made_key(secret));
    }
    if config.exposure.make_token {
        let (secret, new) = secrets::load_or_make(&config.data_dir, secrets::TOKEN_FILE)?;
        tracing::warn!(file = %config.data_dir.join(secrets::TOKEN_FILE).display(), new, "the API needs the token in this file");
        config.api.token = Some(secret);
        if config.api.read_token.is_none() {
            config.api.read_token = Some(secrets::load_or_make(&config.data_dir, secrets::READ_TOKEN_FILE)?.0);
        }
    }
    Ok(())
}

/// The state that the last run of the gateway stored in the database.
struct Stored {
    state: State,
    wished: mpsc::Receiver<ExitId>,
    store: Store,
    sources: Vec<store::Source>,
    /// The routes that the API created.
    routes: Vec<store::Route>,
    /// The ports that the configuration's routes had in the last run.
    ports: FormerPorts,
    /// The keys that the API created.
    keys: Vec<store::Key>,
    key_usage: Vec<store::KeyUsage>,
    /// True if the database is damaged and the API created keys at some time.
    keys_lost: bool,
}

/// Opens the store, and builds the first snapshot from its content.
async fn load(config: &Config, geoip: &GeoIp) -> Result<Stored, StartError> {
    let path = config.data_dir.join("exitgate.db");
    let options = settings::store(&config.store);
    let file = path.clone();
    let opened = tokio::task::spawn_blocking(move || Store::open(&file, options)).await;
    let mut keys_lost = false;
    let (store, mut loaded) = match opened.map_err(|error| StartError::Other(error.to_string()))? {
        // If the database file is damaged, the gateway starts without it, and does not change it.
        Err(store::StoreError::Open { fault: fault @ store::Fault::Corrupt, .. }) => {
            keys_lost = config.data_dir.join(secrets::API_KEYS_FILE).exists();
            (Store::refusing(&path, fault, options)?, store::Loaded::default())
        }
        opened => opened?,
    };
    let clock = Clock::start();
    let sources = std::mem::take(&mut loaded.sources);
    let routes = std::mem::take(&mut loaded.routes);
    let ports = routes::former(&loaded.meta);
    let (keys, key_usage) = (std::mem::take(&mut loaded.keys), std::mem::take(&mut loaded.key_usage));
    let (mut snapshot, memory) = recall::recall(config, loaded, geoip, clock.now());
    snapshot.routes = admin::restored(&routes, snapshot.routes, &RouteRules::of(config));
    let (state, wished) = State::new(snapshot, memory, clock, Some(store.clone()));
    Ok(Stored { state, wished, store, sources, routes, ports, keys, key_usage, keys_lost })
}

/// Applies the configuration's routes and opens their ports. All ports are bound first, so if one is taken, nothing
/// changes.
pub(super) async fn open_routes(
    config: &Config,
    state: &State,
    listeners: &mut Listeners,
    former: &FormerPorts,
) -> Result<(), StartError> {
    let change = routes::configured(config, &state.snapshot(), former, state.now())?;
    let Change::Configured { routes, .. } = &change else { return Ok(()) };
    let mut wanted: Vec<_> = routes.iter().cloned().map(Arc::new).collect();
    let snapshot = state.snapshot();
    let of_api = snapshot.routes.iter().filter(|entry| entry.route.origin == Origin::Api);
    wanted.extend(of_api.map(|entry| entry.route.clone()));
    let bound = listeners.reserve(config, &wanted)?;
    state.apply(change).await.map_err(|refused| StartError::Other(refused.to_string()))?;
    Ok(listeners.set_routes(config, &wanted, bound).await?)
}

async fn start_tor(config: &Config, tasks: &Tasks, state: &State) -> Result<Option<Tor>, StartError> {
    if !config.tor.enabled {
        return Ok(None);
    }
    let settings = settings::tor(config).without_missing().await;
    let found = crate::tor::preflight(&settings).await?;
    found.warnings.iter().for_each(|warning| tracing::warn!("tor: {warning}"));
    if let Some(version) = found.version {
        tracing::info!(%version, "tor was found");
    }
    Ok(Some(Tor::start(settings, tasks.clone(), state.wanted())))
}

/// The data about the client ports that the API shows.
struct Front {
    tasks: Tasks,
    outbound: Arc<Outbound>,
    connections: Arc<ConnectionTable>,
    keys: KeyAdmin,
    gateway: Vec<SocketAddr>,
    tor: Option<Tor>,
    identities: Identities,
}

/// Returns the parts that the handlers of the API use.
fn wiring(
    config: &Config,
    telemetry: &Arc<Telemetry>,
    (state, store): (&State, &Store),
    started: ExitWorkers,
    routes: RouteAdmin,
    Front { tasks, outbound, connections, keys, gateway, tor, identities }: Front,
    (reload, only_tor): (mpsc::Sender<ReloadRequest>, OnlyTor),
) -> Wiring {
    let (telemetry, readable, direct) = (telemetry.clone(), state.clone(), config.gateway.allow_direct);
    let public = config.sources.any_public();
    let upstream: Vec<_> = config.sources.upstream.iter().map(|source| source.name).collect();
    let engines = tor.clone();
    Wiring {
        metrics: Arc::new(move || telemetry.render()),
        readiness: Arc::new(move || exits::readiness(&readable, engines.as_ref(), (direct, public), &upstream)),
        draining: Arc::default(),
        reload,
        state: state.clone(),
        store: store.clone(),
        tester: started.tester,
        public_tester: started.public_tester,
        own_tester: started.own_tester,
        upstream_tester: started.upstream_tester,
        sources: started.sources,
        lists: started.lists,
        public_list: config.sources.any_public().then(|| api::list::ListCache::new(state)),
        tor,
        only_tor,
        history: Arc::new(History::new(TOTALS.read())),
        journal: Arc::new(Journal::new(state.now())),
        routes,
        outbound,
        connections,
        keys,
        gateway,
        identities,
        slow: Arc::new(Semaphore::new(api::SLOW)),
        tasks,
    }
}

/// Converts the log settings of the configuration into those of the room `telemetry`.
pub(super) fn log_settings(log: &crate::config::Log) -> telemetry::LogSettings {
    settings::log(log)
}
