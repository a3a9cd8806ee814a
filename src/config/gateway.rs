//! `[gateway]`: the shared port, the ports of routes, who may use them and for how long.

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustls::sign::CertifiedKey;

use super::address::PortRange;
use super::clash::addresses;
use super::finding::{Findings, KeyPath};
use super::keyword::{List, Spoken as _, Word};
use super::secret::{MAKE_ONE, Written};
use super::{schema, tls};
use crate::net::Secret;

/// The data path's settings.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// The shared port: at least one address; port 0 asks for any free one.
    pub listen: Vec<SocketAddr>,
    /// The address of the routes' own ports.
    pub route_bind: IpAddr,
    /// The ports that routes get.
    pub route_ports: PortRange,
    /// Connections at once; `None` is what the limit on open files allows.
    pub max_connections: Option<NonZeroU32>,
    /// From accept to the complete request.
    pub handshake_timeout: Duration,
    /// From the request to our reply, all attempts together.
    pub dial_timeout: Duration,
    /// One attempt through one exit; not longer than `dial_timeout`.
    pub attempt_timeout: Duration,
    /// How many exits are tried for one request.
    pub max_attempts: NonZeroU32,
    /// An open tunnel in which nothing moves either way.
    pub idle_timeout: Duration,
    /// A tunnel in which the target was told something and never said anything; `None` is as any other silence.
    pub answer_timeout: Option<Duration>,
    /// A tunnel of which one side has ended and nothing comes from the other.
    pub half_closed_timeout: Duration,
    /// Plain HTTP between two requests.
    pub keep_alive_timeout: Duration,
    /// Extra dials beside slow ones, as a share of all: from 0 (off) to 0.5.
    pub hedge: f64,
    /// Exits in the pool of a route that does not say.
    pub pool: NonZeroU32,
    /// How long a strict pin lives without being used.
    pub pin_ttl: Duration,
    /// How long a strict route's exit may be down before its pin moves; `None` is never.
    pub repin_after: Option<Duration>,
    /// How long a session without a `ttl` of its own lives.
    pub session_ttl: Duration,
    /// The longest `ttl` that a username may ask for.
    pub max_session_ttl: Duration,
    /// Sessions remembered at once.
    pub max_sessions: NonZeroU32,
    /// Implicit routes at once.
    pub max_implicit_routes: NonZeroU32,
    /// How long an implicit route lives without being used.
    pub implicit_idle: Duration,
    /// Whether `direct` and `public` may reach private, loopback and metadata addresses.
    pub allow_private_targets: bool,
    /// Whether `source-direct` exists.
    pub allow_direct: bool,
    /// Whether the shared port asks who says nothing for a username.
    pub require_username: bool,
    /// Which ports of targets may be asked for.
    pub target_ports: PortRules,
    /// What may stand in front of a paid gateway's keys in a username; lower case, without a `-` at the end.
    pub alias_prefixes: Vec<String>,
    /// Wrong passwords from one address under one key before it has to wait.
    pub auth_failures: NonZeroU32,
    /// How long it waits.
    pub auth_pause: Duration,
    /// What one client address may do.
    pub client_limits: Limits,
    /// Addresses that must speak PROXY protocol first, and the only ones that may; empty turns it off.
    pub proxy_protocol: Vec<IpNet>,
    /// The certificate with which the same ports also take TLS.
    pub tls: Option<Tls>,
    /// The clients' keys; no two have one name or one secret.
    pub keys: Vec<ClientKey>,
}

/// A client's key: the password that says who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKey {
    /// What logs, metrics and pins call it.
    pub name: String,
    /// The password.
    pub secret: Secret,
    /// What it may do.
    pub limits: Limits,
}

/// How much somebody may do; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: Option<NonZeroU32>,
    /// New connections a second.
    pub per_second: Option<NonZeroU32>,
    /// Bytes a second, both ways together.
    pub bytes_per_second: Option<NonZeroU64>,
}

/// Which ports of targets may be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortRules {
    allowed: Vec<PortRange>,
    denied: Vec<PortRange>,
}

impl PortRules {
    /// Ports that may be asked for.
    pub fn allowed(&self) -> &[PortRange] {
        &self.allowed
    }

    /// Ports that may not, also if they are among those that may.
    pub fn denied(&self) -> &[PortRange] {
        &self.denied
    }

    /// True when a target with this port may be asked for.
    pub fn permits(&self, port: u16) -> bool {
        let holds = |ranges: &[PortRange]| ranges.iter().any(|range| range.contains(port));
        holds(&self.allowed) && !holds(&self.denied)
    }
}

/// A certificate with its key, read and known to belong together.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Where the certificate chain was read.
    pub cert: PathBuf,
    /// Where the private key was read.
    pub key: PathBuf,
    /// Both, ready for a server's resolver.
    pub certified: Arc<CertifiedKey>,
}

impl Gateway {
    pub(super) fn settle(file: &schema::Gateway, findings: &mut Findings) -> Self {
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
            session_ttl: file.session_ttl.0,
            max_session_ttl: file.max_session_ttl.0,
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
            tls: file.tls.as_ref().and_then(|written| tls::settle(written, findings)),
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
            let what = format!("is {}, longer than gateway.{long_key} ({})", short.write(), long.write());
            findings.fault(table.key(short_key), what, format!("shorten it, or raise gateway.{long_key}"));
        }
    }
}

fn target_ports(file: &schema::Gateway, findings: &mut Findings) -> PortRules {
    if file.allowed_ports.is_empty() {
        findings.fault(
            "gateway.allowed_ports",
            "is empty, so that no target could be reached",
            "write [\"1-65535\"] for all",
        );
    }
    let ranges = |list: &List<Word<PortRange>>| list.iter().map(|(_, range)| range.0).collect();
    PortRules { allowed: ranges(&file.allowed_ports), denied: ranges(&file.denied_ports) }
}

fn alias_prefixes(prefixes: &List<String>, findings: &mut Findings) -> Vec<String> {
    let mut found = Vec::new();
    for (index, prefix) in prefixes.iter() {
        let plain = prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !plain || prefix.trim_matches('-').is_empty() {
            let hint = "write what stands before the first key of the old username: \"customer-acme\"";
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
        let secret = Written { table: &at, key: "key", inline: key.key.as_ref(), file: key.key_file.as_ref() };
        let (Some(name), Some(secret)) = (name, secret.settle(findings)) else { continue };
        if let Some(twin) = keys.iter().find(|other| other.secret == secret) {
            let what = format!("is the same secret as that of {:?}", twin.name);
            let at = at.key(if key.key.is_some() { "key" } else { "key_file" });
            findings.fault(at, what, "give each key a secret of its own: the password alone says who a client is");
        }
        keys.push(ClientKey { name, secret, limits: limits(&key.limits) });
    }
    keys
}

fn key_name(key: &schema::Key, at: &KeyPath, earlier: &[ClientKey], findings: &mut Findings) -> Option<String> {
    let at = at.key("name");
    let Some(name) = &key.name else {
        findings.fault(at, "is missing", "write name = \"team-a\": it labels the key in logs, metrics and pins");
        return None;
    };
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !plain || !(1..=64).contains(&name.len()) {
        findings.fault(&at, format!("is {name:?}"), "use 1 to 64 letters, digits, `-`, `_` and `.`");
    } else if earlier.iter().any(|other| other.name == *name) {
        findings.fault(&at, format!("is {name:?}, as is another key's"), "give each key a name of its own");
    }
    Some(name.clone())
}

fn limits(file: &schema::Limits) -> Limits {
    Limits {
        connections: NonZeroU32::new(file.connections.0),
        per_second: NonZeroU32::new(file.per_second.0),
        bytes_per_second: NonZeroU64::new(file.bytes_per_second.0.0),
    }
}

/// The networks of a list.
pub(super) fn networks(list: &List<Word<IpNet>>) -> Vec<IpNet> {
    list.iter().map(|(_, net)| net.0).collect()
}
