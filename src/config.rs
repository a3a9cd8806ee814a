//! Reads the configuration (TOML text and environment variables), and converts it into validated settings.
//!
//! Defaults in the code come first, then a TOML file, then environment variables. Later values override earlier ones.
//! If everything is valid, the result is a [`Config`]. Its types hold only valid values, so no other room needs to
//! check them. Otherwise the result is [`Faults`] with *all* faults, so a user can correct the file in one go.
//!
//! A configuration is made in four steps. First, `config/tree.rs` reads the text into a tree of values that know their
//! line. Second, `config/env.rs` adds the values of environment variables. Third, `config/deserialize.rs` converts the
//! tree into the structs of `config/schema.rs` (every key with its default), and reports unknown keys and values of a
//! wrong type. Fourth, a module for each section (`config/gateway.rs`, `config/check.rs`, …) validates what the values
//! mean.
//!
//! A module that finds a fault reports the fault and continues with a default value, so one run finds all faults. If
//! there is any fault, the whole configuration is dropped at the end.
//!
//! This room opens no port and creates no file. But it reads the files that the configuration names, so a missing
//! certificate is found before the old process is stopped.
//!
//! Without a file, all ports are on loopback, and no keys are needed. A configuration is also valid if it listens
//! beyond loopback without keys or without a token. [`Exposure`] then says what is missing, and the room `app`
//! generates it.
//!
//! Next: `config/exitgate.toml` documents every key. [`diff`] compares two configurations for a reload.

mod address;
mod api;
mod check;
mod choice;
mod deserialize;
mod diff;
mod direct;
mod env;
mod finding;
mod findings;
mod gateway;
mod geo;
mod group;
mod key_path;
mod listen_address;
mod load;
mod log;
mod route;
mod rule;
mod schema;
mod secret;
mod selector;
mod source;
mod syntax;
mod text_value;
mod tls;
mod tor;
mod tree;
mod units;
mod upstream;
mod upstream_gateway;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use address::{Endpoint, PortRange};
pub use api::Api;
pub use check::{Check, CheckPublic, CheckTarget, CheckUpstream};
pub use choice::{Auth, Engine, Isolation, ListFormat, LogFormat, Rotate, Through};
pub use diff::{Changes, diff};
pub use direct::Direct;
pub use finding::{Faults, Finding, Location};
pub use gateway::{Budget, ClientKey, Gateway, Limits, PortRules};
pub use geo::Geo;
pub use group::Groups;
pub use load::{Loaded, Origin, find, load, parse};
pub use log::Log;
pub use route::Route;
pub use rule::{Rule, RuleAction};
pub use selector::{SelectorCheck, SelectorFacts};
pub use source::{ExitAddresses, Onionoo, Proxifly, ProxyList, Sources};
pub use tls::Tls;
pub use tor::{Attach, Tor};
pub use upstream::{ProxiesFrom, Upstream};
pub use upstream_gateway::UpstreamGateway;

use diff::FlatKeys;
use findings::Findings;
use key_path::KeyPath;
use selector::SelectorContext;

/// Reads a number of bytes, such as `500000`, `500KB` or `10MiB`. `None` if the text is no such number.
pub fn read_bytes(text: &str) -> Option<u64> {
    <units::Bytes as text_value::TextValue>::read(text).ok().map(|bytes| bytes.0)
}

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of the database, of tor's data and of generated secrets.
    pub data_dir: PathBuf,
    pub log: Log,
    pub lifecycle: Lifecycle,
    pub gateway: Gateway,
    pub api: Api,
    pub tor: Tor,
    pub sources: Sources,
    pub check: Check,
    pub store: Store,
    pub geo: Geo,
    pub groups: Groups,
    /// The routes of the configuration file. The API can create more.
    pub routes: Vec<Route>,
    /// Which ports other machines can reach without a configured secret.
    pub exposure: Exposure,
    flat: FlatKeys,
}

/// The settings of `[lifecycle]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// How long open tunnels may continue after SIGTERM.
    pub drain: Duration,
    /// How long the ports still take new connections after SIGTERM, while `/ready` answers 503 already.
    pub drain_delay: Duration,
}

/// The settings of `[store]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// How long the results of checks are kept.
    pub keep_checks: Duration,
}

/// Secrets that are needed but not configured. The room `app` generates each of them, stores it under `data_dir`, logs
/// the path, and requires the secret from then on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exposure {
    /// True if a client port can be reached from other machines, and no keys are configured.
    pub make_key: bool,
    /// True if the API can be reached from other machines, and no token is configured.
    pub make_token: bool,
}

impl Default for Config {
    /// Returns the configuration of a gateway without a configuration file.
    fn default() -> Self {
        let mut findings = Findings::of(tree::Node::empty(&"defaults".into()), false, Vec::new());
        Self::validate(&schema::File::default(), None, &mut findings)
    }
}

impl Config {
    /// Validates the file. If `findings` contains a fault afterwards, the result must not be used.
    fn validate(file: &schema::File, selectors: Option<SelectorCheck<'_>>, findings: &mut Findings) -> Self {
        if file.data_dir.as_os_str().is_empty() {
            findings.fault("data_dir", "is empty", "name a folder; exitgate creates it if it does not exist");
        } else if file.data_dir.exists() && !file.data_dir.is_dir() {
            let what = format!("names {}, which is not a folder", file.data_dir.display());
            findings.fault("data_dir", what, "name a folder; exitgate creates it if it does not exist");
        }
        let groups = Groups::validate(&file.groups, findings);
        // The sources come before the keys and the routes, because these may name an upstream source.
        let sources = Sources::validate(&file.sources, file.gateway.allow_direct, findings);
        let gateway = Gateway::validate(&file.gateway, findings);
        let check = Check::validate(&file.check, findings);
        let selectors = SelectorContext { gateway: &gateway, groups: &groups, sources: &sources, check: selectors };
        gateway::check_budgets(&file.gateway, &selectors, findings);
        let context = route::RouteContext { gateway: &gateway, check: &check, selectors };
        let routes = context.routes(file, findings);
        let api = Api::validate(&file.api, findings);
        let mut config = Self {
            data_dir: file.data_dir.clone(),
            log: Log::validate(&file.log, findings),
            lifecycle: Lifecycle { drain: file.lifecycle.drain.0.0, drain_delay: file.lifecycle.drain_delay.0.0 },
            exposure: Exposure::of(&gateway, &api),
            gateway,
            api,
            tor: Tor::validate(&file.tor, findings),
            sources,
            check,
            store: Store { keep_checks: file.store.keep_checks.0 },
            geo: Geo::validate(&file.geo, findings),
            groups,
            routes,
            flat: FlatKeys::default(),
        };
        config.check_across_sections(file, findings);
        config.flat = FlatKeys::of(file, &config);
        config
    }

    /// Checks values of different sections against each other.
    fn check_across_sections(&self, file: &schema::File, findings: &mut Findings) {
        let listener = |key: &str, address: &SocketAddr| (KeyPath::from(key), *address);
        let mut wanted: Vec<_> = self.gateway.listen.iter().map(|a| listener("gateway.listen", a)).collect();
        wanted.extend(self.api.listen.iter().map(|a| listener("api.listen", a)));
        wanted.extend(route::asked_ports(file));
        listen_address::report(&wanted, findings);
        if self.exposure.make_key {
            let hint = "exitgate generates one and stores it in data_dir; to choose your own, add [[gateway.keys]]";
            findings.warn("gateway.keys", "is empty, and clients can connect from other machines", hint);
        }
        if self.exposure.make_token {
            let hint = "exitgate generates one and stores it in data_dir; to choose your own, set api.token_file";
            findings.warn("api.token", "is missing, and the API can be reached from other machines", hint);
        }
        let any_proxies = self.sources.any_public() || !self.sources.upstream.is_empty();
        if !self.tor.enabled && !any_proxies && !self.gateway.allow_direct {
            let hint = "enable tor or sources.proxifly, add a [[sources.list]] or a [[sources.upstream]], or set \
                        gateway.allow_direct = true";
            findings.warn(
                "tor.enabled",
                "is false, and no other source of exits is enabled: every request will fail",
                hint,
            );
        }
    }
}

impl Exposure {
    fn of(gateway: &Gateway, api: &Api) -> Self {
        let beyond = |addresses: &[SocketAddr]| addresses.iter().any(|address| !listen_address::is_local(address.ip()));
        let clients_from_afar = beyond(&gateway.listen) || !listen_address::is_local(gateway.route_bind);
        Self {
            make_key: clients_from_afar && gateway.keys.is_empty(),
            make_token: beyond(&api.listen) && api.token.is_none(),
        }
    }
}
