//! The relays of the network and their addresses: no I/O.
//!
//! In the sandbox's /16 (P), the authority is P.10.1, guards are P.20.n, exits are P.1.n. An exit leaves from its own address, so a target
//! sees a different source for each exit. A *split* exit leaves from P.2.n instead, as about a tenth of the real exits do; a gateway that
//! takes the country of the OR address is wrong about such an exit.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::public::mix;
use crate::sandbox::Sandbox;

/// The OR port of every relay.
pub const OR_PORT: u16 = 9001;
/// The directory port of the authority.
pub const DIR_PORT: u16 = 9030;
/// The port of the name server that exits ask, at P.53.1. It needs no privilege.
pub const DNS_PORT: u16 = 5353;

/// The country of the guards in the geoip file. No exit is there.
const GUARD_COUNTRY: &str = "GB";

/// What runs the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Processes of tor.
    #[default]
    Tor,
    /// `simtor`, which simulates relays and stands in for tor: see `tests/simtor/README.md`.
    Simtor,
}

/// The shape of a network.
#[derive(Clone, Debug)]
pub struct Options {
    pub backend: Backend,
    pub guards: u8,
    /// The exits, in order; see [`ExitSpec::defaults`].
    pub exits: Vec<ExitSpec>,
    /// Additional torrc lines for the authority.
    pub authority_lines: Vec<String>,
    /// Additional torrc lines for every guard.
    pub guard_lines: Vec<String>,
    /// Additional torrc lines for every exit.
    pub exit_lines: Vec<String>,
    /// How long a consensus is fresh. A short interval (20 s) makes a network that votes again and again.
    pub interval: Duration,
    /// For how many intervals a consensus is valid.
    pub valid_intervals: u32,
    /// Whether to start from a cached snapshot and to save one. A network with a short interval does neither.
    pub snapshot: bool,
}

impl Default for Options {
    /// Six guards, eight exits, and a consensus that is valid for sixty days so that a snapshot of it lasts.
    fn default() -> Self {
        Self {
            backend: Backend::Tor,
            guards: 6,
            exits: ExitSpec::defaults(),
            authority_lines: Vec::new(),
            guard_lines: Vec::new(),
            exit_lines: Vec::new(),
            interval: Duration::from_secs(86_400),
            valid_intervals: 60,
            snapshot: true,
        }
    }
}

impl Options {
    /// A snapshot is saved if its consensus is valid for more than a day.
    pub(crate) fn keeps_snapshot(&self) -> bool {
        self.snapshot && self.interval * self.valid_intervals > Duration::from_secs(86_400)
    }
}

/// The description of an exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitSpec {
    /// Nickname: 1 to 19 letters and digits.
    pub name: String,
    /// Country of its OR address, two upper-case letters.
    pub country: String,
    /// Country of the other address from which it leaves, if it has one.
    pub leaves_from: Option<String>,
    /// `ExitPolicy` lines; the first match counts.
    pub policy: Vec<String>,
}

impl ExitSpec {
    /// An exit that allows everything and leaves from its own address.
    pub fn new(name: &str, country: &str) -> Self {
        Self { name: name.into(), country: country.into(), leaves_from: None, policy: vec!["accept *:*".into()] }
    }

    /// Makes it leave from another address, which is in `country`.
    #[must_use]
    pub fn leaving_from(mut self, country: &str) -> Self {
        self.leaves_from = Some(country.into());
        self
    }

    #[must_use]
    pub fn policy(mut self, lines: &[&str]) -> Self {
        self.policy = lines.iter().map(|&line| line.to_owned()).collect();
        self
    }

    /// Three in the US, one each in DE, FR and NL, `split` (OR address in the US, leaves from CA) and `no443` (CH).
    pub fn defaults() -> Vec<Self> {
        let plain = [("us1", "US"), ("us2", "US"), ("us3", "US"), ("de1", "DE"), ("fr1", "FR"), ("nl1", "NL")];
        let mut exits: Vec<_> = plain.iter().map(|(name, country)| Self::new(name, country)).collect();
        exits.push(Self::new("split", "US").leaving_from("CA"));
        exits.push(Self::new("no443", "CH").policy(&["reject *:443", "accept *:*"]));
        exits
    }
}

/// The function of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Directory authority, also used as a middle.
    Authority,
    /// Guard and middle.
    Guard,
    /// Exit, never a guard.
    Exit,
}

impl Role {
    /// Bytes a second that a relay's state file says it has carried. Without them the consensus has no weights, and path selection by weight
    /// cannot be tested. Exits have fewer than guards, so that the weights differ. Not tuned.
    pub(crate) fn observed_bandwidth(self) -> u64 {
        match self {
            Self::Authority => 500_000,
            Self::Guard => 4_000_000,
            Self::Exit => 2_000_000,
        }
    }
}

/// One relay of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// Nickname, and name of its folder.
    pub name: String,
    pub role: Role,
    /// Forty upper-case hex digits.
    pub fingerprint: String,
    /// OR address; the port is [`OR_PORT`].
    pub ip: Ipv4Addr,
    /// The source address that a target sees.
    pub outbound: Ipv4Addr,
    /// Country of `ip`, two upper-case letters.
    pub country: String,
    /// Country of `outbound`: the one that a client asks for.
    pub outbound_country: String,
    pub policy: Vec<String>,
}

impl Relay {
    /// True if it leaves from another address than its OR address.
    pub fn is_split(&self) -> bool {
        self.ip != self.outbound
    }
}

/// The relays of a network in `sandbox`, authority first, without fingerprints.
pub(crate) fn relays(options: &Options, sandbox: &Sandbox) -> Vec<Relay> {
    let fixed = |name: String, role, ip, country: &str| Relay {
        name,
        role,
        fingerprint: String::new(),
        ip,
        outbound: ip,
        country: country.into(),
        outbound_country: country.into(),
        policy: vec!["reject *:*".into()],
    };
    let mut relays = vec![fixed("auth1".into(), Role::Authority, sandbox.ip(10, 1), GUARD_COUNTRY)];
    relays.extend(
        (1..=options.guards).map(|n| fixed(format!("guard{n}"), Role::Guard, sandbox.ip(20, n), GUARD_COUNTRY)),
    );
    relays.extend(options.exits.iter().zip(1..).map(|(spec, n)| Relay {
        outbound: sandbox.ip(if spec.leaves_from.is_some() { 2 } else { 1 }, n),
        outbound_country: spec.leaves_from.as_ref().unwrap_or(&spec.country).clone(),
        policy: spec.policy.clone(),
        ..fixed(spec.name.clone(), Role::Exit, sandbox.ip(1, n), &spec.country)
    }));
    relays
}

/// The text of a `GeoIPFile` for `relays` and for the subnets of the public proxies: `low,high,CC` with addresses as integers,
/// ascending.
pub(crate) fn geoip(relays: &[Relay], sandbox: &Sandbox) -> String {
    let mut rows: Vec<(u32, u32, &str)> = relays
        .iter()
        .flat_map(|relay| [(relay.ip, &relay.country), (relay.outbound, &relay.outbound_country)])
        .map(|(ip, country)| (u32::from(ip), u32::from(ip), country.as_str()))
        .collect();
    let starts = (mix::FIRST_SUBNET..).step_by(mix::SUBNETS_A_COUNTRY.into());
    let blocks = mix::COUNTRIES.iter().zip(starts).filter(|(country, _)| **country != "ZZ");
    rows.extend(blocks.map(|(country, start)| {
        let last = start + (mix::SUBNETS_A_COUNTRY - 1);
        (sandbox.ip(start, 0).into(), sandbox.ip(last, 255).into(), *country)
    }));
    rows.sort_unstable();
    rows.dedup();
    rows.iter().map(|(low, high, country)| format!("{low},{high},{country}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_network_has_what_tests_need() {
        let sandbox = Sandbox::claim().unwrap();
        let relays = relays(&Options::default(), &sandbox);
        let count = |role| relays.iter().filter(|relay| relay.role == role).count();
        assert_eq!((count(Role::Authority), count(Role::Guard), count(Role::Exit)), (1, 6, 8));
        let by_outbound =
            |country| relays.iter().filter(|r| r.role == Role::Exit && r.outbound_country == country).count();
        assert_eq!((by_outbound("US"), by_outbound("CA"), by_outbound("DE")), (3, 1, 1));
        let split: Vec<_> = relays.iter().filter(|relay| relay.is_split()).collect();
        assert_eq!((split.len(), split[0].country.as_str()), (1, "US"), "geo by OR address must be wrong about it");
    }

    #[test]
    fn geoip_is_ascending_and_knows_both_addresses_of_a_split_exit() {
        let sandbox = Sandbox::claim().unwrap();
        let relays = relays(&Options::default(), &sandbox);
        let file = geoip(&relays, &sandbox);
        let lows: Vec<u32> = file.lines().map(|line| line.split(',').next().unwrap().parse().unwrap()).collect();
        assert!(lows.is_sorted());
        let split = relays.iter().find(|relay| relay.is_split()).unwrap();
        let (ip, outbound) = (u32::from(split.ip), u32::from(split.outbound));
        assert!(file.contains(&format!("{ip},{ip},US\n")) && file.contains(&format!("{outbound},{outbound},CA\n")));
    }
}
