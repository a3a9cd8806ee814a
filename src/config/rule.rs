//! `[[routes.rules]]`: the rules of a route by destination.

use std::collections::BTreeMap;

use super::address::PortRange;
use super::deserialize::nearest;
use super::findings::Findings;
use super::key_path::KeyPath;
use super::schema;
use super::selector::SelectorContext;
use super::text_value::TextValue;
use crate::route::rules::{HostPattern, RULES_MAX, circle};

/// A rule of a route. The selector is written in the file as in a username.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The hosts that the rule matches. Empty: every host.
    pub hosts: Vec<HostPattern>,
    /// The ports that the rule matches. Empty: every port.
    pub ports: Vec<PortRange>,
    pub action: RuleAction,
}

/// What happens to a connection that a rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// The connection uses this selector.
    Use(String),
    /// The connection uses the route of this name. A route of this name exists in the file.
    Route(String),
    Refuse,
    /// The connection leaves from this machine's own address.
    Direct,
}

impl TextValue for HostPattern {
    const WANT: &'static str = "a host: \"example.org\", \"*.example.org\" (all names below), \".example.org\" (both), \"10.0.0.0/8\" or \"*\"";

    fn read(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|why| why.to_string())
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl SelectorContext<'_> {
    /// Validates the rules of one route. Returns those that have one action.
    pub(super) fn rules(&self, written: &schema::Route, at: &KeyPath, findings: &mut Findings) -> Vec<Rule> {
        let at = at.key("rules");
        if written.rules.iter().count() > RULES_MAX {
            let what = format!("has more than {RULES_MAX} rules");
            findings.fault(&at, what, "join hosts with the same action in one rule: `host` takes a list");
        }
        let rules = written.rules.iter().filter_map(|(index, rule)| self.rule(rule, &at.index(index), findings));
        rules.collect()
    }

    fn rule(&self, written: &schema::Rule, at: &KeyPath, findings: &mut Findings) -> Option<Rule> {
        let hosts: Option<Vec<_>> =
            written.host.as_ref().map(|hosts| hosts.0.iter().map(|(_, host)| host.0.clone()).collect());
        let ports: Option<Vec<_>> = written.port.as_ref().map(|ports| ports.0.iter().map(|(_, port)| port.0).collect());
        for (key, is_empty) in [
            ("host", written.host.as_ref().is_some_and(|hosts| hosts.0.is_empty())),
            ("port", written.port.as_ref().is_some_and(|ports| ports.0.is_empty())),
        ] {
            if is_empty {
                findings.fault(at.key(key), "is an empty list", "remove the key, or list what the rule matches");
            }
        }
        let is_sound = findings.is_sound(&at.key("host")) && findings.is_sound(&at.key("port"));
        if hosts.is_none() && ports.is_none() && is_sound {
            let what = "has neither `host` nor `port`, so it would match every target";
            findings.fault(at, what, "write host = [\"*.shop.example\"]; for every target, host = [\"*\"]");
        }
        let action = self.action(written, at, findings)?;
        Some(Rule { hosts: hosts.unwrap_or_default(), ports: ports.unwrap_or_default(), action })
    }

    fn action(&self, written: &schema::Rule, at: &KeyPath, findings: &mut Findings) -> Option<RuleAction> {
        let mut actions = Vec::new();
        if let Some(selector) = &written.r#use {
            let hint =
                "write a selector such as \"us\", \"nonus-strict\" or \"any-source-public\"; for a route, use `route`";
            self.validate(selector, &at.key("use"), hint, findings);
            actions.push(RuleAction::Use(selector.clone()));
        }
        actions.extend(written.route.clone().map(RuleAction::Route));
        actions.extend(written.refuse.then_some(RuleAction::Refuse));
        actions.extend(written.direct.then_some(RuleAction::Direct));
        if written.direct && !self.gateway.allow_direct && findings.is_sound(&"gateway.allow_direct".into()) {
            let hint = "set gateway.allow_direct = true if sites may see this machine's own address";
            findings.fault(
                at.key("direct"),
                "is true, but connections from this machine's own address are turned off",
                hint,
            );
        }
        if actions.len() != 1 {
            let what = if actions.is_empty() { "does not say what to do" } else { "says several things to do" };
            let hint = "write one of: use = \"us-strict\", route = \"NAME\", refuse = true, direct = true";
            findings.fault(at, what, hint);
        }
        actions.into_iter().next()
    }
}

/// Checks the routes to which rules lead: each of them exists, and no rules lead back to their own route.
pub(super) fn check_routes(file: &schema::File, findings: &mut Findings) {
    // Name of a route → the routes to which its rules lead, each with the path of its key.
    let mut leads: BTreeMap<&str, Vec<(&str, KeyPath)>> = BTreeMap::new();
    for (index, route) in file.routes.iter() {
        let Some(name) = route.name.as_deref() else { continue };
        let at = KeyPath::from("routes").index(index).key("rules");
        let to = route.rules.iter().filter_map(|(n, rule)| Some((rule.route.as_deref()?, at.index(n).key("route"))));
        leads.entry(name).or_default().extend(to);
    }
    let known: Vec<&str> = leads.keys().copied().collect();
    for (to, at) in leads.values().flatten().filter(|(to, _)| !leads.contains_key(to)) {
        let hint = match nearest(to, &known) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("add it to [[routes]], or use one of: {}", known.join(", ")),
        };
        findings.fault(at, format!("is {to:?}, but the configuration has no route with this name"), hint);
    }
    let next = |name: &str| leads.get(name).into_iter().flatten().map(|(to, _)| *to).collect();
    let Some(names) = circle(known.iter().copied(), next) else { return };
    let (from, to) = (names[0], names.get(1).unwrap_or(&names[0]));
    let Some((_, at)) = leads.get(from).into_iter().flatten().find(|(name, _)| name == to) else { return };
    let way = [names.as_slice(), &[from]].concat().join(" -> ");
    findings.fault(at, format!("leads back to its own route: {way}"), "remove one of these rules");
}
