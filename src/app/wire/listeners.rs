//! The ports of the front: the shared one, and one for each route that has a port; opened and closed while running.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;

use super::bind;
use crate::app::StartError;
use crate::config::Config;
use crate::gateway::connection;
use crate::gateway::connection_table::ConnectionTable;
use crate::gateway::listener::ListenerConfig;
use crate::gateway::meters::ListenerMeters;
use crate::gateway::outbound::Outbound;
use crate::lifecycle::Tasks;
use crate::limit::target::Own;
use crate::listen::{self, Arrival, Listener, Permits, Reservation};
use crate::route::policy::Auth;
use crate::route::selector::RouteName;
use crate::route::table::{Origin, Route};

/// Every open port.
pub(in crate::app) struct Listeners {
    outbound: Arc<Outbound>,
    permits: Permits,
    tasks: Tasks,
    own: Own,
    connections: Arc<ConnectionTable>,
    shared: Vec<Port>,
    routes: HashMap<RouteName, Open>,
    /// What ports that are opened by order are opened with.
    config: Config,
}

/// A listener with what its connections see of it; the latter may be replaced while it listens.
struct Port {
    listener: Listener,
    settings: Arc<ArcSwap<ListenerConfig>>,
}

struct Open {
    at: Port,
    route: Arc<Route>,
}

impl Listeners {
    pub(super) fn new(outbound: Arc<Outbound>, permits: Permits, tasks: Tasks, own: Own, config: Config) -> Self {
        let (connections, shared, routes) = (Arc::default(), Vec::new(), HashMap::new());
        Self { outbound, permits, tasks, own, connections, shared, routes, config }
    }

    /// Every connection of these doors.
    pub(super) fn connections(&self) -> Arc<ConnectionTable> {
        self.connections.clone()
    }

    /// Opens the shared port on one of its addresses.
    pub(super) fn open_shared(&mut self, port: Reservation, config: &Config) -> Result<(), StartError> {
        let settings = shared_settings(port.addr(), config, &self.connections);
        let opened = self.open(port, settings)?;
        self.shared.push(opened);
        Ok(())
    }

    /// What connections see from now on is what this configuration says; those that are open keep what they saw.
    pub(in crate::app) fn refresh(&mut self, config: &Config) {
        self.config = config.clone();
        for Port { listener, settings } in &self.shared {
            settings.store(Arc::new(shared_settings(listener.addr(), config, &self.connections)));
        }
        for Open { at, route } in self.routes.values() {
            at.settings.store(Arc::new(route_settings(at.listener.addr(), route, config, &self.connections)));
        }
    }

    /// Makes the open ports those of these routes: opens what is new, closes what is gone, and leaves alone what did
    /// not change. `bound` are ports that somebody has bound already.
    pub(in crate::app) async fn routes(
        &mut self,
        config: &Config,
        routes: &[Arc<Route>],
        bound: Vec<Reservation>,
    ) -> Result<(), StartError> {
        let mut bound: HashMap<SocketAddr, Reservation> = bound.into_iter().map(|port| (port.addr(), port)).collect();
        let ports: HashMap<&RouteName, Option<u16>> = routes.iter().map(|route| (&route.name, route.port)).collect();
        let same = |held: &Open| ports.get(&held.route.name) == Some(&held.route.port);
        let gone: Vec<RouteName> =
            self.routes.iter().filter(|(_, open)| !same(open)).map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.close_route(&name, false).await;
        }
        for route in routes {
            let Some(addr) = address(config, route).filter(|_| !self.routes.contains_key(&route.name)) else {
                continue;
            };
            let port = match bound.remove(&addr).map_or_else(|| bind_route(route, addr), Ok) {
                Ok(port) => port,
                // It is tried again, and must not keep the others from opening.
                Err(_) if route.origin == Origin::Api => continue,
                Err(error) => return Err(error),
            };
            let settings = route_settings(port.addr(), route, config, &self.connections);
            let at = self.open(port, settings)?;
            self.routes.insert(route.name.clone(), Open { at, route: route.clone() });
        }
        for route in routes {
            if let Some(open) = self.routes.get_mut(&route.name) {
                open.route = route.clone();
            }
        }
        Ok(())
    }

    /// Ports that these routes need and that are not open yet, bound: a reload that cannot have them changes nothing.
    pub(in crate::app) fn reserve(
        &self,
        config: &Config,
        routes: &[Arc<Route>],
    ) -> Result<Vec<Reservation>, StartError> {
        let held: HashSet<SocketAddr> = self.routes.values().map(|open| open.at.listener.addr()).collect();
        let needed = routes.iter().filter(|route| route.origin == Origin::Config);
        let needed = needed.filter_map(|route| Some((route, address(config, route)?)));
        needed.filter(|(_, addr)| !held.contains(addr)).map(|(route, addr)| bind_route(route, addr)).collect()
    }

    /// A port of the routes' own address, bound.
    pub(super) fn reserve_port(&self, port: u16) -> Result<Reservation, StartError> {
        bind("a route of the API", SocketAddr::new(self.config.gateway.route_bind, port))
    }

    /// Opens a route's port.
    pub(super) fn open_route(&mut self, port: Reservation, route: &Arc<Route>) -> Result<(), StartError> {
        let settings = route_settings(port.addr(), route, &self.config, &self.connections);
        let at = self.open(port, settings)?;
        self.routes.insert(route.name.clone(), Open { at, route: route.clone() });
        Ok(())
    }

    /// Takes over a route that was changed: what its port lets in is what it says now. With another port it moves there,
    /// and the connections of the old one go on.
    pub(super) async fn change_route(
        &mut self,
        route: &Arc<Route>,
        port: Option<Reservation>,
    ) -> Result<(), StartError> {
        if let Some(port) = port {
            let old = self.routes.remove(&route.name);
            self.open_route(port, route)?;
            if let Some(Open { at: Port { listener, .. }, .. }) = old {
                self.own.remove(listener.addr());
                listener.close().await;
                self.let_finish(listener);
            }
        } else if let Some(open) = self.routes.get_mut(&route.name) {
            open.at.settings.store(Arc::new(route_settings(
                open.at.listener.addr(),
                route,
                &self.config,
                &self.connections,
            )));
            open.route = route.clone();
        }
        Ok(())
    }

    /// True if the route's port listens.
    pub(super) fn is_open(&self, name: &RouteName) -> bool {
        self.routes.contains_key(name)
    }

    /// Closes a route's port: it is free when this returns. Its connections may finish, unless `force`.
    pub(super) async fn close_route(&mut self, name: &RouteName, force: bool) {
        let Some(Open { at: Port { listener, .. }, .. }) = self.routes.remove(name) else { return };
        self.own.remove(listener.addr());
        if force {
            listener.cut().await;
        } else {
            listener.close().await;
        }
        self.let_finish(listener);
    }

    /// Takes no new connections on any port; those that are open go on.
    pub(super) async fn close(&self) {
        for Port { listener, .. } in self.shared.iter().chain(self.routes.values().map(|open| &open.at)) {
            listener.close().await;
        }
    }

    fn open(&self, port: Reservation, settings: ListenerConfig) -> Result<Port, StartError> {
        let (addr, label) = (port.addr(), settings.label.clone());
        let (settings, outbound) = (Arc::new(ArcSwap::from_pointee(settings)), self.outbound.clone());
        let held = settings.clone();
        let serve = move |Arrival { stream, peer, cut }| {
            connection::serve(stream, peer, cut, held.load_full(), outbound.clone())
        };
        let listener = listen::start(port, &self.permits, usize::MAX, &self.tasks, serve)
            .map_err(|error| StartError::Port { what: label.to_string(), addr, why: error.to_string() })?;
        self.own.insert(listener.addr());
        Ok(Port { listener, settings })
    }

    /// Keeps a closed listener until its connections have ended.
    fn let_finish(&self, listener: Listener) {
        let tasks = self.tasks.clone();
        self.tasks.spawn("closing door", async move {
            tokio::select! {
                () = tasks.killed() => {}
                _ = listener.drain(std::time::Duration::MAX) => {}
            }
        });
    }
}

/// Where a route listens, if it does.
fn address(config: &Config, route: &Route) -> Option<SocketAddr> {
    Some(SocketAddr::new(config.gateway.route_bind, route.port?))
}

fn bind_route(route: &Route, addr: SocketAddr) -> Result<Reservation, StartError> {
    bind(&format!("routes[{}]", route.name), addr)
}

fn shared_settings(addr: SocketAddr, config: &Config, connections: &Arc<ConnectionTable>) -> ListenerConfig {
    let demands_name = config.gateway.require_username;
    ListenerConfig {
        demands_name,
        ..settings(("shared", None), addr, !config.gateway.keys.is_empty(), config, connections)
    }
}

fn route_settings(
    addr: SocketAddr,
    route: &Route,
    config: &Config,
    connections: &Arc<ConnectionTable>,
) -> ListenerConfig {
    let demands = route.policy.auth == Auth::Key && !config.gateway.keys.is_empty();
    settings((route.name.as_str(), Some(route.name.shared())), addr, demands, config, connections)
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
        // The route's own port says which way.
        demands_name: false,
        tls: gateway.tls.as_ref().map(|tls| TlsAcceptor::from(super::settings::tls(tls))),
        trusted: gateway.proxy_protocol.clone(),
        opening: gateway.handshake_timeout,
        keep_alive: gateway.keep_alive_timeout,
        log_targets: config.log.targets,
        meters: ListenerMeters::new(label),
        connections: connections.clone(),
    }
}
