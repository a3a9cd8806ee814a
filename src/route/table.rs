//! Named routes, their ports, and what a user name comes to.
//!
//! The table is part of the snapshot: a value that a change replaces, with the pools of all named routes in it. A user
//! name is resolved against it from the longest route name down, because `us-strict` may be a route, a selector, or the
//! route `us` narrowed, and whoever made a route of that name meant the route.
//!
//! Next: `route/implicit.rs` for selectors that are no route; `route/choose.rs` for what becomes of a [`Wish`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::holder::HolderRef;
use super::policy::{Engine, Policy};
use super::pool::{Need, Pool, Uses};
use super::selector::{BadSelector, Mode, Narrowed, Reason, RouteName, Selector, Words};
use super::{Isolation, OwnEngine};
use crate::exit::{Catalog, Exit, Moment};

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
    uses: Arc<Uses>,
}

/// What all selectors that are no route are called together.
pub const IMPLICIT: &str = "implicit";

/// What a user name comes to.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The route that it names, or whose port it came to; `None`: a selector that is no route.
    pub entry: Option<Arc<Entry>>,
    /// All that it asks for, narrowed.
    pub selector: Selector,
    /// Whom pins and sessions belong to: the route's name or the canonical selector, with what narrows it.
    pub scope: Arc<str>,
    /// The route's policy, or that of all selectors that are no route.
    pub policy: Arc<Policy>,
    /// The scope of the pool if that is not the route's own.
    pub(super) pool: Option<Arc<str>>,
}

impl Route {
    /// The engine that it has for itself, if it asked for one.
    pub fn own_engine(&self) -> Option<OwnEngine> {
        let holder = HolderRef { key: "", scope: self.name.as_str(), session: None };
        (self.policy.engine == Engine::Own).then(|| OwnEngine(holder.seed()))
    }
}

impl Wish {
    /// The route's name; `implicit` for what has none: fit for a metric label.
    pub fn label(&self) -> &str {
        self.entry.as_ref().map_or(IMPLICIT, |entry| entry.route.name.as_str())
    }

    /// Connections of it take any exit of a pool: neither a session nor a pin holds it to one.
    pub fn is_pooled(&self) -> bool {
        self.selector.mode != Mode::Strict && self.selector.session.is_none()
    }

    /// It uses the pool of its route, and not a part of it.
    pub fn is_whole(&self) -> bool {
        self.entry.is_some() && self.pool.is_none()
    }

    /// An exit is what was asked for, whether or not it is up and passes checks.
    pub fn wants(&self, exit: &Exit) -> bool {
        let filter = self.selector.filter(self.policy.sources(&self.selector), None);
        filter.wants(exit) && self.selector.picks(exit)
    }

    /// The engine that it has for itself, if its route asked for one.
    pub fn own_engine(&self) -> Option<OwnEngine> {
        self.entry.as_ref()?.route.own_engine()
    }

    /// Whom its circuits may be shared with, asked with the key of this name.
    pub fn isolation(&self, key: &str) -> Isolation {
        HolderRef { key, scope: &self.scope, session: self.selector.session.as_ref() }.isolation()
    }
}

impl RouteTable {
    /// A table without routes. `defaults` is the policy of selectors that are no route.
    pub fn new(words: Words, defaults: Policy) -> Self {
        let (by_name, by_port, uses) = (Arc::default(), Arc::default(), Arc::default());
        Self { words, defaults: Arc::new(defaults), by_name, by_port, uses }
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

    /// With this route, new or in place of the one of its name and origin, whose pool it takes over as far as it fits.
    /// Its pool is filled by the next [`RouteTable::refreshed`].
    pub fn with(&self, route: Route) -> Result<Self, Clash> {
        let old = self.by_name.get(route.name.as_str());
        if old.is_some_and(|old| old.route.origin != route.origin) {
            return Err(Clash::Name(route.name));
        }
        if let Some(port) = route.port
            && let Some(owner) = self.by_port.get(&port).filter(|owner| **owner != route.name)
        {
            return Err(Clash::Port { port, route: owner.clone() });
        }
        let mut next = self.clone();
        let ports = Arc::make_mut(&mut next.by_port);
        old.and_then(|old| old.route.port).and_then(|port| ports.remove(&port));
        ports.extend(route.port.map(|port| (port, route.name.clone())));
        let entry = match old {
            Some(old) => Entry { route: Arc::new(route), ..(**old).clone() },
            None => Entry { route: Arc::new(route), pool: Arc::default(), turns: 0, used: Arc::default() },
        };
        Arc::make_mut(&mut next.by_name).insert(entry.route.name.clone(), Arc::new(entry));
        Ok(next)
    }

    /// Without the route of this name; `None` if there is none.
    pub fn without(&self, name: &str) -> Option<Self> {
        let port = self.by_name.get(name)?.route.port;
        let mut next = self.clone();
        Arc::make_mut(&mut next.by_name).remove(name);
        if let Some(port) = port {
            Arc::make_mut(&mut next.by_port).remove(&port);
        }
        Some(next)
    }

    /// With all exits of a route's pool exchanged for others, as far as there are others; `None` if there is no such
    /// route.
    pub fn turned(&self, name: &str, catalog: &Catalog, now: Moment) -> Option<Self> {
        let old = self.by_name.get(name)?;
        let turned = Entry { turns: old.turns + 1, ..(**old).clone() };
        let entry = turned.refreshed(catalog, &self.uses, now).unwrap_or(turned);
        let mut next = self.clone();
        Arc::make_mut(&mut next.by_name).insert(entry.route.name.clone(), Arc::new(entry));
        Some(next)
    }

    /// With every pool as this catalog and this hour will have it. Pools in which nothing changes stay the same object.
    pub fn refreshed(&self, catalog: &Catalog, now: Moment) -> Self {
        let mut uses = Uses::default();
        self.by_name.values().for_each(|entry| uses.count(&entry.pool));
        let mut next = self.clone();
        for entry in self.by_name.values() {
            if let Some(entry) = entry.refreshed(catalog, &uses, now) {
                // Old members count until all are done: a place that is given up here is not yet free there.
                uses.count(&entry.pool);
                Arc::make_mut(&mut next.by_name).insert(entry.route.name.clone(), Arc::new(entry));
            }
        }
        let mut uses = Uses::default();
        next.by_name.values().for_each(|entry| uses.count(&entry.pool));
        next.uses = Arc::new(uses);
        next
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

    /// What a user name comes to at the shared port, or at the own port of the route `own`.
    pub fn resolve(&self, username: &str, own: Option<&str>) -> Result<Wish, BadSelector> {
        let wish = match own.and_then(|own| self.by_name.get(own)) {
            Some(own) => self.resolve_at(username, own)?,
            None => self.resolve_shared(username)?,
        };
        let longest = wish.policy.max_session_ttl;
        if wish.selector.ttl.is_some_and(|ttl| ttl > longest) {
            return Err(BadSelector::new("ttl", Reason::TimeTooLong(longest)));
        }
        Ok(wish)
    }

    fn resolve_shared(&self, username: &str) -> Result<Wish, BadSelector> {
        let named = self.longest(username);
        let named = named.or_else(|| self.longest(self.words.without_prefix(username)?));
        match named {
            Some((entry, behind)) => self.narrowed(entry, behind),
            None => Ok(self.implicit(Selector::parse(username, &self.words)?)),
        }
    }

    fn resolve_at(&self, username: &str, own: &Arc<Entry>) -> Result<Wish, BadSelector> {
        match self.longest(username) {
            Some((entry, behind)) if entry.route.name == own.route.name => self.narrowed(own, behind),
            Some((entry, _)) => {
                let why = Reason::OtherRoute(own.route.name.as_str().into());
                Err(BadSelector::new(entry.route.name.as_str(), why))
            }
            None => self.narrowed(own, self.words.without_prefix(username).unwrap_or(username)),
        }
    }

    /// The route with the longest name that the text begins with, and what stands behind it.
    fn longest<'t>(&self, text: &'t str) -> Option<(&Arc<Entry>, &'t str)> {
        if self.by_name.is_empty() {
            return None;
        }
        let folded = text.to_ascii_lowercase();
        let ends = std::iter::once(text.len()).chain(text.rmatch_indices('-').map(|(at, _)| at));
        ends.into_iter().find_map(|end| {
            let entry = self.by_name.get(&folded[..end])?;
            // A `-` with nothing behind it is read as what it is: a word that is missing.
            let behind = if end + 1 == text.len() { "-" } else { text.get(end + 1..).unwrap_or_default() };
            Some((entry, behind))
        })
    }

    fn narrowed(&self, entry: &Arc<Entry>, behind: &str) -> Result<Wish, BadSelector> {
        let route = &entry.route;
        let Narrowed { selector, beyond, fewer } = route.selector.narrowed(route.name.as_str(), behind, &self.words)?;
        let scope = if beyond.is_empty() { route.name.shared() } else { format!("{}{beyond}", route.name).into() };
        let pool = fewer.then(|| format!("{}:{}", route.name, selector.pooled()).into());
        Ok(Wish { entry: Some(entry.clone()), policy: route.policy.clone(), selector, scope, pool })
    }

    fn implicit(&self, selector: Selector) -> Wish {
        let scope: Arc<str> = selector.lasting().to_string().into();
        let pooled = selector.pooled();
        let pool = if pooled == selector { scope.clone() } else { pooled.to_string().into() };
        Wish { entry: None, policy: self.defaults.clone(), selector, scope, pool: Some(pool) }
    }
}

#[cfg(test)]
mod tests;
