//! Shows a route in the API, with example commands that a user can paste into a shell or a program.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::Guard;
use http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::Wiring;
use super::super::sources::CarriedShown;
use super::super::timestamp::Timestamp;
use super::examples::{Examples, Urls, urls};
use super::host::host;
use super::{Page, nowhere};
use crate::admin::{DurationOrNever, HumanDuration, RouteRules, RuleSpec, no_exit_reason};
use crate::exit::{ExitId, Moment};
use crate::gateway::outbound::Outbound;
use crate::route::pin::PinRecord;
use crate::route::policy::{Auth, Engine};
use crate::route::pool::{Member, Pool};
use crate::route::selector::Mode;
use crate::route::table::{Entry, Origin, Route};
use crate::route::{self, Ask, Policy};
use crate::state::{Snapshot, State};

/// A route, with the exits that it uses and what it carries.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Proxy {
    name: String,
    port: Option<u16>,
    selector: String,
    /// `flexible`, `strict` or `rotate`.
    mode: &'static str,
    pool: PoolShown,
    /// The exits that the route uses, in one line for people. A strict route names its one address, or says that the
    /// first connection chooses it.
    #[schema(example = "one address: 192.0.2.7")]
    summary: String,
    /// The check target that the route's exits pass.
    check: Option<String>,
    /// The exit of a strict route; null until its first connection has chosen one.
    exit: Option<Pinned>,
    /// `key` or `open`.
    auth: &'static str,
    /// `api`, or `config`: the API cannot change it.
    origin: &'static str,
    created: Timestamp,
    expires: Option<Timestamp>,
    used: Option<Timestamp>,
    /// `open`; `warming` until the first exit is known to be good, while requests wait; `port_taken` while another
    /// program has its port.
    state: &'static str,
    /// Why no exit serves the route yet, with the number of exits that are left after each condition; null if one does.
    missing: Option<String>,
    policy: PolicyShown,
    /// The number of rules by destination.
    rule_count: usize,
    /// The rules by destination, in order; null in lists of several routes.
    rules: Option<Vec<RuleSpec>>,
    live: Live,
    examples: Option<Examples>,
    urls: Option<Urls>,
}

/// How many exits a route uses. A strict route uses one of them.
#[derive(Debug, Serialize, ToSchema)]
struct PoolShown {
    wanted: usize,
    have: usize,
    /// Different addresses among the exits.
    unique_ips: usize,
    /// The median of what opening a stream took at the exits' last checks.
    latency_ms: Option<u64>,
}

/// The exit that a strict route is pinned to.
#[derive(Debug, Serialize, ToSchema)]
struct Pinned {
    id: String,
    #[schema(value_type = String)]
    ip: std::net::IpAddr,
}

/// The policy of a route beside its selector.
#[derive(Debug, Serialize, ToSchema)]
struct PolicyShown {
    exclusive: bool,
    hops: u8,
    ipv6: bool,
    engine: &'static str,
    /// Which streams of a client may share circuits: those of the same `key`, `session` or `target`.
    isolation: &'static str,
    /// The sources of exits, in order of preference.
    source: Vec<&'static str>,
    /// A later source is used only while the earlier ones have no exit, or while the site of a request refuses them.
    fallback: bool,
    /// How long requests to a site begin with a later source after the site refused an earlier one, in seconds; or
    /// `never`.
    escalate_for: DurationOrNever,
    /// The interval in seconds.
    #[schema(value_type = Option<u64>)]
    rotate_every: Option<HumanDuration>,
    /// In seconds, or `never`.
    repin_after: DurationOrNever,
    allow: Vec<String>,
}

/// What a route carries now, and has carried since the gateway started.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Live {
    /// Streams to targets that are open now.
    connections: u64,
    /// Exits in use now.
    exits: usize,
    /// Requests that have ended.
    requests: u64,
    /// Requests that have ended and failed.
    errors: u64,
    bytes_up: u64,
    bytes_down: u64,
    /// Bytes per second.
    rate_up: u64,
    rate_down: u64,
    /// The requests and bytes of each source that the route has used.
    by_source: BTreeMap<&'static str, CarriedShown>,
}

/// A page of routes.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Proxies {
    /// How many routes there are, also beyond this page.
    total: usize,
    proxies: Vec<Proxy>,
    /// The value of `after` for the next page.
    next: Option<String>,
}

/// Routes that were created together.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Batch {
    total: usize,
    /// The number of addresses asked for: one for each route, or as many as the pools want.
    wanted: usize,
    /// The number of different addresses of these routes; fewer than `wanted` where there are no more.
    have: usize,
    proxies: Vec<Proxy>,
}

/// The data from which the routes of one answer are shown. It is read once per answer.
pub(super) struct RouteViewData {
    pub(super) snapshot: Arc<Snapshot>,
    rules: Guard<Arc<RouteRules>>,
    /// A map from the name of a route to its pin. Pins that belong to a session are not included.
    pins: HashMap<Arc<str>, PinRecord>,
    /// A map from the name of a route to the exits that carry its open connections now.
    in_use: HashMap<Arc<str>, HashSet<ExitId>>,
    closed_ports: BTreeSet<String>,
    outbound: Arc<Outbound>,
    state: State,
    /// The host name or address under which the caller reaches this machine.
    host: String,
}

impl RouteViewData {
    pub(super) fn new(wiring: &Wiring, headers: &HeaderMap) -> Self {
        let rules = wiring.routes.rules();
        let now: Moment = wiring.state.now();
        let pins = wiring.state.memory().pins().list(now).into_iter().filter(|pin| pin.holder.session.is_none());
        let mut in_use: HashMap<_, HashSet<_>> = HashMap::new();
        for row in wiring.connections.list() {
            let now = row.state();
            if let Some(way) = now.served_by.filter(|_| now.streaming) {
                in_use.entry(way.label).or_default().insert(way.exit);
            }
        }
        Self {
            snapshot: wiring.state.snapshot(),
            host: host(&rules, headers),
            rules,
            pins: pins.map(|pin| (pin.holder.scope.clone(), pin)).collect(),
            in_use,
            closed_ports: wiring.routes.closed_ports(),
            outbound: wiring.outbound.clone(),
            state: wiring.state.clone(),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.snapshot.routes.get(name).map(|entry| &**entry)
    }

    /// Returns a page of the routes that match the filters in `page`, sorted by name.
    pub(super) fn page(&self, page: &Page, limit: usize) -> Proxies {
        let mut all: Vec<&Arc<Entry>> = self.snapshot.routes.iter().filter(|entry| page.passes(entry)).collect();
        let total = all.len();
        all.retain(|entry| page.after.as_deref().is_none_or(|after| entry.route.name.as_str() > after));
        all.sort_unstable_by(|a, b| a.route.name.cmp(&b.route.name));
        let next = (all.len() > limit).then(|| all[limit - 1].route.name.to_string());
        all.truncate(limit);
        Proxies { total, proxies: all.into_iter().map(|entry| self.one(entry)).collect(), next }
    }

    /// Returns routes that were created together, with the number of their different exit addresses.
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
        let (route, pool) = (&entry.route, self.pool(&entry.pool));
        let name = route.name.as_str();
        let pin = self.pins.get(name).filter(|_| route.selector.mode == Mode::Strict);
        let exit = pin.map(|pin| Pinned { id: pin.to.exit.to_string(), ip: pin.to.ip });
        let (urls, missing) = (self.urls(entry), self.missing(entry, exit.is_some()));
        Proxy {
            name: name.to_owned(),
            port: route.port,
            selector: route.selector.to_string(),
            mode: route.selector.mode.as_str(),
            summary: summary(route.selector.mode, &pool, exit.as_ref()),
            pool,
            check: route.policy.check.as_deref().map(str::to_owned),
            exit,
            auth: if self.asks_for_key(&route.policy) { "key" } else { "open" },
            origin: match route.origin {
                Origin::Config => "config",
                Origin::Api => "api",
            },
            created: Timestamp(route.created),
            expires: route.expires.map(Timestamp),
            used: entry.used().map(Timestamp),
            state: match missing {
                _ if self.closed_ports.contains(name) => "port_taken",
                Some(_) => "warming",
                None => "open",
            },
            missing,
            policy: PolicyShown::of(route),
            rule_count: route.policy.rules.as_slice().len(),
            rules: None,
            live: self.live(name),
            examples: urls.as_ref().map(|urls| Examples::of(urls, &self.rules.example_url)),
            urls,
        }
    }

    /// Returns one route with its rules.
    pub(super) fn whole(&self, entry: &Entry) -> Proxy {
        let rules = entry.route.policy.rules.as_slice().iter().map(RuleSpec::of).collect();
        Proxy { rules: Some(rules), ..self.one(entry) }
    }

    /// Returns why no exit serves the route. Returns `None` if one does, or if the route has a pin, which then decides.
    fn missing(&self, entry: &Entry, has_pin: bool) -> Option<String> {
        if has_pin || entry.pool.have() > 0 {
            return None;
        }
        let wish = self.snapshot.routes.resolve(entry.route.name.as_str(), None).ok()?;
        let (target, now) = (nowhere(), self.state.now());
        let ask = Ask { wish: &wish, key: "", target: &target, now, avoid: &[], plain: false };
        let funnel = route::funnel(self.snapshot.view(), self.state.memory(), &ask);
        let why = no_exit_reason(&funnel.reason()?, wish.policy.sources(&wish.selector), self.rules.tor);
        Some(format!("{why} ({funnel})"))
    }

    fn pool(&self, pool: &Pool) -> PoolShown {
        let latency = |member: &Member| member.exit(&self.snapshot.catalog)?.known().latency;
        let mut all: Vec<_> = pool.members().iter().filter_map(latency).collect();
        all.sort_unstable();
        let median = all.get(all.len() / 2);
        PoolShown {
            wanted: pool.wanted(),
            have: pool.have(),
            unique_ips: pool.unique_ips(),
            latency_ms: median.map(|latency| u64::try_from(latency.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Returns lines that set environment variables in a shell, for `source <(curl …)`.
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
        let route = &entry.route;
        let username = self.asks_for_key(&route.policy).then_some(route.name.as_str());
        Some(urls(&self.host, route.port?, username))
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
            exits: self.in_use.get(name).map_or(0, HashSet::len),
            requests: figures.requests(),
            errors: figures.failed(),
            bytes_up,
            bytes_down,
            rate_up,
            rate_down,
            by_source: meters
                .by_source()
                .list()
                .iter()
                .map(|(source, carried)| (source.as_str(), CarriedShown::of(carried)))
                .collect(),
        }
    }
}

/// Describes the exits of a route in one line. For a strict route the pool contains only candidates: sites see just one
/// address.
fn summary(mode: Mode, pool: &PoolShown, exit: Option<&Pinned>) -> String {
    let PoolShown { wanted, have, unique_ips, .. } = pool;
    match (mode, exit) {
        (Mode::Strict, Some(exit)) => format!("one address: {}", exit.ip),
        (Mode::Strict, None) => {
            format!("one address: not chosen yet; the first connection chooses one of {unique_ips}")
        }
        (Mode::Flexible | Mode::Rotate, _) => format!("{have} of {wanted} exits, {unique_ips} different addresses"),
    }
}

impl PolicyShown {
    fn of(route: &Route) -> Self {
        let policy = &route.policy;
        Self {
            exclusive: policy.exclusive,
            hops: policy.hops,
            ipv6: policy.ipv6,
            engine: match policy.engine {
                Engine::Shared => "shared",
                Engine::Own => "own",
            },
            isolation: policy.isolation.as_str(),
            source: policy.sources(&route.selector).iter().map(|source| source.as_str()).collect(),
            fallback: policy.fallback,
            escalate_for: DurationOrNever(policy.escalate_for),
            rotate_every: policy.rotate_every.map(HumanDuration),
            repin_after: DurationOrNever(policy.repin_after),
            allow: policy.allow.iter().map(ToString::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strict_route_has_one_address_chosen_or_not() {
        let pool = PoolShown { wanted: 8, have: 3, unique_ips: 3, latency_ms: None };
        let pinned = Pinned { id: "x".to_owned(), ip: [192, 0, 2, 7].into() };
        assert_eq!(summary(Mode::Strict, &pool, Some(&pinned)), "one address: 192.0.2.7");
        let fresh = summary(Mode::Strict, &pool, None);
        assert_eq!(fresh, "one address: not chosen yet; the first connection chooses one of 3");
        assert_eq!(summary(Mode::Flexible, &pool, None), "3 of 8 exits, 3 different addresses");
    }
}
