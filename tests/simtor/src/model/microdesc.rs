//! Microdescriptors as text.
use std::time::SystemTime;

use super::Model;

pub(super) fn write(_: &Model, _hour: u64, _listed: SystemTime) -> String {
    String::new()
}

pub(super) fn of(_: &Model, _place: usize) -> String {
    String::new()
}
