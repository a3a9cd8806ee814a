//! Lists.
use std::time::SystemTime;

use super::Model;

pub(super) fn geoip(_: &Model) -> String {
    String::new()
}

pub(super) fn details(_: &Model, _place: usize, _now: SystemTime) -> serde_json::Value {
    serde_json::Value::Null
}

pub(super) fn exit_list(_: &Model, _hour: u64, _now: SystemTime) -> String {
    String::new()
}
