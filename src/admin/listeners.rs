//! The ports that clients connect to: the shared port, and one port for each route that has a port. They are opened and
//! closed while the gateway runs.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;

use super::bind_port::{PortError, bind};
use crate::config::{Config, Tls};
use crate::gateway::connection;
use crate::gateway::connection_table::ConnectionTable;
use crate::gateway::listener::ListenerConfig;
use crate::gateway::meters::ListenerMeters;
use crate::gateway::outbound::Outbound;
use crate::lifecycle::Tasks;
use crate::limit::target::Own;
use crate::listen::{self, Arrival, Inherited, Listener, Permits, Reservation};
use crate::route::policy::Auth;
use crate::route::selector::RouteName;
use crate::route::table::{Origin, Route};

/// All ports that are open for clients.
pub struct Listeners {
    outbound: Arc<Outbound>,
    permits: Permits,
    tasks: Tasks,
    own: Own,
    connections: Arc<ConnectionTable>,
    inherited: Arc<Inherited>,
    shared: Vec<OpenPort>,
    routes: HashMap<RouteName, RoutePort>,
    /// The configuration whose settings a newly opened route port gets.
    config: Config,
    /// True if clients need a key. The settings of the open ports contain this value.
    needs_key: bool,
}

/// A listener, and the settings for its new connections. A reload may replace the settings while the listener is open.
struct OpenPort {
    listener: Listener,
    settings: Arc<ArcSwap<ListenerConfig>>,
}

struct RoutePort {
    port: OpenPort,
    route: Arc<Route>,
}

impl Listeners {
    /// Creates the set of listeners. No port is open yet.
    pub fn new(outbound: Arc<Outbound>, permits: Permits, tasks: Tasks, own: Own, config: Config) -> Self {
        let (connections, shared, routes) = (Arc::default(), Vec::new(), HashMap::new());
        let needs_key = outbound.needs_key();
        let inherited = Arc::default();
        Self { outbound, permits, tasks, own, connections, inherited, shared, routes, config, needs_key }
    }

    /// Uses these inherited sockets for ports that are opened from now on.
    pub fn inherit(&mut self, inherited: Arc<Inherited>) {
        self.inherited = inherited;
    }

    /// Returns the table of all client connections to these ports.
    pub fn connections(&self) -> Arc<ConnectionTable> {
        self.connections.clone()
    }

    /// Opens the shared port on one of the addresses in `gateway.listen`.
    pub fn open_shared(&mut self, reservation: Reservation, config: &Config) -> Result<(), PortError> {
        let settings = shared_settings(reservation.addr(), self.outbound.needs_key(), config, &self.connections);
        let opened = self.open(reservation, settings)?;
        self.shared.push(opened);
        Ok(())
    }

    /// Uses the settings of `config` for new connections. Open connections keep the old settings.
    pub fn refresh(&mut self, config: &Config) {
        self.config = config.clone();
        self.needs_key = self.outbound.needs_key();
        for OpenPort { listener, settings } in &self.shared {
            let new = shared_settings(listener.addr(), self.needs_key, config, &self.connections);
            settings.store(Arc::new(new));
        }
        for RoutePort { port, route } in self.routes.values() {
            let new = route_settings(port.listener.addr(), route, self.needs_key, config, &self.connections);
            port.settings.store(Arc::new(new));
        }
    }

    /// Makes the ports require a key, or no longer require one, if keys of the API have changed this. Open connections
    /// keep the old settings.
    pub(super) fn refresh_keys(&mut self) {
        if self.needs_key != self.outbound.needs_key() {
            let config = self.config.clone();
            self.refresh(&config);
        }
    }

    /// Makes the open ports match `routes`: opens missing ports, closes the ports of routes that no longer exist or
    /// have a new port, and leaves all other ports as they are. `bound` are the ports that [`Listeners::reserve`] has
    /// bound for these routes.
    pub async fn set_routes(
        &mut self,
        config: &Config,
        routes: &[Arc<Route>],
        bound: Vec<Reservation>,
    ) -> Result<(), PortError> {
        let mut bound: HashMap<SocketAddr, Reservation> = bound.into_iter().map(|port| (port.addr(), port)).collect();
        let ports: HashMap<&RouteName, Option<u16>> = routes.iter().map(|route| (&route.name, route.port)).collect();
        let unchanged = |open: &RoutePort| ports.get(&open.route.name) == Some(&open.route.port);
        let gone: Vec<RouteName> =
            self.routes.iter().filter(|(_, open)| !unchanged(open)).map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.close_route(&name, false).await;
        }
        for route in routes {
            let Some(addr) = address(config, route).filter(|_| !self.routes.contains_key(&route.name)) else {
                continue;
            };
            let reservation = match bound.remove(&addr).map_or_else(|| self.bind_route(route, addr), Ok) {
                Ok(reservation) => reservation,
                // The port of this route is taken. The worker in `admin/service.rs` tries to open it again later, and
                // the other routes are opened now.
                Err(_) if route.origin == Origin::Api => continue,
                Err(error) => return Err(error),
            };
            let settings = route_settings(addr, route, self.outbound.needs_key(), config, &self.connections);
            let port = self.open(reservation, settings)?;
            self.routes.insert(route.name.clone(), RoutePort { port, route: route.clone() });
        }
        for route in routes {
            if let Some(open) = self.routes.get_mut(&route.name) {
                open.route = route.clone();
            }
        }
        Ok(())
    }

    /// Binds those ports of the configuration's `routes` that are not open yet. A reload calls this before it changes
    /// anything. If a port is taken, the whole reload is refused.
    pub fn reserve(&self, config: &Config, routes: &[Arc<Route>]) -> Result<Vec<Reservation>, PortError> {
        let open: HashSet<SocketAddr> = self.routes.values().map(|open| open.port.listener.addr()).collect();
        let needed = routes.iter().filter(|route| route.origin == Origin::Config);
        let needed = needed.filter_map(|route| Some((route, address(config, route)?)));
        needed.filter(|(_, addr)| !open.contains(addr)).map(|(route, addr)| self.bind_route(route, addr)).collect()
    }

    /// Binds `port` on the address for the routes' own ports.
    pub(super) fn reserve_port(&self, port: u16) -> Result<Reservation, PortError> {
        bind("a route of the API", SocketAddr::new(self.config.gateway.route_bind, port), &self.inherited)
    }

    /// Starts to listen on the reserved port of a route.
    pub(super) fn open_route(&mut self, reservation: Reservation, route: &Arc<Route>) -> Result<(), PortError> {
        let needs_key = self.outbound.needs_key();
        let settings = route_settings(reservation.addr(), route, needs_key, &self.config, &self.connections);
        let port = self.open(reservation, settings)?;
        self.routes.insert(route.name.clone(), RoutePort { port, route: route.clone() });
        Ok(())
    }

    /// Applies the new settings of a changed route to its port. If `new_port` is set, the route listens there from now
    /// on, and open connections of the old port continue.
    pub(super) async fn change_route(
        &mut self,
        route: &Arc<Route>,
        new_port: Option<Reservation>,
    ) -> Result<(), PortError> {
        if let Some(new_port) = new_port {
            let old = self.routes.remove(&route.name);
            self.open_route(new_port, route)?;
            if let Some(RoutePort { port: OpenPort { listener, .. }, .. }) = old {
                self.own.remove(listener.addr());
                listener.close().await;
                self.let_finish(listener);
            }
        } else if let Some(open) = self.routes.get_mut(&route.name) {
            let addr = open.port.listener.addr();
            let needs_key = self.outbound.needs_key();
            let new = route_settings(addr, route, needs_key, &self.config, &self.connections);
            open.port.settings.store(Arc::new(new));
            open.route = route.clone();
        }
        Ok(())
    }

    /// Returns true if the route's port listens.
    pub(super) fn is_open(&self, name: &RouteName) -> bool {
        self.routes.contains_key(name)
    }

    /// Closes a route's port. The port is free when this function returns. If `force` is true, the route's connections
    /// are cut, otherwise they may finish.
    pub(super) async fn close_route(&mut self, name: &RouteName, force: bool) {
        let Some(RoutePort { port: OpenPort { listener, .. }, .. }) = self.routes.remove(name) else { return };
        self.own.remove(listener.addr());
        if force {
            listener.cut().await;
        } else {
            listener.close().await;
        }
        self.let_finish(listener);
    }

    /// Stops accepting connections on all ports. Open connections continue.
    pub async fn close(&self) {
        for OpenPort { listener, .. } in self.shared.iter().chain(self.routes.values().map(|open| &open.port)) {
            listener.close().await;
        }
    }

    fn bind_route(&self, route: &Route, addr: SocketAddr) -> Result<Reservation, PortError> {
        bind(&format!("routes[{}]", route.name), addr, &self.inherited)
    }

    fn open(&self, reservation: Reservation, settings: ListenerConfig) -> Result<OpenPort, PortError> {
        let (addr, label) = (reservation.addr(), settings.label.clone());
        let (settings, outbound) = (Arc::new(ArcSwap::from_pointee(settings)), self.outbound.clone());
        let current = settings.clone();
        let serve = move |Arrival { stream, peer, cut }| {
            connection::serve(stream, peer, cut, current.load_full(), outbound.clone())
        };
        let listener = listen::start(reservation, &self.permits, usize::MAX, &self.tasks, serve)
            .map_err(|error| PortError { what: label.to_string(), addr, why: error.to_string() })?;
        self.own.insert(listener.addr());
        Ok(OpenPort { listener, settings })
    }

    /// Keeps a closed listener alive until its connections have ended.
    fn let_finish(&self, listener: Listener) {
        let tasks = self.tasks.clone();
        self.tasks.spawn("closing port", async move {
            tokio::select! {
                () = tasks.killed() => {}
                _ = listener.drain(Duration::MAX) => {}
            }
        });
    }
}

/// Returns the address that a route listens on, or `None` if the route has no port.
fn address(config: &Config, route: &Route) -> Option<SocketAddr> {
    Some(SocketAddr::new(config.gateway.route_bind, route.port?))
}

fn shared_settings(
    addr: SocketAddr,
    needs_key: bool,
    config: &Config,
    connections: &Arc<ConnectionTable>,
) -> ListenerConfig {
    let demands_name = config.gateway.require_username;
    ListenerConfig { demands_name, ..settings(("shared", None), addr, needs_key, config, connections) }
}

fn route_settings(
    addr: SocketAddr,
    route: &Route,
    needs_key: bool,
    config: &Config,
    connections: &Arc<ConnectionTable>,
) -> ListenerConfig {
    let demands_key = route.policy.auth == Auth::Key && needs_key;
    settings((route.name.as_str(), Some(route.name.shared())), addr, demands_key, config, connections)
}

fn settings(
    (label, route): (&str, Option<Arc<str>>),
    addr: SocketAddr,
    demands_key: bool,
    config: &Config,
    connections: &Arc<ConnectionTable>,
) -> ListenerConfig {
    let gateway = &config.gateway;
    ListenerConfig {
        label: label.into(),
        addr,
        route,
        demands_key,
        // A client at a route's own port need not send the route's name, because the port identifies the route.
        demands_name: false,
        tls: gateway.tls.as_ref().map(|tls| TlsAcceptor::from(server_tls(tls))),
        trusted: gateway.proxy_protocol.clone(),
        opening: gateway.handshake_timeout,
        keep_alive: gateway.keep_alive_timeout,
        log_targets: config.log.targets,
        meters: ListenerMeters::new(label),
        connections: connections.clone(),
    }
}

fn server_tls(tls: &Tls) -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(tls.certified.clone()));
    let versions = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.expect("ring offers both TLS versions");
    Arc::new(versions.with_no_client_auth().with_cert_resolver(resolver))
}
