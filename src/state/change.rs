//! All changes of the state, and what each writes to the store.

use std::collections::{BTreeMap, HashSet};

use super::Snapshot;
use crate::exit::catalog::Editor;
use crate::exit::{Catalog, ExitId, Known, Listing, Moment, Source};
use crate::route::ban::Site;
use crate::route::selector::RouteName;
use crate::route::table::{Clash, Origin, Route};
use crate::route::{Event, Policy, Words};
use crate::store::{self, Ban, StoreError, Write};
use crate::telemetry::metrics as names;

/// The key under which the store keeps the ports of the configuration's routes, as JSON (port by name). A route without a
/// configured port keeps the one that it got, also if a route is added before it and the gateway starts again.
pub const CONFIG_PORTS: &str = "config_ports";

/// What checks found out about one exit.
pub struct ExitUpdate {
    pub exit: ExitId,
    /// Changes what is known of the exit.
    pub update: Box<dyn FnOnce(&mut Known) + Send>,
    /// A site that refuses the exit, until when, and why.
    pub ban: Option<(Site, Moment, String)>,
    /// What the store keeps of it.
    pub writes: Vec<Write>,
}

/// One change of the state.
pub enum Change {
    /// The whole list of one source. Exits that have left it drain.
    Listed(Source, Vec<Listing>),
    /// Results of checks, collected for a moment.
    ExitUpdates(Vec<ExitUpdate>),
    /// A site refuses an exit: a scraper reported it, or its answers to real requests showed it.
    Banned { site: Site, exit: ExitId, until: Moment, why: String },
    /// The configuration's part of the state.
    Configured {
        /// Additions to the grammar of usernames.
        words: Words,
        /// The policy of selectors that are not a route's.
        defaults: Policy,
        /// All routes of the configuration.
        routes: Vec<Route>,
    },
    /// The API created these routes; each with the body of its request.
    Created(Vec<(Route, String)>),
    /// The API changed this route; with the body to store.
    Changed(Route, String),
    /// The exits of a route's pool are replaced, as far as there are others.
    Rotated(RouteName),
    /// The API deleted these routes; their sessions and pins end.
    Dropped(Vec<RouteName>),
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A route's name or port is taken.
    #[error(transparent)]
    Clash(#[from] Clash),
    /// There is no such route, or it is one of the configuration.
    #[error("no route `{0}` was created over the API")]
    NoRoute(RouteName),
    #[error("the change could not be stored: {0}")]
    Store(#[source] StoreError),
}

/// What follows from a change beside the new snapshot.
#[derive(Default)]
pub(super) struct Effects {
    /// Stored before the change is published.
    pub(super) commit: Vec<Write>,
    /// Stored some time later.
    pub(super) note: Vec<Write>,
    /// Routes whose sessions and pins end.
    pub(super) released: Vec<RouteName>,
    /// A route with a new selector: pins that do not match it end.
    pub(super) changed: Option<RouteName>,
    /// Announced after the change is published.
    pub(super) events: Vec<Event>,
}

impl Change {
    /// Makes the change in `next`. Pure: the caller carries out the effects.
    pub(super) fn make(self, next: &mut Snapshot, now: Moment) -> Result<Effects, Refused> {
        match self {
            Self::Listed(source, listings) => Ok(list(next, source, listings, now)),
            Self::ExitUpdates(updates) => Ok(learn(next, updates, now)),
            Self::Banned { site, exit, until, why } => {
                let mut effects = Effects::default();
                effects.ban(next, (site, exit, until, why), now);
                Ok(effects)
            }
            Self::Configured { words, defaults, routes } => configure(next, words, defaults, routes),
            Self::Created(routes) => create(next, routes),
            Self::Changed(route, asked) => change(next, route, asked),
            Self::Rotated(name) => {
                let turned = next.routes.rotated(name.as_str(), &next.catalog, now);
                next.routes = turned.ok_or(Refused::NoRoute(name))?;
                Ok(Effects::default())
            }
            Self::Dropped(names) => drop_routes(next, names),
        }
    }
}

/// Applies a whole list. An exit that has left it drains: it gets no new connections, and those that it has go on. If it is
/// not in the next list either, and has no connections any more, it is removed. A condemned exit is kept, because it must
/// not come back as an unknown one.
fn list(next: &mut Snapshot, source: Source, listings: Vec<Listing>, now: Moment) -> Effects {
    let present: HashSet<&ExitId> = listings.iter().map(|listing| &listing.id).collect();
    let (gone, left): (Vec<_>, Vec<_>) = next
        .catalog
        .iter()
        .filter(|exit| exit.id().source() == source && !present.contains(exit.id()))
        .map(|exit| (exit.id().clone(), exit.known().marks, exit.load().in_flight()))
        .partition(|(_, marks, in_flight)| marks.draining && !marks.bad_for_good && *in_flight == 0);
    let mut note = Vec::new();
    let mut edit = next.catalog.edit();
    for listing in listings {
        // Public proxies are stored by their tester, and only those that have worked.
        let kept = source != Source::Public;
        if kept && edit.peek().get(&listing.id).is_none_or(|exit| **exit.listing() != listing) {
            note.push(Write::PutExit(store::Exit { listing: listing.clone(), first_seen: now, last_seen: now }));
        }
        edit.list(listing);
    }
    for (id, ..) in left {
        edit.learn(&id, |known| known.marks.draining = true);
    }
    for (id, ..) in gone {
        edit.remove(&id);
        note.push(match id {
            ExitId::Public(id) => Write::DropPublic((*id).clone()),
            id => Write::DropExit(id),
        });
    }
    next.catalog = edit.finish();
    Effects { note, ..Effects::default() }
}

fn learn(next: &mut Snapshot, updates: Vec<ExitUpdate>, now: Moment) -> Effects {
    let mut effects = Effects::default();
    let mut bans = Vec::new();
    let mut edit = next.catalog.edit();
    for ExitUpdate { exit, update, ban, writes } in updates {
        let was_caught = |edit: &Editor| edit.peek().get(&exit).is_some_and(|exit| exit.known().marks.bad_for_good);
        let before = was_caught(&edit);
        edit.learn(&exit, update);
        if !before && was_caught(&edit) {
            effects.events.push(condemned(edit.peek(), &exit));
        }
        effects.note.extend(writes);
        bans.extend(ban.map(|(site, until, why)| (site, exit, until, why)));
    }
    next.catalog = edit.finish();
    for new in bans {
        effects.ban(next, new, now);
    }
    effects
}

fn condemned(catalog: &Catalog, id: &ExitId) -> Event {
    let why = catalog.get(id).and_then(|exit| exit.known().why.clone()).unwrap_or_default();
    Event::Condemned { exit: id.clone(), why }
}

impl Effects {
    /// Bans an exit from a site. Only a new ban is an event.
    fn ban(&mut self, next: &mut Snapshot, (site, exit, until, why): (Site, ExitId, Moment, String), now: Moment) {
        if next.bans.until(&site, &exit, now).is_none() {
            let (site, exit, why) = (site.clone(), exit.clone(), why.as_str().into());
            self.events.push(Event::Banned { site, exit, until, why });
        }
        next.bans = next.bans.with([(site.clone(), exit.clone(), until)]);
        self.note.push(Write::PutBan(Ban { site: site.as_str().to_owned(), exit, since: now, until, why }));
    }
}

/// Counts bans and condemned exits.
pub(super) fn count(events: &[Event]) {
    for event in events {
        let (name, exit) = match event {
            Event::Condemned { exit, .. } => (names::EXITS_CONDEMNED, exit),
            Event::Banned { exit, .. } => (names::BANS, exit),
            _ => continue,
        };
        metrics::counter!(name, "source" => exit.source().as_str()).increment(1);
    }
}

/// Replaces the configuration's routes in the table, and leaves the others.
fn configure(next: &mut Snapshot, words: Words, defaults: Policy, routes: Vec<Route>) -> Result<Effects, Refused> {
    let kept: HashSet<&str> = routes.iter().map(|route| route.name.as_str()).collect();
    let mut table = next.routes.configured(words, defaults);
    for entry in next.routes.iter().filter(|entry| entry.route.origin == Origin::Config) {
        let name = entry.route.name.as_str();
        // Routes of one configuration may exchange ports: all ports are freed before any is taken.
        let free = Route { port: None, ..(*entry.route).clone() };
        if kept.contains(name) {
            table.put(free)?;
        } else {
            table.remove(name);
        }
    }
    for route in routes {
        let created = next.routes.get(route.name.as_str()).map_or(route.created, |entry| entry.route.created);
        table.put(Route { created, ..route })?;
    }
    let ports: BTreeMap<_, _> = table
        .iter()
        .filter(|entry| entry.route.origin == Origin::Config)
        .filter_map(|entry| Some((entry.route.name.to_string(), entry.route.port?)))
        .collect();
    next.routes = table;
    let text = serde_json::to_string(&ports).unwrap_or_default(); // a map of strings to numbers is always valid
    // A note, not a commit: the configuration must also be applied if the file takes no writes.
    Ok(Effects { note: vec![Write::PutMeta(CONFIG_PORTS, text)], ..Effects::default() })
}

/// Adds routes of the API. They are stored before they are published.
fn create(next: &mut Snapshot, routes: Vec<(Route, String)>) -> Result<Effects, Refused> {
    let mut commit = Vec::new();
    for (route, asked) in routes {
        if next.routes.get(route.name.as_str()).is_some() {
            return Err(Clash::Name(route.name).into());
        }
        commit.push(kept(&route, asked));
        next.routes.put(route)?;
    }
    Ok(Effects { commit, ..Effects::default() })
}

/// A route's row.
fn kept(route: &Route, asked: String) -> Write {
    Write::PutRoute(store::Route {
        name: route.name.to_string(),
        selector: route.selector.to_string(),
        port: route.port,
        asked,
        created: route.created,
        expires: route.expires,
    })
}

fn change(next: &mut Snapshot, route: Route, asked: String) -> Result<Effects, Refused> {
    let own = next.routes.get(route.name.as_str()).is_some_and(|entry| entry.route.origin == Origin::Api);
    if !own {
        return Err(Refused::NoRoute(route.name));
    }
    let (commit, changed) = (vec![kept(&route, asked)], Some(route.name.clone()));
    next.routes.put(route)?;
    Ok(Effects { commit, changed, ..Effects::default() })
}

fn drop_routes(next: &mut Snapshot, names: Vec<RouteName>) -> Result<Effects, Refused> {
    let mut commit = Vec::new();
    let released = names.clone();
    for name in names {
        let own = next.routes.get(name.as_str()).is_some_and(|entry| entry.route.origin == Origin::Api);
        if !own || !next.routes.remove(name.as_str()) {
            return Err(Refused::NoRoute(name));
        }
        commit.push(Write::DropRoute(name.to_string()));
    }
    Ok(Effects { commit, released, ..Effects::default() })
}
