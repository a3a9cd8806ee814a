//! The network as an engine's directory describes it: the relays, and what each may be used for.
//!
//! It is made of two texts. The *consensus* lists the relays with flags, addresses and bandwidth, and has the weights for
//! each position in a path. The *microdescriptors* have what only the relay itself knows: its exit policy, family and
//! keys. They are matched by digest: an `m` line of the consensus (and, cut to 20 bytes, the digest in an
//! `r` line of `ns/all`) is the SHA-256 of the microdescriptor's text. A relay whose microdescriptor is not there yet is
//! listed but not [known](Relay::is_known), and is not used in a path until it is.
//!
//! tor has checked the signatures of both texts. They are still not trusted: what cannot be read is skipped and counted, every table has a bound, and nothing grows faster than the text it was read from.
//!
//! A snapshot never changes. Of 9,500 relays it holds about 1.5 MB: relays in one array sorted by fingerprint, policies
//! and families once each however many relays share them.
//!
//! Next: [`crate::tor::path`] chooses paths in it, [`crate::tor::guard`] guards.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::exit::Fingerprint;
use crate::exit::policy::PortPolicy;

mod build;
mod consensus;
mod microdesc;
mod relay;
#[cfg(test)]
pub(crate) mod synth;
#[cfg(test)]
mod tests;
mod text;
pub(crate) mod weight;

pub use relay::{Flags, Relation, Relay};

use weight::{Cumulative, Weights};

/// One reading of the directory.
#[derive(Clone, Debug)]
pub struct Netdir {
    /// Sorted by fingerprint.
    relays: Box<[Entry]>,
    /// Each policy once; the first rejects everything.
    policies: Box<[PortPolicy]>,
    /// Each declared family once; the first is empty.
    families: Box<[Family]>,
    /// Each set of proven families once, as sorted numbers of their own; the first is empty.
    family_ids: Box<[Box<[u32]>]>,
    /// The consensus' parameters, sorted by name.
    params: Box<[(Box<str>, i32)]>,
    lifetime: Lifetime,
    weights: Weights,
    /// By what each relay weighs in the middle of a path; nothing for a relay that cannot stand there.
    middles: Cumulative,
    missing: usize,
    skipped: Skipped,
}

/// Why a text is not a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNetdir {
    /// No relay could be read.
    #[error("the directory lists no relay")]
    NoRelays,
}

/// What was skipped while reading. Tor adds lines with every release, so only a sudden change is a sign of a fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Lines that should have been readable and were not.
    pub malformed: u32,
    /// Lines that begin with a word that we do not know.
    pub unknown: u32,
    /// Relays dropped: an unreadable `r` line, a second one of the same fingerprint, more than any network has.
    pub relays: u32,
    /// Microdescriptors of no relay that is listed: usually old ones.
    pub microdescs: u32,
}

/// When the consensus is valid. `ns/all` has none of these times.
#[derive(Clone, Copy, Debug, Default)]
struct Lifetime {
    valid_after: Option<u64>,
    fresh_until: Option<u64>,
    valid_until: Option<u64>,
}

/// One relay, in a compact form.
#[derive(Clone, Debug)]
struct Entry {
    fingerprint: Fingerprint,
    nickname: Nickname,
    v4: Ipv4Addr,
    /// `::` for none.
    v6: Ipv6Addr,
    flags: Flags,
    bandwidth: u32,
    /// Whether its microdescriptor is there and names an ntor key.
    known: bool,
    policy: u32,
    policy_v6: u32,
    family: u32,
    family_ids: u32,
}

/// At most 19 letters and digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Nickname {
    len: u8,
    text: [u8; Nickname::MAX],
}

impl Nickname {
    const MAX: usize = 19;

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..usize::from(self.len)]).unwrap_or_default()
    }
}

/// A family as one relay declares it. It counts between two relays if each of them declares the other.
#[derive(Clone, Debug, Default)]
struct Family {
    /// Places in `Netdir::relays`, sorted.
    members: Box<[u32]>,
    /// Nicknames: old relays declare their family by name.
    names: Box<[Box<str>]>,
}

impl Family {
    fn declares(&self, relay: Relay<'_>) -> bool {
        self.members.binary_search(&relay.index).is_ok()
            || self.names.iter().any(|name| name.eq_ignore_ascii_case(relay.nickname()))
    }
}

/// Rules that differ between the public network and private ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Allow no two relays of one /16 (IPv6: /32) in a path: tor's `EnforceDistinctSubnets`. Test networks turn it off,
    /// because all their relays share a subnet.
    pub distinct_subnets: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { distinct_subnets: true }
    }
}

impl Netdir {
    /// Reads a directory.
    ///
    /// `consensus` is the answer to `GETINFO dir/status-vote/current/consensus-microdesc`, or that to `ns/all`, which
    /// lacks times, parameters and weights. `microdescs` is the answer to `md/all`. The files
    /// `cached-microdesc-consensus` and `cached-microdescs` + `cached-microdescs.new` of an engine's folder have the same
    /// content, and reading them costs the engine nothing.
    pub fn parse(consensus: &str, microdescs: &str) -> Result<Self, BadNetdir> {
        build::build(consensus, microdescs)
    }

    /// What was skipped while reading.
    pub fn skipped(&self) -> Skipped {
        self.skipped
    }

    /// From when this consensus is valid.
    pub fn valid_after(&self) -> Option<SystemTime> {
        self.lifetime.valid_after.and_then(time)
    }

    /// Until when no newer consensus is expected.
    pub fn fresh_until(&self) -> Option<SystemTime> {
        self.lifetime.fresh_until.and_then(time)
    }

    /// Until when this consensus is valid.
    pub fn valid_until(&self) -> Option<SystemTime> {
        self.lifetime.valid_until.and_then(time)
    }

    /// A parameter of the consensus, as it stands there.
    pub fn param(&self, name: &str) -> Option<i32> {
        let place = self.params.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        Some(self.params[place].1)
    }

    /// A parameter as tor reads it: limited to its range, or the default if the consensus does not have it.
    pub fn param_or(&self, name: &str, default: i32, range: RangeInclusive<i32>) -> i32 {
        self.param(name).map_or(default, |value| value.clamp(*range.start(), *range.end()))
    }

    /// How many relays there are.
    pub fn len(&self) -> usize {
        self.relays.len()
    }

    /// Never true: a directory without relays is refused.
    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "a public `len` needs it"))]
    pub fn is_empty(&self) -> bool {
        self.relays.is_empty()
    }

    /// Every relay, in the order of fingerprints.
    pub fn relays(&self) -> impl ExactSizeIterator<Item = Relay<'_>> {
        (0..self.relays.len()).map(|index| self.at(index))
    }

    /// The relay of this fingerprint.
    pub fn relay(&self, fingerprint: &Fingerprint) -> Option<Relay<'_>> {
        self.find(fingerprint).map(|index| self.at(index))
    }

    /// How many relays wait for their microdescriptor.
    pub fn missing_microdescs(&self) -> usize {
        self.missing
    }

    /// The bytes it holds on the heap.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let policies: usize = self.policies.iter().map(|policy| size_of_val(policy) + policy.heap_bytes()).sum();
        let families: usize = self.families.iter().map(Family::bytes).sum();
        let family_ids: usize = self.family_ids.iter().map(|ids| size_of_val(ids) + size_of_val(&**ids)).sum();
        let params: usize = self.params.iter().map(|param| size_of_val(param) + param.0.len()).sum();
        size_of_val(&*self.relays) + policies + families + family_ids + params + self.middles.bytes()
    }

    /// The relay at a place of the sorted array.
    pub(crate) fn at(&self, index: usize) -> Relay<'_> {
        Relay { dir: self, index: index as u32 }
    }

    pub(crate) fn middles(&self) -> &Cumulative {
        &self.middles
    }

    fn find(&self, fingerprint: &Fingerprint) -> Option<usize> {
        find(&self.relays, fingerprint)
    }

    /// The consensus can switch off either kind of family.
    fn trusts(&self, kind: &str) -> bool {
        self.param_or(kind, 1, 0..=1) == 1
    }
}

fn find(relays: &[Entry], fingerprint: &Fingerprint) -> Option<usize> {
    relays.binary_search_by(|entry| entry.fingerprint.cmp(fingerprint)).ok()
}

fn time(seconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

impl Family {
    #[cfg(test)]
    fn bytes(&self) -> usize {
        let names: usize = self.names.iter().map(|name| size_of_val(name) + name.len()).sum();
        size_of_val(self) + size_of_val(&*self.members) + names
    }
}
