//! Rules by destination: a route sends some targets through other exits than the rest.
//!
//! The rules of a route are a list. The first rule that matches the host and the port of a target decides what happens
//! to a connection to this target. The connection uses another selector or another route, uses this machine's own
//! address, or is refused. If no rule matches, the selector of the route decides.
//!
//! A list may have thousands of rules. So [`Rules::find`] looks up the target's host in maps (`rules/index.rs`) and
//! does not compare the host with each rule.
//!
//! Next: `rules/pattern.rs` (which hosts a pattern matches), `rules/circle.rs` (routes whose rules lead back to
//! themselves), `route/table/destination.rs` (applies the rules to a username).

mod circle;
mod index;
mod pattern;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

pub use circle::circle;
pub use pattern::{BadPattern, HostPattern};

use self::index::Index;
use super::selector::{Geo, Mode, RouteName, Selector, SourcePick};
use crate::net::Host;

/// The largest number of rules of one route. The index of 10,000 rules takes about 2 MB of memory.
pub const RULES_MAX: usize = 10_000;

/// One rule of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The hosts that the rule matches. If empty, the rule matches every host.
    pub hosts: Vec<HostPattern>,
    /// The ports that the rule matches. If empty, the rule matches every port.
    pub ports: Vec<RangeInclusive<u16>>,
    pub action: Action,
}

/// What happens to a connection that a rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The connection uses this selector in place of the route's own selector.
    Use(RuleSelector),
    /// The connection uses the route with this name.
    Route(RouteName),
    /// The connection is refused.
    Refuse,
    /// The connection leaves from this machine's own address.
    Direct(RuleSelector),
}

/// The selector of a rule. Its texts are computed once, because connections need them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSelector {
    pub(super) selector: Selector,
    /// The text of the selector in the keys of pins and sessions.
    pub(super) lasting: Box<str>,
    /// The text of the selector in the key of its pool.
    pub(super) pooled: Box<str>,
}

impl RuleSelector {
    /// `has_source` is true if the text of the selector contains the token `source-…`. The rule then uses only this
    /// source, even if the route has a list of sources.
    pub fn new(selector: Selector, has_source: bool) -> Self {
        let selector = Selector { narrowed_source: has_source, ..selector };
        let (lasting, pooled) = (selector.lasting().to_string().into(), selector.pooled().to_string().into());
        Self { selector, lasting, pooled }
    }

    /// Returns the selector of this machine's own address.
    pub fn direct() -> Self {
        let selector = Selector {
            geo: Geo::any(),
            mode: Mode::Flexible,
            session: None,
            ttl: None,
            exit: None,
            asn: None,
            not_asn: Vec::new(),
            source: SourcePick::Direct,
            narrowed_source: true,
            isolate: None,
        };
        Self::new(selector, true)
    }

    pub fn selector(&self) -> &Selector {
        &self.selector
    }
}

impl Rule {
    /// Returns true if the rule matches the port. `None` stands for a look-up of a name, which has no port.
    fn takes(&self, port: Option<u16>) -> bool {
        self.ports.is_empty() || port.is_some_and(|port| self.ports.iter().any(|ports| ports.contains(&port)))
    }

    /// Returns the ports as people write them: `443` or `8000-8099`.
    pub fn port_texts(&self) -> impl Iterator<Item = String> {
        self.ports.iter().map(|ports| match (ports.start(), ports.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        })
    }
}

impl fmt::Display for Rule {
    /// Writes the rule in the form that `exitgate routes create --rule` reads, such as `*.shop.example port 443 use
    /// us`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<_> = self.hosts.iter().map(ToString::to_string).collect();
        if !hosts.is_empty() {
            write!(f, "{} ", hosts.join(","))?;
        }
        if !self.ports.is_empty() {
            write!(f, "port {} ", self.port_texts().collect::<Vec<_>>().join(","))?;
        }
        match &self.action {
            Action::Use(rule) => write!(f, "use {}", rule.selector),
            Action::Route(name) => write!(f, "route {name}"),
            Action::Refuse => f.write_str("refuse"),
            Action::Direct(_) => f.write_str("direct"),
        }
    }
}

/// The rules of one route, in order. A clone copies one pointer.
#[derive(Clone, Debug, Default)]
pub struct Rules(Option<Arc<Indexed>>);

#[derive(Debug)]
struct Indexed {
    rules: Vec<Rule>,
    index: Index,
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Rules {}

impl Rules {
    pub fn new(rules: Vec<Rule>) -> Self {
        if rules.is_empty() {
            return Self(None);
        }
        let index = Index::of(&rules);
        Self(Some(Arc::new(Indexed { rules, index })))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub fn as_slice(&self) -> &[Rule] {
        self.0.as_ref().map_or(&[], |indexed| &indexed.rules)
    }

    /// Returns the first rule that matches the target, with its number. The first rule of a route has the number 1. The
    /// port is `None` if the request is a look-up of a name: then rules with ports do not match.
    pub fn find(&self, host: &Host, port: Option<u16>) -> Option<(usize, &Rule)> {
        let Indexed { rules, index } = &**self.0.as_ref()?;
        let at = index.first(host, |at| rules[at].takes(port))?;
        Some((at + 1, &rules[at]))
    }

    /// Returns the names of the routes to which rules lead.
    pub fn routes(&self) -> impl Iterator<Item = &RouteName> {
        self.as_slice().iter().filter_map(|rule| match &rule.action {
            Action::Route(name) => Some(name),
            Action::Use(_) | Action::Refuse | Action::Direct(_) => None,
        })
    }
}

#[cfg(test)]
mod tests;
