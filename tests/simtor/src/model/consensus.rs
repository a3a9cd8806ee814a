//! The microdescriptor consensus as text.
use std::time::{Duration, SystemTime};

use super::Model;

/// What may be ordered of one consensus.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edition {
    /// The versions that clients are told to run, in the place of the usual ones: `0.4.9.13,0.4.9.14`.
    pub client_versions: Option<String>,
    /// Parameters that are set or added: `("DoSCircuitCreationRate", 2)`.
    pub params: Vec<(String, i32)>,
    /// Places of relays that this consensus leaves out.
    pub without: Vec<usize>,
}

pub(super) fn write(_: &Model, _hour: u64, _valid_after: SystemTime, _length: Duration, _: &Edition) -> String {
    String::new()
}
