//! Named routes, their ports and their pools.
//!
//! The table is part of the snapshot: a value that a change replaces, with the pools of all named routes in it. A change
//! names one route of thousands, and most changes name none, so a pool is looked at only when something that it is made
//! of is another: the catalog, the route, or the hour at which it exchanges its exits.
//!
//! Next: `route/table/wish.rs` for what a user name comes to; `route/implicit.rs` for selectors that are no route;
//! `route/choose.rs` for what becomes of a [`Wish`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::OwnEngine;
use super::holder::HolderRef;
use super::policy::{Engine, Policy};
use super::pool::{Need, Pool, Uses};
use super::selector::{RouteName, Selector, Words};
use crate::exit::{Catalog, Moment};

mod wish;

pub use wish::{IMPLICIT, Wish};

/// A way out with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it is called.
    pub name: RouteName,
    /// What it asks for.
    pub selector: Selector,
    /// Its own port.
    pub port: Option<u16>,
    /// How exits are chosen, kept and reached.
    pub policy: Arc<Policy>,
    /// Who made it, and may change it.
    pub origin: Origin,
    /// When it was made.
    pub created: Moment,
    /// When it goes by itself.
    pub expires: Option<Moment>,
}

/// Who made a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The config: read-only by API.
    Config,
    /// The API.
    Api,
}

/// A route in the table: with its pool of the moment.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The route.
    pub route: Arc<Route>,
    /// The exits that it uses now.
    pub pool: Arc<Pool>,
    /// How often somebody asked for other exits.
    turns: u64,
    /// When it was last used. Shared by all editions of the entry.
    used: Arc<AtomicU64>,
}

impl Entry {
    /// When it was last used, in this run of the process.
    pub fn used(&self) -> Option<Moment> {
        Some(Moment(self.used.load(Relaxed))).filter(|used| used.0 > 0)
    }

    pub(super) fn touch(&self, now: Moment) {
        self.used.fetch_max(now.0, Relaxed);
    }

    fn epoch(&self, now: Moment) -> u64 {
        let Some(every) = self.route.policy.rotate_every else { return self.turns };
        let turns = now.since(self.route.created).as_micros() / every.as_micros().max(1);
        self.turns + u64::try_from(turns).unwrap_or(u64::MAX)
    }

    fn refreshed(&self, catalog: &Catalog, uses: &Uses, now: Moment) -> Option<Self> {
        let Route { name, selector, policy, .. } = &*self.route;
        let need = Need { scope: name.as_str(), selector, policy, epoch: self.epoch(now) };
        let pool = self.pool.refreshed(&need, catalog, uses)?;
        Some(Self { pool: Arc::new(pool), ..self.clone() })
    }
}

/// Why a route cannot be taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Clash {
    /// The config has a route of that name, or the API.
    #[error("there is a route `{0}` from elsewhere")]
    Name(RouteName),
    /// Another route has the port.
    #[error("port {port} belongs to the route `{route}`")]
    Port {
        /// The port.
        port: u16,
        /// Whose it is.
        route: RouteName,
    },
}

/// All named routes. A clone is a few pointers.
#[derive(Clone, Debug)]
pub struct RouteTable {
    words: Words,
    defaults: Arc<Policy>,
    by_name: Arc<HashMap<RouteName, Arc<Entry>>>,
    by_port: Arc<HashMap<u16, RouteName>>,
    /// How many of these pools use each exit, by the slots of the catalog that they were filled from.
    uses: Arc<Uses>,
    /// The edition of the catalog that all pools but those of `stale` are filled from.
    filled: Option<u64>,
    /// Routes whose pools may want filling though the catalog is the same.
    stale: BTreeSet<RouteName>,
    /// Routes that exchange their exits by themselves.
    turning: Arc<BTreeSet<RouteName>>,
}

impl Route {
    /// The engine that it has for itself, if it asked for one.
    pub fn own_engine(&self) -> Option<OwnEngine> {
        let holder = HolderRef { key: "", scope: self.name.as_str(), session: None };
        (self.policy.engine == Engine::Own).then(|| OwnEngine(holder.seed()))
    }
}

impl RouteTable {
    /// A table without routes. `defaults` is the policy of selectors that are no route.
    pub fn new(words: Words, defaults: Policy) -> Self {
        Self {
            words,
            defaults: Arc::new(defaults),
            by_name: Arc::default(),
            by_port: Arc::default(),
            uses: Arc::default(),
            filled: None,
            stale: BTreeSet::new(),
            turning: Arc::default(),
        }
    }

    /// The same routes under another config's words and defaults.
    pub fn configured(&self, words: Words, defaults: Policy) -> Self {
        Self { words, defaults: Arc::new(defaults), ..self.clone() }
    }

    /// What the config adds to the grammar.
    pub fn words(&self) -> &Words {
        &self.words
    }

    /// The policy of selectors that are no route.
    pub fn defaults(&self) -> &Arc<Policy> {
        &self.defaults
    }

    /// Takes in this route, new or in place of the one of its name and origin, whose pool it takes over as far as it fits.
    /// Its pool is filled by the next [`RouteTable::refreshed`].
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
        let (name, turns) = (entry.route.name.clone(), entry.route.policy.rotate_every.is_some());
        if turns != self.turning.contains(&name) {
            let turning = Arc::make_mut(&mut self.turning);
            if turns {
                turning.insert(name.clone())
            } else {
                turning.remove(&name)
            };
        }
        self.stale.insert(name.clone());
        Arc::make_mut(&mut self.by_name).insert(name, Arc::new(entry));
        Ok(())
    }

    /// The route as an entry, with the pool of the one of its name.
    fn entry(&self, route: Route) -> Entry {
        match self.by_name.get(route.name.as_str()) {
            Some(old) => Entry { route: Arc::new(route), ..(**old).clone() },
            None => Entry { route: Arc::new(route), pool: Arc::default(), turns: 0, used: Arc::default() },
        }
    }

    /// Takes out the route of this name; false if there is none.
    pub fn remove(&mut self, name: &str) -> bool {
        if !self.by_name.contains_key(name) {
            return false; // nothing is copied for nothing
        }
        let Some(gone) = Arc::make_mut(&mut self.by_name).remove(name) else { return false };
        if let Some(port) = gone.route.port {
            Arc::make_mut(&mut self.by_port).remove(&port);
        }
        if self.turning.contains(name) {
            Arc::make_mut(&mut self.turning).remove(name);
        }
        self.stale.remove(name);
        Arc::make_mut(&mut self.uses).discount(&gone.pool);
        true
    }

    /// With all exits of a route's pool exchanged for others, as far as there are others; `None` if there is no such
    /// route.
    pub fn turned(&self, name: &str, catalog: &Catalog, now: Moment) -> Option<Self> {
        let old = self.by_name.get(name)?;
        let turned = Entry { turns: old.turns + 1, ..(**old).clone() };
        let entry = turned.refreshed(catalog, &self.uses, now).unwrap_or(turned);
        let mut next = self.clone();
        next.exchange(vec![entry]);
        Some(next)
    }

    /// With every pool as this catalog and this hour will have it. Pools in which nothing changes stay the same object,
    /// and where the catalog has not changed only those are looked at that something else may have changed: of thousands
    /// of routes, the one that was just made.
    pub fn refreshed(&self, catalog: &Catalog, now: Moment) -> Self {
        let mut next = self.clone();
        next.stale = BTreeSet::new();
        let edition = Some(catalog.revision());
        if next.filled == edition {
            let turning = self.turning.iter().filter(|name| !self.stale.contains(*name));
            let named = self.stale.iter().chain(turning);
            next.refill(named.filter_map(|name| self.by_name.get(name.as_str())), catalog, now);
            return next;
        }
        // Slots may belong to others in another edition.
        next.recount();
        next.refill(self.by_name.values(), catalog, now);
        next.recount();
        next.filled = edition;
        next
    }

    fn refill<'e>(&mut self, entries: impl Iterator<Item = &'e Arc<Entry>>, catalog: &Catalog, now: Moment) {
        // Old members count until all are done: a place that is given up here is not yet free there.
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

    /// Puts these in the place of the entries of their names.
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

    /// True if every route has the very pool that it has in the other table.
    pub fn has_pools_of(&self, other: &Self) -> bool {
        let same = |entry: &Arc<Entry>| {
            other.get(entry.route.name.as_str()).is_some_and(|there| Arc::ptr_eq(&entry.pool, &there.pool))
        };
        self.len() == other.len() && self.iter().all(same)
    }

    /// The route of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Entry>> {
        self.by_name.get(name)
    }

    /// The route that has this port.
    pub fn by_port(&self, port: u16) -> Option<&Arc<Entry>> {
        self.by_name.get(self.by_port.get(&port)?.as_str())
    }

    /// True if a route has this port: cheaper than asking which.
    pub fn has_port(&self, port: u16) -> bool {
        self.by_port.contains_key(&port)
    }

    /// Every route, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_name.values()
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The route that a scope of pins and sessions belongs to, if it belongs to one.
    pub fn owner(&self, scope: &str) -> Option<&RouteName> {
        self.longest(scope).map(|(entry, _)| &entry.route.name)
    }

    pub(super) fn uses(&self) -> &Uses {
        &self.uses
    }
}

#[cfg(test)]
mod tests;
