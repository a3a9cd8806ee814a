//! `[gateway]`: the shared port, the ports of routes, the time limits of connections, and the clients that may connect.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use ipnet::IpNet;

use super::address::PortRange;
use super::choice::Isolation;
use super::findings::Findings;
use super::key_path::KeyPath;
use super::listen_address::addresses;
use super::secret::{MAKE_ONE, SecretKeys};
use super::selector::SelectorContext;
use super::text_value::{List, Text, TextValue as _};
use super::tls::Tls;
use super::{schema, tls};
use crate::exit::Source;
use crate::net::Secret;

/// The settings of `[gateway]`, which concern client connections.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// The addresses of the shared port, at least one. Port 0 means any free port.
    pub listen: Vec<SocketAddr>,
    /// The IP address on which the routes' own ports listen.
    pub route_bind: IpAddr,
    /// The range of the routes' own ports.
    pub route_ports: PortRange,
    /// The largest number of open connections. `None`: as many as the limit on open files allows.
    pub max_connections: Option<NonZeroU32>,
    /// The time limit from accepting a connection to the end of the client's request.
    pub handshake_timeout: Duration,
    /// The time limit from the client's request to the reply. It covers all attempts together.
    pub dial_timeout: Duration,
    /// The time limit of one attempt through one exit. It is not longer than `dial_timeout`.
    pub attempt_timeout: Duration,
    /// The largest number of exits that are tried for one request.
    pub max_attempts: NonZeroU32,
    /// How long an open tunnel without traffic stays open.
    pub idle_timeout: Duration,
    /// How long the gateway waits for the target's first byte after the client has sent data. `None`: `idle_timeout`
    /// applies.
    pub answer_timeout: Option<Duration>,
    /// How long a tunnel stays open after the client or the target has closed its direction, if no more data arrives
    /// from the other one.
    pub half_closed_timeout: Duration,
    /// How long a connection may wait between two plain HTTP requests.
    pub keep_alive_timeout: Duration,
    /// A dial is an attempt to open a stream to a target. This is the largest share of dials for which a second dial
    /// may start because the first is slow: from 0 (off) to 0.5.
    pub hedge: f64,
    /// The default number of exits in a route's pool.
    pub pool: NonZeroU32,
    /// How long a pin (a route's or username's fixed exit) lasts without being used.
    pub pin_ttl: Duration,
    /// How long a pinned exit may be down before the pin gets another exit. `None`: the pin never changes.
    pub repin_after: Option<Duration>,
    /// How long requests to a site begin with a later source after the site has refused an earlier one. `None`: requests
    /// always begin with the first source.
    pub escalate_for: Option<Duration>,
    /// How long an unused session lasts if its username has no `ttl`.
    pub session_ttl: Duration,
    /// The longest `ttl` that a username may contain.
    pub max_session_ttl: Duration,
    /// Which streams of one client may share circuits, unless the route or the username sets something else.
    pub isolation: Isolation,
    /// The largest number of sessions.
    pub max_sessions: NonZeroU32,
    /// The largest number of implicit routes, which are made from usernames.
    pub max_implicit_routes: NonZeroU32,
    /// How long an implicit route lasts without being used.
    pub implicit_idle: Duration,
    /// True if `direct` and `public` exits may connect to private, loopback and metadata addresses.
    pub allow_private_targets: bool,
    /// True if usernames may contain `source-direct`, which means this machine's own address.
    pub allow_direct: bool,
    /// True if clients must send a username on the shared port even if no keys are configured.
    pub require_username: bool,
    pub target_ports: PortRules,
    /// Account names of paid proxy services, in lower case and without a `-` at the end. If a username begins with one
    /// of these names, this part of the username is ignored.
    pub alias_prefixes: Vec<String>,
    /// How many different wrong passwords one address may send before it has to wait.
    pub auth_failures: NonZeroU32,
    /// How long an address has to wait after too many wrong passwords.
    pub auth_pause: Duration,
    /// The limits for each client address.
    pub client_limits: Limits,
    /// The networks whose connections must begin with a PROXY protocol header. Clients in other networks may not send
    /// this header. Empty: no client may send the header.
    pub proxy_protocol: Vec<IpNet>,
    /// The certificate with which client ports accept TLS connections too. `None`: client ports do not accept TLS.
    pub tls: Option<Tls>,
    /// The keys of clients. No two keys have the same name or the same secret.
    pub keys: Vec<ClientKey>,
}

/// A client's key. The client sends the secret as its password, which identifies the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKey {
    /// The name of the key. Sessions and pins belong to this name, and log lines about pins show it.
    pub name: String,
    pub secret: Secret,
    pub limits: Limits,
    /// The budget of all sources together.
    pub budget: Budget,
    /// The budgets of single sources: name of the source → budget.
    pub source_budgets: BTreeMap<String, Budget>,
}

/// How much a key may use in a day and in a month (UTC). `None` means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    pub requests_per_day: Option<NonZeroU64>,
    pub requests_per_month: Option<NonZeroU64>,
    pub bytes_per_day: Option<NonZeroU64>,
    pub bytes_per_month: Option<NonZeroU64>,
}

/// The limits for one client. `None` means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The largest number of open connections.
    pub connections: Option<NonZeroU32>,
    /// The largest number of new connections per second.
    pub per_second: Option<NonZeroU32>,
    /// The largest number of bytes per second, both directions together.
    pub bytes_per_second: Option<NonZeroU64>,
}

/// The rules for the ports of targets that clients may connect to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortRules {
    allowed: Vec<PortRange>,
    denied: Vec<PortRange>,
}

impl PortRules {
    pub fn allowed(&self) -> &[PortRange] {
        &self.allowed
    }

    /// Returns the ports that are refused even if `allowed` contains them.
    pub fn denied(&self) -> &[PortRange] {
        &self.denied
    }
}

impl Gateway {
    pub(super) fn validate(file: &schema::Gateway, findings: &mut Findings) -> Self {
        check_times(file, findings);
        if !(0.0..=0.5).contains(&file.hedge) {
            findings.fault("gateway.hedge", format!("is {}", file.hedge), "write a share from 0 (off) to 0.5");
        }
        Self {
            listen: addresses(&file.listen, "gateway.listen", findings),
            route_bind: file.route_bind.0,
            route_ports: file.route_ports.0,
            max_connections: NonZeroU32::new(file.max_connections.0),
            handshake_timeout: file.handshake_timeout.0,
            dial_timeout: file.dial_timeout.0,
            attempt_timeout: file.attempt_timeout.0,
            max_attempts: file.max_attempts.positive(),
            idle_timeout: file.idle_timeout.0,
            answer_timeout: file.answer_timeout.0.0,
            half_closed_timeout: file.half_closed_timeout.0,
            keep_alive_timeout: file.keep_alive_timeout.0,
            hedge: file.hedge,
            pool: file.pool.positive(),
            pin_ttl: file.pin_ttl.0,
            repin_after: file.repin_after.0.0,
            escalate_for: file.escalate_for.0.0,
            session_ttl: file.session_ttl.0,
            max_session_ttl: file.max_session_ttl.0,
            isolation: file.isolation,
            max_sessions: file.max_sessions.positive(),
            max_implicit_routes: file.max_implicit_routes.positive(),
            implicit_idle: file.implicit_idle.0,
            allow_private_targets: file.allow_private_targets,
            allow_direct: file.allow_direct,
            require_username: file.require_username,
            target_ports: target_ports(file, findings),
            alias_prefixes: alias_prefixes(&file.alias_prefixes, findings),
            auth_failures: file.auth_failures.positive(),
            auth_pause: file.auth_pause.0,
            client_limits: limits(&file.client_limits),
            proxy_protocol: networks(&file.proxy_protocol.trusted),
            tls: file.tls.as_ref().and_then(|written| tls::validate(written, findings)),
            keys: keys(&file.keys, findings),
        }
    }
}

fn check_times(file: &schema::Gateway, findings: &mut Findings) {
    let pairs = [
        ("attempt_timeout", file.attempt_timeout.0, "dial_timeout", file.dial_timeout.0),
        ("session_ttl", file.session_ttl.0, "max_session_ttl", file.max_session_ttl.0),
    ];
    for (short_key, short, long_key, long) in pairs {
        let table = KeyPath::from("gateway");
        if short > long && findings.is_sound(&table.key(long_key)) {
            let what = format!("is {}, which is longer than gateway.{long_key} ({})", short.write(), long.write());
            findings.fault(table.key(short_key), what, format!("shorten it, or raise gateway.{long_key}"));
        }
    }
}

fn target_ports(file: &schema::Gateway, findings: &mut Findings) -> PortRules {
    if file.allowed_ports.is_empty() {
        findings.fault(
            "gateway.allowed_ports",
            "is empty, so that no target can be reached",
            "write [\"1-65535\"] to allow all ports",
        );
    }
    let ranges = |list: &List<Text<PortRange>>| list.iter().map(|(_, range)| range.0).collect();
    PortRules { allowed: ranges(&file.allowed_ports), denied: ranges(&file.denied_ports) }
}

fn alias_prefixes(prefixes: &List<String>, findings: &mut Findings) -> Vec<String> {
    let mut found = Vec::new();
    for (index, prefix) in prefixes.iter() {
        let plain = prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !plain || prefix.trim_matches('-').is_empty() {
            let hint = "write the part of the old username before its first keyword, such as \"customer-acme\"";
            findings.fault(KeyPath::from("gateway.alias_prefixes").index(index), format!("is {prefix:?}"), hint);
        }
        found.push(prefix.trim_end_matches('-').to_ascii_lowercase());
    }
    found
}

fn keys(written: &List<schema::Key>, findings: &mut Findings) -> Vec<ClientKey> {
    let mut keys: Vec<ClientKey> = Vec::new();
    for (index, key) in written.iter() {
        let at = KeyPath::from("gateway.keys").index(index);
        let name = key_name(key, &at, &keys, findings);
        if key.key.is_none() && key.key_file.is_none() {
            let hint = format!("write key = \"…\" or key_file = \"/path\"; {MAKE_ONE}");
            findings.fault(at.key("key"), "is missing", hint);
        }
        let secret = SecretKeys { table: &at, key: "key", inline: key.key.as_ref(), file: key.key_file.as_ref() };
        let (Some(name), Some(secret)) = (name, secret.validate(findings)) else { continue };
        if let Some(twin) = keys.iter().find(|other| other.secret == secret) {
            let what = format!("is the same secret as that of the key {:?}", twin.name);
            let at = at.key(if key.key.is_some() { "key" } else { "key_file" });
            findings.fault(
                at,
                what,
                "give each key a different secret, because the password alone identifies the client",
            );
        }
        let source_budgets = source_budgets(&key.source_budgets, &at, findings);
        keys.push(ClientKey { name, secret, limits: limits(&key.limits), budget: budget(&key.budget), source_budgets });
    }
    keys
}

fn key_name(key: &schema::Key, at: &KeyPath, earlier: &[ClientKey], findings: &mut Findings) -> Option<String> {
    let at = at.key("name");
    let Some(name) = &key.name else {
        findings.fault(at, "is missing", "write name = \"team-a\": the name owns the sessions and pins of this key");
        return None;
    };
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !plain || !(1..=64).contains(&name.len()) {
        findings.fault(&at, format!("is {name:?}"), "use 1 to 64 letters, digits, `-`, `_` and `.`");
    } else if earlier.iter().any(|other| other.name == *name) {
        findings.fault(&at, format!("is {name:?}, which another key has already"), "give each key a name of its own");
    }
    Some(name.clone())
}

fn source_budgets(
    written: &BTreeMap<String, schema::Budget>,
    at: &KeyPath,
    findings: &mut Findings,
) -> BTreeMap<String, Budget> {
    for source in written.keys().filter(|source| Source::find(source).is_none()) {
        let hint = "write tor, public, direct, or the name of an entry of [[sources.upstream]]";
        findings.fault(at.key("source_budgets"), format!("has the unknown source {source:?}"), hint);
    }
    written.iter().map(|(source, written)| (source.clone(), budget(written))).collect()
}

/// Reports budgets of sources that this configuration does not have.
pub(super) fn check_budgets(file: &schema::Gateway, selectors: &SelectorContext<'_>, findings: &mut Findings) {
    for (index, key) in file.keys.iter() {
        let at = KeyPath::from("gateway.keys").index(index).key("source_budgets");
        for source in key.source_budgets.keys().filter_map(|name| Source::find(name)) {
            selectors.require(source, &at, findings);
        }
    }
}

fn budget(file: &schema::Budget) -> Budget {
    Budget {
        requests_per_day: NonZeroU64::new(file.requests_per_day.0.into()),
        requests_per_month: NonZeroU64::new(file.requests_per_month.0.into()),
        bytes_per_day: NonZeroU64::new(file.bytes_per_day.0.0),
        bytes_per_month: NonZeroU64::new(file.bytes_per_month.0.0),
    }
}

fn limits(file: &schema::Limits) -> Limits {
    Limits {
        connections: NonZeroU32::new(file.connections.0),
        per_second: NonZeroU32::new(file.per_second.0),
        bytes_per_second: NonZeroU64::new(file.bytes_per_second.0.0),
    }
}

pub(super) fn networks(list: &List<Text<IpNet>>) -> Vec<IpNet> {
    list.iter().map(|(_, net)| net.0).collect()
}
