//! Counts what is there, for the metrics: exits by state and country, routes and their pools, engines.
//!
//! Others count what happens where it happens. What merely *is* has no such place, so it is looked at every few seconds.
//! A gauge that was set once is exposed for ever. A count of exits that is gone becomes 0, because sums are made of it; a
//! route or an engine that is gone becomes NaN, which draws nothing and raises no alarm, as 0 would.

use std::collections::{BTreeMap, HashSet};

use metrics::gauge;

use crate::exit::{Exit, Verdict};
use crate::state::Snapshot;
use crate::telemetry::metrics as names;
use crate::tor::Tor;

/// A gauge with its labels, told apart from all others.
type Key = (&'static str, Vec<(&'static str, String)>);

/// What was counted the last time.
#[derive(Debug, Default)]
pub(super) struct Census {
    set: HashSet<Key>,
}

impl Census {
    /// Counts, and tells the metrics.
    pub(super) fn take(&mut self, snapshot: &Snapshot, tor: Option<&Tor>) {
        let mut counted = exits(snapshot);
        counted.extend(routes(snapshot));
        counted.extend(tor.into_iter().flat_map(engines));
        for (name, labels) in self.set.iter().filter(|key| !counted.contains_key(*key)) {
            gauge!(*name, labels).set(if *name == names::EXITS { 0.0 } else { f64::NAN });
        }
        for ((name, labels), value) in &counted {
            gauge!(*name, labels).set(*value);
        }
        self.set = counted.into_keys().collect();
    }
}

fn exits(snapshot: &Snapshot) -> BTreeMap<Key, f64> {
    let mut counted = BTreeMap::new();
    for exit in snapshot.catalog.iter() {
        let labels = vec![
            ("source", exit.id().source().as_str().to_owned()),
            ("country", exit.country().as_str().to_owned()),
            ("state", state(exit).to_owned()),
        ];
        *counted.entry((names::EXITS, labels)).or_default() += 1.0;
    }
    counted
}

/// One word for how an exit stands.
fn state(exit: &Exit) -> &'static str {
    match exit.known().verdict {
        _ if exit.usable() => "usable",
        Verdict::Untested => "untested",
        Verdict::Bad => "bad",
        // Tested well, and not there now: down, on its way out, or marked.
        Verdict::Good => "away",
    }
}

fn routes(snapshot: &Snapshot) -> impl Iterator<Item = (Key, f64)> {
    snapshot.routes.iter().flat_map(|entry| {
        let pool = &entry.pool;
        let counts = [
            (names::ROUTE_EXITS, pool.have()),
            (names::ROUTE_EXITS_WANTED, pool.wanted()),
            (names::ROUTE_UNIQUE_IPS, pool.unique_ips()),
        ];
        let route = entry.route.name.to_string();
        counts.map(|(name, count)| ((name, vec![("route", route.clone())]), count as f64))
    })
}

fn engines(tor: &Tor) -> Vec<(Key, f64)> {
    let mut counted = Vec::new();
    for engine in tor.status() {
        let label = ("engine", engine.id.0.to_string());
        let mut add = |name, count: usize| counted.push(((name, vec![label.clone()]), count as f64));
        add(names::ENGINE_USABLE, usize::from(engine.state.usable()));
        add(names::ENGINE_RESTARTS, engine.restarts as usize);
        add(names::ENGINE_STREAMS, engine.streams);
        for (state, count) in [("built", engine.circuits), ("building", engine.building), ("spare", engine.spares)] {
            counted.push(((names::ENGINE_CIRCUITS, vec![label.clone(), ("state", state.to_owned())]), count as f64));
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::exit::country::Country;
    use crate::exit::facts::Flags;
    use crate::exit::policy::PortPolicy;
    use crate::exit::{Catalog, ExitId, Fingerprint, Listing, Moment};
    use crate::route::{Policy, Words};

    /// A world with one relay for each word.
    fn world(states: &[&str]) -> Snapshot {
        let mut edit = Catalog::default().edit();
        for (number, state) in (1..).zip(states) {
            let (id, ip) = (ExitId::Tor(Fingerprint([number; 20])), Ipv4Addr::new(192, 0, 2, number).into());
            let country = Country::parse("de").unwrap();
            edit.list(Listing {
                id: id.clone(),
                nickname: "relay".into(),
                announced: vec![ip],
                country,
                asn: None,
                as_name: None,
                policy: PortPolicy::accept_all(),
                policy_v6: PortPolicy::reject_all(),
                flags: Flags { running: *state != "away", ..Flags::default() },
                weight: 1,
            });
            let verdict = match *state {
                "untested" => continue,
                "bad" => Verdict::Bad,
                _ => Verdict::Good,
            };
            edit.learn(&id, |known| {
                known.saw(ip, country, Moment(1));
                known.verdict = verdict;
            });
        }
        let mut snapshot = Snapshot::new(Words::default(), Policy::default());
        snapshot.catalog = edit.finish();
        snapshot
    }

    #[test]
    fn each_exit_has_one_state_and_what_is_gone_says_nothing() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let mut census = Census::default();
            census.set.insert((names::ROUTE_EXITS, vec![("route", "closed".to_owned())]));
            census.take(&world(&["usable", "usable", "untested", "bad", "away"]), None);
            let said = handle.render();
            for (state, count) in [("usable", 2), ("untested", 1), ("bad", 1), ("away", 1)] {
                let line = format!("exitgate_exits{{source=\"tor\",country=\"DE\",state=\"{state}\"}} {count}");
                assert!(said.contains(&line), "{line}\n{said}");
            }
            census.take(&world(&["usable"]), None);
            let said = handle.render();
            assert!(said.contains("state=\"usable\"} 1") && said.contains("state=\"bad\"} 0"), "{said}");
            assert!(said.contains("exitgate_route_exits{route=\"closed\"} NaN"), "{said}");
        });
    }
}
