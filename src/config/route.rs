//! `[[routes]]`: the routes that are there from the start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use ipnet::IpNet;

use super::check::is_name;
use super::clash::is_local;
use super::deserialize::nearest;
use super::finding::{Findings, KeyPath};
use super::gateway::networks;
use super::keyword::Word;
use super::{Check, Gateway, Groups, SelectorCheck, schema};
use crate::exit::Source;

/// A route of the file; no two have one name or one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// `[a-z][a-z0-9-]{0,62}`.
    pub name: String,
    /// What it asks for, as written.
    pub selector: String,
    /// Sources in the order of preference; empty leaves it to the selector.
    pub source: Vec<Source>,
    /// Whether a later source may serve when an earlier one has no exit.
    pub fallback: bool,
    /// Its port; `None` takes the next free one of `gateway.route_ports`.
    pub port: Option<NonZeroU16>,
    /// How many exits it uses at once.
    pub pool: NonZeroU32,
    /// The check target that its exits must pass; known to exist.
    pub check: Option<String>,
    /// Whether its own port asks for a key.
    pub auth: Auth,
    /// The networks whose clients its own port serves; empty serves all.
    pub allow: Vec<IpNet>,
    /// Whether no other route may share its exit's IP.
    pub exclusive: bool,
    /// Whose engines carry it.
    pub engine: Engine,
    /// How often its exits are exchanged.
    pub rotate_every: Option<Duration>,
    /// How long its pinned exit may be down before the pin moves; `None` is never.
    pub repin_after: Option<Duration>,
    /// Relays in its circuits: 2 or 3.
    pub hops: u8,
    /// Whether its exits may reach targets over IPv6.
    pub ipv6: bool,
}

/// Whether a route's own port asks for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// It does, when there are keys.
    Key,
    /// It does not.
    Open,
}

/// Whose engines carry a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Those that carry the others.
    Shared,
    /// One of its own.
    Own,
}

/// What the routes of a file are judged by.
pub(super) struct Around<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) check: &'a Check,
    pub(super) groups: &'a Groups,
    pub(super) selectors: Option<SelectorCheck<'a>>,
}

impl Around<'_> {
    /// Every route that could be made out; with what is wrong with them among the findings.
    pub(super) fn routes(&self, file: &schema::File, findings: &mut Findings) -> Vec<Route> {
        let mut names = BTreeMap::new();
        let mut routes = Vec::new();
        for (index, written) in file.routes.iter() {
            let at = KeyPath::from("routes").index(index);
            let name = check_name(written.name.as_deref(), &at, &mut names, findings);
            let selector = self.check_selector(written, &at, findings);
            self.check_port(written, &at, findings);
            self.check_auth(written, &at, findings);
            self.check_target(written, &at, findings);
            self.check_source(written, &at, findings);
            if let (Some(name), Some(selector)) = (name, selector) {
                routes.push(self.route(written, name, selector));
            }
        }
        if file.routes.iter().count() > self.gateway.route_ports.count() {
            let what = format!("are more than the {} ports of gateway.route_ports", self.gateway.route_ports.count());
            findings.fault("routes", what, "widen gateway.route_ports");
        }
        routes
    }

    fn route(&self, written: &schema::Route, name: &str, selector: &str) -> Route {
        let open_here = if is_local(self.gateway.route_bind) { Auth::Open } else { Auth::Key };
        Route {
            name: name.to_owned(),
            selector: selector.to_owned(),
            source: written.source.iter().map(|(_, source)| (*source).into()).collect(),
            fallback: written.fallback,
            port: written.port.and_then(|port| u16::try_from(port.0).ok()).and_then(NonZeroU16::new),
            pool: written.pool.map_or(self.gateway.pool, |pool| pool.positive()),
            check: written.check.clone(),
            auth: written.auth.unwrap_or(open_here),
            allow: networks(&written.allow),
            exclusive: written.exclusive,
            engine: written.engine,
            rotate_every: written.rotate_every.map(|Word(every)| every),
            repin_after: written.repin_after.map_or(self.gateway.repin_after, |Word(after)| after.0),
            hops: if written.hops.0 == 2 { 2 } else { 3 },
            ipv6: written.ipv6,
        }
    }

    fn check_selector<'r>(&self, written: &'r schema::Route, at: &KeyPath, findings: &mut Findings) -> Option<&'r str> {
        let Some(selector) = written.selector.as_deref() else {
            findings.fault(at.key("selector"), "is missing", "write selector = \"us-strict\", \"nonus\", \"any\", …");
            return None;
        };
        let Some(check) = self.selectors else { return Some(selector) };
        if let Err(why) = check(selector, self.groups) {
            let hint = "write it as a username: \"us\", \"nonus-strict\", \"de+fr-session-a\"";
            findings.fault(at.key("selector"), format!("is {selector:?}: {why}"), hint);
        }
        let name = written.name.as_deref().unwrap_or(selector);
        if name != selector && check(name, self.groups).is_ok() {
            let what = format!("is {name:?}, which as a username already asks for something else than {selector:?}");
            findings.fault(at.key("name"), what, "choose a name that is no selector, such as \"shop-us\"");
        }
        Some(selector)
    }

    fn check_port(&self, written: &schema::Route, at: &KeyPath, findings: &mut Findings) {
        let Some(port) = written.port.and_then(|port| u16::try_from(port.0).ok()) else { return };
        let range = self.gateway.route_ports;
        if !range.contains(port) && findings.is_sound(&"gateway.route_ports".into()) {
            let what = format!("is {port}, outside gateway.route_ports ({range})");
            findings.fault(at.key("port"), what, "choose a port of that range, or widen it");
        }
    }

    fn check_auth(&self, written: &schema::Route, at: &KeyPath, findings: &mut Findings) {
        let bind = self.gateway.route_bind;
        if written.auth == Some(Auth::Open) && written.allow.is_empty() && !is_local(bind) {
            let what = format!("is \"open\" on {bind}: an open relay for everybody who can reach it");
            let hint = "name the networks that it serves: allow = [\"10.0.0.0/8\"]; [\"0.0.0.0/0\", \"::/0\"] if it is meant so";
            findings.fault(at.key("auth"), what, hint);
        }
    }

    fn check_target(&self, written: &schema::Route, at: &KeyPath, findings: &mut Findings) {
        let Some(name) = written.check.as_deref() else { return };
        if self.check.target(name).is_none() {
            let known: Vec<_> = self.check.targets.iter().map(|target| target.name.as_str()).collect();
            let hint = match nearest(name, &known) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("define it in check.targets, or use one of {}", known.join(", ")),
            };
            findings.fault(at.key("check"), format!("is {name:?}, and there is no check target of that name"), hint);
        }
    }

    fn check_source(&self, written: &schema::Route, at: &KeyPath, findings: &mut Findings) {
        let direct = written.source.iter().any(|(_, source)| Source::from(*source) == Source::Direct);
        if direct && !self.gateway.allow_direct && findings.is_sound(&"gateway.allow_direct".into()) {
            let hint = "set gateway.allow_direct = true if this machine's own address may be shown";
            findings.fault(at.key("source"), "names \"direct\", which is off", hint);
        }
        if written.fallback && written.source.iter().count() < 2 {
            findings.fault(
                at.key("fallback"),
                "has nothing to fall back to",
                "list two sources or more, the preferred one first",
            );
        }
    }
}

fn check_name<'r>(
    name: Option<&'r str>,
    at: &KeyPath,
    earlier: &mut BTreeMap<&'r str, KeyPath>,
    findings: &mut Findings,
) -> Option<&'r str> {
    let at = at.key("name");
    let Some(name) = name else {
        findings.fault(
            at,
            "is missing",
            "write name = \"shop-us\": it is a username of its own and the key of its pins",
        );
        return None;
    };
    if !is_name(name) {
        let hint = "use up to 63 lower-case letters, digits and `-`, beginning with a letter";
        findings.fault(&at, format!("is {name:?}"), hint);
    } else if let Some(first) = earlier.get(name) {
        findings.fault(
            &at,
            format!("is {name:?}, as is {first}{}", findings.whereabouts(first)),
            "give each route a name of its own",
        );
    } else {
        earlier.insert(name, at);
    }
    Some(name)
}

/// The ports that the file's routes ask for, each with the key that asks.
pub(super) fn asked_ports(file: &schema::File) -> Vec<(KeyPath, SocketAddr)> {
    let bind = file.gateway.route_bind.0;
    let asked = file.routes.iter().filter_map(|(index, route)| {
        let port = u16::try_from(route.port?.0).ok()?;
        Some((KeyPath::from("routes").index(index).key("port"), SocketAddr::new(bind, port)))
    });
    asked.collect()
}
