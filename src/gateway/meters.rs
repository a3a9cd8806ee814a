//! The metric handles of listeners and routes.
//!
//! Each listener and each route looks up its handles once, and all its connections share them. Looking up a handle by
//! name and labels costs more than all other work of a [`record`](super::record). Handles are kept as long as the route
//! exists, because a metric series lasts as long as its handle.
//!
//! The names of the metrics are in [`crate::telemetry::metrics`]. Next: `meters/figures.rs` has the counts that the API
//! can read.

mod by_source;
mod figures;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

pub use self::by_source::{BySource, Carried, Share};
pub use self::figures::Figures;
use crate::exit::Source;
use crate::telemetry::metrics::{
    BYTES, CONNECTIONS, CONNECTIONS_OPEN, FIRST_BYTE_SECONDS, HANDSHAKE_SECONDS, OPEN_SECONDS, REQUESTS, STREAMS_OPEN,
};

/// The number of pairs of protocol and outcome whose metric handle can be found without a lock. A healthy route has
/// about a dozen such pairs. The handles of further pairs are in a map with a lock.
const FAST_PAIRS: usize = 48;

/// The metric handles of one listener.
#[derive(Clone, Debug)]
pub struct ListenerMeters(pub(super) Arc<ListenerHandles>);

#[derive(Debug)]
pub(super) struct ListenerHandles {
    label: Arc<str>,
    pub(super) open: Gauge,
    pub(super) handshake: Histogram,
    /// The counters of connections by protocol, in the order of [`PROTOCOLS`].
    by_protocol: [OnceLock<Counter>; PROTOCOLS.len()],
    pub(super) requests: RequestCounters,
}

/// The values of the metric label for the client's protocol. `none` means that the connection ended before its protocol
/// was known.
const PROTOCOLS: [&str; 5] = ["socks4", "socks5", "connect", "http", "none"];

impl ListenerMeters {
    /// Looks up the handles of a listener with this label.
    pub fn new(label: &str) -> Self {
        let open = gauge!(CONNECTIONS_OPEN, "listener" => label.to_owned());
        let handshake = histogram!(HANDSHAKE_SECONDS);
        let (by_protocol, requests) = (Default::default(), RequestCounters::new("none"));
        Self(Arc::new(ListenerHandles { label: label.into(), open, handshake, by_protocol, requests }))
    }

    pub(super) fn count_connection(&self, protocol: &'static str) {
        let ListenerHandles { label, by_protocol, .. } = &*self.0;
        let at = PROTOCOLS.iter().position(|known| *known == protocol).unwrap_or(PROTOCOLS.len() - 1);
        let fetch = || counter!(CONNECTIONS, "listener" => label.clone(), "protocol" => PROTOCOLS[at]);
        by_protocol[at].get_or_init(fetch).increment(1);
    }
}

/// The metric handles of one route.
#[derive(Debug)]
pub struct RouteMeters {
    label: Arc<str>,
    pub(super) open: Gauge,
    pub(super) up: Counter,
    pub(super) down: Counter,
    /// The latency histograms of this route. The key is the exit's source and country code. One route uses only a few
    /// such pairs.
    latencies: Mutex<BTreeMap<(Source, [u8; 2]), Latencies>>,
    pub(super) requests: RequestCounters,
    pub(super) figures: Figures,
    by_source: BySource,
    /// The counters of the sources that this route has used.
    shares: Mutex<BTreeMap<Source, Arc<Share>>>,
}

/// The histograms of latencies for exits of one source and one country.
#[derive(Clone, Debug)]
pub(super) struct Latencies {
    pub(super) open: Histogram,
    pub(super) first_byte: Histogram,
}

/// The value of the country label for exits whose country is unknown.
const UNKNOWN_COUNTRY: [u8; 2] = *b"??";

impl RouteMeters {
    /// Looks up the handles of a route. Routes without a name share the label `implicit`.
    pub fn new(label: &str) -> Self {
        let bytes = |way: &'static str| counter!(BYTES, "route" => label.to_owned(), "way" => way);
        Self {
            open: gauge!(STREAMS_OPEN, "route" => label.to_owned()),
            up: bytes("up"),
            down: bytes("down"),
            latencies: Mutex::default(),
            requests: RequestCounters::new(label),
            figures: Figures::default(),
            by_source: BySource::default(),
            shares: Mutex::default(),
            label: label.into(),
        }
    }

    /// Returns the route's name, or the word `implicit` for routes without a name.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// Returns the counts that the API can read.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Returns what the exits of each source have carried for this route.
    pub fn by_source(&self) -> &BySource {
        &self.by_source
    }

    pub(super) fn share(&self, source: Source) -> Arc<Share> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let share = || Arc::new(Share::new(&self.by_source, &self.label, source));
        shares.entry(source).or_insert_with(share).clone()
    }

    pub(super) fn latencies(&self, source: Source, country: Option<[u8; 2]>) -> Latencies {
        let country = country.unwrap_or(UNKNOWN_COUNTRY);
        let mut known = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let fetch = || {
            let (source, country) = (source.as_str(), String::from_utf8_lossy(&country).into_owned());
            Latencies {
                open: histogram!(OPEN_SECONDS, "source" => source, "country" => country.clone()),
                first_byte: histogram!(FIRST_BYTE_SECONDS, "source" => source, "country" => country),
            }
        };
        known.entry((source, country)).or_insert_with(fetch).clone()
    }
}

/// The request counters of one route, one for each pair of protocol and outcome. The handle of each counter is looked
/// up at the first use of the pair and then kept.
#[derive(Debug)]
pub(super) struct RequestCounters {
    route: Arc<str>,
    fast: Box<[OnceLock<(&'static str, &'static str, Counter)>]>,
    /// The request counters of the pairs of protocol and outcome for which `fast` had no free place.
    more: Mutex<BTreeMap<(&'static str, &'static str), Counter>>,
}

impl RequestCounters {
    pub(super) fn new(route: &str) -> Self {
        let fast = (0..FAST_PAIRS).map(|_| OnceLock::new()).collect();
        Self { route: route.into(), fast, more: Mutex::default() }
    }

    pub(super) fn count(&self, protocol: &'static str, outcome: &'static str) {
        let fetch = || counter!(REQUESTS, "route" => self.route.clone(), "protocol" => protocol, "outcome" => outcome);
        for place in &self.fast {
            let (p, o, counter) = place.get_or_init(|| (protocol, outcome, fetch()));
            if *p == protocol && *o == outcome {
                return counter.increment(1);
            }
        }
        let mut more = self.more.lock().unwrap_or_else(PoisonError::into_inner);
        more.entry((protocol, outcome)).or_insert_with(fetch).increment(1);
    }
}
