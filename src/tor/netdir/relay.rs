//! One relay of the directory, and whether it may be in one path with another relay.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::weight::Position;
use super::{Entry, Netdir, Rules};
use crate::exit::Fingerprint;
use crate::exit::policy::PortPolicy;

/// A reference to one relay of a [`Netdir`].
#[derive(Clone, Copy, Debug)]
pub struct Relay<'a> {
    pub(in crate::tor::netdir) dir: &'a Netdir,
    pub(in crate::tor::netdir) index: u32,
}

impl<'a> Relay<'a> {
    fn entry(self) -> &'a Entry {
        &self.dir.relays[self.index as usize]
    }

    pub fn fingerprint(self) -> Fingerprint {
        self.entry().fingerprint
    }

    /// Returns the relay's nickname, which its operator chose. Several relays may have the same nickname.
    pub fn nickname(self) -> &'a str {
        self.entry().nickname.as_str()
    }

    /// Returns the IPv4 address of the relay's OR port. Exit traffic may come from another address.
    pub fn v4(self) -> Ipv4Addr {
        self.entry().v4
    }

    /// Returns the relay's OR port for IPv4. The port for IPv6 is nearly always the same.
    pub fn or_port(self) -> u16 {
        self.entry().or_port
    }

    /// Returns the IPv6 address of the relay's OR port, if it has one.
    pub fn v6(self) -> Option<Ipv6Addr> {
        Some(self.entry().v6).filter(|ip| !ip.is_unspecified())
    }

    pub fn flags(self) -> Flags {
        self.entry().flags
    }

    /// Returns the relay's weight in the consensus, which is about its bandwidth in kB/s.
    pub fn bandwidth(self) -> u32 {
        self.entry().bandwidth
    }

    /// Returns true if the relay's microdescriptor is there. Without a microdescriptor no circuit can use the relay.
    pub fn is_known(self) -> bool {
        self.entry().known
    }

    /// Returns the relay's exit policy for IPv4. While the relay is not known, this policy rejects everything.
    pub fn policy(self) -> &'a PortPolicy {
        &self.dir.policies[self.entry().policy as usize]
    }

    /// Returns the relay's exit policy for IPv6.
    pub fn policy_v6(self) -> &'a PortPolicy {
        &self.dir.policies[self.entry().policy_v6 as usize]
    }

    /// Returns the reason why these two relays of one directory must not be in one path, or `None` if they may.
    pub fn relation(self, other: Relay<'_>, rules: Rules) -> Option<Relation> {
        if self.index == other.index {
            return Some(Relation::Same);
        }
        if self.same_declared_family(other) || self.same_proven_family(other) {
            return Some(Relation::Family);
        }
        let v6 = self.v6().zip(other.v6()).is_some_and(|(a, b)| same_v6_net(a, b));
        (rules.distinct_subnets && (same_v4_net(self.v4(), other.v4()) || v6)).then_some(Relation::Subnet)
    }

    fn same_declared_family(self, other: Relay<'_>) -> bool {
        let family = |relay: Relay<'a>| &relay.dir.families[relay.entry().family as usize];
        let other = Relay { dir: self.dir, index: other.index };
        family(self).declares(other) && family(other).declares(self) && self.dir.trusts("use-family-lists")
    }

    fn same_proven_family(self, other: Relay<'_>) -> bool {
        let (a, b) = (self.entry().family_ids as usize, other.entry().family_ids as usize);
        let ids = &self.dir.family_ids;
        let shared = ids[a].iter().any(|id| ids[b].binary_search(id).is_ok());
        shared && self.dir.trusts("use-family-ids")
    }

    /// Returns true if the relay is running and known. Every position in a path needs this.
    pub(crate) fn is_usable(self) -> bool {
        self.is_known() && self.flags().has(Flags::RUNNING.and(Flags::VALID))
    }

    pub(crate) fn weight(self, position: Position) -> u64 {
        self.dir.weights.of(position, self.flags(), self.bandwidth())
    }

    pub(crate) fn same_v4_net(self, ip: Ipv4Addr) -> bool {
        same_v4_net(self.v4(), ip)
    }

    pub(crate) fn same_v6_net(self, ip: Ipv6Addr) -> bool {
        self.v6().is_some_and(|own| same_v6_net(own, ip))
    }
}

/// The flags that the authorities gave to a relay, as a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u16);

impl Flags {
    /// The relay is a directory authority.
    pub const AUTHORITY: Self = Self(1);
    /// The relay is known to tamper with exit traffic, so it must not be an exit.
    pub const BAD_EXIT: Self = Self(1 << 1);
    /// The relay's exit policy allows the common ports.
    pub const EXIT: Self = Self(1 << 2);
    /// The relay is fast enough for ordinary circuits.
    pub const FAST: Self = Self(1 << 3);
    /// The relay may be a guard.
    pub const GUARD: Self = Self(1 << 4);
    /// The relay may only be used in the middle of a path.
    pub const MIDDLE_ONLY: Self = Self(1 << 5);
    /// The authorities could reach the relay recently.
    pub const RUNNING: Self = Self(1 << 6);
    /// The relay's uptime is long enough for streams that last for hours.
    pub const STABLE: Self = Self(1 << 7);
    /// The relay serves the directory through its OR port.
    pub const V2DIR: Self = Self(1 << 8);
    /// The authorities accept the relay.
    pub const VALID: Self = Self(1 << 9);

    /// Returns true if all of `flags` are set.
    pub fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Returns the union of both sets.
    pub const fn and(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }

    pub(in crate::tor::netdir) fn from_word(word: &str) -> Self {
        match word {
            "Authority" => Self::AUTHORITY,
            "BadExit" => Self::BAD_EXIT,
            "Exit" => Self::EXIT,
            "Fast" => Self::FAST,
            "Guard" => Self::GUARD,
            "MiddleOnly" => Self::MIDDLE_ONLY,
            "Running" => Self::RUNNING,
            "Stable" => Self::STABLE,
            "V2Dir" => Self::V2DIR,
            "Valid" => Self::VALID,
            _ => Self::default(),
        }
    }
}

/// Why two relays must not be in one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Both are the same relay.
    Same,
    /// Each of the two relays declares the other as its family, or both have proved that they belong to the same
    /// family.
    Family,
    /// Both relays are in one /16 network of IPv4 or one /32 network of IPv6.
    Subnet,
}

fn same_v4_net(a: Ipv4Addr, b: Ipv4Addr) -> bool {
    let unspecified = a.is_unspecified() || b.is_unspecified();
    !unspecified && a.to_bits() >> 16 == b.to_bits() >> 16
}

fn same_v6_net(a: Ipv6Addr, b: Ipv6Addr) -> bool {
    a.to_bits() >> 96 == b.to_bits() >> 96
}
