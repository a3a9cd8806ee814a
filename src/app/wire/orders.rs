//! Routes of the API: opened and closed by order, ended when their time is over, there again after a restart.
//!
//! A port is bound before anything else is done, so that one that is taken changes nothing; the route is durable before
//! it is published, and published before its port listens, so that no connection comes to a port whose route is not
//! known. Closing goes the other way about.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Map, Value};
use tokio::sync::{Mutex, mpsc, watch};

use super::listeners::Listeners;
use crate::api::orders::{Opened, Order, OrderFault, Wanted};
use crate::api::routes::{self, RouteSpec, Rules, Span};
use crate::config::Config;
use crate::exit::Moment;
use crate::lifecycle::Tasks;
use crate::listen::Reservation;
use crate::route::RouteTable;
use crate::route::selector::RouteName;
use crate::route::table::{Clash, Entry, Origin, Route};
use crate::state::{Change, Refused, State};
use crate::store;

/// Orders that wait. Arbitrary; who sends more waits.
const WAITING: usize = 64;

/// How often expiries are looked for, and ports that another program had are tried again.
const TICK: Duration = Duration::from_secs(1);

/// How to reach the worker.
pub(super) struct Reach {
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) rules: Arc<ArcSwap<Rules>>,
    pub(super) shut: watch::Receiver<BTreeSet<String>>,
}

/// What every route of the API is judged by.
pub(in crate::app) fn rules(config: &Config) -> Rules {
    let gateway = &config.gateway;
    Rules {
        bind: gateway.route_bind,
        ports: gateway.route_ports.first()..=gateway.route_ports.last(),
        checks: config.check.targets.iter().map(|target| target.name.clone()).collect(),
        keys: !gateway.keys.is_empty(),
        allow_direct: gateway.allow_direct,
        ban_for: config.check.ban_for,
    }
}

/// The table with the routes that the store kept. One that this configuration can no longer read stays in the store.
pub(super) fn recalled(kept: &[store::Route], mut table: RouteTable, rules: &Rules) -> RouteTable {
    for kept in kept {
        if RouteName::for_new_route(&kept.name, table.words()).is_err() {
            let advice = "as a username it now means this route; make the route again under another name";
            tracing::warn!(route = kept.name, advice, "a route of the API has a name that reads as a selector");
        }
        let route = route_of(kept, &table, rules);
        if let Err(why) = route.and_then(|route| table.put(route).map_err(|clash| clash.to_string())) {
            tracing::error!(route = kept.name, why, "a route of the API cannot be opened again; it is kept");
        }
    }
    table
}

fn route_of(kept: &store::Route, table: &RouteTable, rules: &Rules) -> Result<Route, String> {
    let fields = serde_json::from_str(&kept.asked).map_err(|why| why.to_string())?;
    // Ports outside a range that has become smaller go on: somebody uses them.
    let asked = RouteSpec { port: None, name: None, ..RouteSpec::read(&fields).map_err(|wrong| wrong.to_string())? };
    let (selector, policy) = asked.judged(table, rules).map_err(|wrong| wrong.to_string())?;
    let name = RouteName::parse(&kept.name, &selector, table.words()).map_err(|why| why.to_string())?;
    let (port, created, expires) = (kept.port, kept.created, kept.expires);
    Ok(Route { name, selector, port, policy: Arc::new(policy), origin: Origin::Api, created, expires })
}

/// Starts the worker.
pub(super) fn start(
    tasks: &Tasks,
    state: State,
    listeners: Arc<Mutex<Listeners>>,
    rules: Arc<ArcSwap<Rules>>,
    kept: Vec<store::Route>,
) -> Reach {
    let (orders, mut asked) = mpsc::channel(WAITING);
    let (tell, shut) = watch::channel(BTreeSet::new());
    let said = kept.into_iter().map(|route| (route.name, route.asked)).collect();
    let mut service = RouteService { state, listeners, said, rules: rules.clone(), shut: tell };
    let worker = tasks.clone();
    tasks.spawn("orders", async move {
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                () = worker.stopping() => return,
                _ = tick.tick() => service.tick().await,
                order = asked.recv() => match order {
                    Some(order) => service.take(order).await,
                    None => return,
                },
            }
        }
    });
    Reach { orders, rules, shut }
}

struct RouteService {
    state: State,
    listeners: Arc<Mutex<Listeners>>,
    /// The body that asked for each route.
    said: HashMap<String, String>,
    rules: Arc<ArcSwap<Rules>>,
    shut: watch::Sender<BTreeSet<String>>,
}

impl RouteService {
    async fn take(&mut self, order: Order) {
        // Who asked may have gone; the order was carried out all the same.
        match order {
            Order::Open(wanted, answer) => drop(answer.send(self.open(wanted).await)),
            Order::Change { name, patch, answer } => drop(answer.send(self.change(&name, patch).await)),
            Order::Close { name, force, answer } => drop(answer.send(self.close(&name, force).await)),
        }
    }

    async fn open(&mut self, wanted: Vec<Wanted>) -> Result<Opened, OrderFault> {
        if let Some(names) = self.same(&wanted)? {
            return Ok(Opened { names, new: false });
        }
        let mut listeners = self.listeners.clone().lock_owned().await;
        let ports = self.reserve(&wanted, &listeners)?;
        let mut routes: Vec<(Route, String)> = Vec::new();
        let many = wanted.len();
        for (wanted, port) in wanted.into_iter().zip(&ports) {
            let said = wanted.asked.text();
            let route = self.route(wanted, port)?;
            // Those of one order ask for the same, but for name and port: one answer is all theirs.
            if routes.is_empty() {
                self.served(&route, many)?;
            }
            routes.push((route, said));
        }
        self.state.apply(Change::Created(routes.clone())).await.map_err(fault)?;
        for ((route, said), port) in routes.iter().zip(ports) {
            self.said.insert(route.name.to_string(), said.clone());
            if let Err(error) = listeners.open_route(port, &Arc::new(route.clone())) {
                tracing::error!(%error, route = %route.name, "a route's port does not listen; it is tried again");
            }
        }
        Ok(Opened { names: routes.into_iter().map(|(route, _)| route.name).collect(), new: true })
    }

    /// Some exit would serve this route now, and each of the `many` that are ordered with it.
    fn served(&self, route: &Route, many: usize) -> Result<(), OrderFault> {
        let (state, now) = (&self.state, self.state.now());
        routes::unserved(&state.load(), state.memory(), route, many, now).map_or(Ok(()), Err)
    }

    /// Makes a route another without touching its connections: what opens from now on goes by what it says now.
    async fn change(&mut self, name: &str, patch: Map<String, Value>) -> Result<RouteName, OrderFault> {
        let old = self.own(name)?.route.clone();
        let said = self.said.get(name).map_or("{}", String::as_str);
        let asked = RouteSpec::patched(said, &patch)?;
        let moves = asked.port.filter(|port| Some(*port) != old.port);
        // A port that it has goes on, also where the range has become smaller.
        let judged = RouteSpec { port: moves, name: None, ..asked.clone() };
        let (selector, policy) = judged.judged(&self.state.load().routes, &self.rules.load())?;
        RouteName::parse(name, &selector, self.state.load().routes.words())
            .map_err(|why| OrderFault::BadName(name.to_owned(), why.to_string()))?;
        let mut listeners = self.listeners.clone().lock_owned().await;
        let port = moves.map(|port| self.reserve_one(port, &listeners)).transpose()?;
        let expires = match (patch.contains_key("ttl"), asked.ttl) {
            (false, _) => old.expires,
            (true, ttl) => ttl.map(|Span(ttl)| self.state.now().after(ttl)),
        };
        let (policy, text) = (Arc::new(policy), asked.text());
        let route = Route { selector, port: moves.or(old.port), policy, expires, ..(*old).clone() };
        if route.selector != old.selector || route.policy.check != old.policy.check {
            self.served(&route, 1)?;
        }
        self.state.apply(Change::Changed(route.clone(), text.clone())).await.map_err(fault)?;
        self.said.insert(name.to_owned(), text);
        if let Err(error) = listeners.change_route(&Arc::new(route), port).await {
            tracing::error!(%error, route = name, "a route's new port does not listen; it is tried again");
        }
        Ok(old.name.clone())
    }

    /// The route of this name, if it is the API's to change.
    fn own(&self, name: &str) -> Result<Arc<Entry>, OrderFault> {
        match self.state.load().routes.get(name) {
            None => Err(OrderFault::Unknown(name.to_owned())),
            Some(entry) if entry.route.origin == Origin::Config => Err(OrderFault::ReadOnly(name.to_owned())),
            Some(entry) => Ok(entry.clone()),
        }
    }

    /// The routes, if they are all there already, asked for in the same words.
    fn same(&self, wanted: &[Wanted]) -> Result<Option<Vec<RouteName>>, OrderFault> {
        let snapshot = self.state.load();
        let mut names = Vec::new();
        let mut absent = false;
        for wanted in wanted {
            let name = wanted.asked.name.as_deref();
            let Some((name, entry)) = name.and_then(|name| Some((name, snapshot.routes.get(name)?))) else {
                absent = true;
                continue;
            };
            if entry.route.origin == Origin::Config {
                return Err(OrderFault::ReadOnly(name.to_owned()));
            }
            if self.said.get(name).is_none_or(|said| *said != wanted.asked.text()) {
                return Err(OrderFault::NameTaken(name.to_owned()));
            }
            names.push(entry.route.name.clone());
        }
        match (absent, names.first()) {
            (true, Some(name)) => Err(OrderFault::NameTaken(name.to_string())),
            (true, None) => Ok(None),
            (false, _) => Ok(Some(names)),
        }
    }

    /// A port for each, bound.
    fn reserve(&self, wanted: &[Wanted], listeners: &Listeners) -> Result<Vec<Reservation>, OrderFault> {
        let snapshot = self.state.load();
        let mut free = self.rules.load().ports.clone();
        let mut next = |asked: Option<u16>| {
            let Some(port) = asked else {
                // A port whose name another route has is passed over too: the name of an unnamed route is made of it.
                let is_free =
                    |port: u16| !snapshot.routes.has_port(port) && snapshot.routes.get(&name_of(port)).is_none();
                let found = free.find_map(|port| if is_free(port) { listeners.reserve_port(port).ok() } else { None });
                return found.ok_or(OrderFault::NoPortLeft);
            };
            self.reserve_one(port, listeners)
        };
        wanted.iter().map(|wanted| next(wanted.asked.port)).collect()
    }

    /// This very port, bound.
    fn reserve_one(&self, port: u16, listeners: &Listeners) -> Result<Reservation, OrderFault> {
        if let Some(owner) = self.state.load().routes.by_port(port) {
            return Err(OrderFault::PortOfRoute { port, route: owner.route.name.to_string() });
        }
        listeners.reserve_port(port).map_err(|_| OrderFault::PortInUse(port))
    }

    fn route(&self, wanted: Wanted, port: &Reservation) -> Result<Route, OrderFault> {
        let Wanted { asked, selector, policy } = wanted;
        let (now, port) = (self.state.now(), port.addr().port());
        let text = asked.name.unwrap_or_else(|| name_of(port));
        let name = RouteName::for_new_route(&text, self.state.load().routes.words());
        let name = name.map_err(|why| OrderFault::BadName(text, why.to_string()))?;
        let expires = asked.ttl.map(|ttl| now.after(ttl.0));
        let policy = Arc::new(policy);
        Ok(Route { name, selector, port: Some(port), policy, origin: Origin::Api, created: now, expires })
    }

    async fn close(&mut self, name: &str, force: bool) -> Result<(), OrderFault> {
        let name = self.own(name)?.route.name.clone();
        let mut listeners = self.listeners.lock().await;
        listeners.close_route(&name, force).await;
        // If this fails the route is still there, and the next tick opens its port again.
        self.state.apply(Change::Dropped(vec![name.clone()])).await.map_err(fault)?;
        self.said.remove(name.as_str());
        Ok(())
    }

    async fn tick(&mut self) {
        let now = self.state.now();
        for name in self.over(now) {
            if let Err(error) = self.close(name.as_str(), false).await {
                tracing::error!(%error, route = %name, "a route whose time is over could not be closed");
            }
        }
        self.open_again().await;
    }

    fn over(&self, now: Moment) -> Vec<RouteName> {
        let snapshot = self.state.load();
        let over = |route: &Route| route.origin == Origin::Api && route.expires.is_some_and(|expires| expires <= now);
        snapshot.routes.iter().filter(|entry| over(&entry.route)).map(|entry| entry.route.name.clone()).collect()
    }

    /// Opens what should be open and is not: another program had the port, and may have let go of it.
    async fn open_again(&mut self) {
        let snapshot = self.state.snapshot();
        let mut listeners = self.listeners.lock().await;
        let mut shut = BTreeSet::new();
        for entry in snapshot.routes.iter().filter(|entry| entry.route.origin == Origin::Api) {
            let route = &entry.route;
            let Some(port) = route.port.filter(|_| !listeners.is_open(&route.name)) else { continue };
            let opened = listeners.reserve_port(port).and_then(|port| listeners.open_route(port, route));
            match opened {
                Ok(()) => tracing::info!(route = %route.name, port, "the port of a route is open"),
                Err(error) => {
                    if !self.shut.borrow().contains(route.name.as_str()) {
                        tracing::error!(%error, route = %route.name, "the port of a route cannot be had; it is tried again");
                    }
                    shut.insert(route.name.to_string());
                }
            }
        }
        self.shut.send_if_modified(|held| {
            let changed = *held != shut;
            *held = shut;
            changed
        });
    }
}

/// What a route without a name is called.
fn name_of(port: u16) -> String {
    format!("p{port}")
}

fn fault(refused: Refused) -> OrderFault {
    match refused {
        Refused::Clash(Clash::Name(name)) => OrderFault::NameTaken(name.to_string()),
        Refused::Clash(Clash::Port { port, route }) => OrderFault::PortOfRoute { port, route: route.to_string() },
        Refused::NoRoute(name) => OrderFault::Unknown(name.to_string()),
        Refused::Store(error) => {
            tracing::error!(%error, "a route could not be written down");
            OrderFault::Ours
        }
    }
}

#[cfg(test)]
mod tests;
