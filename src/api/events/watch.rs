//! The worker that writes events into the journal.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::super::timestamp::Timestamp;
use super::super::{Wiring, engines, sources};
use crate::admin::keys::{KeyChange, KeyEvent};
use crate::lifecycle::Tasks;
use crate::limit::Level;
use crate::route::pinned::Pinned;
use crate::route::table::RouteTable;
use crate::route::{Event, Holder, event::Cause};

/// The time between two comparisons of the statuses. People do not notice a delay of half a second.
const LOOK: Duration = Duration::from_millis(500);

/// A map from the name of each route, engine or source to its status as text. The text contains only what readers of
/// events need to know.
type Statuses = BTreeMap<String, String>;

/// Writes events into the journal until the gateway stops.
pub(in crate::api) async fn watch(wiring: Wiring, tasks: Tasks) {
    let (mut events, mut keys) = (wiring.state.events(), wiring.keys.events());
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut previous = Previous::new(&wiring);
    while !tasks.is_stopping() {
        tokio::select! {
            () = tasks.stopping() => return,
            event = events.recv() => match event {
                Ok(event) => {
                    let (kind, data) = entry(&event);
                    wiring.journal.write(wiring.state.now(), kind, data);
                }
                Err(RecvError::Lagged(count)) => {
                    wiring.journal.write(wiring.state.now(), "missed", json!({ "events": count }));
                }
                Err(RecvError::Closed) => return,
            },
            event = keys.recv() => match event {
                Ok(event) => {
                    let (kind, data) = key_entry(&event);
                    wiring.journal.write(wiring.state.now(), kind, data);
                }
                Err(RecvError::Lagged(count)) => {
                    wiring.journal.write(wiring.state.now(), "missed", json!({ "events": count }));
                }
                Err(RecvError::Closed) => return,
            },
            _ = tick.tick() => previous.compare(&wiring),
        }
    }
}

struct Previous {
    revision: u64,
    /// True if at least one guard of the Tor network answered at the last comparison.
    network: bool,
    routes: Statuses,
    engines: Statuses,
    sources: Statuses,
}

impl Previous {
    fn new(wiring: &Wiring) -> Self {
        let snapshot = wiring.state.snapshot();
        Self {
            revision: snapshot.revision,
            network: reaches_network(wiring),
            routes: of_routes(&snapshot.routes),
            engines: of_engines(wiring),
            sources: of_sources(wiring),
        }
    }

    fn compare(&mut self, wiring: &Wiring) {
        let now = wiring.state.now();
        let write = |kind, data| wiring.journal.write(now, kind, data);
        let snapshot = wiring.state.snapshot();
        if std::mem::replace(&mut self.revision, snapshot.revision) != snapshot.revision {
            let routes = of_routes(&snapshot.routes);
            for (name, change) in changes(&self.routes, &routes) {
                let kind = match change {
                    Difference::New => "route.opened",
                    Difference::Changed => "route.changed",
                    Difference::Gone => "route.closed",
                };
                let port = snapshot.routes.get(name).and_then(|entry| entry.route.port);
                write(kind, json!({ "route": name, "port": port }));
            }
            self.routes = routes;
        }
        let network = reaches_network(wiring);
        if network != self.network {
            let text =
                if network { "a guard of the Tor network answers" } else { "no guard of the Tor network answers" };
            write("network", json!({ "reached": network, "text": text }));
        }
        self.network = network;
        let engines = of_engines(wiring);
        for engine in wiring.tor.iter().flat_map(|tor| tor.status()) {
            let id = engine.id.0.to_string();
            if engines.get(&id) != self.engines.get(&id) {
                write("engine", json!(engines::shown(&engine)));
            }
        }
        self.engines = engines;
        let sources = of_sources(wiring);
        for source in wiring.sources.statuses() {
            if sources.get(&source.name) != self.sources.get(&source.name) {
                write("source", json!(sources::shown(&source)));
            }
        }
        self.sources = sources;
    }
}

fn of_routes(routes: &RouteTable) -> Statuses {
    let words = |route: &crate::route::Route| format!("{} {:?} {:?}", route.selector, route.port, route.policy);
    routes.iter().map(|entry| (entry.route.name.to_string(), words(&entry.route))).collect()
}

fn reaches_network(wiring: &Wiring) -> bool {
    wiring.tor.as_ref().is_some_and(|tor| tor.first_hop_proven())
}

fn of_engines(wiring: &Wiring) -> Statuses {
    let engines = wiring.tor.iter().flat_map(|tor| tor.status());
    engines.map(|engine| (engine.id.0.to_string(), engine.state.as_str().to_owned())).collect()
}

fn of_sources(wiring: &Wiring) -> Statuses {
    let words = |source: &crate::store::Source| format!("{} {:?}", source.outcome, source.published);
    wiring.sources.statuses().iter().map(|source| (source.name.clone(), words(source))).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Difference {
    New,
    Changed,
    Gone,
}

fn changes<'a>(before: &'a Statuses, now: &'a Statuses) -> impl Iterator<Item = (&'a str, Difference)> {
    let gone = before.keys().filter(|name| !now.contains_key(*name)).map(|name| (name.as_str(), Difference::Gone));
    let changed = now.iter().filter_map(|(name, words)| match before.get(name) {
        None => Some((name.as_str(), Difference::New)),
        Some(old) if old != words => Some((name.as_str(), Difference::Changed)),
        Some(_) => None,
    });
    gone.chain(changed)
}

fn entry(event: &Event) -> (&'static str, Value) {
    let pinned = |to: &Pinned| json!({ "exit": to.exit.to_string(), "ip": to.ip });
    let (kind, mut data) = match event {
        Event::PinMade { holder, to } => ("pin.made", of_pin(holder, json!({ "to": pinned(to) }))),
        Event::PinMoved { holder, from, to, cause } => {
            let cause = Cause::as_str(*cause);
            ("pin.moved", of_pin(holder, json!({ "from": pinned(from), "to": pinned(to), "cause": cause })))
        }
        Event::PinEnded { holder, was, evicted } => {
            ("pin.ended", of_pin(holder, json!({ "was": pinned(was), "evicted": evicted })))
        }
        Event::Condemned { exit, why } => ("exit.condemned", json!({ "exit": exit.to_string(), "why": &**why })),
        Event::Pardoned { exit } => ("exit.pardoned", json!({ "exit": exit.to_string() })),
        Event::Banned { site, exit, until, why } => {
            let (site, exit) = (site.as_str(), exit.to_string());
            ("ban.made", json!({ "site": site, "exit": exit, "until": Timestamp(*until), "why": &**why }))
        }
        Event::BanLifted { site, exit } => ("ban.lifted", json!({ "site": site.as_str(), "exit": exit.to_string() })),
        Event::Suspended { check, pardoned } => ("check.suspended", json!({ "check": &**check, "pardoned": pardoned })),
        Event::Resumed { check } => ("check.resumed", json!({ "check": &**check })),
    };
    data["text"] = json!(event.to_string());
    (kind, data)
}

fn key_entry(KeyEvent { key, what }: &KeyEvent) -> (&'static str, Value) {
    let (kind, text) = match what {
        KeyChange::Created => ("key.created", format!("the key {key} was created")),
        KeyChange::Changed => ("key.changed", format!("the key {key} was changed")),
        KeyChange::Deleted => ("key.deleted", format!("the key {key} was deleted")),
        KeyChange::Expired => ("key.expired", format!("the key {key} has expired")),
        KeyChange::Budget { source, level } => {
            let of = source.as_deref().map(|source| format!(" for the source {source}")).unwrap_or_default();
            let text = match level {
                Level::Fine => format!("the budget of the key {key}{of} can be used again"),
                Level::Near => format!("80 % of a budget of the key {key}{of} are used"),
                Level::Spent => format!("a budget of the key {key}{of} is used up"),
            };
            let data = json!({ "key": &**key, "source": source.as_deref(), "level": level.as_str(), "text": text });
            return ("key.budget", data);
        }
    };
    (kind, json!({ "key": &**key, "text": text }))
}

fn of_pin(holder: &Holder, mut data: Value) -> Value {
    data["scope"] = json!(&*holder.scope);
    data["session"] = json!(holder.session.as_ref().map(ToString::to_string));
    data["key"] = json!(&*holder.key);
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_reported() {
        let statuses = |list: &[(&str, &str)]| {
            list.iter().map(|(name, words)| ((*name).to_owned(), (*words).to_owned())).collect::<Statuses>()
        };
        let (before, now) =
            (statuses(&[("a", "1"), ("b", "1"), ("c", "1")]), statuses(&[("b", "2"), ("c", "1"), ("d", "1")]));
        let found: Vec<_> = changes(&before, &now).collect();
        assert_eq!(found, [("a", Difference::Gone), ("b", Difference::Changed), ("d", Difference::New)]);
        assert_eq!(changes(&now, &now).count(), 0);
    }
}
