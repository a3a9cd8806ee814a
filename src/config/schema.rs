//! The schema of the configuration: every key, its type and its default.
//!
//! `config/exitgate.toml` explains the meaning of each key and the reason for its default. The tests below check that
//! this file and that one have the same keys and the same defaults. The modules beside this one validate one section
//! each.
//!
//! These structs are serialized only for `config/diff.rs`, which compares all keys. A secret is serialized as its
//! digest.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::address::{Endpoint, PortRange, Status};
use super::choice::{
    Auth, Engine, Isolation, ListFormat, ListProtocol, LogFormat, Provider, Rotate, RouteSource, Through, UpstreamKind,
    UpstreamProtocol,
};
use super::secret::Hidden;
use super::text_value::{List, OneOrMany, Text};
use super::units::{Bytes, DurationOrNever, Int, MaybeZero};
use crate::route::rules::HostPattern;

/// Declares the struct of a section: its keys with their types, and each default that is not empty, zero or false.
macro_rules! section {
    ($name:ident { $($key:ident: $kind:ty $(= $default:expr)?,)* }) => {
        #[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct $name { $(pub(super) $key: $kind,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: section!(@or $($default)?),)* }
            }
        }
    };
    (@or) => { Default::default() };
    (@or $default:expr) => { $default };
}

section!(File {
    data_dir: PathBuf = "./exitgate-data".into(),
    log: Log,
    lifecycle: Lifecycle,
    gateway: Gateway,
    api: Api,
    tor: Tor,
    sources: Sources,
    check: Check,
    store: Store,
    geo: Geo,
    groups: BTreeMap<String, List<String>>,
    routes: List<Route>,
});

section!(Log {
    level: String = "info".into(),
    format: LogFormat = LogFormat::Auto,
    file: Option<PathBuf>,
    rotate: Rotate = Rotate::Daily,
    keep: Int<0, 10_000> = Int(7),
    targets: bool,
});

section!(Lifecycle {
    drain: Text<MaybeZero> = Text(MaybeZero(Duration::from_secs(30))),
    drain_delay: Text<MaybeZero> = Text(MaybeZero(Duration::ZERO)),
});

section!(Gateway {
    listen: OneOrMany<SocketAddr> = loopback(1080),
    route_bind: Text<IpAddr> = Text(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    route_ports: Text<PortRange> = Text(PortRange::OF_ROUTES),
    max_connections: Int<0, 10_000_000> = Int(0),
    handshake_timeout: Text<Duration> = seconds(10),
    dial_timeout: Text<Duration> = seconds(30),
    attempt_timeout: Text<Duration> = seconds(12),
    max_attempts: Int<1, 20> = Int(3),
    idle_timeout: Text<Duration> = minutes(15),
    answer_timeout: Text<DurationOrNever> = Text(DurationOrNever(None)),
    half_closed_timeout: Text<Duration> = minutes(2),
    keep_alive_timeout: Text<Duration> = minutes(1),
    hedge: f64 = 0.05,
    pool: Int<1, 10_000> = Int(8),
    pin_ttl: Text<Duration> = days(30),
    repin_after: Text<DurationOrNever> = Text(DurationOrNever(Some(Duration::from_hours(3)))),
    escalate_for: Text<DurationOrNever> = Text(DurationOrNever(Some(Duration::from_hours(1)))),
    session_ttl: Text<Duration> = minutes(10),
    max_session_ttl: Text<Duration> = days(1),
    isolation: Isolation = Isolation::Key,
    max_sessions: Int<1, 10_000_000> = Int(100_000),
    max_implicit_routes: Int<1, 1_000_000> = Int(1_000),
    implicit_idle: Text<Duration> = minutes(60),
    allow_private_targets: bool,
    allow_direct: bool,
    require_username: bool,
    allowed_ports: List<Text<PortRange>> = [Text(PortRange::ALL)].into_iter().collect(),
    denied_ports: List<Text<PortRange>> = PortRange::new(25, 25).map(Text).into_iter().collect(),
    alias_prefixes: List<String>,
    auth_failures: Int<1, 1_000_000> = Int(10),
    auth_pause: Text<Duration> = minutes(1),
    client_limits: Limits,
    proxy_protocol: ProxyProtocol,
    tls: Option<Tls>,
    keys: List<Key>,
});

section!(Limits {
    connections: Int<0, 10_000_000> = Int(0),
    per_second: Int<0, 10_000_000> = Int(0),
    bytes_per_second: Text<Bytes>,
});

section!(ProxyProtocol { trusted: List<Text<IpNet>>, });

section!(Tls { cert: Option<PathBuf>, key: Option<PathBuf>, });

section!(Key {
    name: Option<String>,
    key: Option<Hidden>,
    key_file: Option<PathBuf>,
    limits: Limits,
    budget: Budget,
    source_budgets: BTreeMap<String, Budget>,
});

section!(Budget {
    requests_per_day: Int<0, 4_000_000_000> = Int(0),
    requests_per_month: Int<0, 4_000_000_000> = Int(0),
    bytes_per_day: Text<Bytes>,
    bytes_per_month: Text<Bytes>,
});

section!(Api {
    listen: OneOrMany<SocketAddr> = loopback(8080),
    token: Option<Hidden>,
    token_file: Option<PathBuf>,
    read_token: Option<Hidden>,
    read_token_file: Option<PathBuf>,
    hosts: List<String>,
    console: bool = true,
    example_url: Text<Uri> = url(ECHOES[0]),
});

section!(Tor {
    enabled: bool = true,
    binary: PathBuf = "tor".into(),
    engines: Int<0, 64> = Int(0),
    circuits_per_second: f64 = 1.0,
    circuit_timeout: Text<Duration> = seconds(20),
    max_circuit_age: Text<Duration> = minutes(60),
    streams_per_circuit: Int<1, 10_000> = Int(16),
    spare_circuits: Int<0, 32> = Int(2),
    max_spare_circuits: Int<0, 10_000> = Int(64),
    torrc: Option<PathBuf>,
    extra: List<String>,
    only: bool,
    geoip_file: Option<PathBuf>,
    geoip6_file: Option<PathBuf>,
    attach: List<Attach>,
});

section!(Attach {
    control: Option<Text<Endpoint>>,
    socks: Option<Text<Endpoint>>,
    onion_socks: Option<Text<Endpoint>>,
    every_address: bool,
    password: Option<Hidden>,
    password_file: Option<PathBuf>,
    cookie_file: Option<PathBuf>,
});

section!(Sources {
    onionoo: Onionoo,
    exit_addresses: ExitAddresses,
    proxifly: Proxifly,
    direct: Direct,
    list: List<SourceList>,
    upstream: List<SourceUpstream>,
});

section!(Direct { bind: List<Text<IpNet>>, per_network: Int<1, 10_000> = Int(64), });

section!(Onionoo {
    enabled: bool = true,
    url: Text<Uri> = url("https://onionoo.torproject.org/details"),
    every: Text<Duration> = minutes(60),
    timeout: Text<Duration> = minutes(2),
});

section!(ExitAddresses {
    enabled: bool,
    url: Text<Uri> = url("https://check.torproject.org/exit-addresses"),
    every: Text<Duration> = minutes(60),
});

section!(Proxifly {
    enabled: bool,
    url: Text<Uri> = url("https://cdn.jsdelivr.net/gh/proxifly/free-proxy-list@main/proxies"),
    mirror: Option<Text<Uri>> = Some(url("https://raw.githubusercontent.com/proxifly/free-proxy-list/main/proxies")),
    every: Text<Duration> = minutes(1),
    through: Through = Through::Direct,
});

section!(SourceList {
    name: Option<String>,
    url: Option<Text<Uri>>,
    every: Text<Duration> = minutes(60),
    format: ListFormat = ListFormat::Auto,
    protocol: ListProtocol = ListProtocol::Http,
    through: Through = Through::Direct,
});

section!(SourceUpstream {
    name: Option<String>,
    kind: UpstreamKind = UpstreamKind::List,
    proxies: List<Hidden>,
    file: Option<PathBuf>,
    url: Option<Hidden>,
    every: Text<Duration> = minutes(60),
    protocol: UpstreamProtocol = UpstreamProtocol::Http,
    allow_private: bool,
    ca_file: Option<PathBuf>,
    provider: Option<Provider>,
    at: Option<String>,
    user: Option<Hidden>,
    password: Option<Hidden>,
    password_file: Option<PathBuf>,
    username: Option<String>,
    password_template: Option<String>,
    sessions: Int<1, 1_000> = Int(16),
    session_time: Text<Duration> = minutes(10),
    check_every: Text<Duration> = minutes(5),
});

section!(Check {
    echo: List<Text<Uri>> = ECHOES.into_iter().map(url).collect(),
    canary: List<Text<Uri>> = CANARIES.into_iter().map(url).collect(),
    targets: List<CheckTarget>,
    ca_file: Option<PathBuf>,
    per_second: f64 = 5.0,
    concurrency: Int<1, 100_000> = Int(50),
    every: Text<Duration> = minutes(30),
    timeout: Text<Duration> = seconds(20),
    probes: Int<1, 100> = Int(3),
    passes: Int<1, 100> = Int(2),
    stale_after: Text<Duration> = minutes(6 * 60),
    ban_for: Text<Duration> = minutes(60),
    echo_per_hour: f64 = 500.0,
    public: CheckPublic,
    upstream: CheckUpstream,
});

section!(CheckTarget {
    name: Option<String>,
    url: Option<Text<Uri>>,
    expect_status: OneOrMany<Status> = OneOrMany::one(Status(200)),
    expect_body: Option<String>,
    expect_regex: Option<String>,
    expect_latency: Option<Text<Duration>>,
    site: Option<String>,
});

section!(CheckPublic {
    echo: List<Text<Uri>> = PLAIN_ECHOES.into_iter().map(url).collect(),
    headers: Option<Text<Uri>> = Some(url(HEADERS)),
    concurrency: Int<1, 100_000> = Int(1_000),
    connect_timeout: Text<Duration> = seconds(5),
    reply_timeout: Text<Duration> = seconds(5),
    timeout: Text<Duration> = seconds(10),
    failed_every: Text<Duration> = seconds(30),
    failed_at_most: Text<Duration> = minutes(10),
    working_every: Text<Duration> = minutes(20),
    extended_probes: Int<0, 1_000> = Int(20),
    extended_passes: Int<0, 1_000> = Int(16),
    remove_after: Int<1, 1_000> = Int(5),
    removed_for: Text<Duration> = minutes(6 * 60),
    most: Int<1, 1_000_000> = Int(50_000),
});

section!(CheckUpstream {
    every: Text<Duration> = minutes(6 * 60),
    stale_after: Text<Duration> = days(1),
    concurrency: Int<1, 100_000> = Int(20),
});

section!(Store { keep_checks: Text<Duration> = days(14), });

section!(Geo { mmdb: Option<PathBuf>, });

section!(Route {
    name: Option<String>,
    selector: Option<String>,
    source: List<Text<RouteSource>>,
    fallback: bool,
    escalate_for: Option<Text<DurationOrNever>>,
    port: Option<Int<1, 65_535>>,
    pool: Option<Int<1, 10_000>>,
    check: Option<String>,
    auth: Option<Auth>,
    allow: List<Text<IpNet>>,
    exclusive: bool,
    engine: Engine = Engine::Shared,
    isolation: Option<Isolation>,
    rotate_every: Option<Text<Duration>>,
    repin_after: Option<Text<DurationOrNever>>,
    hops: Int<2, 3> = Int(3),
    ipv6: bool,
    rules: List<Rule>,
});

section!(Rule {
    host: Option<OneOrMany<HostPattern>>,
    port: Option<OneOrMany<PortRange>>,
    r#use: Option<String>,
    route: Option<String>,
    refuse: bool,
    direct: bool,
});

/// The default servers that answer with the client's address. There are two operators, so a wrong answer of one server
/// is noticed. Both servers have a public TLS certificate.
const ECHOES: [&str; 2] = ["https://check.torproject.org/api/ip", "https://api.ipify.org"];

/// The default page for detecting exits that change content: an unencrypted page that has been the same for every
/// client for years. It is HTML, because such exits change mostly HTML.
const CANARIES: [&str; 2] =
    ["http://captive.apple.com/hotspot-detect.html", "http://detectportal.firefox.com/success.txt"];

/// The default servers that answer with the client's address over plain HTTP. One belongs to an operator in [`ECHOES`],
/// the other to a different operator.
const PLAIN_ECHOES: [&str; 2] = ["http://api.ipify.org", "http://checkip.amazonaws.com"];

/// The default page that shows the headers of the client's request. It is the best known page of this kind.
const HEADERS: &str = "http://httpbin.org/headers";

const fn seconds(count: u64) -> Text<Duration> {
    Text(Duration::from_secs(count))
}

const fn minutes(count: u64) -> Text<Duration> {
    Text(Duration::from_mins(count))
}

const fn days(count: u64) -> Text<Duration> {
    Text(Duration::from_hours(24 * count))
}

fn url(text: &'static str) -> Text<Uri> {
    Text(Uri::from_static(text))
}

fn loopback(port: u16) -> OneOrMany<SocketAddr> {
    OneOrMany::one(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::deserialize::{TableSeen, read, read_tables};
    use super::super::diff::needs_restart;
    use super::super::findings::Findings;
    use super::super::tree::Node;
    use super::*;

    /// The file that documents every key.
    const PAGE: &str = include_str!("../../config/exitgate.toml");

    fn findings(text: &str) -> Findings {
        let (root, faults) = Node::parse(&"exitgate.toml".into(), text);
        Findings::of(root, false, faults)
    }

    fn parsed(text: &str) -> (File, Vec<TableSeen>) {
        let mut found = findings(text);
        let _: File = read(&mut found);
        found.close().unwrap_or_else(|faults| panic!("{faults}"));
        read_tables(&mut findings(text))
    }

    /// Returns the text of a commented example line for a key or section that has no default: its `#` is not followed
    /// by a space.
    fn example(line: &str) -> Option<&str> {
        line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()))
    }

    /// Returns the documentation file with its example lines turned into values.
    fn with_examples() -> String {
        PAGE.lines().map(|line| example(line).unwrap_or(line)).collect::<Vec<_>>().join("\n")
    }

    /// Returns the keys of a table that have a default, each with that default.
    fn defaults(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
        let empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        value.as_object().into_iter().flatten().filter(move |(_, value)| !empty(value))
    }

    #[test]
    fn the_page_has_the_defaults_of_the_code() {
        assert_eq!(parsed(PAGE).0, File::default(), "a value in config/exitgate.toml is not the default in code");
    }

    #[test]
    fn the_page_names_every_key_of_the_code() {
        let (_, tables) = parsed(&with_examples());
        let mut missing = Vec::new();
        for table in &tables {
            let absent = table.fields.iter().filter(|field| !table.written.iter().any(|key| key == *field));
            missing.extend(absent.map(|field| table.path.key(field).to_string()));
        }
        assert!(missing.is_empty(), "not in config/exitgate.toml: {missing:?}");
        assert!(tables.len() > 20, "only {} tables seen", tables.len());
    }

    #[test]
    fn a_key_with_a_default_is_not_an_example() {
        fn walk(path: &str, code: &Value, page: Option<&toml::Value>, missing: &mut Vec<String>) {
            for (key, value) in defaults(code) {
                let on_page = page.and_then(|table| table.get(key));
                let path = format!("{path}.{key}");
                match value {
                    Value::Object(inner) if inner.is_empty() => {}
                    Value::Object(_) => walk(&path, value, on_page, missing),
                    _ if on_page.is_none() => missing.push(path),
                    _ => {}
                }
            }
        }
        let mut missing = Vec::new();
        let page: toml::Value = toml::from_str(PAGE).unwrap();
        walk("", &serde_json::to_value(File::default()).unwrap(), Some(&page), &mut missing);
        assert!(missing.is_empty(), "have a default in code and none on the page: {missing:?}");
    }

    #[test]
    fn examples_of_list_entries_show_their_defaults() {
        let (file, _) = parsed(&with_examples());
        let pairs = [
            (serde_json::to_value(Route::default()), serde_json::to_value(file.routes.iter().next().unwrap().1)),
            (
                serde_json::to_value(SourceList::default()),
                serde_json::to_value(file.sources.list.iter().next().unwrap().1),
            ),
            (
                serde_json::to_value(SourceUpstream::default()),
                serde_json::to_value(file.sources.upstream.iter().next().unwrap().1),
            ),
            (
                serde_json::to_value(CheckTarget::default()),
                serde_json::to_value(file.check.targets.iter().next().unwrap().1),
            ),
        ];
        for (code, page) in pairs {
            let (code, page) = (code.unwrap(), page.unwrap());
            for (key, value) in defaults(&code) {
                assert_eq!(Some(value), page.get(key), "{key}");
            }
        }
    }

    #[test]
    fn every_key_is_explained_and_marked_if_it_needs_a_restart() {
        let mut section = String::new();
        let (mut marked, mut waits) = (BTreeSet::new(), BTreeSet::new());
        let mut above = "";
        for line in PAGE.lines() {
            let text = example(line).unwrap_or(line);
            let path = if let Some(header) = text.strip_prefix('[') {
                section = header.trim_matches(['[', ']']).to_owned();
                Some(section.clone())
            } else if !text.starts_with('#') {
                let dot = if section.is_empty() { "" } else { "." };
                text.split_once(" = ").map(|(key, _)| format!("{section}{dot}{key}"))
            } else {
                None
            };
            if let Some(path) = path {
                let why = above.starts_with("# ");
                assert!(why || text.starts_with('['), "no explanation above {path}");
                let is_marked = why && above.contains("(restart)");
                // If the header of a section is marked as needing a restart, all keys of the section count as marked.
                let by_table = !text.starts_with('[') && marked.contains(&section);
                if needs_restart(&path) && !by_table && (why || !text.starts_with('[')) {
                    waits.insert(path.clone());
                }
                if is_marked {
                    marked.insert(path);
                }
            }
            above = line;
        }
        assert_eq!(marked, waits);
    }
}
