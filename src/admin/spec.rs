//! What a caller sends to create a route (the body of `POST /proxies`), and the validation of its fields.
//!
//! The store keeps the spec as the caller wrote it, without defaults. So if a caller sends an equal spec again, no
//! second route is created. If a default changes in the configuration, the new default applies to all routes whose spec
//! does not set that field.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::duration::{DurationOrNever, HumanDuration};
use super::error::BadField;
use super::rule_spec::{self, RuleSpec, RuleTerms};
use super::source_spec::{SourceChoice, SourceFields};
use crate::config::Config;
use crate::route::policy::{Auth, Engine};
use crate::route::selector::{Mode, RouteName, Selector, SourcePick, Words};
use crate::route::{IsolateBy, Policy, RouteTable};

/// The largest number of exits in one pool, and of routes in one request. Not tuned: hardly any country has more exits.
const POOL_MAX: u16 = 1000;
const COUNT_MAX: u16 = 1000;

/// The parts of the configuration that the specs of routes are validated against.
#[derive(Clone, Debug)]
pub struct RouteRules {
    /// The IP address on which the routes' own ports listen.
    pub bind: IpAddr,
    /// The range of ports that routes may use.
    pub ports: RangeInclusive<u16>,
    /// The names of the check targets that a spec may refer to.
    pub checks: Vec<String>,
    /// True if the configuration has keys, so clients may need one.
    pub keys: bool,
    /// True if routes may use this machine's own address.
    pub allow_direct: bool,
    /// True if Tor exits may be used.
    pub tor: bool,
    /// True if the configuration has lists of public proxies.
    pub public: bool,
    /// The URL of the page that the example commands of a route fetch.
    pub example_url: String,
}

impl RouteRules {
    pub fn of(config: &Config) -> Self {
        let gateway = &config.gateway;
        Self {
            bind: gateway.route_bind,
            ports: gateway.route_ports.first()..=gateway.route_ports.last(),
            checks: config.check.targets.iter().map(|target| target.name.clone()).collect(),
            keys: !gateway.keys.is_empty(),
            allow_direct: gateway.allow_direct,
            tor: config.tor.enabled,
            public: config.sources.any_public(),
            example_url: config.api.example_url.to_string(),
        }
    }
}

/// A route to create.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = NewProxy, example = json!({ "geo_category": "US", "name": "shop", "mode": "strict" }))]
pub struct RouteSpec {
    /// The route's name. Without it the route is called `p` and its port, such as `p20003`.
    #[schema(pattern = "^[a-z][a-z0-9-]{0,62}$")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A short form of `selector`: `US` is the selector `us`, `NON_US` is `nonus`, `ANY` is `any`. Send one of the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub geo_category: Option<GeoCategory>,
    /// Which exits the route may use, written as in a username.
    #[schema(example = "us-strict")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// How the route picks an exit for each connection; the selector may say it as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<RouteMode>,
    /// The route's own port. Without it the route gets the next free one of `gateway.route_ports`.
    #[schema(minimum = 1, maximum = 65535)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How many exits the route keeps ready. A strict route uses one of them.
    #[schema(minimum = 1, maximum = 1000)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<u16>,
    /// The name of a check target of the configuration that the route's exits must pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// The route is closed after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<HumanDuration>,
    /// How many routes to create, each with addresses of its own.
    #[schema(minimum = 1, maximum = 1000)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u16>,
    /// No other pin may have the address of this route's pin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<bool>,
    /// How often the route's exits are replaced by others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate_every: Option<HumanDuration>,
    /// How long a pinned exit may be down before another one replaces it; `never`: the route waits for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repin_after: Option<DurationOrNever>,
    /// Which tor processes carry the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineChoice>,
    /// Which streams of a client may share circuits. Without it: as `gateway.isolation` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<IsolationChoice>,
    /// Networks whose clients may use the route's port; an empty list allows all.
    #[schema(value_type = Option<Vec<String>>, example = json!(["10.0.0.0/8"]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<IpNet>>,
    /// Relays in a circuit.
    #[schema(minimum = 2, maximum = 3)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hops: Option<u8>,
    /// Targets may be reached over IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<bool>,
    /// Whether the route's port requires a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthChoice>,
    /// Sources of exits in order of preference. Without it the selector decides, whose own default is `tor`. The
    /// selector must then have no `source-`.
    #[schema(example = json!(["tor", "public"]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Vec<SourceChoice>>,
    /// Use a later source of `source` only while the earlier ones have no exit, or while the site of a request refuses
    /// them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<bool>,
    /// How long requests to a site begin with a later source after the site refused an earlier one; or `never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escalate_for: Option<DurationOrNever>,
    /// Rules by destination; the first one that matches a target counts. A patch replaces the whole list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<RuleSpec>>,
}

/// The three selectors that most callers ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = Geo)]
pub enum GeoCategory {
    /// The United States.
    Us,
    /// Any known country except the United States.
    NonUs,
    /// Any exit, whatever its country.
    Any,
}

/// How a route picks an exit for each connection: `flexible` takes any exit of its pool, `strict` always shows one
/// address, `rotate` takes another exit for each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Kept)]
pub enum RouteMode {
    Flexible,
    Strict,
    Rotate,
}

impl RouteMode {
    /// Returns true if a selector's `mode` is this mode.
    pub fn is(self, mode: Mode) -> bool {
        matches!(
            (self, mode),
            (Self::Flexible, Mode::Flexible) | (Self::Strict, Mode::Strict) | (Self::Rotate, Mode::Rotate)
        )
    }
}

/// Which tor processes (engines) carry a route: `shared` ones, or one of its `own`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Carrier)]
pub enum EngineChoice {
    Shared,
    Own,
}

/// Which streams of a client to one exit may share circuits: all of them (`key`), those of one `session`, or those of one
/// session to one `target` host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Isolation)]
pub enum IsolationChoice {
    Key,
    Session,
    Target,
}

/// Whether a route's port requires a key: `key` does where the configuration has keys, `open` never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Asks)]
pub enum AuthChoice {
    Key,
    Open,
}

impl RouteSpec {
    /// Reads a spec from JSON. First each field is read alone, because an error must name the wrong field.
    pub fn read(fields: &Map<String, Value>) -> Result<Self, BadField> {
        for (field, value) in fields {
            let alone = Map::from_iter([(field.clone(), value.clone())]);
            if let Err(why) = serde_json::from_value::<Self>(alone.into()) {
                return Err(BadField::new(field, format!("is wrong: {why}")));
            }
        }
        let read = serde_json::from_value(Value::Object(fields.clone()));
        read.map_err(|why| BadField::new("body", format!("is wrong: {why}")))
    }

    /// Returns one spec for each of the `count` routes. Several routes must not share an exit address. So each of them
    /// is exclusive and has a pool of one exit, unless the spec sets these two fields.
    pub(super) fn expand(self) -> Result<Vec<Self>, BadField> {
        let Some(count) = self.count else { return Ok(vec![self]) };
        if !(1..=COUNT_MAX).contains(&count) {
            return Err(BadField::new("count", format!("is a number from 1 to {COUNT_MAX}")));
        }
        if count > 1 && self.port.is_some() {
            return Err(BadField::new("port", "is for one route, and `count` asks for several: leave it out"));
        }
        let (exclusive, pool) = (self.exclusive.or(Some(true)), self.pool.or(Some(1)));
        let nth = |n: u16| {
            let name = self.name.as_ref().map(|name| if count == 1 { name.clone() } else { format!("{name}-{n}") });
            Self { name, exclusive, pool, count: None, ..self.clone() }
        };
        Ok((1..=count).map(nth).collect())
    }

    /// Applies a JSON merge patch to the stored spec `body`, and returns the result. The value `null` removes a field.
    /// The fields `selector` and `geo_category` set the same thing, so a patch that sets one of them removes the other.
    pub(super) fn patched(body: &str, patch: &Map<String, Value>) -> Result<Self, BadField> {
        for field in ["name", "count"] {
            if patch.contains_key(field) {
                return Err(BadField::new(field, "cannot be changed; create another route, and delete this one"));
            }
        }
        let mut fields: Map<String, Value> = serde_json::from_str(body).unwrap_or_default();
        let sets = |field: &str| patch.get(field).is_some_and(|value| !value.is_null());
        match (sets("selector"), sets("geo_category")) {
            (true, false) => drop(fields.remove("geo_category")),
            (false, true) => drop(fields.remove("selector")),
            _ => {}
        }
        for (field, value) in patch {
            let alone = Map::from_iter([(field.clone(), value.clone())]);
            Self::read(&alone)?;
            if value.is_null() {
                fields.remove(field);
            } else {
                fields.insert(field.clone(), value.clone());
            }
        }
        Self::read(&fields)
    }

    /// Returns the selector that the fields `selector`, `geo_category` and `mode` together describe.
    fn selector(&self, words: &Words) -> Result<Selector, BadField> {
        let (field, text) = match (self.geo_category, self.selector.as_deref()) {
            (None, Some(text)) => ("selector", text),
            (Some(GeoCategory::Us), None) => ("geo_category", "us"),
            (Some(GeoCategory::NonUs), None) => ("geo_category", "nonus"),
            (Some(GeoCategory::Any), None) => ("geo_category", "any"),
            (Some(_), Some(_)) => {
                return Err(BadField::new("geo_category", "and `selector` mean the same: leave one out"));
            }
            (None, None) => {
                let why = "is missing: write \"us\", \"nonus-strict\", …, or send `geo_category`: \"US\", \"NON_US\" or \"ANY\"";
                return Err(BadField::new("selector", why));
            }
        };
        let read = |text: &str| Selector::parse(text, words).map_err(|bad| bad.to_string());
        let selector = read(text).map_err(|why| BadField::new(field, format!("is wrong: {why}")))?;
        match (self.mode, selector.mode) {
            (None, _) => Ok(selector),
            (Some(mode), written) if mode.is(written) => Ok(selector),
            (Some(mode), written) => {
                let word = match mode {
                    RouteMode::Flexible => "flexible",
                    RouteMode::Strict => "strict",
                    RouteMode::Rotate => "rotate",
                };
                if written != Mode::Flexible {
                    return Err(BadField::new(
                        "mode",
                        format!("is {word}, and the selector says {}", written.as_str()),
                    ));
                }
                read(&format!("{text}-{word}")).map_err(|why| BadField::new("mode", format!("is wrong: {why}")))
            }
        }
    }

    /// Validates every field. Returns the selector and the policy for the route table, which takes the name and the
    /// port separately.
    pub(super) fn validate(&self, routes: &RouteTable, rules: &RouteRules) -> Result<(Selector, Policy), BadField> {
        self.validate_within(routes, rules, routes.defaults().max_session_ttl)
    }

    /// Validates the spec of a stored route. `gateway.max_session_ttl` may be smaller than it was when the route was
    /// created. Then only requests that need a longer time are refused, and not the whole route.
    pub(super) fn validate_stored(
        &self,
        routes: &RouteTable,
        rules: &RouteRules,
    ) -> Result<(Selector, Policy), BadField> {
        self.validate_within(routes, rules, Duration::MAX)
    }

    fn validate_within(
        &self,
        routes: &RouteTable,
        rules: &RouteRules,
        max_session_ttl: Duration,
    ) -> Result<(Selector, Policy), BadField> {
        let selector = self.selector(routes.words())?;
        if selector.source == SourcePick::Direct && !rules.allow_direct {
            return Err(BadField::new("selector", "names `direct`, which gateway.allow_direct does not allow"));
        }
        if selector.ttl.is_some_and(|ttl| ttl > max_session_ttl) {
            return Err(BadField::new("selector", "has a time (`ttl-`) that is longer than gateway.max_session_ttl"));
        }
        if let Some(name) = &self.name {
            RouteName::for_new_route(name, routes.words())
                .map_err(|why| BadField::new("name", format!("is wrong: {why}")))?;
        }
        if self.port.is_some_and(|port| !rules.ports.contains(&port)) {
            let (first, last) = (rules.ports.start(), rules.ports.end());
            return Err(BadField::new("port", format!("is outside gateway.route_ports ({first}-{last})")));
        }
        if self.pool.is_some_and(|pool| !(1..=POOL_MAX).contains(&pool)) {
            return Err(BadField::new("pool", format!("is a number from 1 to {POOL_MAX}")));
        }
        if self.hops.is_some_and(|hops| !(2..=3).contains(&hops)) {
            return Err(BadField::new("hops", "is 2 or 3"));
        }
        if let Some(check) = self.check.as_ref().filter(|check| !rules.checks.contains(check)) {
            let why = format!("is {check:?}, and the check targets are: {}", rules.checks.join(", "));
            return Err(BadField::new("check", why));
        }
        if self.auth == Some(AuthChoice::Open) && !is_loopback(rules) {
            return Err(BadField::new(
                "auth",
                "may be \"open\" on loopback only; beyond it, write the route into the configuration",
            ));
        }
        self.sources().validate(routes.words(), rules.allow_direct)?;
        let terms = RuleTerms { words: routes.words(), allow_direct: rules.allow_direct, max_session_ttl };
        let by_destination = rule_spec::rules(self.rules.as_deref().unwrap_or_default(), &terms)?;
        Ok((selector, Policy { rules: by_destination, ..self.policy(routes.defaults(), rules) }))
    }

    fn policy(&self, defaults: &Policy, rules: &RouteRules) -> Policy {
        let open = self.auth.map_or(is_loopback(rules), |auth| auth == AuthChoice::Open);
        Policy {
            pool: self.pool.unwrap_or(defaults.pool),
            check: self.check.as_deref().map(Into::into),
            exclusive: self.exclusive.unwrap_or(defaults.exclusive),
            rotate_every: self.rotate_every.map(|HumanDuration(every)| every),
            repin_after: self.repin_after.map_or(defaults.repin_after, |DurationOrNever(after)| after),
            engine: match self.engine {
                None => defaults.engine,
                Some(EngineChoice::Shared) => Engine::Shared,
                Some(EngineChoice::Own) => Engine::Own,
            },
            isolation: match self.isolation {
                None => defaults.isolation,
                Some(IsolationChoice::Key) => IsolateBy::Key,
                Some(IsolationChoice::Session) => IsolateBy::Session,
                Some(IsolationChoice::Target) => IsolateBy::Target,
            },
            allow: self.allow.clone().unwrap_or_else(|| defaults.allow.clone()),
            sources: self.source.iter().flatten().map(|source| source.0).collect(),
            fallback: self.fallback.unwrap_or(defaults.fallback),
            escalate_for: self.escalate_for.map_or(defaults.escalate_for, |DurationOrNever(time)| time),
            hops: self.hops.unwrap_or(defaults.hops),
            ipv6: self.ipv6.unwrap_or(defaults.ipv6),
            auth: if open { Auth::Open } else { Auth::Key },
            ..defaults.clone()
        }
    }

    fn sources(&self) -> SourceFields<'_> {
        let sources = self.source.as_deref().unwrap_or_default();
        SourceFields { sources, fallback: self.fallback == Some(true), selector: self.selector.as_deref() }
    }

    /// Returns the spec as JSON for the store.
    pub(super) fn to_json(&self) -> String {
        json!(self).to_string()
    }
}

fn is_loopback(rules: &RouteRules) -> bool {
    rules.bind.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rules() -> RouteRules {
        RouteRules {
            bind: "127.0.0.1".parse().unwrap(),
            ports: 20_000..=20_009,
            checks: vec!["shop".to_owned()],
            keys: false,
            allow_direct: false,
            tor: true,
            public: true,
            example_url: String::new(),
        }
    }

    fn validated(body: Value) -> Result<(String, Policy), String> {
        let routes = RouteTable::new(Words::default(), Policy::default());
        let spec = RouteSpec::read(body.as_object().unwrap()).map_err(|bad| bad.field)?;
        let (selector, policy) = spec.validate(&routes, &rules()).map_err(|bad| bad.field)?;
        Ok((selector.to_string(), policy))
    }

    #[test]
    fn a_body_becomes_a_selector_and_a_policy() {
        for (body, selector) in [
            (json!({"geo_category": "US"}), "us"),
            (json!({"geo_category": "NON_US", "mode": "strict"}), "nonus-strict"),
            (json!({"geo_category": "ANY", "mode": "rotate"}), "any-rotate"),
            (json!({"selector": "us-strict", "mode": "strict", "name": "us-shop"}), "us-strict"),
            (json!({"selector": "de+fr", "mode": "flexible"}), "de+fr"),
        ] {
            assert_eq!(validated(body).unwrap().0, selector);
        }
        let policy = validated(json!({
            "selector": "us", "pool": 3, "check": "shop", "rotate_every": "10m", "hops": 2, "repin_after": "never",
            "engine": "own", "isolation": "session", "allow": ["10.0.0.0/8"],
        }));
        let want = Policy {
            pool: 3,
            check: Some("shop".into()),
            rotate_every: Some(Duration::from_secs(600)),
            hops: 2,
            repin_after: None,
            engine: Engine::Own,
            isolation: IsolateBy::Session,
            allow: vec!["10.0.0.0/8".parse().unwrap()],
            auth: Auth::Open,
            ..Policy::default()
        };
        assert_eq!(policy.unwrap().1, want);
    }

    #[test]
    fn an_error_names_the_field() {
        for (body, field) in [
            (json!({}), "selector"),
            (json!({"selector": "us", "geo_category": "US"}), "geo_category"),
            (json!({"geo_category": "us"}), "geo_category"),
            (json!({"selector": "us-strcit"}), "selector"),
            (json!({"selector": 7}), "selector"),
            (json!({"selector": "us", "colour": "red"}), "colour"),
            (json!({"selector": "us-strict", "mode": "flexible"}), "mode"),
            (json!({"selector": "us-session-a", "mode": "rotate"}), "mode"),
            (json!({"selector": "us", "mode": "fast"}), "mode"),
            (json!({"selector": "us", "port": 80}), "port"),
            (json!({"selector": "us", "port": 70000}), "port"),
            (json!({"selector": "us", "pool": 0}), "pool"),
            (json!({"selector": "us", "pool": "3"}), "pool"),
            (json!({"selector": "us", "check": "steam"}), "check"),
            (json!({"selector": "us", "name": "De"}), "name"),
            (json!({"selector": "us", "name": "de"}), "name"),
            (json!({"selector": "us", "name": "us"}), "name"),
            (json!({"selector": "us", "ttl": "0s"}), "ttl"),
            (json!({"selector": "us", "ttl": "10 minutes"}), "ttl"),
            (json!({"selector": "us", "hops": 1}), "hops"),
            (json!({"selector": "us-source-direct"}), "selector"),
            (json!({"selector": "us-session-a-ttl-25h"}), "selector"),
            (json!({"selector": "us", "repin_after": "always"}), "repin_after"),
            (json!({"selector": "us", "escalate_for": "always"}), "escalate_for"),
            (json!({"selector": "us", "allow": ["10.0.0.0/99"]}), "allow"),
            (json!({"selector": "us", "engine": "mine"}), "engine"),
            (json!({"selector": "us", "source": ["direct"]}), "source"),
            (json!({"selector": "us", "source": ["tor", "tor"]}), "source"),
            (json!({"selector": "us", "source": ["private"]}), "source"),
            (json!({"selector": "us-source-any", "source": ["tor"]}), "source"),
            (json!({"selector": "us", "source": ["tor"], "fallback": true}), "fallback"),
            (json!({"selector": "us", "fallback": true}), "fallback"),
            (json!({"selector": "us", "rules": [{"host": "a.test"}]}), "rules[0].use"),
            (json!({"selector": "us", "rules": {"host": "a.test"}}), "rules"),
        ] {
            assert_eq!(validated(body.clone()).unwrap_err(), field, "{body}");
        }
        let beyond = RouteRules { bind: "0.0.0.0".parse().unwrap(), ..rules() };
        let spec = RouteSpec { selector: Some("us".to_owned()), auth: Some(AuthChoice::Open), ..RouteSpec::default() };
        let routes = RouteTable::new(Words::default(), Policy::default());
        assert_eq!(spec.validate(&routes, &beyond).unwrap_err().field, "auth");
        let (_, policy) = RouteSpec { auth: None, ..spec }.validate(&routes, &beyond).unwrap();
        assert_eq!(policy.auth, Auth::Key, "a port beyond loopback must not be open by default");
    }

    #[test]
    fn a_count_becomes_one_spec_each_and_a_stored_spec_reads_back_equal() {
        let spec = RouteSpec {
            name: Some("w".to_owned()),
            count: Some(3),
            geo_category: Some(GeoCategory::Us),
            ..RouteSpec::default()
        };
        let each = spec.clone().expand().unwrap();
        let names: Vec<_> = each.iter().map(|one| one.name.clone().unwrap()).collect();
        assert_eq!(names, ["w-1", "w-2", "w-3"]);
        assert!(each.iter().all(|one| (one.exclusive, one.pool, one.count) == (Some(true), Some(1), None)));
        assert_eq!(RouteSpec { port: Some(20_000), ..spec.clone() }.expand().unwrap_err().field, "port");
        assert_eq!(RouteSpec { count: Some(0), ..spec }.expand().unwrap_err().field, "count");
        for one in each {
            let fields: Map<_, _> = serde_json::from_str(&one.to_json()).unwrap();
            assert_eq!(RouteSpec::read(&fields), Ok(one));
        }
        let timed = RouteSpec { ttl: Some(HumanDuration(Duration::from_secs(90))), ..RouteSpec::default() };
        assert_eq!(timed.to_json(), r#"{"ttl":90}"#);
    }
    #[test]
    fn a_patch_changes_the_stored_spec() {
        let body = r#"{"geo_category":"US","mode":"strict","pool":3,"ttl":60}"#;
        for (patch, want) in [
            (json!({}), body),
            (json!({"pool": 5, "ttl": null}), r#"{"geo_category":"US","mode":"strict","pool":5}"#),
            (json!({"selector": "de"}), r#"{"selector":"de","mode":"strict","pool":3,"ttl":60}"#),
            (json!({"geo_category": "ANY", "mode": null}), r#"{"geo_category":"ANY","pool":3,"ttl":60}"#),
        ] {
            let patched = RouteSpec::patched(body, patch.as_object().unwrap()).unwrap();
            assert_eq!(patched, RouteSpec::read(&serde_json::from_str(want).unwrap()).unwrap(), "{patch}");
        }
        for (patch, field) in
            [(json!({"name": "x"}), "name"), (json!({"pol": 3}), "pol"), (json!({"pool": "x"}), "pool")]
        {
            assert_eq!(RouteSpec::patched(body, patch.as_object().unwrap()).unwrap_err().field, field);
        }
    }
}
