//! The body of `POST /proxies`: what it may say, what is wrong with it by field, and the route that it comes to.
//!
//! What was asked is kept as it was said, defaults left out: the same body again can be told from another, and a default
//! that changes in the configuration changes under the routes that did not say otherwise.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::super::error::ApiError;
use crate::route::policy::Auth;
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

/// A time as a person writes it: `30s`, `10m`, `2h`, `7d`, or a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// What a body says, and no more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Asked {
    /// What the route is called; without it, `p` and its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `US`, `NON_US` or `ANY`: instead of a selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub geo_category: Option<Geo>,
    /// As in a username.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// How exits are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Kept>,
    /// Its port; without it, the next free one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Exits at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<u16>,
    /// A check target that its exits must pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// When it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
    /// So many routes, each with IPs of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u16>,
    /// No other pin has its IP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<bool>,
    /// How often its exits are exchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate_every: Option<Span>,
    /// Relays in a circuit.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    /// Any of the pool.
    Flexible,
    /// One IP.
    Strict,
    /// Another each connection.
    Rotate,
}

/// Whether a port asks for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    fn new(field: &str, why: impl Into<String>) -> Self {
        Self { field: field.to_owned(), why: why.into() }
    }
}

impl From<Wrong> for ApiError {
    fn from(wrong: Wrong) -> Self {
        let details = json!({ "field": wrong.field });
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_field", wrong.to_string()).with(details)
    }
}

impl Asked {
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
            (None, _)
            | (Some(Kept::Flexible), Mode::Flexible)
            | (Some(Kept::Strict), Mode::Strict)
            | (Some(Kept::Rotate), Mode::Rotate) => Ok(selector),
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
            RouteName::parse(name, &selector, routes.words())
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

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0.as_secs())
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = match Value::deserialize(deserializer)? {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => seconds(&text),
            _ => None,
        };
        let seconds = seconds.filter(|seconds| *seconds > 0);
        let wrong = || serde::de::Error::custom("a time is `30s`, `10m`, `2h`, `7d`, or a number of seconds above 0");
        seconds.map(|seconds| Self(Duration::from_secs(seconds))).ok_or_else(wrong)
    }
}

fn seconds(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let digits = digits.bytes().all(|b| b.is_ascii_digit()).then_some(digits)?;
    digits.parse::<u64>().ok()?.checked_mul(unit)
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
        let asked = Asked::read(body.as_object().unwrap()).map_err(|wrong| wrong.field)?;
        let judged = asked.judged(&routes, &rules()).map_err(|wrong| wrong.field)?;
        Ok((judged.0.to_string(), judged.1))
    }

    #[test]
    fn a_body_becomes_a_selector_and_a_policy() {
        for (body, selector) in [
            (json!({"geo_category": "US"}), "us"),
            (json!({"geo_category": "NON_US", "mode": "strict"}), "nonus-strict"),
            (json!({"geo_category": "ANY", "mode": "rotate"}), "any-rotate"),
            (json!({"selector": "us-strict", "mode": "strict", "name": "us-strict"}), "us-strict"),
            (json!({"selector": "de+fr", "mode": "flexible"}), "de+fr"),
        ] {
            assert_eq!(judge(body).unwrap().0, selector);
        }
        let policy = judge(json!({"selector": "us", "pool": 3, "check": "shop", "rotate_every": "10m", "hops": 2}));
        let want = Policy {
            pool: 3,
            check: Some("shop".into()),
            rotate_every: Some(Duration::from_secs(600)),
            hops: 2,
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
            (json!({"selector": "us", "ttl": "0s"}), "ttl"),
            (json!({"selector": "us", "ttl": "10 minutes"}), "ttl"),
            (json!({"selector": "us", "hops": 1}), "hops"),
            (json!({"selector": "us-source-direct"}), "selector"),
        ] {
            assert_eq!(judge(body.clone()).unwrap_err(), field, "{body}");
        }
        let beyond = Rules { bind: "0.0.0.0".parse().unwrap(), ..rules() };
        let asked = Asked { selector: Some("us".to_owned()), auth: Some(Asks::Open), ..Asked::default() };
        let routes = RouteTable::new(Words::default(), Policy::default());
        assert_eq!(asked.judged(&routes, &beyond).unwrap_err().field, "auth");
        let (_, policy) = Asked { auth: None, ..asked }.judged(&routes, &beyond).unwrap();
        assert_eq!(policy.auth, Auth::Key, "never open by accident");
    }

    #[test]
    fn several_are_asked_for_one_by_one_and_what_is_kept_reads_as_it_was_said() {
        let asked =
            Asked { name: Some("w".to_owned()), count: Some(3), geo_category: Some(Geo::Us), ..Asked::default() };
        let each = asked.clone().each().unwrap();
        let names: Vec<_> = each.iter().map(|one| one.name.clone().unwrap()).collect();
        assert_eq!(names, ["w-1", "w-2", "w-3"]);
        assert!(each.iter().all(|one| (one.exclusive, one.pool, one.count) == (Some(true), Some(1), None)));
        assert_eq!(Asked { port: Some(20_000), ..asked.clone() }.each().unwrap_err().field, "port");
        assert_eq!(Asked { count: Some(0), ..asked }.each().unwrap_err().field, "count");
        for one in each {
            let fields: Map<_, _> = serde_json::from_str(&one.text()).unwrap();
            assert_eq!(Asked::read(&fields), Ok(one));
        }
        let timed = Asked { ttl: Some(Span(Duration::from_secs(90))), ..Asked::default() };
        assert_eq!(timed.text(), r#"{"ttl":90}"#);
    }
}
