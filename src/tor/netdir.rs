//! The Tor network as an engine's directory describes it: the relays, and what each relay may be used for.
//!
//! A directory is made of two texts. The *consensus* lists the relays with flags, addresses and bandwidth, and contains
//! the weights for each position in a path. The *microdescriptors* contain what each relay says about itself: its exit
//! policy, family and keys.
//!
//! The consensus contains the digest of each relay's microdescriptor: the SHA-256 of the text. The digest is in an `m`
//! line of the consensus or, cut to 20 bytes, in an `r` line of `ns/all`. A relay whose microdescriptor is missing is
//! listed but not [known](Relay::is_known), and no path uses the relay.
//!
//! tor has checked the signatures of both texts. Nevertheless the texts are not trusted: unreadable parts are skipped
//! and counted, every table has a size limit, and no memory grows faster than the text.
//!
//! A directory never changes after it was read. For 9,500 relays it needs about 1.5 MB of memory: the relays are in one
//! array sorted by fingerprint, and each different policy and family is stored only once.
//!
//! Next: [`crate::tor::path`] chooses paths from a directory, and [`crate::tor::guard`] chooses guards.

use std::io::{self, BufRead};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::exit::Fingerprint;
use crate::exit::policy::PortPolicy;

mod build;
pub(crate) mod clients;
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

/// The directory of relays, as it was read at one time.
#[derive(Clone, Debug)]
pub struct Netdir {
    /// All relays, sorted by fingerprint.
    relays: Box<[Entry]>,
    /// Each different exit policy, stored once. The first policy rejects everything.
    policies: Box<[PortPolicy]>,
    /// Each different declared family, stored once. The first family is empty.
    families: Box<[Family]>,
    /// Each different set of families to which relays have proved that they belong, stored once. A set is a sorted list
    /// of family numbers. The first set is empty.
    family_ids: Box<[Box<[u32]>]>,
    /// The parameters of the consensus, sorted by name.
    params: Box<[(Box<str>, i32)]>,
    lifetime: Lifetime,
    clients: clients::Clients,
    weights: Weights,
    /// The weights of all relays for the middle of a path, as running sums. A relay that cannot be a middle relay has
    /// weight 0.
    middles: Cumulative,
    missing: usize,
    skipped: Skipped,
}

/// Why a text could not be read as a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNetdir {
    /// No relay in the text could be read.
    #[error("the directory lists no relay")]
    NoRelays,
}

/// The number of parts skipped while reading a directory. Each release of Tor adds lines that we do not know, so only a
/// sudden change of these numbers is a sign of a fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Lines of a known kind that could not be read.
    pub malformed: u32,
    /// Lines that begin with an unknown word.
    pub unknown: u32,
    /// Relays that were dropped: the `r` line was unreadable, the fingerprint was already used, or the limit of relays
    /// was reached.
    pub relays: u32,
    /// Microdescriptors that belong to no listed relay. Usually these are old ones.
    pub microdescs: u32,
}

/// The period in which the consensus is valid. `ns/all` contains none of these times.
#[derive(Clone, Copy, Debug, Default)]
struct Lifetime {
    valid_after: Option<u64>,
    fresh_until: Option<u64>,
    valid_until: Option<u64>,
}

/// One relay in a compact form.
#[derive(Clone, Debug)]
struct Entry {
    fingerprint: Fingerprint,
    nickname: Nickname,
    v4: Ipv4Addr,
    or_port: u16,
    /// The IPv6 address. `::` means that the relay has none.
    v6: Ipv6Addr,
    flags: Flags,
    bandwidth: u32,
    /// True if the relay's microdescriptor is there and contains an ntor key.
    known: bool,
    policy: u32,
    policy_v6: u32,
    family: u32,
    family_ids: u32,
}

/// The nickname of a relay: at most 19 letters and digits.
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

/// A family as one relay declares it. Two relays count as one family if each of them declares the other.
#[derive(Clone, Debug, Default)]
struct Family {
    /// The indexes of the members in `Netdir::relays`, sorted.
    members: Box<[u32]>,
    /// The nicknames of members. Old relays declare members by nickname and not by fingerprint.
    names: Box<[Box<str>]>,
}

impl Family {
    fn declares(&self, relay: Relay<'_>) -> bool {
        self.members.binary_search(&relay.index).is_ok()
            || self.names.iter().any(|name| name.eq_ignore_ascii_case(relay.nickname()))
    }
}

/// Rules for paths that differ between the public network and private networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// True if no two relays of a path may be in one /16 network (IPv6: /32). This is tor's `EnforceDistinctSubnets`.
    /// Test networks turn it off, because all their relays are in one subnet.
    pub distinct_subnets: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { distinct_subnets: true }
    }
}

impl Netdir {
    /// Parses a directory.
    ///
    /// `consensus` is the answer to `GETINFO dir/status-vote/current/consensus-microdesc`. It may also be the answer to
    /// `ns/all`, which has no times, parameters and weights. `microdescs` is the answer to `md/all`. The files
    /// `cached-microdesc-consensus` and `cached-microdescs` + `cached-microdescs.new` in an engine's folder have the
    /// same content, and reading these files costs the engine nothing.
    pub fn parse(consensus: &str, microdescs: &str) -> Result<Self, BadNetdir> {
        match build::build(consensus.as_bytes(), microdescs.as_bytes()) {
            Ok(built) => built,
            Err(_) => Err(BadNetdir::NoRelays), // reading from memory does not fail
        }
    }

    /// Parses a directory as [`Netdir::parse`] does, but reads the texts in small parts.
    pub fn read(consensus: impl BufRead, microdescs: impl BufRead) -> io::Result<Result<Self, BadNetdir>> {
        build::build(consensus, microdescs)
    }

    /// Returns what the consensus states about versions of tor.
    pub fn clients(&self) -> &clients::Clients {
        &self.clients
    }

    /// Returns the number of parts that were skipped while reading.
    pub fn skipped(&self) -> Skipped {
        self.skipped
    }

    /// Returns the time from which this consensus is valid. Returns `None` if the text contained no times.
    pub fn valid_after(&self) -> Option<SystemTime> {
        self.lifetime.valid_after.and_then(time)
    }

    /// Returns the time until which no newer consensus is expected. Returns `None` if the text contained no times.
    pub fn fresh_until(&self) -> Option<SystemTime> {
        self.lifetime.fresh_until.and_then(time)
    }

    /// Returns the time until which this consensus is valid. Returns `None` if the text contained no times.
    pub fn valid_until(&self) -> Option<SystemTime> {
        self.lifetime.valid_until.and_then(time)
    }

    /// Returns a parameter of the consensus without checking its range. Returns `None` if the consensus does not
    /// contain the parameter.
    pub fn param(&self, name: &str) -> Option<i32> {
        let place = self.params.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        Some(self.params[place].1)
    }

    /// Returns a parameter as tor uses it: limited to its range, or the default if the consensus does not contain it.
    pub fn param_or(&self, name: &str, default: i32, range: RangeInclusive<i32>) -> i32 {
        self.param(name).map_or(default, |value| value.clamp(*range.start(), *range.end()))
    }

    /// Returns the number of relays.
    pub fn len(&self) -> usize {
        self.relays.len()
    }

    /// Always returns false, because a directory without relays is refused.
    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "a public `len` needs it"))]
    pub fn is_empty(&self) -> bool {
        self.relays.is_empty()
    }

    /// Returns every relay, in the order of the fingerprints.
    pub fn relays(&self) -> impl ExactSizeIterator<Item = Relay<'_>> {
        (0..self.relays.len()).map(|index| self.at(index))
    }

    /// Returns the relay with this fingerprint. Returns `None` if the directory does not list it.
    pub fn relay(&self, fingerprint: &Fingerprint) -> Option<Relay<'_>> {
        self.find(fingerprint).map(|index| self.at(index))
    }

    /// Returns the number of relays whose microdescriptor is missing.
    pub fn missing_microdescs(&self) -> usize {
        self.missing
    }

    /// Returns the number of bytes that this directory uses on the heap.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let policies: usize = self.policies.iter().map(|policy| size_of_val(policy) + policy.heap_bytes()).sum();
        let families: usize = self.families.iter().map(Family::bytes).sum();
        let family_ids: usize = self.family_ids.iter().map(|ids| size_of_val(ids) + size_of_val(&**ids)).sum();
        let params: usize = self.params.iter().map(|param| size_of_val(param) + param.0.len()).sum();
        size_of_val(&*self.relays) + policies + families + family_ids + params + self.middles.bytes()
    }

    /// Returns the relay with this index in the sorted array.
    pub(crate) fn at(&self, index: usize) -> Relay<'_> {
        Relay { dir: self, index: index as u32 }
    }

    pub(crate) fn middles(&self) -> &Cumulative {
        &self.middles
    }

    fn find(&self, fingerprint: &Fingerprint) -> Option<usize> {
        find(&self.relays, fingerprint)
    }

    /// Returns true if this kind of family counts. The consensus can switch off each of the two kinds.
    fn trusts(&self, kind: &str) -> bool {
        self.param_or(kind, 1, 0..=1) == 1
    }
}

fn find(relays: &[Entry], fingerprint: &Fingerprint) -> Option<usize> {
    relays.binary_search_by(|entry| entry.fingerprint.cmp(fingerprint)).ok()
}

/// Returns the time from which a consensus is valid. Reads only its header. `None` if the header contains no such time.
pub fn valid_after(consensus: impl BufRead) -> io::Result<Option<SystemTime>> {
    Ok(consensus::valid_after(consensus)?.and_then(time))
}

/// Parses a time in tor's format, such as `2026-11-21 12:00:00`.
pub fn parse_time(text: &str) -> Option<SystemTime> {
    text::seconds(text).and_then(time)
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
