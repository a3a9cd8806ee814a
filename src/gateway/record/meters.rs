//! The handles of what a listener and a route count.
//!
//! They are fetched once for a listener or a route and lent to its connections: looking one up by name and labels costs
//! more than everything else in a record together. They are held as long as the route, because its series last as long
//! as its handles.
//!
//! Names: [`crate::telemetry::metrics`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::Figures;
use crate::exit::Source;
use crate::telemetry::metrics::{
    BYTES, CONNECTIONS, CONNECTIONS_OPEN, FIRST_BYTE_SECONDS, HANDSHAKE_SECONDS, OPEN_SECONDS, REQUESTS, STREAMS_OPEN,
};

/// How many pairs of protocol and outcome keep their handle. All that a healthy route sees are a dozen; those beyond
/// this many are looked for behind a lock.
const KEPT: usize = 48;

/// What a listener counts.
#[derive(Clone, Debug)]
pub struct ListenerMeters(pub(super) Arc<ListenerHandles>);

#[derive(Debug)]
pub(super) struct ListenerHandles {
    label: Arc<str>,
    pub(super) open: Gauge,
    pub(super) handshake: Histogram,
    /// Connections by protocol; the last one never said.
    spoken: [OnceLock<Counter>; PROTOCOLS.len()],
    pub(super) requests: Requests,
}

const PROTOCOLS: [&str; 5] = ["socks4", "socks5", "connect", "http", "none"];

impl ListenerMeters {
    /// Fetches the handles of a listener.
    pub fn new(label: &str) -> Self {
        let open = gauge!(CONNECTIONS_OPEN, "listener" => label.to_owned());
        let handshake = histogram!(HANDSHAKE_SECONDS);
        let (spoken, requests) = (Default::default(), Requests::new("none"));
        Self(Arc::new(ListenerHandles { label: label.into(), open, handshake, spoken, requests }))
    }

    pub(super) fn spoken(&self, protocol: &'static str) {
        let ListenerHandles { label, spoken, .. } = &*self.0;
        let at = PROTOCOLS.iter().position(|known| *known == protocol).unwrap_or(PROTOCOLS.len() - 1);
        let fetch = || counter!(CONNECTIONS, "listener" => label.clone(), "protocol" => PROTOCOLS[at]);
        spoken[at].get_or_init(fetch).increment(1);
    }
}

/// What a route counts.
#[derive(Debug)]
pub struct RouteMeters {
    label: Arc<str>,
    pub(super) open: Gauge,
    pub(super) up: Counter,
    pub(super) down: Counter,
    /// By the source and country of the exit; a route meets few of them.
    latencies: Mutex<BTreeMap<(Source, [u8; 2]), Latencies>>,
    pub(super) requests: Requests,
    pub(super) figures: Figures,
}

/// How long exits of one source and country take.
#[derive(Clone, Debug)]
pub(super) struct Latencies {
    pub(super) open: Histogram,
    pub(super) first_byte: Histogram,
}

/// The country of those whose country nobody knows.
const NOWHERE: [u8; 2] = *b"??";

impl RouteMeters {
    /// Fetches the handles of a route. Routes without a name share the label `implicit`.
    pub fn new(label: &str) -> Self {
        let bytes = |way: &'static str| counter!(BYTES, "route" => label.to_owned(), "way" => way);
        Self {
            open: gauge!(STREAMS_OPEN, "route" => label.to_owned()),
            up: bytes("up"),
            down: bytes("down"),
            latencies: Mutex::default(),
            requests: Requests::new(label),
            figures: Figures::default(),
            label: label.into(),
        }
    }

    /// The route's name, or `implicit`.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// The same counts, to be read back.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    pub(super) fn latencies(&self, source: Source, country: Option<[u8; 2]>) -> Latencies {
        let country = country.unwrap_or(NOWHERE);
        let mut kept = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let fetch = || {
            let (source, country) = (source.as_str(), String::from_utf8_lossy(&country).into_owned());
            Latencies {
                open: histogram!(OPEN_SECONDS, "source" => source, "country" => country.clone()),
                first_byte: histogram!(FIRST_BYTE_SECONDS, "source" => source, "country" => country),
            }
        };
        kept.entry((source, country)).or_insert_with(fetch).clone()
    }
}

/// The counters of one route by protocol and outcome, each fetched when it is first needed and kept.
#[derive(Debug)]
pub(super) struct Requests {
    route: Arc<str>,
    kept: Box<[OnceLock<(&'static str, &'static str, Counter)>]>,
    /// Those beyond: held too, because a series lasts as long as its handle.
    more: Mutex<BTreeMap<(&'static str, &'static str), Counter>>,
}

impl Requests {
    pub(super) fn new(route: &str) -> Self {
        Self { route: route.into(), kept: (0..KEPT).map(|_| OnceLock::new()).collect(), more: Mutex::default() }
    }

    pub(super) fn count(&self, protocol: &'static str, outcome: &'static str) {
        let fetch = || counter!(REQUESTS, "route" => self.route.clone(), "protocol" => protocol, "outcome" => outcome);
        for place in &self.kept {
            let (p, o, counter) = place.get_or_init(|| (protocol, outcome, fetch()));
            if *p == protocol && *o == outcome {
                return counter.increment(1);
            }
        }
        let mut more = self.more.lock().unwrap_or_else(PoisonError::into_inner);
        more.entry((protocol, outcome)).or_insert_with(fetch).increment(1);
    }
}
