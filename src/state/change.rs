//! All changes of the state, and the rows that each change writes to the store.

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

/// The key under which the store keeps the ports of the routes in the configuration, as JSON (port by route name).
/// These ports are kept because a route without a configured port must get the same port after the next start, even if
/// another route was added before it.
pub const CONFIG_PORTS: &str = "config_ports";

/// What checks found about one exit, as a change of the state.
pub struct ExitUpdate {
    pub exit: ExitId,
    /// A function that changes the recorded facts about the exit.
    pub update: Box<dyn FnOnce(&mut Known) + Send>,
    /// A site that refuses the exit, the time until which the refusal counts, and the reason. `None` if no site must be
    /// banned.
    pub ban: Option<(Site, Moment, String)>,
    /// The rows that the store keeps of these results.
    pub writes: Vec<Write>,
}

/// One change of the state.
pub enum Change {
    /// All exits that one kind of source (such as Tor) lists now. Exits of this kind that are no longer listed drain.
    Listed(Source, Vec<Listing>),
    /// Results of checks that were collected for a short time.
    ExitUpdates(Vec<ExitUpdate>),
    /// A site refuses an exit. Either a scraper reported the refusal, or the site's answers to real requests showed it.
    Banned { site: Site, exit: ExitId, until: Moment, why: String },
    /// A person sets the end of the bans of these exits for one site. `None`: the bans end now.
    BanSet { site: Site, exits: Vec<ExitId>, until: Option<Moment>, why: String },
    /// A person ends the condemnation of an exit. `rows` are the writes that also end the condemnation in the store.
    Pardoned { exit: ExitId, pardon: fn(&mut Known), rows: Vec<Write> },
    /// The part of the state that comes from the configuration.
    Configured {
        /// Additions to the grammar of usernames.
        words: Words,
        /// The policy of selectors that do not belong to a route.
        defaults: Policy,
        /// All routes in the configuration.
        routes: Vec<Route>,
    },
    /// The API created these routes. The text is the body of the request, which is stored.
    Created(Vec<(Route, String)>),
    /// The API changed this route. The text is the body of the request, which is stored.
    Changed(Route, String),
    /// The exits in a route's pool are replaced by other exits, as far as there are enough other exits.
    Rotated(RouteName),
    /// The API deleted these routes. Their sessions and pins end.
    Dropped(Vec<RouteName>),
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The name or the port of a route is already in use.
    #[error(transparent)]
    Clash(#[from] Clash),
    /// There is no route of this name, or the route is in the configuration and cannot be changed by the API.
    #[error("no route `{0}` was created over the API")]
    NoRoute(RouteName),
    #[error("the change could not be stored: {0}")]
    Store(#[source] StoreError),
}

/// What the caller must do besides publishing the new snapshot.
#[derive(Default)]
pub(super) struct Effects {
    /// Rows that are stored before the snapshot is published.
    pub(super) commit: Vec<Write>,
    /// Rows that are stored soon. No caller waits for them to be on the disk.
    pub(super) note: Vec<Write>,
    /// The routes whose sessions and pins end.
    pub(super) released: Vec<RouteName>,
    /// A route that has a new selector: its pins that do not match the new selector end. `None` if no selector changed.
    pub(super) changed: Option<RouteName>,
    /// Events that are announced after the snapshot is published.
    pub(super) events: Vec<Event>,
}

impl Change {
    /// Makes the change in `next`. Pure: the caller carries out the returned effects.
    pub(super) fn make(self, next: &mut Snapshot, now: Moment) -> Result<Effects, Refused> {
        match self {
            Self::Listed(source, listings) => Ok(list(next, source, listings, now)),
            Self::ExitUpdates(updates) => Ok(learn(next, updates, now)),
            Self::Banned { site, exit, until, why } => {
                let mut effects = Effects::default();
                effects.ban(next, (site, exit, until, why), now);
                Ok(effects)
            }
            Self::BanSet { site, exits, until, why } => Ok(set_bans(next, &site, exits, until, &why, now)),
            Self::Pardoned { exit, pardon, rows } => {
                let update = ExitUpdate { exit, update: Box::new(pardon), ban: None, writes: Vec::new() };
                Ok(Effects { commit: rows, ..learn(next, vec![update], now) })
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

/// Applies the whole list of one kind of source. An exit that is no longer in the list drains: it gets no new
/// connections, but its open connections continue. If this exit is also absent from the next list and has no
/// connections any more, the exit is removed. A condemned exit is kept, because otherwise it could come back as an
/// unknown exit.
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
        // Public proxies are not stored here. Their tester stores them, and stores only the proxies that have worked.
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
        match (before, was_caught(&edit)) {
            (false, true) => effects.events.push(condemned(edit.peek(), &exit)),
            (true, false) => effects.events.push(Event::Pardoned { exit: exit.clone() }),
            _ => {}
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
    /// Bans an exit from a site. An event is announced only if the ban is new.
    fn ban(&mut self, next: &mut Snapshot, (site, exit, until, why): (Site, ExitId, Moment, String), now: Moment) {
        if next.bans.until(&site, &exit, now).is_none() {
            let (site, exit, why) = (site.clone(), exit.clone(), why.as_str().into());
            self.events.push(Event::Banned { site, exit, until, why });
        }
        next.bans = next.bans.with([(site.clone(), exit.clone(), until)]);
        self.note.push(Write::PutBan(Ban { site: site.as_str().to_owned(), exit, since: now, until, why }));
    }
}

/// Sets the end of the bans of these exits for one site, or lifts them. The rows are stored before the change is
/// published, because a person asked for it. The row of a lifted ban ends now, so the ban does not come back after a
/// restart.
fn set_bans(
    next: &mut Snapshot,
    site: &Site,
    exits: Vec<ExitId>,
    until: Option<Moment>,
    why: &str,
    now: Moment,
) -> Effects {
    let mut effects = Effects::default();
    for exit in &exits {
        let event = match (next.bans.until(site, exit, now), until) {
            (None, Some(until)) => {
                Some(Event::Banned { site: site.clone(), exit: exit.clone(), until, why: why.into() })
            }
            (Some(_), None) => Some(Event::BanLifted { site: site.clone(), exit: exit.clone() }),
            _ => None,
        };
        effects.events.extend(event);
        let (site, exit, until, why) = (site.as_str().to_owned(), exit.clone(), until.unwrap_or(now), why.to_owned());
        effects.commit.push(Write::PutBan(Ban { site, exit, since: now, until, why }));
    }
    next.bans = next.bans.without(site, &exits);
    if let Some(until) = until {
        next.bans = next.bans.with(exits.into_iter().map(|exit| (site.clone(), exit, until)));
    }
    effects
}

/// Counts the bans and the condemned exits among these events in metrics.
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

/// Replaces the routes of the configuration in the table of routes. All other routes stay.
fn configure(next: &mut Snapshot, words: Words, defaults: Policy, routes: Vec<Route>) -> Result<Effects, Refused> {
    let kept: HashSet<&str> = routes.iter().map(|route| route.name.as_str()).collect();
    let mut table = next.routes.configured(words, defaults);
    for entry in next.routes.iter().filter(|entry| entry.route.origin == Origin::Config) {
        let name = entry.route.name.as_str();
        // A new configuration may exchange the ports of two routes, so all ports are freed before any port is assigned.
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
    let text = serde_json::to_string(&ports).unwrap_or_default(); // a map of strings to numbers is always valid JSON
    // The ports are a note: nobody waits until they are stored. The reason: the configuration must be applied even if
    // the database file cannot be written.
    Ok(Effects { note: vec![Write::PutMeta(CONFIG_PORTS, text)], ..Effects::default() })
}

/// Adds routes that the API created. The routes are stored before they are published.
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

/// Returns the write that stores a route's row.
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
