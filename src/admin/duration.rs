//! Durations as people write them in a spec: `30s`, `10m`, `2h`, `7d`, or a number of seconds.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use utoipa::PartialSchema;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

/// A duration of at least one second. It is serialized as a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HumanDuration(pub Duration);

/// A duration, or `None` for the word `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationOrNever(pub Option<Duration>);

/// The longest duration that a spec may have: a century, in seconds. A longer one is a typing error, and a date that
/// far in the future could not be written.
const LONGEST: u64 = 100 * 366 * 86_400;

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0.as_secs())
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = match Value::deserialize(deserializer)? {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => seconds(&text),
            _ => None,
        };
        let seconds = seconds.filter(|seconds| (1..=LONGEST).contains(seconds));
        let wrong = || serde::de::Error::custom("a time is `30s`, `10m`, `2h`, `7d`, or a number of seconds above 0");
        seconds.map(|seconds| Self(Duration::from_secs(seconds))).ok_or_else(wrong)
    }
}

impl Serialize for DurationOrNever {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(after) => HumanDuration(after).serialize(serializer),
            None => serializer.serialize_str("never"),
        }
    }
}

impl<'de> Deserialize<'de> for DurationOrNever {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if value == "never" {
            return Ok(Self(None));
        }
        let wrong = |why: serde_json::Error| serde::de::Error::custom(format_args!("{why}, or `never`"));
        let HumanDuration(after) = HumanDuration::deserialize(value).map_err(wrong)?;
        Ok(Self(Some(after)))
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

fn schema(pattern: &str, example: &str) -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).examples([example]);
    let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(LONGEST));
    OneOfBuilder::new().item(text).item(number).description(Some("A time, as text or in seconds")).into()
}

impl PartialSchema for HumanDuration {
    fn schema() -> RefOr<Schema> {
        schema("^[1-9][0-9]{0,4}[smhd]$", "10m")
    }
}

impl ToSchema for HumanDuration {
    /// Returns the name of this type in the API's description. The name differs from the Rust name, because the Rust
    /// type got a new name later.
    fn name() -> Cow<'static, str> {
        "Span".into()
    }
}

impl PartialSchema for DurationOrNever {
    fn schema() -> RefOr<Schema> {
        schema("^([1-9][0-9]{0,4}[smhd]|never)$", "never")
    }
}

impl ToSchema for DurationOrNever {
    fn name() -> Cow<'static, str> {
        "Patience".into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (value, want) in [
            (json!("30s"), Some(30)),
            (json!("10m"), Some(600)),
            (json!("2h"), Some(7200)),
            (json!("7d"), Some(604_800)),
            (json!(90), Some(90)),
            (json!("0s"), None),
            (json!(0), None),
            (json!(-1), None),
            (json!(1.5), None),
            (json!("10"), None),
            (json!("m"), None),
            (json!(""), None),
            (json!("999999999999999999d"), None),
            (json!("99999d"), None),
            (json!("never"), None),
        ] {
            let span = serde_json::from_value::<HumanDuration>(value.clone()).ok();
            assert_eq!(span, want.map(|seconds| HumanDuration(Duration::from_secs(seconds))), "{value}");
        }
        for (value, want) in
            [(json!("never"), DurationOrNever(None)), (json!("1s"), DurationOrNever(Some(Duration::from_secs(1))))]
        {
            let read: DurationOrNever = serde_json::from_value(value).unwrap();
            assert_eq!((read, serde_json::from_value(json!(read)).ok()), (want, Some(want)));
        }
    }
}
