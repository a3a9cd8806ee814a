//! Writes and reads a fingerprint as 40 hexadecimal digits, for serde's `with`.

use serde::{Deserialize, Deserializer, Serializer, de};

use crate::exit::Fingerprint;

pub(super) fn serialize<S: Serializer>(id: &Fingerprint, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(id)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Fingerprint, D::Error> {
    String::deserialize(from)?.parse().map_err(de::Error::custom)
}
