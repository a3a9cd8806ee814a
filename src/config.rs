//! Text → validated settings.
//!
//! Three things lie on one another: the defaults in code, a TOML file, and variables of the environment. What comes out
//! is a [`Config`] of types that cannot be wrong, so that no other room asks "what if it is empty?"; or it is
//! [`Faults`], *all* of them, because a person mends a file once and not one error a run.
//!
//! It goes in four steps, a page each. `tree.rs` reads the text into values that know their line, `env.rs` lays the
//! variables onto them, `read.rs` turns that into the schema of `file.rs` and reports what has a wrong name or shape,
//! and the pages named like sections judge what the values mean together. No section stops at a fault: it notes it and
//! goes on with a stand-in, and the result is thrown away at the end. Nothing here opens a port or makes a file; files
//! that the configuration names are read, so that a missing certificate is found before the old process is stopped.
//!
//! No file at all is a configuration too: everything on loopback, no keys. Told to listen beyond loopback without keys
//! or token, a configuration is not refused; it says so by [`Exposure`], and `app` makes what is missing.
//!
//! Next: `config/exitgate.toml`, every key with its default and a line of why; [`diff`], what a reload changes.

mod address;
mod api;
mod check;
mod clash;
mod deserialize;
mod diff;
mod env;
mod finding;
mod gateway;
mod group;
mod keyword;
mod load;
mod log;
mod route;
mod schema;
mod secret;
mod source;
mod syntax;
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
pub use diff::{Changes, diff};
pub use finding::{Faults, Finding, Location};
pub use gateway::{ClientKey, Gateway, Limits, PortRules, Tls};
pub use group::Groups;
pub use load::{Loaded, Origin, find, load, parse};
pub use log::{Log, LogFormat, Rotate};
pub use route::{Auth, Engine, Route};
pub use source::{ExitAddresses, ListFormat, Onionoo, Proxifly, ProxyList, Sources, Through};
pub use tor::{Attach, Tor};

use diff::Settled;
use finding::{Findings, KeyPath};
use source::{ListProtocol, RouteSource};

/// Judges the text of a selector, given the groups that it may name; the error is a clause that says why not. It is
/// passed in because the grammar of usernames is no business of this room.
pub type SelectorCheck<'a> = &'a dyn Fn(&str, &Groups) -> Result<(), String>;

/// Everything that can be configured, and nothing in it that is wrong.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the database, tor's folders and generated secrets live.
    pub data_dir: PathBuf,
    /// What is written about what happens.
    pub log: Log,
    /// How the gateway ends.
    pub lifecycle: Lifecycle,
    /// The data path.
    pub gateway: Gateway,
    /// The control path.
    pub api: Api,
    /// Engines.
    pub tor: Tor,
    /// Where exits come from.
    pub sources: Sources,
    /// How they are tested.
    pub check: Check,
    /// What is remembered.
    pub store: Store,
    /// Names for lists of countries.
    pub groups: Groups,
    /// The routes that are there from the start.
    pub routes: Vec<Route>,
    /// What is reachable from outside without a secret of its own.
    pub exposure: Exposure,
    settled: Settled,
}

/// How the gateway ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// How long open tunnels may go on after a signal to stop.
    pub drain: Duration,
}

/// What is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// How long the results of checks are kept.
    pub keep_checks: Duration,
}

/// What would be open to everybody if nobody acted: `app` makes the missing secret, keeps it under `data_dir`, says
/// where it is, and asks for it from then on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exposure {
    /// A port for clients is bound beyond loopback, and there are no keys.
    pub make_key: bool,
    /// The API is bound beyond loopback, and there is no token.
    pub make_token: bool,
}

impl Default for Config {
    /// What no file at all means.
    fn default() -> Self {
        let mut findings = Findings::of(tree::Node::empty(&"defaults".into()), false, Vec::new());
        Self::settle(&schema::File::default(), None, &mut findings)
    }
}

impl Config {
    /// The file as written → settings; what is wrong is noted in `findings`, and then the result means nothing.
    fn settle(file: &schema::File, selectors: Option<SelectorCheck<'_>>, findings: &mut Findings) -> Self {
        if file.data_dir.as_os_str().is_empty() {
            findings.fault("data_dir", "is empty", "name a folder; it is made when it does not exist");
        } else if file.data_dir.exists() && !file.data_dir.is_dir() {
            let what = format!("names {}, which is no folder", file.data_dir.display());
            findings.fault("data_dir", what, "name a folder; it is made when it does not exist");
        }
        let groups = Groups::settle(&file.groups, findings);
        let gateway = Gateway::settle(&file.gateway, findings);
        let check = Check::settle(&file.check, findings);
        let around = route::Around { gateway: &gateway, check: &check, groups: &groups, selectors };
        let routes = around.routes(file, findings);
        let api = Api::settle(&file.api, findings);
        let mut config = Self {
            data_dir: file.data_dir.clone(),
            log: Log::settle(&file.log, findings),
            lifecycle: Lifecycle { drain: file.lifecycle.drain.0.0 },
            exposure: Exposure::of(&gateway, &api),
            gateway,
            api,
            tor: Tor::settle(&file.tor, findings),
            sources: Sources::settle(&file.sources, findings),
            check,
            store: Store { keep_checks: file.store.keep_checks.0 },
            groups,
            routes,
            settled: Settled::default(),
        };
        config.judge_together(file, findings);
        config.settled = Settled::of(file, &config);
        config
    }

    /// What no section can see alone.
    fn judge_together(&self, file: &schema::File, findings: &mut Findings) {
        let listener = |key: &str, address: &SocketAddr| (KeyPath::from(key), *address);
        let mut wanted: Vec<_> = self.gateway.listen.iter().map(|a| listener("gateway.listen", a)).collect();
        wanted.extend(self.api.listen.iter().map(|a| listener("api.listen", a)));
        wanted.extend(route::asked_ports(file));
        clash::report(&wanted, findings);
        if self.exposure.make_key {
            let hint = "one is made and kept in data_dir; name your own in [[gateway.keys]]";
            findings.warn("gateway.keys", "is empty, and clients can connect from other machines", hint);
        }
        if self.exposure.make_token {
            let hint = "one is made and kept in data_dir; name your own by api.token_file";
            findings.warn("api.token", "is missing, and the API can be reached from other machines", hint);
        }
        if !self.tor.enabled && !self.sources.any_public() && !self.gateway.allow_direct {
            let hint = "enable tor, sources.proxifly, a sources.list, or gateway.allow_direct";
            findings.warn("tor.enabled", "is false, and there is no other way out: every request will fail", hint);
        }
    }
}

impl Exposure {
    fn of(gateway: &Gateway, api: &Api) -> Self {
        let beyond = |addresses: &[SocketAddr]| addresses.iter().any(|address| !clash::is_local(address.ip()));
        let clients_from_afar = beyond(&gateway.listen) || !clash::is_local(gateway.route_bind);
        Self {
            make_key: clients_from_afar && gateway.keys.is_empty(),
            make_token: beyond(&api.listen) && api.token.is_none(),
        }
    }
}
