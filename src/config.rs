//! Configuration: TOML text and environment variables → validated settings.
//!
//! Defaults in code come first, then a TOML file, then environment variables. The result is a [`Config`] whose types hold
//! only valid values, so that no other room needs to check them; or [`Faults`], *all* of them, so that a file can be
//! corrected in one go.
//!
//! Four steps make it. `config/tree.rs` reads the text into values that know their line. `config/env.rs` sets the values of
//! variables. `config/deserialize.rs` turns the tree into the structs of `config/schema.rs`, which lists every key and its
//! default, and reports unknown keys and values of a wrong type. Then the modules named like sections (`config/gateway.rs`,
//! `config/check.rs`, …) validate what the values mean. A section that finds a fault reports it and goes on with a default,
//! and the whole result is dropped at the end. No port is opened and no file is made here. Files that the configuration
//! names are read, so that a missing certificate is found before the old process is stopped.
//!
//! Without any file everything is on loopback and needs no keys. A configuration that listens beyond loopback without keys
//! or token is accepted: [`Exposure`] says so, and `app` generates what is missing.
//!
//! Next: `config/exitgate.toml` documents every key; [`diff`] compares two configurations for a reload.

mod address;
mod api;
mod check;
mod choice;
mod deserialize;
mod diff;
mod env;
mod finding;
mod findings;
mod gateway;
mod group;
mod key_path;
mod listen_address;
mod load;
mod log;
mod route;
mod schema;
mod secret;
mod source;
mod syntax;
mod text_value;
mod tls;
mod tor;
mod tree;
mod units;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use address::{Endpoint, PortRange};
pub use api::Api;
pub use check::{Check, CheckPublic, CheckTarget};
pub use choice::{Auth, Engine, ListFormat, LogFormat, Rotate, Through};
pub use diff::{Changes, diff};
pub use finding::{Faults, Finding, Location};
pub use gateway::{ClientKey, Gateway, Limits, PortRules};
pub use group::Groups;
pub use load::{Loaded, Origin, find, load, parse};
pub use log::Log;
pub use route::Route;
pub use source::{ExitAddresses, Onionoo, Proxifly, ProxyList, Sources};
pub use tls::Tls;
pub use tor::{Attach, Tor};

use diff::FlatKeys;
use findings::Findings;
use key_path::KeyPath;

/// Checks the text of a selector, given the groups that it may name; the error says what is wrong. It is passed in, so that
/// this room need not know the grammar of usernames.
pub type SelectorCheck<'a> = &'a dyn Fn(&str, &Groups) -> Result<(), String>;

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of the database, tor's data and generated secrets.
    pub data_dir: PathBuf,
    pub log: Log,
    pub lifecycle: Lifecycle,
    pub gateway: Gateway,
    pub api: Api,
    pub tor: Tor,
    pub sources: Sources,
    pub check: Check,
    pub store: Store,
    pub groups: Groups,
    /// The routes of the file; the API can make more.
    pub routes: Vec<Route>,
    /// What can be reached from other machines without a configured secret.
    pub exposure: Exposure,
    flat: FlatKeys,
}

/// `[lifecycle]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// How long open tunnels may go on after SIGTERM.
    pub drain: Duration,
}

/// `[store]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// How long the results of checks are kept.
    pub keep_checks: Duration,
}

/// Secrets that are needed and not configured: `app` generates each, stores it under `data_dir`, logs where it is, and
/// requires it from then on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exposure {
    /// A port for clients can be reached from other machines, and there are no keys.
    pub make_key: bool,
    /// The API can be reached from other machines, and there is no token.
    pub make_token: bool,
}

impl Default for Config {
    /// The configuration without a file.
    fn default() -> Self {
        let mut findings = Findings::of(tree::Node::empty(&"defaults".into()), false, Vec::new());
        Self::validate(&schema::File::default(), None, &mut findings)
    }
}

impl Config {
    /// Validates the file. If `findings` has a fault afterwards, the result must not be used.
    fn validate(file: &schema::File, selectors: Option<SelectorCheck<'_>>, findings: &mut Findings) -> Self {
        if file.data_dir.as_os_str().is_empty() {
            findings.fault("data_dir", "is empty", "name a folder; exitgate creates it if it does not exist");
        } else if file.data_dir.exists() && !file.data_dir.is_dir() {
            let what = format!("names {}, which is not a folder", file.data_dir.display());
            findings.fault("data_dir", what, "name a folder; exitgate creates it if it does not exist");
        }
        let groups = Groups::validate(&file.groups, findings);
        let gateway = Gateway::validate(&file.gateway, findings);
        let check = Check::validate(&file.check, findings);
        let context = route::RouteContext { gateway: &gateway, check: &check, groups: &groups, selectors };
        let routes = context.routes(file, findings);
        let api = Api::validate(&file.api, findings);
        let mut config = Self {
            data_dir: file.data_dir.clone(),
            log: Log::validate(&file.log, findings),
            lifecycle: Lifecycle { drain: file.lifecycle.drain.0.0 },
            exposure: Exposure::of(&gateway, &api),
            gateway,
            api,
            tor: Tor::validate(&file.tor, findings),
            sources: Sources::validate(&file.sources, findings),
            check,
            store: Store { keep_checks: file.store.keep_checks.0 },
            groups,
            routes,
            flat: FlatKeys::default(),
        };
        config.check_across_sections(file, findings);
        config.flat = FlatKeys::of(file, &config);
        config
    }

    /// Checks what concerns several sections.
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
        if !self.tor.enabled && !self.sources.any_public() && !self.gateway.allow_direct {
            let hint = "enable tor or sources.proxifly, add a [[sources.list]], or set gateway.allow_direct = true";
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
