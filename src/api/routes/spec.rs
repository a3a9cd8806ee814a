//! The body of `POST /proxies`: what it may say, what is wrong with it by field, and the route that it comes to.
//!
//! What was asked is kept as it was said, defaults left out: the same body again can be told from another, and a default
//! that changes in the configuration changes under the routes that did not say otherwise.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::StatusCode;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::super::error::ApiError;
use super::duration::{Patience, Span};
use crate::route::policy::{Auth, Engine};
use crate::route::selector::{Mode, RouteName, Selector, SourcePick, Words};
use crate::route::{Policy, RouteTable};

/// Exits in one pool, and routes in one request, at most. Arbitrary: beyond what one site's exits in a country are.
const POOL_MAX: u16 = 1000;
const COUNT_MAX: u16 = 1000;

/// What the configuration says of all routes of the API.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The address of routes' own ports.
    pub bind: IpAddr,
    /// The ports that they may have.
    pub ports: RangeInclusive<u16>,
    /// The names of check targets.
    pub checks: Vec<String>,
    /// Clients need a key.
    pub keys: bool,
    /// This machine's own address may be shown.
    pub allow_direct: bool,
    /// How long a site that refuses an exit is taken to go on so.
    pub ban_for: Duration,
}

/// What a body says, and no more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = NewProxy, example = json!({ "geo_category": "US", "name": "shop", "mode": "strict" }))]
pub struct RouteSpec {
    /// What the route is called; without it, `p` and its port.
    #[schema(pattern = "^[a-z][a-z0-9-]{0,62}$")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `US`, `NON_US` or `ANY`: instead of a selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub geo_category: Option<Geo>,
    /// As in a username.
    #[schema(example = "us-strict")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// How exits are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Kept>,
    /// Its port; without it, the next free one.
    #[schema(minimum = 1, maximum = 65535)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Exits at once.
    #[schema(minimum = 1, maximum = 1000)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<u16>,
    /// A check target that its exits must pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// When it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
    /// So many routes, each with IPs of its own.
    #[schema(minimum = 1, maximum = 1000)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u16>,
    /// No other pin has its IP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<bool>,
    /// How often its exits are exchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate_every: Option<Span>,
    /// How long a pinned exit may be down before another takes its place; `never`: it is waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repin_after: Option<Patience>,
    /// Whose engines carry it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<Carrier>,
    /// Networks whose clients may use its port; none: all.
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
    /// Whether its port asks for a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Asks>,
}

/// The three ways out that most ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Geo {
    /// The United States.
    Us,
    /// Any known country but those.
    NonUs,
    /// Anywhere.
    Any,
}

/// How exits are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    /// Any of the pool.
    Flexible,
    /// One IP.
    Strict,
    /// Another each connection.
    Rotate,
}

impl Kept {
    /// It is this mode of a selector.
    pub fn is(self, mode: Mode) -> bool {
        matches!(
            (self, mode),
            (Self::Flexible, Mode::Flexible) | (Self::Strict, Mode::Strict) | (Self::Rotate, Mode::Rotate)
        )
    }
}

/// Whose engines carry a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// Those that carry the others.
    Shared,
    /// One of its own.
    Own,
}

/// Whether a port asks for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Asks {
    /// It does, when there are keys.
    Key,
    /// It does not.
    Open,
}

/// A field that says something wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {why}")]
pub struct Wrong {
    /// Which.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

impl Wrong {
    pub(in crate::api) fn new(field: &str, why: impl Into<String>) -> Self {
        Self { field: field.to_owned(), why: why.into() }
    }
}

impl From<Wrong> for ApiError {
    fn from(wrong: Wrong) -> Self {
        let details = json!({ "field": wrong.field });
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_field", wrong.to_string()).with(details)
    }
}

impl RouteSpec {
    /// Reads a body. Each field is read alone first, so that the refusal can name it.
    pub fn read(fields: &Map<String, Value>) -> Result<Self, Wrong> {
        for (field, value) in fields {
            let alone = Map::from_iter([(field.clone(), value.clone())]);
            if let Err(why) = serde_json::from_value::<Self>(alone.into()) {
                return Err(Wrong::new(field, format!("is wrong: {why}")));
            }
        }
        let read = serde_json::from_value(Value::Object(fields.clone()));
        read.map_err(|why| Wrong::new("body", format!("is wrong: {why}")))
    }

    /// One body for each route that this one asks for. Several share no IP: strict ones by right, others by pools of one.
    pub fn each(self) -> Result<Vec<Self>, Wrong> {
        let Some(count) = self.count else { return Ok(vec![self]) };
        if !(1..=COUNT_MAX).contains(&count) {
            return Err(Wrong::new("count", format!("is a number from 1 to {COUNT_MAX}")));
        }
        if count > 1 && self.port.is_some() {
            return Err(Wrong::new("port", "is for one route, and `count` asks for several: leave it out"));
        }
        let (exclusive, pool) = (self.exclusive.or(Some(true)), self.pool.or(Some(1)));
        let nth = |n: u16| {
            let name = self.name.as_ref().map(|name| if count == 1 { name.clone() } else { format!("{name}-{n}") });
            Self { name, exclusive, pool, count: None, ..self.clone() }
        };
        Ok((1..=count).map(nth).collect())
    }

    /// What was said once, with what is said now laid over it; `null` takes a word back. Of two ways to say the same
    /// thing the new one holds.
    pub fn patched(said: &str, patch: &Map<String, Value>) -> Result<Self, Wrong> {
        for field in ["name", "count"] {
            if patch.contains_key(field) {
                return Err(Wrong::new(field, "cannot be changed; make another route, and delete this one"));
            }
        }
        let mut fields: Map<String, Value> = serde_json::from_str(said).unwrap_or_default();
        let says = |field: &str| patch.get(field).is_some_and(|value| !value.is_null());
        match (says("selector"), says("geo_category")) {
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

    /// The way out that it asks for.
    pub fn selector(&self, words: &Words) -> Result<Selector, Wrong> {
        let (field, text) = match (self.geo_category, self.selector.as_deref()) {
            (None, Some(text)) => ("selector", text),
            (Some(Geo::Us), None) => ("geo_category", "us"),
            (Some(Geo::NonUs), None) => ("geo_category", "nonus"),
            (Some(Geo::Any), None) => ("geo_category", "any"),
            (Some(_), Some(_)) => {
                return Err(Wrong::new("geo_category", "and `selector` say the same thing: leave one out"));
            }
            (None, None) => {
                let why =
                    "is missing: say \"us\", \"nonus-strict\", … or `geo_category`: \"US\", \"NON_US\" or \"ANY\"";
                return Err(Wrong::new("selector", why));
            }
        };
        let read = |text: &str| Selector::parse(text, words).map_err(|bad| bad.to_string());
        let selector = read(text).map_err(|why| Wrong::new(field, format!("is wrong: {why}")))?;
        match (self.mode, selector.mode) {
            (None, _) => Ok(selector),
            (Some(mode), said) if mode.is(said) => Ok(selector),
            (Some(mode), said) => {
                let word = match mode {
                    Kept::Flexible => "flexible",
                    Kept::Strict => "strict",
                    Kept::Rotate => "rotate",
                };
                if said != Mode::Flexible {
                    return Err(Wrong::new("mode", format!("is {word}, and the selector says {}", said.as_str())));
                }
                read(&format!("{text}-{word}")).map_err(|why| Wrong::new("mode", format!("is wrong: {why}")))
            }
        }
    }

    /// All that the table needs to know of it but its name and port.
    pub fn judged(&self, routes: &RouteTable, rules: &Rules) -> Result<(Selector, Policy), Wrong> {
        let selector = self.selector(routes.words())?;
        if selector.source == SourcePick::Direct && !rules.allow_direct {
            return Err(Wrong::new("selector", "names `direct`, which gateway.allow_direct does not allow"));
        }
        if let Some(name) = &self.name {
            RouteName::for_new_route(name, routes.words())
                .map_err(|why| Wrong::new("name", format!("is wrong: {why}")))?;
        }
        if self.port.is_some_and(|port| !rules.ports.contains(&port)) {
            let (first, last) = (rules.ports.start(), rules.ports.end());
            return Err(Wrong::new("port", format!("is outside gateway.route_ports ({first}-{last})")));
        }
        if self.pool.is_some_and(|pool| !(1..=POOL_MAX).contains(&pool)) {
            return Err(Wrong::new("pool", format!("is a number from 1 to {POOL_MAX}")));
        }
        if self.hops.is_some_and(|hops| !(2..=3).contains(&hops)) {
            return Err(Wrong::new("hops", "is 2 or 3"));
        }
        if let Some(check) = self.check.as_ref().filter(|check| !rules.checks.contains(check)) {
            let why = format!("is {check:?}, and the check targets are: {}", rules.checks.join(", "));
            return Err(Wrong::new("check", why));
        }
        if self.auth == Some(Asks::Open) && !is_local(rules) {
            return Err(Wrong::new(
                "auth",
                "may be \"open\" on loopback only; beyond it, write the route into the configuration",
            ));
        }
        Ok((selector, self.policy(routes.defaults(), rules)))
    }

    fn policy(&self, defaults: &Policy, rules: &Rules) -> Policy {
        let open = self.auth.map_or(is_local(rules), |auth| auth == Asks::Open);
        Policy {
            pool: self.pool.unwrap_or(defaults.pool),
            check: self.check.as_deref().map(Into::into),
            exclusive: self.exclusive.unwrap_or(defaults.exclusive),
            rotate_every: self.rotate_every.map(|Span(every)| every),
            repin_after: self.repin_after.map_or(defaults.repin_after, |Patience(after)| after),
            engine: match self.engine {
                None => defaults.engine,
                Some(Carrier::Shared) => Engine::Shared,
                Some(Carrier::Own) => Engine::Own,
            },
            allow: self.allow.clone().unwrap_or_else(|| defaults.allow.clone()),
            hops: self.hops.unwrap_or(defaults.hops),
            ipv6: self.ipv6.unwrap_or(defaults.ipv6),
            auth: if open { Auth::Open } else { Auth::Key },
            ..defaults.clone()
        }
    }

    /// As it is kept.
    pub fn text(&self) -> String {
        json!(self).to_string()
    }
}

fn is_local(rules: &Rules) -> bool {
    rules.bind.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            bind: "127.0.0.1".parse().unwrap(),
            ports: 20_000..=20_009,
            checks: vec!["shop".to_owned()],
            keys: false,
            allow_direct: false,
            ban_for: Duration::from_secs(60),
        }
    }

    fn judge(body: Value) -> Result<(String, Policy), String> {
        let routes = RouteTable::new(Words::default(), Policy::default());
        let asked = RouteSpec::read(body.as_object().unwrap()).map_err(|wrong| wrong.field)?;
        let judged = asked.judged(&routes, &rules()).map_err(|wrong| wrong.field)?;
        Ok((judged.0.to_string(), judged.1))
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
            assert_eq!(judge(body).unwrap().0, selector);
        }
        let policy = judge(json!({
            "selector": "us", "pool": 3, "check": "shop", "rotate_every": "10m", "hops": 2, "repin_after": "never",
            "engine": "own", "allow": ["10.0.0.0/8"],
        }));
        let want = Policy {
            pool: 3,
            check: Some("shop".into()),
            rotate_every: Some(Duration::from_secs(600)),
            hops: 2,
            repin_after: None,
            engine: Engine::Own,
            allow: vec!["10.0.0.0/8".parse().unwrap()],
            auth: Auth::Open,
            ..Policy::default()
        };
        assert_eq!(policy.unwrap().1, want);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
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
            (json!({"selector": "us", "repin_after": "always"}), "repin_after"),
            (json!({"selector": "us", "allow": ["10.0.0.0/99"]}), "allow"),
            (json!({"selector": "us", "engine": "mine"}), "engine"),
        ] {
            assert_eq!(judge(body.clone()).unwrap_err(), field, "{body}");
        }
        let beyond = Rules { bind: "0.0.0.0".parse().unwrap(), ..rules() };
        let asked = RouteSpec { selector: Some("us".to_owned()), auth: Some(Asks::Open), ..RouteSpec::default() };
        let routes = RouteTable::new(Words::default(), Policy::default());
        assert_eq!(asked.judged(&routes, &beyond).unwrap_err().field, "auth");
        let (_, policy) = RouteSpec { auth: None, ..asked }.judged(&routes, &beyond).unwrap();
        assert_eq!(policy.auth, Auth::Key, "never open by accident");
    }

    #[test]
    fn several_are_asked_for_one_by_one_and_what_is_kept_reads_as_it_was_said() {
        let asked = RouteSpec {
            name: Some("w".to_owned()),
            count: Some(3),
            geo_category: Some(Geo::Us),
            ..RouteSpec::default()
        };
        let each = asked.clone().each().unwrap();
        let names: Vec<_> = each.iter().map(|one| one.name.clone().unwrap()).collect();
        assert_eq!(names, ["w-1", "w-2", "w-3"]);
        assert!(each.iter().all(|one| (one.exclusive, one.pool, one.count) == (Some(true), Some(1), None)));
        assert_eq!(RouteSpec { port: Some(20_000), ..asked.clone() }.each().unwrap_err().field, "port");
        assert_eq!(RouteSpec { count: Some(0), ..asked }.each().unwrap_err().field, "count");
        for one in each {
            let fields: Map<_, _> = serde_json::from_str(&one.text()).unwrap();
            assert_eq!(RouteSpec::read(&fields), Ok(one));
        }
        let timed = RouteSpec { ttl: Some(Span(Duration::from_secs(90))), ..RouteSpec::default() };
        assert_eq!(timed.text(), r#"{"ttl":90}"#);
    }
    #[test]
    fn a_patch_is_laid_over_what_was_said() {
        let said = r#"{"geo_category":"US","mode":"strict","pool":3,"ttl":60}"#;
        for (patch, want) in [
            (json!({}), said),
            (json!({"pool": 5, "ttl": null}), r#"{"geo_category":"US","mode":"strict","pool":5}"#),
            (json!({"selector": "de"}), r#"{"selector":"de","mode":"strict","pool":3,"ttl":60}"#),
            (json!({"geo_category": "ANY", "mode": null}), r#"{"geo_category":"ANY","pool":3,"ttl":60}"#),
        ] {
            let patched = RouteSpec::patched(said, patch.as_object().unwrap()).unwrap();
            assert_eq!(patched, RouteSpec::read(&serde_json::from_str(want).unwrap()).unwrap(), "{patch}");
        }
        for (patch, field) in
            [(json!({"name": "x"}), "name"), (json!({"pol": 3}), "pol"), (json!({"pool": "x"}), "pool")]
        {
            assert_eq!(RouteSpec::patched(said, patch.as_object().unwrap()).unwrap_err().field, field);
        }
    }
}
