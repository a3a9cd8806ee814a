//! The worker that carries out orders to create, change and close routes. The worker also closes routes whose `ttl` has
//! ended.
//!
//! The steps have a fixed order, so a failure never leaves a route half created. The port is bound first: if it is
//! taken, nothing changes. Then the route is stored, then it is published, and its port listens last. So no connection
//! arrives at a port whose route is unknown. A route is closed by the same steps in the opposite order.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Map, Value};
use tokio::sync::{Mutex, mpsc, watch};

use super::duration::HumanDuration;
use super::error::{BadField, RouteError};
use super::listeners::Listeners;
use super::spec::{RouteRules, RouteSpec};
use super::{Created, RouteOrder, ValidSpec, no_exit_reason};
use crate::exit::{Exit, Moment, Source, Verdict};
use crate::lifecycle::Tasks;
use crate::listen::Reservation;
use crate::net::{Host, Target};
use crate::route::no_plan::{Funnel, Step};
use crate::route::rules::{Action, Rules, circle};
use crate::route::selector::RouteName;
use crate::route::table::{Clash, Entry, Origin, Route};
use crate::route::{self, Ask, Memory, Policy, Why};
use crate::state::{Change, Refused, Snapshot, State};
use crate::store::{Fault, StoreError};

/// How long the worker waits between two rounds. In each round it closes routes whose `ttl` has ended, and tries again
/// to open ports that another program was using.
const TICK: Duration = Duration::from_secs(1);

/// The state of the worker.
pub(super) struct RouteService {
    state: State,
    listeners: Arc<Mutex<Listeners>>,
    /// A map from the name of each route that the API created to the route's spec as JSON.
    bodies: HashMap<String, String>,
    rules: Arc<ArcSwap<RouteRules>>,
    /// The names of routes whose port does not listen because another program uses it.
    closed_ports: watch::Sender<BTreeSet<String>>,
}

impl RouteService {
    pub(super) fn new(
        state: State,
        listeners: Arc<Mutex<Listeners>>,
        bodies: HashMap<String, String>,
        rules: Arc<ArcSwap<RouteRules>>,
        closed_ports: watch::Sender<BTreeSet<String>>,
    ) -> Self {
        Self { state, listeners, bodies, rules, closed_ports }
    }

    /// Carries out orders from `queue` until the gateway stops.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<RouteOrder>, tasks: Tasks) {
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                () = tasks.stopping() => return,
                _ = tick.tick() => self.tick().await,
                order = queue.recv() => match order {
                    Some(order) => self.execute(order).await,
                    None => return,
                },
            }
        }
    }

    async fn execute(&mut self, order: RouteOrder) {
        // If the caller has disconnected, the order is still carried out, and only its answer is lost.
        match order {
            RouteOrder::Create(specs, answer) => drop(answer.send(self.create(specs).await)),
            RouteOrder::Change { name, patch, answer } => drop(answer.send(self.change(&name, patch).await)),
            RouteOrder::Close { name, force, answer } => {
                let closed = match self.check_unused(&name) {
                    Ok(()) => self.close(&name, force).await,
                    Err(error) => Err(error),
                };
                drop(answer.send(closed));
            }
        }
    }

    async fn create(&mut self, specs: Vec<ValidSpec>) -> Result<Created, RouteError> {
        if let Some(names) = self.existing(&specs)? {
            return Ok(Created { names, new: false });
        }
        let mut listeners = self.listeners.clone().lock_owned().await;
        let ports = self.reserve(&specs, &listeners)?;
        let mut routes: Vec<(Route, String)> = Vec::new();
        let many = specs.len();
        for (valid, port) in specs.into_iter().zip(&ports) {
            let body = valid.spec.to_json();
            let route = self.route(valid, port)?;
            self.check_rules(route.name.as_str(), &route.policy)?;
            // All routes of one order differ only in name and port, so checking the first route is enough.
            if routes.is_empty() {
                self.require_exit(&route, many)?;
            }
            routes.push((route, body));
        }
        self.state.apply(Change::Created(routes.clone())).await.map_err(refused)?;
        for ((route, body), port) in routes.iter().zip(ports) {
            self.bodies.insert(route.name.to_string(), body.clone());
            if let Err(error) = listeners.open_route(port, &Arc::new(route.clone())) {
                tracing::error!(%error, route = %route.name, "a route's port does not listen; it is tried again");
            }
        }
        Ok(Created { names: routes.into_iter().map(|(route, _)| route.name).collect(), new: true })
    }

    /// Returns an error if no exit can ever serve the `many` routes that are created together. If the only reason is
    /// that exits are not listed or not tested yet, there is no error: the routes serve clients as soon as an exit has
    /// passed a test.
    fn require_exit(&self, route: &Route, many: usize) -> Result<(), RouteError> {
        let (state, now, rules) = (&self.state, self.state.now(), self.rules.load());
        let Some((why, funnel)) = no_exit(&state.load(), state.memory(), route, many, now) else { return Ok(()) };
        let sources = route.policy.sources(&route.selector);
        let is_enabled = sources.iter().any(|source| match source {
            Source::Tor => rules.tor,
            Source::Public => rules.public,
            Source::Direct => rules.allow_direct,
            Source::Upstream(_) => true, // a name is known only if the configuration has the source
        });
        let free = funnel.steps.last().map_or(0, |(_, free)| *free);
        let enough = why != Why::Exclusive || free + untested(&state.load(), route) >= many;
        if is_enabled && enough && funnel.may_fill() {
            return Ok(());
        }
        Err(RouteError::NoExit { why: no_exit_reason(&why, sources, rules.tor), funnel })
    }

    /// Replaces the selector and the policy of a route. Open connections keep the old ones.
    async fn change(&mut self, name: &str, patch: Map<String, Value>) -> Result<RouteName, RouteError> {
        let old = self.own(name)?.route.clone();
        let body = self.bodies.get(name).map_or("{}", String::as_str);
        let spec = RouteSpec::patched(body, &patch)?;
        let new_port = spec.port.filter(|port| Some(*port) != old.port);
        // The route's present port is not validated, because gateway.route_ports may have become smaller since the
        // route was created.
        let checked = RouteSpec { port: new_port, name: None, ..spec.clone() };
        let (selector, policy) = checked.validate(&self.state.load().routes, &self.rules.load())?;
        self.check_rules(name, &policy)?;
        RouteName::parse(name, &selector, self.state.load().routes.words())
            .map_err(|why| RouteError::BadName { name: name.to_owned(), why: why.to_string() })?;
        let mut listeners = self.listeners.clone().lock_owned().await;
        let port = new_port.map(|port| self.reserve_one(port, &listeners)).transpose()?;
        let expires = match (patch.contains_key("ttl"), spec.ttl) {
            (false, _) => old.expires,
            (true, ttl) => ttl.map(|HumanDuration(ttl)| self.state.now().after(ttl)),
        };
        let (policy, body) = (Arc::new(policy), spec.to_json());
        let route = Route { selector, port: new_port.or(old.port), policy, expires, ..(*old).clone() };
        let chooses = |policy: &Policy| (policy.check.clone(), policy.sources.clone());
        if route.selector != old.selector || chooses(&route.policy) != chooses(&old.policy) {
            self.require_exit(&route, 1)?;
        }
        self.state.apply(Change::Changed(route.clone(), body.clone())).await.map_err(refused)?;
        self.bodies.insert(name.to_owned(), body);
        if let Err(error) = listeners.change_route(&Arc::new(route), port).await {
            tracing::error!(%error, route = name, "a route's new port does not listen; it is tried again");
        }
        Ok(old.name.clone())
    }

    /// Checks the routes to which the rules of the route `name` lead: each of them exists, and none leads back.
    fn check_rules(&self, name: &str, policy: &Policy) -> Result<(), RouteError> {
        let routes = &self.state.load().routes;
        for (at, rule) in policy.rules.as_slice().iter().enumerate() {
            let Action::Route(to) = &rule.action else { continue };
            let wrong = |why: String| Err(BadField::new(&format!("rules[{at}].route"), why).into());
            if to.as_str() != name && routes.get(to.as_str()).is_none() {
                return wrong(format!("is `{to}`, and there is no route with this name; see /proxies"));
            }
            let next = |route: &str| -> Vec<&str> {
                let stored = routes.get(route).map(|entry| &entry.route.policy.rules);
                if route == name { vec![to.as_str()] } else { names(stored) }
            };
            if let Some(circle) = circle([name], next) {
                return wrong(format!("leads back to its own route: {} -> {name}", circle.join(" -> ")));
            }
        }
        Ok(())
    }

    /// Returns an error if rules of other routes lead to the route `name`.
    fn check_unused(&self, name: &str) -> Result<(), RouteError> {
        let snapshot = self.state.load();
        let leads = |entry: &&Arc<Entry>| {
            entry.route.name.as_str() != name && entry.route.policy.rules.routes().any(|to| to.as_str() == name)
        };
        let mut by: Vec<_> = snapshot.routes.iter().filter(leads).map(|entry| entry.route.name.to_string()).collect();
        by.sort_unstable();
        if by.is_empty() { Ok(()) } else { Err(RouteError::InUse { name: name.to_owned(), by: by.join("`, `") }) }
    }

    /// Finds a route by its name. A route that the API did not create is an error.
    fn own(&self, name: &str) -> Result<Arc<Entry>, RouteError> {
        match self.state.load().routes.get(name) {
            None => Err(RouteError::Unknown(name.to_owned())),
            Some(entry) if entry.route.origin == Origin::Config => Err(RouteError::ReadOnly(name.to_owned())),
            Some(entry) => Ok(entry.clone()),
        }
    }

    /// Returns the names if all of these routes exist already and were created from equal specs. Returns `None` if none
    /// of them exists.
    fn existing(&self, specs: &[ValidSpec]) -> Result<Option<Vec<RouteName>>, RouteError> {
        let snapshot = self.state.load();
        let mut names = Vec::new();
        let mut some_missing = false;
        for valid in specs {
            let name = valid.spec.name.as_deref();
            let Some((name, entry)) = name.and_then(|name| Some((name, snapshot.routes.get(name)?))) else {
                some_missing = true;
                continue;
            };
            if entry.route.origin == Origin::Config {
                return Err(RouteError::ReadOnly(name.to_owned()));
            }
            if self.bodies.get(name).is_none_or(|body| *body != valid.spec.to_json()) {
                return Err(RouteError::NameTaken(name.to_owned()));
            }
            names.push(entry.route.name.clone());
        }
        match (some_missing, names.first()) {
            (true, Some(name)) => Err(RouteError::NameTaken(name.to_string())),
            (true, None) => Ok(None),
            (false, _) => Ok(Some(names)),
        }
    }

    /// Binds one port for each of the `specs`.
    fn reserve(&self, specs: &[ValidSpec], listeners: &Listeners) -> Result<Vec<Reservation>, RouteError> {
        let snapshot = self.state.load();
        let mut free = self.rules.load().ports.clone();
        let mut next = |wanted: Option<u16>| {
            let Some(port) = wanted else {
                // A route without a name gets a name made from its port, so a port is also skipped if that name is
                // taken.
                let is_free =
                    |port: u16| !snapshot.routes.has_port(port) && snapshot.routes.get(&name_of(port)).is_none();
                let found = free.find_map(|port| if is_free(port) { listeners.reserve_port(port).ok() } else { None });
                return found.ok_or(RouteError::NoPortLeft);
            };
            self.reserve_one(port, listeners)
        };
        specs.iter().map(|valid| next(valid.spec.port)).collect()
    }

    /// Binds the port `port`. A port that is taken is an error.
    fn reserve_one(&self, port: u16, listeners: &Listeners) -> Result<Reservation, RouteError> {
        if let Some(owner) = self.state.load().routes.by_port(port) {
            return Err(RouteError::PortOfRoute { port, route: owner.route.name.to_string() });
        }
        listeners.reserve_port(port).map_err(|_| RouteError::PortInUse(port))
    }

    fn route(&self, valid: ValidSpec, port: &Reservation) -> Result<Route, RouteError> {
        let ValidSpec { spec, selector, policy } = valid;
        let (now, port) = (self.state.now(), port.addr().port());
        let text = spec.name.unwrap_or_else(|| name_of(port));
        let name = RouteName::for_new_route(&text, self.state.load().routes.words());
        let name = name.map_err(|why| RouteError::BadName { name: text, why: why.to_string() })?;
        let expires = spec.ttl.map(|HumanDuration(ttl)| now.after(ttl));
        let policy = Arc::new(policy);
        Ok(Route { name, selector, port: Some(port), policy, origin: Origin::Api, created: now, expires })
    }

    async fn close(&mut self, name: &str, force: bool) -> Result<(), RouteError> {
        let name = self.own(name)?.route.name.clone();
        let mut listeners = self.listeners.lock().await;
        listeners.close_route(&name, force).await;
        // The route's port is closed already. If this change of the state fails, the route still exists, and the worker
        // opens its port again in the next round.
        self.state.apply(Change::Dropped(vec![name.clone()])).await.map_err(refused)?;
        self.bodies.remove(name.as_str());
        Ok(())
    }

    async fn tick(&mut self) {
        let now = self.state.now();
        for name in self.expired(now) {
            if let Err(error) = self.close(name.as_str(), false).await {
                tracing::error!(%error, route = %name, "a route whose time is over could not be closed");
            }
        }
        self.reopen_ports().await;
    }

    fn expired(&self, now: Moment) -> Vec<RouteName> {
        let snapshot = self.state.load();
        let expired =
            |route: &Route| route.origin == Origin::Api && route.expires.is_some_and(|expires| expires <= now);
        snapshot.routes.iter().filter(|entry| expired(&entry.route)).map(|entry| entry.route.name.clone()).collect()
    }

    /// Tries again to open route ports that do not listen. The program that was using such a port may have released it.
    async fn reopen_ports(&mut self) {
        let snapshot = self.state.snapshot();
        let mut listeners = self.listeners.lock().await;
        let mut closed = BTreeSet::new();
        for entry in snapshot.routes.iter().filter(|entry| entry.route.origin == Origin::Api) {
            let route = &entry.route;
            let Some(port) = route.port.filter(|_| !listeners.is_open(&route.name)) else { continue };
            let opened = listeners.reserve_port(port).and_then(|port| listeners.open_route(port, route));
            match opened {
                Ok(()) => tracing::info!(route = %route.name, port, "the port of a route is open"),
                Err(error) => {
                    if !self.closed_ports.borrow().contains(route.name.as_str()) {
                        tracing::error!(%error, route = %route.name, "the port of a route cannot be opened; it is tried again");
                    }
                    closed.insert(route.name.to_string());
                }
            }
        }
        self.closed_ports.send_if_modified(|before| {
            let changed = *before != closed;
            *before = closed;
            changed
        });
    }
}

fn names(rules: Option<&Rules>) -> Vec<&str> {
    rules.into_iter().flat_map(Rules::routes).map(RouteName::as_str).collect()
}

/// Returns the reason why no exit would serve `route` now, or `None` if an exit would. `many` is the number of routes
/// that are created together: if they are exclusive, each of them needs an exit address of its own.
fn no_exit(snapshot: &Snapshot, memory: &Memory, route: &Route, many: usize, now: Moment) -> Option<(Why, Funnel)> {
    let wish = snapshot.routes.preview(route.clone()).ok()?;
    // Each ban belongs to a site. No site has the host `exit.gate`, so no ban excludes an exit here.
    let target = Target { host: Host::Name("exit.gate".into()), port: 443 };
    let ask = Ask { wish: &wish, key: "", target: &target, now, avoid: &[], plain: false };
    let funnel = route::funnel(snapshot.view(), memory, &ask);
    // The last filter step counts the exits that no exclusive pin uses. The routes to be created have no pins yet.
    let free = funnel.steps.last().filter(|(step, _)| *step == Step::Free && route.policy.exclusive);
    let too_few = free.is_some_and(|(_, free)| *free < many).then_some(Why::Exclusive);
    Some((funnel.reason().or(too_few)?, funnel))
}

/// Returns how many exits would match the route's selector and were not tested yet.
fn untested(snapshot: &Snapshot, route: &Route) -> usize {
    let Ok(wish) = snapshot.routes.preview(route.clone()) else { return 0 };
    let is_untested = |exit: &&Arc<Exit>| {
        exit.alive() && exit.known().verdict == Verdict::Untested && exit.allows(443, false) && wish.wants(exit)
    };
    snapshot.catalog.iter().filter(is_untested).count()
}

/// Returns the name for a route that was created without one: `p` and the port, such as `p20003`.
fn name_of(port: u16) -> String {
    format!("p{port}")
}

fn refused(refused: Refused) -> RouteError {
    match refused {
        Refused::Clash(Clash::Name(name)) => RouteError::NameTaken(name.to_string()),
        Refused::Clash(Clash::Port { port, route }) => RouteError::PortOfRoute { port, route: route.to_string() },
        Refused::NoRoute(name) => RouteError::Unknown(name.to_string()),
        Refused::Store(StoreError::Refused(Fault::Hung)) => RouteError::DiskHangs, // the store has logged it
        Refused::Store(error) => {
            tracing::error!(%error, "a route could not be stored");
            RouteError::Internal
        }
    }
}

#[cfg(test)]
mod tests;
