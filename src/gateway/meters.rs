//! The metric handles of listeners and routes.
//!
//! A handle is fetched once per listener or route and shared by its connections: looking one up by name and labels costs
//! more than everything else in a [`record`](super::record) together. Handles are kept as long as the route exists, because a
//! series lasts as long as its handle.
//!
//! Names of metrics: [`crate::telemetry::metrics`]. Next: `meters/figures.rs` has the counts that can be read back.

mod figures;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

pub use self::figures::Figures;
use crate::exit::Source;
use crate::telemetry::metrics::{
    BYTES, CONNECTIONS, CONNECTIONS_OPEN, FIRST_BYTE_SECONDS, HANDSHAKE_SECONDS, OPEN_SECONDS, REQUESTS, STREAMS_OPEN,
};

/// Pairs of protocol and outcome whose handle can be found without a lock. A healthy route sees about a dozen pairs;
/// those beyond this number are found behind a lock.
const FAST_PAIRS: usize = 48;

/// The meters of one listener.
#[derive(Clone, Debug)]
pub struct ListenerMeters(pub(super) Arc<ListenerHandles>);

#[derive(Debug)]
pub(super) struct ListenerHandles {
    label: Arc<str>,
    pub(super) open: Gauge,
    pub(super) handshake: Histogram,
    /// Connections by protocol, in the order of [`PROTOCOLS`].
    by_protocol: [OnceLock<Counter>; PROTOCOLS.len()],
    pub(super) requests: RequestCounters,
}

/// `none` is a connection that ended before its protocol was known.
const PROTOCOLS: [&str; 5] = ["socks4", "socks5", "connect", "http", "none"];

impl ListenerMeters {
    /// Fetches the handles of a listener.
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

/// The meters of one route.
#[derive(Debug)]
pub struct RouteMeters {
    label: Arc<str>,
    pub(super) open: Gauge,
    pub(super) up: Counter,
    pub(super) down: Counter,
    /// By the source and country of the exit; one route uses few of them.
    latencies: Mutex<BTreeMap<(Source, [u8; 2]), Latencies>>,
    pub(super) requests: RequestCounters,
    pub(super) figures: Figures,
}

/// Histograms for exits of one source and country.
#[derive(Clone, Debug)]
pub(super) struct Latencies {
    pub(super) open: Histogram,
    pub(super) first_byte: Histogram,
}

/// The label of exits whose country is unknown.
const UNKNOWN_COUNTRY: [u8; 2] = *b"??";

impl RouteMeters {
    /// Fetches the handles of a route. Routes without a name share the label `implicit`.
    pub fn new(label: &str) -> Self {
        let bytes = |way: &'static str| counter!(BYTES, "route" => label.to_owned(), "way" => way);
        Self {
            open: gauge!(STREAMS_OPEN, "route" => label.to_owned()),
            up: bytes("up"),
            down: bytes("down"),
            latencies: Mutex::default(),
            requests: RequestCounters::new(label),
            figures: Figures::default(),
            label: label.into(),
        }
    }

    /// The route's name, or `implicit`.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// The counts that can be read back.
    pub fn figures(&self) -> &Figures {
        &self.figures
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

/// The counters of one route by protocol and outcome; each is fetched at its first use and kept.
#[derive(Debug)]
pub(super) struct RequestCounters {
    route: Arc<str>,
    fast: Box<[OnceLock<(&'static str, &'static str, Counter)>]>,
    /// Pairs for which `fast` has no place.
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
