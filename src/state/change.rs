//! What can change, and what each change asks of the store.

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

/// Under which name the store keeps the ports of the configuration's routes: JSON, port by name. A route that says no port
/// keeps the one it got, also when a route is added before it and the gateway starts again.
pub const CONFIG_PORTS: &str = "config_ports";

/// What one round of checks taught about one exit.
pub struct ExitUpdate {
    /// The exit.
    pub exit: ExitId,
    /// Writes it into what is known.
    pub update: Box<dyn FnOnce(&mut Known) + Send>,
    /// The site that refuses it, until when and why.
    pub ban: Option<(Site, Moment, String)>,
    /// What to keep of it.
    pub writes: Vec<Write>,
}

/// One change of the state.
pub enum Change {
    /// A source's whole list: what left it drains.
    Listed(Source, Vec<Listing>),
    /// Results of checks, as many as came in a moment.
    ExitUpdates(Vec<ExitUpdate>),
    /// A site refuses an exit, by the word of a scraper or of its answers.
    Banned {
        /// The site.
        site: Site,
        /// The exit that it refuses.
        exit: ExitId,
        /// Until when.
        until: Moment,
        /// Who says so.
        why: String,
    },
    /// What the configuration says of routes.
    Configured {
        /// What it adds to the grammar.
        words: Words,
        /// The policy of selectors that are no route.
        defaults: Policy,
        /// Its routes, all of them.
        routes: Vec<Route>,
    },
    /// The API made these routes, each with the body that asked for it.
    Created(Vec<(Route, String)>),
    /// A route of the API is another from now on: the body that it is kept as beside it.
    Changed(Route, String),
    /// A route's pool is exchanged for other exits, as far as there are others.
    Turned(RouteName),
    /// Routes of the API are no more, nor what was promised to those who used them.
    Dropped(Vec<RouteName>),
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A route's name or port is taken.
    #[error(transparent)]
    Clash(#[from] Clash),
    /// There is no such route, or it is the configuration's.
    #[error("the API has no route `{0}`")]
    NoRoute(RouteName),
    /// It could not be made durable.
    #[error("it could not be written down: {0}")]
    Store(#[source] StoreError),
}

/// What the store must do about a change.
#[derive(Default)]
pub(super) struct Effects {
    /// Durable before the change is published.
    pub(super) commit: Vec<Write>,
    /// Written when there is time.
    pub(super) note: Vec<Write>,
    /// Routes whose promises end with this change.
    pub(super) released: Vec<RouteName>,
    /// A route whose pins may have to go: it asks for something else now.
    pub(super) changed: Option<RouteName>,
    /// What is told once the change is published.
    pub(super) events: Vec<Event>,
}

impl Change {
    /// Makes the change in `next`; pure but for what it says the store must do.
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
            Self::Turned(name) => {
                let turned = next.routes.rotated(name.as_str(), &next.catalog, now);
                next.routes = turned.ok_or(Refused::NoRoute(name))?;
                Ok(Effects::default())
            }
            Self::Dropped(names) => drop_routes(next, names),
        }
    }
}

/// Takes over a whole list. What left it drains: it takes nothing new, and what goes through it goes on. When it is still
/// gone by the next list and nothing goes through it any more, it is forgotten, unless it must not be: an exit that was
/// caught once must not come back as one that nobody knows.
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
        // Of public proxies only those are kept that have worked: by the judge, with what it found.
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
    /// Keeps an exit away from a site. Only a new ban is news.
    fn ban(&mut self, next: &mut Snapshot, (site, exit, until, why): (Site, ExitId, Moment, String), now: Moment) {
        if next.bans.until(&site, &exit, now).is_none() {
            let (site, exit, why) = (site.clone(), exit.clone(), why.as_str().into());
            self.events.push(Event::Banned { site, exit, until, why });
        }
        next.bans = next.bans.with([(site.clone(), exit.clone(), until)]);
        self.note.push(Write::PutBan(Ban { site: site.as_str().to_owned(), exit, since: now, until, why }));
    }
}

/// Counts what befell exits.
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

/// Makes the configuration's routes those of the table, and leaves the others alone.
fn configure(next: &mut Snapshot, words: Words, defaults: Policy, routes: Vec<Route>) -> Result<Effects, Refused> {
    let kept: HashSet<&str> = routes.iter().map(|route| route.name.as_str()).collect();
    let mut table = next.routes.configured(words, defaults);
    for entry in next.routes.iter().filter(|entry| entry.route.origin == Origin::Config) {
        let name = entry.route.name.as_str();
        // Ports change hands within one configuration: each route lets go of its own before any takes one.
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
    let text = serde_json::to_string(&ports).unwrap_or_default(); // a map of strings to numbers is always JSON
    // A note: a file that takes no writes must not keep a gateway from its own configuration.
    Ok(Effects { note: vec![Write::PutMeta(CONFIG_PORTS, text)], ..Effects::default() })
}

/// Takes in routes of the API: durable before anybody hears of them.
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

/// A route as the store keeps it.
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
