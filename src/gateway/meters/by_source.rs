//! Counts what the exits of each source have carried, for one route and for all routes together. The API reads these
//! counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, counter};

use crate::exit::Source;
use crate::telemetry::metrics::{ROUTE_SOURCE_BYTES, ROUTE_SOURCE_REQUESTS};

/// What the exits of all routes have carried since the gateway started.
static ALL: BySource = BySource(Mutex::new(BTreeMap::new()));

/// Source → what its exits have carried.
#[derive(Debug, Default)]
pub struct BySource(Mutex<BTreeMap<Source, Arc<Carried>>>);

/// What the exits of one source have carried.
#[derive(Debug, Default)]
pub struct Carried {
    requests: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
}

impl Carried {
    /// Returns the number of requests that an exit of the source served, and the bytes to and from targets.
    pub fn read(&self) -> (u64, [u64; 2]) {
        (self.requests.load(Relaxed), [self.up.load(Relaxed), self.down.load(Relaxed)])
    }
}

impl BySource {
    /// Returns the counts of each source that was used, in the order of the sources.
    pub fn list(&self) -> Vec<(Source, Arc<Carried>)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(source, carried)| (*source, carried.clone())).collect()
    }

    /// Returns the counts of all routes together.
    pub fn of_all_routes() -> &'static Self {
        &ALL
    }

    fn of(&self, source: Source) -> Arc<Carried> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(source).or_default().clone()
    }
}

/// The counters of one route and one source.
#[derive(Debug)]
pub struct Share {
    of_route: Arc<Carried>,
    of_all: Arc<Carried>,
    requests: Counter,
    up: Counter,
    down: Counter,
}

impl Share {
    pub(super) fn new(of_route: &BySource, route: &str, source: Source) -> Self {
        let labels = [("route", route.to_owned()), ("source", source.as_str().to_owned())];
        let bytes = |way: &str| {
            let [route, source] = labels.clone();
            counter!(ROUTE_SOURCE_BYTES, route.0 => route.1, source.0 => source.1, "way" => way.to_owned())
        };
        Self {
            of_route: of_route.of(source),
            of_all: ALL.of(source),
            requests: counter!(ROUTE_SOURCE_REQUESTS, &labels),
            up: bytes("up"),
            down: bytes("down"),
        }
    }

    pub(in super::super) fn served(&self) {
        [&self.of_route, &self.of_all].iter().for_each(|carried| _ = carried.requests.fetch_add(1, Relaxed));
        self.requests.increment(1);
    }

    pub(in super::super) fn moved_up(&self, bytes: u64) {
        [&self.of_route, &self.of_all].iter().for_each(|carried| _ = carried.up.fetch_add(bytes, Relaxed));
        self.up.increment(bytes);
    }

    pub(in super::super) fn moved_down(&self, bytes: u64) {
        [&self.of_route, &self.of_all].iter().for_each(|carried| _ = carried.down.fetch_add(bytes, Relaxed));
        self.down.increment(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_of_a_route_has_its_own_counts() {
        let of_route = BySource::default();
        let (tor, public) = (Share::new(&of_route, "shop", Source::Tor), Share::new(&of_route, "shop", Source::Public));
        tor.served();
        tor.moved_up(3);
        public.served();
        public.served();
        public.moved_down(5);
        let counts: Vec<_> = of_route.list().iter().map(|(source, carried)| (*source, carried.read())).collect();
        assert_eq!(counts, [(Source::Tor, (1, [3, 0])), (Source::Public, (2, [0, 5]))]);
        let all = BySource::of_all_routes().of(Source::Public).read();
        assert!(all.0 >= 2 && all.1[1] >= 5, "{all:?}");
    }
}
