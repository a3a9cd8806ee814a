//! Named routes, their ports and their pools.
//!
//! The route table is a value in the snapshot of the state and contains the pools of all named routes. A change makes a
//! new edition of the table. Most changes concern one route of thousands, or none. So a pool is filled again only if
//! the catalog of exits has changed, if its route has changed, or if the route is due to exchange its exits.
//!
//! Next: `route/table/username.rs` (the meaning of a username), `route/table/destination.rs` (rules by destination),
//! `route/implicit.rs` (usernames that contain no route name),
//! `route/choose.rs` (the exits for a [`Wish`]).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::OwnEngine;
use super::holder::HolderRef;
use super::policy::{Engine, Policy};
use super::pool::{Need, Pool, Uses};
use super::selector::{RouteName, Selector, Words};
use crate::exit::{Catalog, Moment};

mod destination;
mod username;

pub use destination::{RuleId, RuleRefusal, WhyRule};
pub use username::{IMPLICIT, Wish};

/// A named route: a selector with a name, a port and a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub name: RouteName,
    pub selector: Selector,
    /// The port that only this route uses. `None` if the route has no port of its own.
    pub port: Option<u16>,
    pub policy: Arc<Policy>,
    pub origin: Origin,
    pub created: Moment,
    /// When the route is deleted automatically. `None`: the route is not deleted automatically.
    pub expires: Option<Moment>,
}

/// Who made a route. Only the maker of a route may change the route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The configuration made the route. The API cannot change the route.
    Config,
    Api,
}

/// A route together with its pool.
#[derive(Clone, Debug)]
pub struct Entry {
    pub route: Arc<Route>,
    pub pool: Arc<Pool>,
    /// How many times the whole pool was exchanged on request.
    rotations: u64,
    /// The time of the last use. All editions of the entry share this value.
    used: Arc<AtomicU64>,
}

impl Entry {
    /// When the route was last used. `None` if it was not used since the process started.
    pub fn used(&self) -> Option<Moment> {
        Some(Moment(self.used.load(Relaxed))).filter(|used| used.0 > 0)
    }

    pub(super) fn touch(&self, now: Moment) {
        self.used.fetch_max(now.0, Relaxed);
    }

    /// How many times the pool was exchanged, on request and by `rotate_every`.
    fn epoch(&self, now: Moment) -> u64 {
        self.rotations.saturating_add(self.route.policy.exchanges(self.route.created, now))
    }

    fn refreshed(&self, catalog: &Catalog, uses: &Uses, now: Moment) -> Option<Self> {
        let Route { name, selector, policy, .. } = &*self.route;
        let need = Need { scope: name.as_str(), selector, policy, epoch: self.epoch(now) };
        let pool = self.pool.refreshed(&need, catalog, uses)?;
        Some(Self { pool: Arc::new(pool), ..self.clone() })
    }
}

/// The reason why the table refuses a route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Clash {
    #[error("the name `{0}` is taken by a route of the configuration, or by one that the API made")]
    Name(RouteName),
    #[error("port {port} belongs to the route `{route}`")]
    Port { port: u16, route: RouteName },
}

/// All named routes. A clone copies a few pointers.
#[derive(Clone, Debug)]
pub struct RouteTable {
    words: Words,
    defaults: Arc<Policy>,
    by_name: Arc<HashMap<RouteName, Arc<Entry>>>,
    by_port: Arc<HashMap<u16, RouteName>>,
    /// How many pools of this table use each exit. The index is the slot of the exit in the catalog from which the
    /// pools were filled.
    uses: Arc<Uses>,
    /// The revision of the catalog from which all pools were filled, except the pools of routes in `stale`. `None`:
    /// every pool must be examined.
    filled: Option<u64>,
    /// Routes that have changed. Their pools must be filled even if the catalog is the same.
    stale: BTreeSet<RouteName>,
    /// Routes that have a `rotate_every`.
    rotating: Arc<BTreeSet<RouteName>>,
}

impl Route {
    /// Returns the engine that belongs to this route alone, if it has one.
    pub fn own_engine(&self) -> Option<OwnEngine> {
        let holder = HolderRef { key: "", scope: self.name.as_str(), session: None };
        (self.policy.engine == Engine::Own).then(|| OwnEngine(holder.seed()))
    }
}

impl RouteTable {
    /// Makes a table without routes. `defaults` is the policy of usernames that contain no route name.
    pub fn new(words: Words, defaults: Policy) -> Self {
        Self {
            words,
            defaults: Arc::new(defaults),
            by_name: Arc::default(),
            by_port: Arc::default(),
            uses: Arc::default(),
            filled: None,
            stale: BTreeSet::new(),
            rotating: Arc::default(),
        }
    }

    /// Returns a table with the same routes, and with the country groups, alias prefixes and default policy of another
    /// configuration.
    pub fn configured(&self, words: Words, defaults: Policy) -> Self {
        Self { words, defaults: Arc::new(defaults), ..self.clone() }
    }

    /// The words that the configuration adds to the grammar of usernames.
    pub fn words(&self) -> &Words {
        &self.words
    }

    /// The policy of usernames that contain no route name.
    pub fn defaults(&self) -> &Arc<Policy> {
        &self.defaults
    }

    /// Adds a route. If a route with the same name and origin exists, the new route replaces that route and takes over
    /// the exits of its pool that are still suitable. The next [`RouteTable::refreshed`] fills the pool.
    pub fn put(&mut self, route: Route) -> Result<(), Clash> {
        let old = self.by_name.get(route.name.as_str());
        if old.is_some_and(|old| old.route.origin != route.origin) {
            return Err(Clash::Name(route.name));
        }
        if let Some(port) = route.port
            && let Some(owner) = self.by_port.get(&port).filter(|owner| **owner != route.name)
        {
            return Err(Clash::Port { port, route: owner.clone() });
        }
        let ports = Arc::make_mut(&mut self.by_port);
        old.and_then(|old| old.route.port).and_then(|port| ports.remove(&port));
        ports.extend(route.port.map(|port| (port, route.name.clone())));
        let entry = self.entry(route);
        let (name, rotates) = (entry.route.name.clone(), entry.route.policy.rotate_every.is_some());
        if rotates != self.rotating.contains(&name) {
            let rotating = Arc::make_mut(&mut self.rotating);
            if rotates {
                rotating.insert(name.clone())
            } else {
                rotating.remove(&name)
            };
        }
        self.stale.insert(name.clone());
        Arc::make_mut(&mut self.by_name).insert(name, Arc::new(entry));
        Ok(())
    }

    /// Returns an entry for the new route, with the pool of the route that the new route replaces.
    fn entry(&self, route: Route) -> Entry {
        match self.by_name.get(route.name.as_str()) {
            Some(old) => Entry { route: Arc::new(route), ..(**old).clone() },
            None => Entry { route: Arc::new(route), pool: Arc::default(), rotations: 0, used: Arc::default() },
        }
    }

    /// Removes a route. Returns false if no route has this name.
    pub fn remove(&mut self, name: &str) -> bool {
        if !self.by_name.contains_key(name) {
            return false; // return before `make_mut` copies the whole table
        }
        let Some(gone) = Arc::make_mut(&mut self.by_name).remove(name) else { return false };
        if let Some(port) = gone.route.port {
            Arc::make_mut(&mut self.by_port).remove(&port);
        }
        if self.rotating.contains(name) {
            Arc::make_mut(&mut self.rotating).remove(name);
        }
        self.stale.remove(name);
        Arc::make_mut(&mut self.uses).discount(&gone.pool);
        true
    }

    /// Returns the table after all exits in the pool of one route were exchanged for others, as far as there are any.
    /// `None` if there is no such route.
    pub fn rotated(&self, name: &str, catalog: &Catalog, now: Moment) -> Option<Self> {
        let old = self.by_name.get(name)?;
        let rotated = Entry { rotations: old.rotations + 1, ..(**old).clone() };
        let entry = rotated.refreshed(catalog, &self.uses, now).unwrap_or(rotated);
        let mut next = self.clone();
        next.exchange(vec![entry]);
        Some(next)
    }

    /// Returns the table with every pool filled for this catalog and this time. A pool in which nothing changes stays
    /// the same object. If the catalog has not changed, only changed and rotating routes are examined.
    pub fn refreshed(&self, catalog: &Catalog, now: Moment) -> Self {
        let mut next = self.clone();
        next.stale = BTreeSet::new();
        let edition = Some(catalog.revision());
        if next.filled == edition {
            let rotating = self.rotating.iter().filter(|name| !self.stale.contains(*name));
            let named = self.stale.iter().chain(rotating);
            next.refill(named.filter_map(|name| self.by_name.get(name.as_str())), catalog, now);
            return next;
        }
        // In another catalog, a slot may belong to another exit.
        next.recount();
        next.refill(self.by_name.values(), catalog, now);
        next.recount();
        next.filled = edition;
        next
    }

    fn refill<'e>(&mut self, entries: impl Iterator<Item = &'e Arc<Entry>>, catalog: &Catalog, now: Moment) {
        // The counts of how many pools use each exit are those from before this refresh, until all pools are done. So
        // an exit that one pool drops still counts as used by that pool while the next pool is filled.
        let mut uses = Arc::clone(&self.uses);
        let mut fresh = Vec::new();
        for entry in entries {
            if let Some(entry) = entry.refreshed(catalog, &uses, now) {
                Arc::make_mut(&mut uses).count(&entry.pool);
                fresh.push(entry);
            }
        }
        drop(uses);
        self.exchange(fresh);
    }

    /// Puts the entries `fresh` into the table in place of the entries with the same names.
    fn exchange(&mut self, fresh: Vec<Entry>) {
        if fresh.is_empty() {
            return;
        }
        let (by_name, uses) = (Arc::make_mut(&mut self.by_name), Arc::make_mut(&mut self.uses));
        for entry in fresh {
            uses.count(&entry.pool);
            if let Some(old) = by_name.insert(entry.route.name.clone(), Arc::new(entry)) {
                uses.discount(&old.pool);
            }
        }
    }

    fn recount(&mut self) {
        let mut uses = Uses::default();
        self.by_name.values().for_each(|entry| uses.count(&entry.pool));
        self.uses = Arc::new(uses);
    }

    /// Returns true if every route has the same pool object in both tables.
    pub fn has_pools_of(&self, other: &Self) -> bool {
        let same = |entry: &Arc<Entry>| {
            other.get(entry.route.name.as_str()).is_some_and(|there| Arc::ptr_eq(&entry.pool, &there.pool))
        };
        self.len() == other.len() && self.iter().all(same)
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Entry>> {
        self.by_name.get(name)
    }

    pub fn by_port(&self, port: u16) -> Option<&Arc<Entry>> {
        self.by_name.get(self.by_port.get(&port)?.as_str())
    }

    /// Returns true if a route has this port. This is faster than [`Self::by_port`].
    pub fn has_port(&self, port: u16) -> bool {
        self.by_port.contains_key(&port)
    }

    /// Iterates over every route, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_name.values()
    }

    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "clippy wants it beside `len`; tests use it"))]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Returns the name of the route to which a scope of pins and sessions belongs, if there is one.
    pub fn owner(&self, scope: &str) -> Option<&RouteName> {
        // The scope of a username whose selector comes from a rule is `route:selector`.
        let name = scope.split(':').next().unwrap_or(scope);
        self.longest(name).map(|(entry, _)| &entry.route.name)
    }

    pub(super) fn uses(&self) -> &Uses {
        &self.uses
    }
}

#[cfg(test)]
mod tests;
