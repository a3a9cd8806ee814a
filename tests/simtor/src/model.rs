//! The public Tor network as numbers: relays with addresses, weights, policies and families, drawn from a seed.
//!
//! The same seed and size give the same relays, and the same texts byte for byte, on every machine: all draws come from
//! `model/draw.rs`. The distributions are those of `README.md`, section "The relays in figures". Every relay and every exit has an
//! address in 127.0.0.0/8, so nothing that connects to one of them leaves the machine.
//!
//! Time is counted in hours of consensuses: hour 0 lists every relay, and each later hour lacks those that have
//! vanished ([`Model::is_listed`]). How long an hour takes is for the caller to say.
//!
//! Next: `model/build.rs` (how relays are made), `model/consensus.rs` and `model/microdesc.rs` (what tor would keep in its
//! cache), `model/lists.rs` (what Onionoo, the exit list and a GeoIP file would say of the same relays).

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

mod build;
mod churn;
mod consensus;
mod draw;
mod lists;
mod microdesc;
mod operators;
#[cfg(test)]
mod tests;
pub mod text;
mod weights;

pub use consensus::{Edition, param};

/// How many relays the public network has.
pub const PUBLIC_SIZE: usize = 9_300;

/// Relays that vanish from one consensus to the next, as a fraction of those that are listed.
pub const PUBLIC_CHURN: f64 = 0.012;

/// A network.
#[derive(Clone, Debug)]
pub struct Model {
    /// The seed that it was made from.
    pub seed: u64,
    /// See [`PUBLIC_CHURN`]; a caller may change it.
    pub churn: f64,
    relays: Vec<Relay>,
    by_fingerprint: HashMap<[u8; 20], usize>,
    /// Each relay's microdescriptor. They are the same in every hour, and every consensus needs their digests.
    microdescs: Vec<microdesc::Text>,
    /// The sum of all weights.
    total_weight: f64,
}

/// One relay.
#[derive(Clone, Debug, PartialEq)]
pub struct Relay {
    /// Its RSA identity.
    pub fingerprint: [u8; 20],
    /// Its Ed25519 identity.
    pub ed25519: [u8; 32],
    /// Its ntor onion key.
    pub ntor: [u8; 32],
    /// What its operator calls it: 1 to 19 letters and digits.
    pub nickname: String,
    /// The address of its OR port, in 127.0.0.0/8. Relays of one machine share it.
    pub address: Ipv4Addr,
    /// Its OR port.
    pub or_port: u16,
    /// The address that its streams leave from: nearly always that of its OR port.
    pub exit_address: Ipv4Addr,
    /// Its IPv6 OR address, of the range that RFC 4193 keeps for local use. Nothing listens there.
    pub ipv6: Option<Ipv6Addr>,
    /// What the authorities say of it.
    pub flags: Flags,
    /// Its weight in the consensus, about kilobytes a second.
    pub weight: u32,
    /// What it can carry, in bytes a second, all streams together.
    pub capacity: u64,
    /// The summary of its exit policy: `accept 80,443`, or `reject 1-65535` for a relay that lets nothing out.
    pub policy: &'static str,
    /// The same for IPv6; `reject 1-65535` where it has none.
    pub policy_v6: &'static str,
    /// Number of the family that it belongs to: one operator's relays of one country.
    pub family: u32,
    /// How that family is published.
    pub family_kind: FamilyKind,
    /// The country of its address, as two upper-case letters.
    pub country: &'static str,
    /// Its autonomous system.
    pub asn: u32,
    /// Whose that system is.
    pub as_name: &'static str,
    /// The version of tor that it runs.
    pub version: &'static str,
    /// How long it has been up at hour 0, in seconds.
    pub uptime: u64,
    /// How long ago it was first seen at hour 0, in seconds.
    pub age: u64,
    /// True if it is one of the few that vanish from consensuses again and again.
    pub flaky: bool,
}

/// The flags of a relay. Every relay of the model is Running and Valid while it is listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Fit to be somebody's guard.
    pub guard: bool,
    /// Lets out the common ports.
    pub exit: bool,
    /// Known to tamper with what leaves it.
    pub bad_exit: bool,
    /// Up for long enough to carry long-lived streams.
    pub stable: bool,
    /// Fast enough for ordinary circuits.
    pub fast: bool,
    /// Serves the directory through its OR port.
    pub v2dir: bool,
    /// Keeps descriptors of onion services.
    pub hsdir: bool,
}

/// How a family is published in microdescriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyKind {
    /// The relay stands alone.
    Alone,
    /// A `family` line with the fingerprints of all members.
    List,
    /// A `family-ids` line, which large operators use.
    Id,
}

impl Model {
    /// Draws a network of `size` relays. [`PUBLIC_SIZE`] is the real one; smaller ones keep its proportions.
    pub fn new(seed: u64, size: usize) -> Self {
        let relays = build::relays(seed, size);
        Self { churn: PUBLIC_CHURN, ..Self::of(seed, relays) }
    }

    /// A network of relays that somebody else chose, in any order; nobody leaves it.
    pub fn of(seed: u64, mut relays: Vec<Relay>) -> Self {
        relays.sort_unstable_by_key(|relay| relay.fingerprint);
        let by_fingerprint = relays.iter().enumerate().map(|(place, relay)| (relay.fingerprint, place)).collect();
        let microdescs = microdesc::all(seed, &relays);
        let total_weight = relays.iter().map(|relay| f64::from(relay.weight)).sum();
        Self { seed, churn: 0.0, relays, by_fingerprint, microdescs, total_weight }
    }

    /// Every relay, in the order of fingerprints, which is that of the consensus.
    pub fn relays(&self) -> &[Relay] {
        &self.relays
    }

    /// The place in [`Model::relays`] of the relay of this fingerprint.
    pub fn find(&self, fingerprint: &[u8; 20]) -> Option<usize> {
        self.by_fingerprint.get(fingerprint).copied()
    }

    /// Whether the consensus of this hour lists a relay. In hour 0 it lists all.
    pub fn is_listed(&self, place: usize, hour: u64) -> bool {
        churn::is_listed(self, place, hour)
    }

    /// The places of relays that restart during this hour, which closes their circuits. One operator's relays restart
    /// together.
    pub fn restarts(&self, hour: u64) -> Vec<usize> {
        churn::restarts(self, hour)
    }

    /// The microdescriptor consensus of an hour, as `cached-microdesc-consensus` holds it. `valid_after` is the moment
    /// when that hour began; it is fresh for one `hour_length` and valid for three.
    pub fn consensus(&self, hour: u64, valid_after: SystemTime, hour_length: Duration) -> String {
        self.consensus_of(hour, valid_after, hour_length, &Edition::default())
    }

    /// [`Model::consensus`] with what a fault changes in it.
    pub fn consensus_of(&self, hour: u64, valid_after: SystemTime, length: Duration, edition: &Edition) -> String {
        consensus::write(self, hour, valid_after, length, edition)
    }

    /// The microdescriptors of the relays that are listed in this hour, as `cached-microdescs` holds them, each with its
    /// `@last-listed` annotation. `listed` is the time in those.
    pub fn microdescs(&self, hour: u64, listed: SystemTime) -> String {
        microdesc::write(self, hour, listed)
    }

    /// One relay's microdescriptor, without annotation: what `GETINFO md/id/…` answers.
    pub fn microdesc(&self, place: usize) -> &str {
        &self.microdescs[place].text
    }

    /// The SHA-256 digest of that, by which the consensus names it.
    pub fn microdesc_digest(&self, place: usize) -> [u8; 32] {
        self.microdescs[place].digest
    }

    /// A file of `low,high,CC` lines in tor's format with the countries of all addresses.
    pub fn geoip(&self) -> String {
        lists::geoip(self)
    }

    /// What Onionoo's `details` document would say of an hour: the fields of one relay as a JSON object, in Onionoo's order.
    pub fn details(&self, place: usize, now: SystemTime) -> serde_json::Value {
        lists::details(self, place, now)
    }

    /// The exit list of an hour in TorDNSEL's form.
    pub fn exit_list(&self, hour: u64, now: SystemTime) -> String {
        lists::exit_list(self, hour, now)
    }
}

impl Relay {
    /// The fingerprint as forty upper-case hexadecimal digits.
    pub fn hex(&self) -> String {
        text::hex(&self.fingerprint)
    }

    /// Whether streams may leave here at all.
    pub fn is_exit(&self) -> bool {
        self.policy != build::REJECT_ALL
    }

    /// Whether the policy lets this port out over IPv4.
    pub fn lets_out(&self, port: u16) -> bool {
        text::policy_allows(self.policy, port)
    }
}
