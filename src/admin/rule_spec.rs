//! The rules of a route as a caller of the API sends them, and their validation.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::error::BadField;
use crate::route::rules::{Action, HostPattern, RULES_MAX, Rule, RuleSelector, Rules};
use crate::route::selector::{RouteName, Selector, SourcePick, Words};

/// A rule of a route by destination: which targets it matches, and one thing to do with them: `use`, `route`, `refuse`
/// or `direct`. The first rule that matches a target counts; other targets use the route's own selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Rule, example = json!({ "host": ["*.shop.example", "example.org"], "use": "us-strict" }))]
pub struct RuleSpec {
    /// Hosts: `example.org` is this name alone, `*.example.org` all names below it, `.example.org` both; an address, a
    /// network, or `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub host: Option<OneOrMany<String>>,
    /// Ports and ranges, such as 443 or "8000-8099"; without it every port.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Port>>, example = json!([443, "8000-8099"]))]
    pub port: Option<OneOrMany<Port>>,
    /// Use another selector, written as in a username.
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Use another route, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Refuse the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refuse: Option<bool>,
    /// Connect from the gateway's own address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct: Option<bool>,
}

/// One value, or a list of values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

/// A port as a number, or a range of ports as a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Port {
    One(u16),
    Range(String),
}

impl PartialSchema for Port {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(65535));
        let range = ObjectBuilder::new().schema_type(Type::String).pattern(Some(r"^\d{1,5}(-\d{1,5})?$"));
        OneOfBuilder::new().item(number).item(range).into()
    }
}

impl ToSchema for Port {}

impl<T> OneOrMany<T> {
    fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// What the rules of a route may contain.
pub(super) struct RuleTerms<'a> {
    pub(super) words: &'a Words,
    /// True if routes may use this machine's own address.
    pub(super) allow_direct: bool,
    /// The longest time of a session.
    pub(super) max_session_ttl: Duration,
}

impl RuleSpec {
    /// Returns the rule in the form in which the API shows it.
    pub fn of(rule: &Rule) -> Self {
        let port = |text: String| text.parse().map_or_else(|_| Port::Range(text.clone()), Port::One);
        let list = |hosts: Vec<String>| (!hosts.is_empty()).then_some(OneOrMany::Many(hosts));
        let ports: Vec<_> = rule.port_texts().map(port).collect();
        let spec = Self {
            host: list(rule.hosts.iter().map(ToString::to_string).collect()),
            port: (!ports.is_empty()).then_some(OneOrMany::Many(ports)),
            ..Self::default()
        };
        match &rule.action {
            Action::Use(rule) => Self { selector: Some(rule.selector().to_string()), ..spec },
            Action::Route(name) => Self { route: Some(name.to_string()), ..spec },
            Action::Refuse => Self { refuse: Some(true), ..spec },
            Action::Direct(_) => Self { direct: Some(true), ..spec },
        }
    }

    fn validate(&self, terms: &RuleTerms<'_>) -> Result<Rule, (&'static str, String)> {
        let mut hosts = Vec::new();
        for text in self.host.iter().flat_map(OneOrMany::as_slice) {
            hosts.push(HostPattern::parse(text).map_err(|why| ("host", format!("is {text:?}: {why}")))?);
        }
        let mut ports = Vec::new();
        for port in self.port.iter().flat_map(OneOrMany::as_slice) {
            let bad = || ("port", "is a port or a range from 1 to 65535, such as 443 or \"20000-20999\"".to_owned());
            let (first, last) = match port {
                Port::One(port) => (*port, *port),
                Port::Range(text) => range(text).ok_or_else(bad)?,
            };
            if first == 0 || first > last {
                return Err(bad());
            }
            ports.push(first..=last);
        }
        if hosts.is_empty() && ports.is_empty() {
            return Err(("host", "is missing, and `port` too: for every target, send \"host\": [\"*\"]".to_owned()));
        }
        Ok(Rule { hosts, ports, action: self.action(terms)? })
    }

    fn action(&self, terms: &RuleTerms<'_>) -> Result<Action, (&'static str, String)> {
        let RuleTerms { words, allow_direct, max_session_ttl } = *terms;
        match (&self.selector, &self.route, self.refuse.unwrap_or(false), self.direct.unwrap_or(false)) {
            (Some(text), None, false, false) => {
                let wrong = |bad: String| ("use", format!("is wrong: {bad}"));
                let selector = Selector::parse(text, words).map_err(|bad| wrong(bad.to_string()))?;
                let has_source = Selector::has_source(text, words).map_err(|bad| wrong(bad.to_string()))?;
                if selector.source == SourcePick::Direct && !allow_direct {
                    return Err(("use", "names `direct`, which gateway.allow_direct does not allow".to_owned()));
                }
                if selector.ttl.is_some_and(|ttl| ttl > max_session_ttl) {
                    return Err(("use", "has a time (`ttl-`) that is longer than gateway.max_session_ttl".to_owned()));
                }
                Ok(Action::Use(RuleSelector::new(selector, has_source)))
            }
            (None, Some(name), false, false) => {
                RouteName::of_rule(name).map(Action::Route).map_err(|why| ("route", format!("is wrong: {why}")))
            }
            (None, None, true, false) => Ok(Action::Refuse),
            (None, None, false, true) if allow_direct => Ok(Action::Direct(RuleSelector::direct())),
            (None, None, false, true) => Err(("direct", "is not allowed by gateway.allow_direct".to_owned())),
            _ => Err(("use", "or `route`, `refuse` or `direct`: send exactly one of the four".to_owned())),
        }
    }
}

/// Validates the rules of a spec. An error names the rule by its place in the list, which begins with 0.
pub(super) fn rules(specs: &[RuleSpec], terms: &RuleTerms<'_>) -> Result<Rules, BadField> {
    if specs.len() > RULES_MAX {
        return Err(BadField::new(
            "rules",
            format!("has more than {RULES_MAX} rules; join hosts with the same action"),
        ));
    }
    let one = |(at, spec): (usize, &RuleSpec)| {
        spec.validate(terms).map_err(|(field, why)| BadField::new(&format!("rules[{at}].{field}"), why))
    };
    specs.iter().enumerate().map(one).collect::<Result<_, _>>().map(Rules::new)
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(spec: Value, allow_direct: bool) -> Result<String, String> {
        let spec: Vec<RuleSpec> = serde_json::from_value(json!([spec])).map_err(|why| why.to_string())?;
        let terms = RuleTerms { words: &Words::default(), allow_direct, max_session_ttl: Duration::from_secs(3600) };
        let rules = rules(&spec, &terms).map_err(|bad| bad.field)?;
        let again: Vec<_> = rules.as_slice().iter().map(RuleSpec::of).collect();
        let text = json!(again);
        let read_again: Vec<RuleSpec> = serde_json::from_value(text).unwrap();
        assert_eq!(super::rules(&read_again, &terms).unwrap(), rules, "it reads back as it is shown");
        Ok(rules.as_slice()[0].to_string())
    }

    #[test]
    fn a_rule_is_read_and_shown() {
        for (spec, want) in [
            (json!({"host": "Shop.Example", "use": "us-strict"}), "shop.example use us-strict"),
            (json!({"host": ["*.a.test", "10.0.0.0/8"], "refuse": true}), "*.a.test,10.0.0.0/8 refuse"),
            (json!({"port": [443, "8000-8099"], "route": "dear"}), "port 443,8000-8099 route dear"),
            (json!({"host": "*", "port": 25, "refuse": true, "direct": false}), "* port 25 refuse"),
            (json!({"host": "a.test", "direct": true}), "a.test direct"),
            (json!({"host": "a.test", "use": "us-source-tor"}), "a.test use us-source-tor"),
            (json!({"host": "a.test", "use": "us-session-a-ttl-1h"}), "a.test use us-session-a-ttl-1h"),
        ] {
            assert_eq!(read(spec.clone(), true).as_deref(), Ok(want), "{spec}");
        }
    }

    #[test]
    fn an_error_names_the_rule_and_its_field() {
        for (spec, field) in [
            (json!({"host": "a.test:80", "refuse": true}), "rules[0].host"),
            (json!({"refuse": true}), "rules[0].host"),
            (json!({"host": [], "refuse": true}), "rules[0].host"),
            (json!({"host": "a.test", "port": 0, "refuse": true}), "rules[0].port"),
            (json!({"host": "a.test", "port": "9-8", "refuse": true}), "rules[0].port"),
            (json!({"host": "a.test", "use": "us-stirct"}), "rules[0].use"),
            (json!({"host": "a.test", "use": "any-source-direct"}), "rules[0].use"),
            (json!({"host": "a.test", "use": "us-session-a-ttl-2h"}), "rules[0].use"),
            (json!({"host": "a.test", "route": "Bad"}), "rules[0].route"),
            (json!({"host": "a.test", "direct": true}), "rules[0].direct"),
            (json!({"host": "a.test"}), "rules[0].use"),
            (json!({"host": "a.test", "refuse": false}), "rules[0].use"),
            (json!({"host": "a.test", "refuse": true, "use": "us"}), "rules[0].use"),
        ] {
            assert_eq!(read(spec.clone(), false).unwrap_err(), field, "{spec}");
        }
        assert!(read(json!({"hosts": "a.test", "refuse": true}), false).unwrap_err().contains("hosts"));
    }
}
