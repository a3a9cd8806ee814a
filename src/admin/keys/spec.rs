//! The description of a key as an API client sends it: its fields, and which values are valid.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::admin::{BadField, HumanDuration};
use crate::config;
use crate::exit::Source;
use crate::limit::keys::Rights;
use crate::limit::{Amounts, Budget, Budgets};

/// The longest name of a key, as in the configuration.
const NAME_MAX: usize = 64;

/// A number of bytes of at least 1. It is serialized as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteCount(pub NonZeroU64);

impl Serialize for ByteCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0.get())
    }
}

impl<'de> Deserialize<'de> for ByteCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let count = match Value::deserialize(deserializer)? {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => config::read_bytes(&text),
            _ => None,
        };
        let wrong = || serde::de::Error::custom("a number of bytes is `500000`, `\"500MB\"` or `\"10GiB\"`, above 0");
        count.and_then(NonZeroU64::new).map(Self).ok_or_else(wrong)
    }
}

impl PartialSchema for ByteCount {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String).examples(["10GB"]);
        let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
        OneOfBuilder::new().item(number).item(text).into()
    }
}

impl ToSchema for ByteCount {}

/// A key to create.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = NewKey, example = json!({ "name": "team-a", "ttl": "30d", "budget": { "bytes_per_month": "100GB" } }))]
pub struct KeySpec {
    /// The key's name: 1 to 64 letters, digits, `-`, `_` and `.`. Sessions and pins belong to it.
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The key expires after this time. Without it the key is valid until it is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<HumanDuration>,
    /// The routes that the key may use. With this list, it cannot use usernames without a route. Without it, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<String>>,
    /// The sources that the key may use. A username that may use another source is refused. Without it, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<String>>,
    /// What the key may use at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsSpec>,
    /// What the key may use in a day and in a month (UTC), of all sources together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetSpec>,
    /// What the key may use of single sources: the name of the source and its budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_budgets: Option<BTreeMap<String, BudgetSpec>>,
}

/// Limits of a key, as `limits` in the configuration. A field that is left out has no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = KeyLimits)]
pub struct LimitsSpec {
    /// How many connections may be open at the same time.
    #[schema(value_type = Option<u32>, minimum = 1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<NonZeroU32>,
    /// New connections per second.
    #[schema(value_type = Option<u32>, minimum = 1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_second: Option<NonZeroU32>,
    /// Bytes per second, both directions together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<ByteCount>,
}

/// A budget. Days and months are those of UTC. A field that is left out has no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = KeyBudget)]
pub struct BudgetSpec {
    #[schema(value_type = Option<u64>, minimum = 1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_day: Option<NonZeroU64>,
    #[schema(value_type = Option<u64>, minimum = 1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_month: Option<NonZeroU64>,
    /// Bytes of both directions together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_day: Option<ByteCount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_month: Option<ByteCount>,
}

impl BudgetSpec {
    fn budget(&self) -> Budget {
        Budget {
            requests_per_day: self.requests_per_day,
            requests_per_month: self.requests_per_month,
            bytes_per_day: self.bytes_per_day.map(|bytes| bytes.0),
            bytes_per_month: self.bytes_per_month.map(|bytes| bytes.0),
        }
    }
}

impl KeySpec {
    /// Reads and validates the body of a request. An error names the field.
    pub fn read(fields: &Map<String, Value>) -> Result<Self, BadField> {
        let spec = Self::stored(fields)?;
        spec.validate_sources(&Self::default())?;
        Ok(spec)
    }

    /// Reads a spec that the store contains. It may name sources that the configuration does not have any more: such a
    /// name matches no exit, so the key stays valid and may do nothing more.
    pub(super) fn stored(fields: &Map<String, Value>) -> Result<Self, BadField> {
        for (field, value) in fields {
            let alone = Map::from_iter([(field.clone(), value.clone())]);
            if let Err(why) = serde_json::from_value::<Self>(alone.into()) {
                return Err(BadField::new(field, format!("is wrong: {why}")));
            }
        }
        let read = serde_json::from_value::<Self>(Value::Object(fields.clone()));
        let spec = read.map_err(|why| BadField::new("body", format!("is wrong: {why}")))?;
        spec.validate()?;
        Ok(spec)
    }

    /// Applies a JSON merge patch to the stored spec `body`. The value `null` removes a field, also inside `limits`,
    /// `budget` and `source_budgets`.
    pub(super) fn patched(body: &str, patch: &Map<String, Value>) -> Result<Self, BadField> {
        if patch.contains_key("name") {
            return Err(BadField::new("name", "cannot be changed; create another key, and delete this one"));
        }
        let mut fields: Map<String, Value> = serde_json::from_str(body).unwrap_or_default();
        let before = Self::stored(&fields).unwrap_or_default();
        merge(&mut fields, patch);
        let spec = Self::stored(&fields)?;
        spec.validate_sources(&before)?;
        Ok(spec)
    }

    fn validate(&self) -> Result<(), BadField> {
        if let Some(name) = &self.name {
            let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if !plain || !(1..=NAME_MAX).contains(&name.len()) {
                return Err(BadField::new("name", "has 1 to 64 letters, digits, `-`, `_` and `.`"));
            }
        }
        let is_route = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        match self.routes.as_deref() {
            Some([]) => {
                return Err(BadField::new(
                    "routes",
                    "is empty, so that the key could use nothing; leave it out for all",
                ));
            }
            Some(routes) if !routes.iter().all(|route| is_route(route)) => {
                return Err(BadField::new("routes", "is a list of names of routes, as /proxies shows them"));
            }
            _ => {}
        }
        if self.sources.as_ref().is_some_and(Vec::is_empty) {
            return Err(BadField::new("sources", "is empty, so that the key could use nothing; leave it out for all"));
        }
        Ok(())
    }

    /// Refuses sources that the configuration does not have. Sources that the spec had before its change stay allowed, so
    /// a key of a removed source can still be changed.
    fn validate_sources(&self, before: &Self) -> Result<(), BadField> {
        const SOURCES: &str = "tor, public, direct and the names of upstream sources";
        let known = |source: &str| {
            let budgets = before.source_budgets.iter().flatten().map(|(source, _)| source);
            Source::find(source).is_some() || before.sources.iter().flatten().chain(budgets).any(|old| old == source)
        };
        if self.sources.iter().flatten().any(|source| !known(source)) {
            return Err(BadField::new("sources", format!("is a list of some of: {SOURCES}")));
        }
        match self.source_budgets.iter().flatten().find(|(source, _)| !known(source)) {
            Some((source, _)) => {
                let why = format!("has the unknown source `{source}`; the sources are {SOURCES}");
                Err(BadField::new("source_budgets", why))
            }
            None => Ok(()),
        }
    }

    pub(super) fn amounts(&self) -> Amounts {
        let LimitsSpec { connections, per_second, bytes_per_second } = self.limits.unwrap_or_default();
        Amounts { connections, per_second, bytes_per_second: bytes_per_second.map(|bytes| bytes.0) }
    }

    pub(super) fn budgets(&self) -> Budgets {
        let sources = self.source_budgets.iter().flatten();
        Budgets {
            all: self.budget.unwrap_or_default().budget(),
            sources: sources.map(|(source, budget)| (source.as_str().into(), budget.budget())).collect(),
        }
    }

    pub(super) fn rights(&self) -> Rights {
        let list = |names: &Option<Vec<String>>| {
            names.as_ref().map(|names| names.iter().map(|name| name.as_str().into()).collect())
        };
        Rights { routes: list(&self.routes), sources: list(&self.sources) }
    }

    /// Returns the spec as it is stored, and as a repeated request is compared with it.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(&Self { name: None, ..self.clone() }).unwrap_or_default()
    }
}

/// Applies a JSON merge patch (RFC 7396).
fn merge(fields: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (field, value) in patch {
        match value {
            Value::Null => drop(fields.remove(field)),
            Value::Object(inner) => {
                let old = fields.entry(field.clone()).or_insert_with(|| Map::new().into());
                if !old.is_object() {
                    *old = Map::new().into();
                }
                if let Value::Object(old) = old {
                    merge(old, inner);
                }
            }
            value => drop(fields.insert(field.clone(), value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_wrong_field_is_named() {
        for (body, field) in [
            (json!({ "name": "" }), "name"),
            (json!({ "name": "a b" }), "name"),
            (json!({ "name": "a".repeat(65) }), "name"),
            (json!({ "secret": "x" }), "secret"),
            (json!({ "ttl": "soon" }), "ttl"),
            (json!({ "routes": [] }), "routes"),
            (json!({ "routes": ["Shop"] }), "routes"),
            (json!({ "sources": [] }), "sources"),
            (json!({ "sources": ["tor", "moon"] }), "sources"),
            (json!({ "limits": { "connections": 0 } }), "limits"),
            (json!({ "limits": { "bytes": 1 } }), "limits"),
            (json!({ "budget": { "bytes_per_day": "many" } }), "budget"),
            (json!({ "budget": { "bytes_per_day": 0 } }), "budget"),
            (json!({ "source_budgets": { "moon": {} } }), "source_budgets"),
        ] {
            assert_eq!(KeySpec::read(&fields(body.clone())).unwrap_err().field, field, "{body}");
        }
    }

    #[test]
    fn a_patch_changes_single_limits() {
        let body = json!({
            "ttl": "1h", "sources": ["tor"],
            "budget": { "bytes_per_day": "1GB", "requests_per_day": 5 },
            "source_budgets": { "public": { "bytes_per_day": 7 } },
        });
        let spec = KeySpec::read(&fields(body)).unwrap();
        assert_eq!(spec.budgets().all.bytes_per_day, NonZeroU64::new(1_000_000_000));
        let patch = json!({
            "ttl": null, "budget": { "bytes_per_day": null, "bytes_per_month": "2GiB" }, "source_budgets": null,
            "limits": { "connections": 3 },
        });
        let spec = KeySpec::patched(&spec.to_json(), &fields(patch)).unwrap();
        let asked: Value = serde_json::from_str(&spec.to_json()).unwrap();
        let budget = json!({ "requests_per_day": 5, "bytes_per_month": 2_u64 << 30 });
        assert_eq!(asked, json!({ "sources": ["tor"], "limits": { "connections": 3 }, "budget": budget }));
        assert_eq!(KeySpec::patched("{}", &fields(json!({ "name": "b" }))).unwrap_err().field, "name");
    }
}
