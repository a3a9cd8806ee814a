//! A route as the API shows it, with lines to paste.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::Guard;
use http::{HeaderMap, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::Wiring;
use super::super::timestamp::Timestamp;
use super::duration::{Patience, Span};
use super::{Page, Rules};
use crate::exit::{ExitId, Moment};
use crate::gateway::outbound::Outbound;
use crate::route::Policy;
use crate::route::pin::PinRecord;
use crate::route::policy::{Auth, Engine};
use crate::route::pool::{Member, Pool};
use crate::route::selector::Mode;
use crate::route::table::{Entry, Origin};
use crate::state::Snapshot;

/// A page that tells who asks from where.
const TRY: &str = "https://check.torproject.org/api/ip";

/// A route.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Proxy {
    name: String,
    port: Option<u16>,
    selector: String,
    /// `flexible`, `strict` or `rotate`.
    mode: &'static str,
    pool: PoolShown,
    /// The check target that its exits pass.
    check: Option<String>,
    /// The one exit of a strict route, once it has been used.
    exit: Option<Pinned>,
    /// `key` or `open`.
    auth: &'static str,
    /// `api`, or `config`: read-only here.
    origin: &'static str,
    created: Timestamp,
    expires: Option<Timestamp>,
    used: Option<Timestamp>,
    /// `open`; `port_taken` while another program has its port.
    state: &'static str,
    policy: PolicyShown,
    live: Live,
    examples: Option<Examples>,
    urls: Option<Urls>,
}

/// How many exits a route uses.
#[derive(Debug, Serialize, ToSchema)]
struct PoolShown {
    wanted: usize,
    have: usize,
    /// Different addresses among them.
    unique_ips: usize,
    /// What opening a stream took at their last checks; half of them were faster.
    latency_ms: Option<u64>,
}

/// What a strict route is pinned to.
#[derive(Debug, Serialize, ToSchema)]
struct Pinned {
    id: String,
    #[schema(value_type = String)]
    ip: std::net::Ipv4Addr,
}

/// What a route says beside its selector.
#[derive(Debug, Serialize, ToSchema)]
struct PolicyShown {
    exclusive: bool,
    hops: u8,
    ipv6: bool,
    engine: &'static str,
    /// In seconds.
    #[schema(value_type = Option<u64>)]
    rotate_every: Option<Span>,
    /// In seconds, or `never`.
    repin_after: Patience,
    allow: Vec<String>,
}

/// What a route carries, since the gateway started and now.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Live {
    /// Streams to targets open now.
    connections: u64,
    /// Exits in use now.
    exits: usize,
    /// Requests that came to an end.
    requests: u64,
    /// Those of them that did not get what they asked for.
    errors: u64,
    bytes_up: u64,
    bytes_down: u64,
    /// Bytes a second.
    rate_up: u64,
    rate_down: u64,
}

/// Lines to paste.
#[derive(Debug, Serialize, ToSchema)]
struct Examples {
    curl: String,
    python: String,
    playwright: String,
}

/// What to tell a client.
#[derive(Debug, Serialize, ToSchema)]
struct Urls {
    socks5: String,
    http: String,
}

/// A page of routes.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Proxies {
    /// How many there are, beyond this page too.
    total: usize,
    proxies: Vec<Proxy>,
    /// What `after` says for the rest.
    next: Option<String>,
}

/// Routes that were made together.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Batch {
    total: usize,
    /// Addresses that were asked for: one a route, or as many as their pools want.
    wanted: usize,
    /// Different addresses that they have together; fewer than wanted where there are no more.
    have: usize,
    proxies: Vec<Proxy>,
}

/// What all routes of one answer are shown by.
pub(super) struct Showing {
    pub(super) snapshot: Arc<Snapshot>,
    rules: Guard<Arc<Rules>>,
    /// Pins without a session, by their scope.
    pins: HashMap<Arc<str>, PinRecord>,
    /// Exits in use now, by route.
    busy: HashMap<Arc<str>, HashSet<ExitId>>,
    shut: std::collections::BTreeSet<String>,
    outbound: Arc<Outbound>,
    /// The host under which whoever asks knows us.
    host: String,
}

impl Showing {
    pub(super) fn new(wiring: &Wiring, headers: &HeaderMap) -> Self {
        let rules = wiring.rules.load();
        let now: Moment = wiring.state.now();
        let pins = wiring.state.memory().pins().list(now).into_iter().filter(|pin| pin.holder.session.is_none());
        let mut busy: HashMap<_, HashSet<_>> = HashMap::new();
        for way in wiring
            .connections
            .list()
            .into_iter()
            .filter_map(|row| Some(row.state()).filter(|now| now.streaming)?.served_by)
        {
            busy.entry(way.label).or_default().insert(way.exit);
        }
        Self {
            snapshot: wiring.state.snapshot(),
            host: host(&rules, headers),
            rules,
            pins: pins.map(|pin| (pin.holder.scope.clone(), pin)).collect(),
            busy,
            shut: wiring.shut.borrow().clone(),
            outbound: wiring.outbound.clone(),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.snapshot.routes.get(name).map(|entry| &**entry)
    }

    /// A page of the routes that pass, by name.
    pub(super) fn page(&self, page: &Page, limit: usize) -> Proxies {
        let mut all: Vec<&Arc<Entry>> = self.snapshot.routes.iter().filter(|entry| page.passes(entry)).collect();
        let total = all.len();
        all.retain(|entry| page.after.as_deref().is_none_or(|after| entry.route.name.as_str() > after));
        all.sort_unstable_by(|a, b| a.route.name.cmp(&b.route.name));
        let next = (all.len() > limit).then(|| all[limit - 1].route.name.to_string());
        all.truncate(limit);
        Proxies { total, proxies: all.into_iter().map(|entry| self.one(entry)).collect(), next }
    }

    /// Routes that were made together: with how many addresses they have among them.
    pub(super) fn batch(&self, entries: &[&Entry]) -> Batch {
        let ips: HashSet<IpAddr> = entries
            .iter()
            .flat_map(|entry| entry.pool.members())
            .filter_map(|member| member.exit(&self.snapshot.catalog)?.ip())
            .collect();
        let wanted = entries.iter().map(|entry| entry.pool.wanted()).sum();
        let proxies = entries.iter().map(|entry| self.one(entry)).collect();
        Batch { total: entries.len(), wanted, have: ips.len().min(wanted), proxies }
    }

    pub(super) fn one(&self, entry: &Entry) -> Proxy {
        let (route, pool) = (&entry.route, &entry.pool);
        let name = route.name.as_str();
        let pin = self.pins.get(name).filter(|_| route.selector.mode == Mode::Strict);
        let urls = self.urls(entry);
        Proxy {
            name: name.to_owned(),
            port: route.port,
            selector: route.selector.to_string(),
            mode: route.selector.mode.as_str(),
            pool: self.pool(pool),
            check: route.policy.check.as_deref().map(str::to_owned),
            exit: pin.map(|pin| Pinned { id: pin.to.exit.to_string(), ip: pin.to.ip }),
            auth: if self.asks_for_key(&route.policy) { "key" } else { "open" },
            origin: match route.origin {
                Origin::Config => "config",
                Origin::Api => "api",
            },
            created: Timestamp(route.created),
            expires: route.expires.map(Timestamp),
            used: entry.used().map(Timestamp),
            state: if self.shut.contains(name) { "port_taken" } else { "open" },
            policy: PolicyShown::of(&route.policy),
            live: self.live(name),
            examples: urls.as_ref().map(Examples::of),
            urls,
        }
    }

    fn pool(&self, pool: &Pool) -> PoolShown {
        let latency = |member: &Member| member.exit(&self.snapshot.catalog)?.known().latency;
        let mut all: Vec<_> = pool.members().iter().filter_map(latency).collect();
        all.sort_unstable();
        let middle = all.get(all.len() / 2);
        PoolShown {
            wanted: pool.wanted(),
            have: pool.have(),
            unique_ips: pool.unique_ips(),
            latency_ms: middle.map(|latency| u64::try_from(latency.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// What a shell takes over: `source <(curl …)`.
    pub(super) fn env(&self, entries: &[&Entry]) -> String {
        let mut text = String::new();
        for (at, entry) in entries.iter().enumerate() {
            let Some(Urls { socks5, http }) = self.urls(entry) else { continue };
            let name = entry.route.name.as_str().to_ascii_uppercase().replace('-', "_");
            let _ = writeln!(text, "EXITGATE_{name}={socks5}");
            if at == 0 {
                let _ = writeln!(text, "ALL_PROXY={socks5}\nHTTP_PROXY={http}\nHTTPS_PROXY={http}");
                let _ = writeln!(text, "http_proxy={http}\nhttps_proxy={http}\nNO_PROXY=localhost,127.0.0.1,::1");
            }
        }
        text
    }

    fn urls(&self, entry: &Entry) -> Option<Urls> {
        Some(urls(&self.host, entry.route.port?, self.asks_for_key(&entry.route.policy)))
    }

    fn asks_for_key(&self, policy: &Policy) -> bool {
        self.rules.keys && policy.auth == Auth::Key
    }

    fn live(&self, name: &str) -> Live {
        let Some(meters) = self.outbound.figures(name) else { return Live::default() };
        let figures = meters.figures();
        let ([bytes_up, bytes_down], [rate_up, rate_down]) = (figures.bytes(), figures.per_second());
        Live {
            connections: figures.open(),
            exits: self.busy.get(name).map_or(0, HashSet::len),
            requests: figures.requests(),
            errors: figures.failed(),
            bytes_up,
            bytes_down,
            rate_up,
            rate_down,
        }
    }
}

impl PolicyShown {
    fn of(policy: &Policy) -> Self {
        Self {
            exclusive: policy.exclusive,
            hops: policy.hops,
            ipv6: policy.ipv6,
            engine: match policy.engine {
                Engine::Shared => "shared",
                Engine::Own => "own",
            },
            rotate_every: policy.rotate_every.map(Span),
            repin_after: Patience(policy.repin_after),
            allow: policy.allow.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Examples {
    fn of(urls: &Urls) -> Self {
        let Urls { socks5, http } = urls;
        Self {
            curl: format!("curl -x {socks5} {TRY}"),
            python: format!("requests.get(\"{TRY}\", proxies={{\"http\": \"{http}\", \"https\": \"{http}\"}})"),
            playwright: format!("await chromium.launch({{ proxy: {{ server: \"{http}\" }} }})"),
        }
    }
}

/// The host under which whoever asks reaches the ports of routes.
pub(in crate::api) fn host(rules: &Rules, headers: &HeaderMap) -> String {
    match rules.bind {
        ip if ip.is_unspecified() => asked_host(headers).unwrap_or_else(|| "127.0.0.1".to_owned()),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The host of the request, without its port. The gate let it pass: it is one of ours.
fn asked_host(headers: &HeaderMap) -> Option<String> {
    let authority: http::uri::Authority = headers.get(header::HOST)?.to_str().ok()?.parse().ok()?;
    Some(authority.host().to_owned())
}

/// A key is never shown: where one is needed its place is.
fn urls(host: &str, port: u16, key: bool) -> Urls {
    let user = if key { "x:YOUR_KEY@" } else { "" };
    Urls { socks5: format!("socks5h://{user}{host}:{port}"), http: format!("http://{user}{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_place_for_the_key_and_never_the_key() {
        let Urls { socks5, http } = urls("[::1]", 20_001, true);
        assert_eq!((&*socks5, &*http), ("socks5h://x:YOUR_KEY@[::1]:20001", "http://x:YOUR_KEY@[::1]:20001"));
        assert_eq!(urls("127.0.0.1", 1, false).http, "http://127.0.0.1:1");
    }

    #[test]
    fn the_host_is_the_one_that_was_asked() {
        let headers = |host: &str| HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]);
        for (host, want) in [("gate.example:8080", "gate.example"), ("[::1]:8080", "[::1]"), ("localhost", "localhost")]
        {
            assert_eq!(asked_host(&headers(host)).as_deref(), Some(want));
        }
    }
}
