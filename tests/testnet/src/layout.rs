//! Who is in the network, and where: pure, no I/O.
//!
//! On the network's own /16 (P): the authority is P.10.1, guards are P.20.n, exits P.1.n. An exit leaves from its own
//! address, so a target sees one source per exit; a *split* exit leaves from P.2.n instead, as a tenth of the real exits
//! do in one way or another, and a gateway that asks where the OR address lies is then wrong about its country.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ground::Ground;
use crate::public::mix;

/// The OR port of every relay.
pub const OR_PORT: u16 = 9001;
/// The directory port of the authority.
pub const DIR_PORT: u16 = 9030;
/// The port of the name server that exits ask, at P.53.1: beyond the privileged ones.
pub const DNS_PORT: u16 = 5353;

/// Where the guards' addresses lie, according to the geoip file: nowhere that an exit lies.
const GUARD_COUNTRY: &str = "GB";

/// What the network is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Processes of tor.
    #[default]
    Tor,
    /// `simtor`, which simulates relays and stands in for tor: see `tests/simtor/README.md`.
    Simtor,
}

/// What a network is to look like.
#[derive(Clone, Debug)]
pub struct Options {
    /// What it is made of.
    pub backend: Backend,
    /// How many guards.
    pub guards: u8,
    /// The exits, in order; see [`ExitSpec::defaults`].
    pub exits: Vec<ExitSpec>,
    /// More torrc lines for the authority.
    pub authority_lines: Vec<String>,
    /// More torrc lines for every guard.
    pub guard_lines: Vec<String>,
    /// More torrc lines for every exit.
    pub exit_lines: Vec<String>,
    /// How long a consensus is fresh. A short one (20 s) makes a live network that votes again and again.
    pub interval: Duration,
    /// For how many intervals a consensus is valid.
    pub valid_intervals: u32,
    /// Whether to start from a cached snapshot, and to keep one. A network with a short interval never does.
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
    /// A snapshot is worth keeping when its consensus outlives the day.
    pub(crate) fn keeps_snapshot(&self) -> bool {
        self.snapshot && self.interval * self.valid_intervals > Duration::from_secs(86_400)
    }
}

/// One exit to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitSpec {
    /// Its nickname: 1 to 19 letters and digits.
    pub name: String,
    /// Country of its OR address, two upper-case letters.
    pub country: String,
    /// Country of the other address that it leaves from, if it has one.
    pub leaves_from: Option<String>,
    /// Its `ExitPolicy` lines; the first that matches wins.
    pub policy: Vec<String>,
}

impl ExitSpec {
    /// An exit that allows everything and leaves from its own address.
    pub fn new(name: &str, country: &str) -> Self {
        Self { name: name.into(), country: country.into(), leaves_from: None, policy: vec!["accept *:*".into()] }
    }

    /// Leaves from another address, which lies in `country`.
    #[must_use]
    pub fn leaving_from(mut self, country: &str) -> Self {
        self.leaves_from = Some(country.into());
        self
    }

    /// With this exit policy.
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

/// What a relay is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The directory authority; also a middle.
    Authority,
    /// A guard and middle.
    Guard,
    /// An exit; never a guard.
    Exit,
}

impl Role {
    /// Bytes a second that a relay believes to have carried: without any, the consensus has no weights at all and path
    /// selection by weight cannot be tested. Exits get less than guards so that weighting is visible. Arbitrary.
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
    /// Its nickname, and its folder's name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Forty upper-case hex digits.
    pub fingerprint: String,
    /// Its OR address; the port is [`OR_PORT`].
    pub ip: Ipv4Addr,
    /// What a target sees.
    pub outbound: Ipv4Addr,
    /// Country of `ip`, two upper-case letters.
    pub country: String,
    /// Country of `outbound`: the one that a scraper means.
    pub outbound_country: String,
    /// `ExitPolicy` lines.
    pub policy: Vec<String>,
}

impl Relay {
    /// True when it leaves from an address other than its OR address.
    pub fn is_split(&self) -> bool {
        self.ip != self.outbound
    }
}

/// The relays of a network on `ground`, authority first, fingerprints not known yet.
pub(crate) fn relays(options: &Options, ground: &Ground) -> Vec<Relay> {
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
    let mut relays = vec![fixed("auth1".into(), Role::Authority, ground.ip(10, 1), GUARD_COUNTRY)];
    relays
        .extend((1..=options.guards).map(|n| fixed(format!("guard{n}"), Role::Guard, ground.ip(20, n), GUARD_COUNTRY)));
    relays.extend(options.exits.iter().zip(1..).map(|(spec, n)| Relay {
        outbound: ground.ip(if spec.leaves_from.is_some() { 2 } else { 1 }, n),
        outbound_country: spec.leaves_from.as_ref().unwrap_or(&spec.country).clone(),
        policy: spec.policy.clone(),
        ..fixed(spec.name.clone(), Role::Exit, ground.ip(1, n), &spec.country)
    }));
    relays
}

/// A `GeoIPFile` of `relays`, and of the subnets of `ground` on which public proxies stand: `low,high,CC` with addresses
/// as integers, ascending.
pub(crate) fn geoip(relays: &[Relay], ground: &Ground) -> String {
    let mut rows: Vec<(u32, u32, &str)> = relays
        .iter()
        .flat_map(|relay| [(relay.ip, &relay.country), (relay.outbound, &relay.outbound_country)])
        .map(|(ip, country)| (u32::from(ip), u32::from(ip), country.as_str()))
        .collect();
    let starts = (mix::FIRST_SUBNET..).step_by(mix::SUBNETS_A_COUNTRY.into());
    let blocks = mix::COUNTRIES.iter().zip(starts).filter(|(country, _)| **country != "ZZ");
    rows.extend(blocks.map(|(country, start)| {
        let last = start + (mix::SUBNETS_A_COUNTRY - 1);
        (ground.ip(start, 0).into(), ground.ip(last, 255).into(), *country)
    }));
    rows.sort_unstable();
    rows.dedup();
    rows.iter().map(|(low, high, country)| format!("{low},{high},{country}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_network_has_what_the_tests_count_on() {
        let ground = Ground::claim().unwrap();
        let relays = relays(&Options::default(), &ground);
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
        let ground = Ground::claim().unwrap();
        let relays = relays(&Options::default(), &ground);
        let file = geoip(&relays, &ground);
        let lows: Vec<u32> = file.lines().map(|line| line.split(',').next().unwrap().parse().unwrap()).collect();
        assert!(lows.is_sorted());
        let split = relays.iter().find(|relay| relay.is_split()).unwrap();
        let (ip, outbound) = (u32::from(split.ip), u32::from(split.outbound));
        assert!(file.contains(&format!("{ip},{ip},US\n")) && file.contains(&format!("{outbound},{outbound},CA\n")));
    }
}
