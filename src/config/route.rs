//! `[[routes]]`: the routes that are defined in the configuration file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use ipnet::IpNet;

use super::check::is_name;
use super::choice::{Auth, Engine, Isolation, RouteSource};
use super::deserialize::nearest;
use super::findings::Findings;
use super::gateway::networks;
use super::key_path::KeyPath;
use super::listen_address::is_local;
use super::rule::{Rule, check_routes};
use super::selector::SelectorContext;
use super::text_value::{Text, TextValue as _};
use super::{Check, Gateway, schema};
use crate::exit::Source;

/// A route of the configuration file. No two routes have the same name or port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The name, which matches `[a-z][a-z0-9-]{0,62}`.
    pub name: String,
    /// The selector as it is written in the file.
    pub selector: String,
    /// The sources of exits, in order of preference. Empty: the sources of the selector. If the list is not empty, the
    /// selector has no token `source-…`.
    pub source: Vec<Source>,
    /// True if a source is used only while all sources before it in the list have no exit.
    pub fallback: bool,
    /// How long requests to a site begin with a later source after the site has refused an earlier one. `None`: requests
    /// always begin with the first source.
    pub escalate_for: Option<Duration>,
    /// The route's own port. `None`: the next free port of `gateway.route_ports`.
    pub port: Option<NonZeroU16>,
    /// The number of exits that are in use at the same time.
    pub pool: NonZeroU32,
    /// The name of the check target that the route's exits must pass. A check target of this name exists. `None`: the
    /// route's exits need not pass a check target.
    pub check: Option<String>,
    pub auth: Auth,
    /// The networks whose clients may use the route's own port. Empty: all clients may.
    pub allow: Vec<IpNet>,
    /// True if no other pin may use the IP address of this route's pin.
    pub exclusive: bool,
    pub engine: Engine,
    /// Which streams of one client may share circuits.
    pub isolation: Isolation,
    /// How long an exit is used before it is replaced by another one. `None`: no exit is replaced because of its age.
    pub rotate_every: Option<Duration>,
    /// How long a pinned exit may be down before the pin gets another exit. `None`: the pin never changes.
    pub repin_after: Option<Duration>,
    /// The number of relays in each circuit: 2 or 3.
    pub hops: u8,
    /// True if the route may connect to IPv6 targets.
    pub ipv6: bool,
    /// The rules by destination, in order.
    pub rules: Vec<Rule>,
}

/// The other parts of the configuration that a route may refer to.
pub(super) struct RouteContext<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) check: &'a Check,
    pub(super) selectors: SelectorContext<'a>,
}

impl RouteContext<'_> {
    /// Validates the routes of the file. Returns those that have a name and a selector. All faults are added to
    /// `findings`.
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
            let rules = self.selectors.rules(written, &at, findings);
            if let (Some(name), Some(selector)) = (name, selector) {
                routes.push(Route { rules, ..self.route(written, name, selector) });
            }
        }
        check_routes(file, findings);
        if file.routes.iter().count() > self.gateway.route_ports.count() {
            let what = format!("are more than gateway.route_ports has ports ({})", self.gateway.route_ports.count());
            findings.fault("routes", what, "widen gateway.route_ports");
        }
        routes
    }

    fn route(&self, written: &schema::Route, name: &str, selector: &str) -> Route {
        let open_here = if is_local(self.gateway.route_bind) { Auth::Open } else { Auth::Key };
        Route {
            name: name.to_owned(),
            selector: selector.to_owned(),
            source: written.source.iter().filter_map(|(_, Text(source))| source.source()).collect(),
            fallback: written.fallback,
            escalate_for: written.escalate_for.map_or(self.gateway.escalate_for, |Text(time)| time.0),
            port: written.port.and_then(|port| u16::try_from(port.0).ok()).and_then(NonZeroU16::new),
            pool: written.pool.map_or(self.gateway.pool, |pool| pool.positive()),
            check: written.check.clone(),
            auth: written.auth.unwrap_or(open_here),
            allow: networks(&written.allow),
            exclusive: written.exclusive,
            engine: written.engine,
            isolation: written.isolation.unwrap_or(self.gateway.isolation),
            rotate_every: written.rotate_every.map(|Text(every)| every),
            repin_after: written.repin_after.map_or(self.gateway.repin_after, |Text(after)| after.0),
            hops: if written.hops.0 == 2 { 2 } else { 3 },
            ipv6: written.ipv6,
            rules: Vec::new(),
        }
    }

    fn check_selector<'r>(&self, written: &'r schema::Route, at: &KeyPath, findings: &mut Findings) -> Option<&'r str> {
        let Some(selector) = written.selector.as_deref() else {
            findings.fault(at.key("selector"), "is missing", "write selector = \"us-strict\", \"nonus\", \"any\", …");
            return None;
        };
        let hint = "write a selector such as \"us\", \"nonus-strict\" or \"de+fr-session-a\"";
        let facts = self.selectors.validate(selector, &at.key("selector"), hint, findings);
        if facts.is_some_and(|facts| !facts.sources.is_empty()) && written.source.iter().count() > 0 {
            let what = format!("is {selector:?}, and the route also has the setting `source`: both choose the sources");
            let hint = "remove `source-…` from the selector; `source` lists the sources of the route in their order";
            findings.fault(at.key("selector"), what, hint);
        }
        if let Some(name) = written.name.as_deref().filter(|name| self.selectors.is_selector(name)) {
            let what = format!("is {name:?}, which is a selector: as a username it has a meaning without this route");
            findings.fault(at.key("name"), what, "choose a name that is not a selector, such as \"shop-us\"");
        }
        Some(selector)
    }

    fn check_port(&self, written: &schema::Route, at: &KeyPath, findings: &mut Findings) {
        let Some(port) = written.port.and_then(|port| u16::try_from(port.0).ok()) else { return };
        let range = self.gateway.route_ports;
        if !range.contains(port) && findings.is_sound(&"gateway.route_ports".into()) {
            let what = format!("is {port}, which is outside gateway.route_ports ({range})");
            findings.fault(at.key("port"), what, "choose a port in that range, or widen the range");
        }
    }

    fn check_auth(&self, written: &schema::Route, at: &KeyPath, findings: &mut Findings) {
        let bind = self.gateway.route_bind;
        if written.auth == Some(Auth::Open) && written.allow.is_empty() && !is_local(bind) {
            let what = format!("is \"open\" on {bind}: everybody who can reach this port could use it without a key");
            let hint = "list the networks that may use it: allow = [\"10.0.0.0/8\"]; to allow everybody, [\"0.0.0.0/0\", \"::/0\"]";
            findings.fault(at.key("auth"), what, hint);
        }
    }

    fn check_target(&self, written: &schema::Route, at: &KeyPath, findings: &mut Findings) {
        let Some(name) = written.check.as_deref() else { return };
        if self.check.target(name).is_none() {
            let known: Vec<_> = self.check.targets.iter().map(|target| target.name.as_str()).collect();
            let hint = match nearest(name, &known) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("add it to [[check.targets]], or use one of: {}", known.join(", ")),
            };
            findings.fault(at.key("check"), format!("is {name:?}, but there is no check target with this name"), hint);
        }
    }

    fn check_source(&self, written: &schema::Route, at: &KeyPath, findings: &mut Findings) {
        for (_, Text(source)) in written.source.iter().filter(|(_, Text(source))| source.source().is_none()) {
            let hint = format!("write {}", RouteSource::WANT);
            findings.fault(at.key("source"), format!("contains {:?}", source.write()), hint);
        }
        for source in written.source.iter().filter_map(|(_, Text(source))| source.source()) {
            self.selectors.require(source, &at.key("source"), findings);
        }
        let direct = written.source.iter().any(|(_, Text(source))| source.source() == Some(Source::Direct));
        if direct && !self.gateway.allow_direct && findings.is_sound(&"gateway.allow_direct".into()) {
            let hint = "set gateway.allow_direct = true if sites may see this machine's own address";
            findings.fault(at.key("source"), "contains \"direct\", which is turned off", hint);
        }
        if written.fallback && written.source.iter().count() < 2 {
            findings.fault(
                at.key("fallback"),
                "is true, but `source` lists fewer than two sources",
                "list two or more in `source`, the preferred one first",
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
            "write name = \"shop-us\": clients use it as a username, and pins belong to it",
        );
        return None;
    };
    if !is_name(name) {
        let hint = "use up to 63 lower-case letters, digits and `-`, beginning with a letter";
        findings.fault(&at, format!("is {name:?}"), hint);
    } else if let Some(first) = earlier.get(name) {
        findings.fault(
            &at,
            format!("is {name:?}, which {first}{} has already", findings.whereabouts(first)),
            "give each route a name of its own",
        );
    } else {
        earlier.insert(name, at);
    }
    Some(name)
}

/// Returns the ports that the routes of the file have set, each with the path of its key.
pub(super) fn asked_ports(file: &schema::File) -> Vec<(KeyPath, SocketAddr)> {
    let bind = file.gateway.route_bind.0;
    let asked = file.routes.iter().filter_map(|(index, route)| {
        let port = u16::try_from(route.port?.0).ok()?;
        Some((KeyPath::from("routes").index(index).key("port"), SocketAddr::new(bind, port)))
    });
    asked.collect()
}
