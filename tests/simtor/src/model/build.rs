//! Makes the relays: exits by operator and machine, then guards and the rest around them.
//!
//! Addresses: each operator of exits has a second octet of 127.0.0.0/8 of its own, which stands for a /16; the relays that
//! are no exits share those that are left. 127.0 and 127.100 to 127.199 are not used: the machine itself and the test
//! networks of `tests/testnet` live there.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::draw::Draw;
use super::operators::{OPERATORS, OTHER_COUNTRIES, POLICIES, VERSIONS};
use super::weights::{self, EXITS, GUARDS, REST};
use super::{FamilyKind, Flags, Relay};

/// The policy of a relay that lets nothing out.
pub(super) const REJECT_ALL: &str = "reject 1-65535";

/// Parts of the network: exits, and guards that are no exits. The remainder is neither.
const EXIT_PART: f64 = 0.357;
const GUARD_PART: f64 = 0.40;

/// Weights of the whole network, by the same three parts.
const EXIT_WEIGHT: f64 = 65.3e6;
const GUARD_WEIGHT: f64 = 107.9e6;
const REST_WEIGHT: f64 = 22.3e6;

/// Members beyond which a family is published as an id: a list of all members in each member's microdescriptor would be
/// larger than tor accepts.
const LONGEST_LIST: usize = 100;

const DAY: f64 = 86_400.0;

/// What a relay is, before it has a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Exit,
    Guard,
    Rest,
}

/// The relays of a network, in the order of fingerprints.
pub(super) fn relays(seed: u64, size: usize) -> Vec<Relay> {
    let part = |part: f64| (part * size as f64).round() as usize;
    let (exits, guards) = (part(EXIT_PART), part(GUARD_PART));
    let mut builder = Builder {
        draw: Draw::new(seed, "relays"),
        relays: Vec::with_capacity(size),
        kinds: Vec::with_capacity(size),
        operators: Vec::new(),
        families: 0,
        guards_left: guards,
    };
    builder.exits(exits);
    let rest = size.saturating_sub(builder.relays.len() + builder.guards_left);
    builder.others(rest);
    builder.weigh(size);
    builder.describe();
    let mut relays = builder.relays;
    relays.sort_by_key(|relay| relay.fingerprint);
    relays
}

struct Builder {
    draw: Draw,
    relays: Vec<Relay>,
    kinds: Vec<Kind>,
    /// Of each exit, the place of its operator in the table. Exits are made first.
    operators: Vec<usize>,
    families: u32,
    /// Guards that are still to be made.
    guards_left: usize,
}

/// The machine, or several, of one operator in one place.
#[derive(Clone, Copy)]
struct Site {
    octet: u8,
    country: &'static str,
    asn: u32,
    as_name: &'static str,
    family: u32,
}

impl Builder {
    /// Exits of each operator: the large ones on machines of four to seven, half of which have a guard beside them; those
    /// of small ones mostly alone.
    fn exits(&mut self, count: usize) {
        let total: f64 = OPERATORS.iter().map(|operator| operator.relays).sum();
        let mut share = 0.0;
        for (place, operator) in OPERATORS.iter().enumerate() {
            share += operator.relays / total;
            let end = (share * count as f64).round() as usize;
            let (mut machine, mut in_family) = (0, 0);
            let mut site = self.site(octet(place), operator.country, operator.asn, operator.name);
            while self.operators.len() < end {
                let several = operator.large || self.draw.chance(0.05);
                let wanted = if several { 4 + self.draw.below(4) } else { 1 };
                let here = wanted.min(end - self.operators.len());
                if !operator.large && in_family >= 12 {
                    site = self.site(site.octet, operator.country, operator.asn, operator.name);
                    in_family = 0;
                }
                self.machine(site, machine, here, several);
                self.operators.extend(std::iter::repeat_n(place, here));
                machine += 1;
                in_family += here;
            }
        }
    }

    fn site(&mut self, octet: u8, country: &'static str, asn: u32, as_name: &'static str) -> Site {
        self.families += 1;
        Site { octet, country, asn, as_name, family: self.families }
    }

    /// One machine: exits on neighbouring ports, as operators number them, and perhaps a guard.
    fn machine(&mut self, site: Site, number: usize, exits: usize, several: bool) {
        let address = machine_address(site.octet, number);
        let first_port = if self.draw.chance(0.6) { 443 } else { 9001 };
        let elsewhere = self.draw.chance(0.02); // "below 3.5 %" of exits leave from another address than their OR port's
        for at in 0..exits {
            let port = if several { first_port + at as u16 } else { self.single_port() };
            self.add(Kind::Exit, site, address, port);
            if elsewhere && let Some(relay) = self.relays.last_mut() {
                relay.exit_address = outside_address(site.octet, number);
            }
        }
        if several && self.guards_left > 0 && self.draw.chance(0.5) {
            self.guards_left -= 1;
            self.guard_later(site, address);
        }
    }

    /// A guard on a machine of exits. Exits must come first in `relays`, so it is kept at the end by `others`.
    fn guard_later(&mut self, site: Site, address: Ipv4Addr) {
        self.add(Kind::Guard, site, address, 9100);
    }

    fn single_port(&mut self) -> u16 {
        let other = 1024 + self.draw.below(60_000) as u16;
        self.draw.pick(&[(443, 25.0), (9001, 13.0), (other, 62.0)])
    }

    /// The guards that are left and the relays that are neither, in families of one to eight.
    fn others(&mut self, rest: usize) {
        let mut kinds: Vec<Kind> = std::iter::repeat_n(Kind::Guard, self.guards_left).collect();
        kinds.extend(std::iter::repeat_n(Kind::Rest, rest));
        self.draw.shuffle(&mut kinds);
        let octets: Vec<u8> = (OPERATORS.len()..).map_while(try_octet).collect();
        let countries: Vec<&'static str> = octets.iter().map(|_| self.draw.pick(OTHER_COUNTRIES)).collect();
        let mut machines = vec![0; octets.len()];
        let mut left = kinds.into_iter().peekable();
        while left.peek().is_some() {
            let network = self.draw.below(octets.len());
            let asn = 64_600 + network as u32;
            let site = self.site(octets[network], countries[network], asn, "Loopback Transit");
            let members = if self.draw.chance(0.6) { 1 } else { 2 + self.draw.below(7) };
            for member in 0..members {
                let Some(kind) = left.next() else { break };
                let shares_machine = member % 2 == 1; // authorities long took two relays an address and not more
                if !shares_machine {
                    machines[network] += 1;
                }
                let port = self.draw.pick(&[(443, 37.0), (9001, 35.0), (9030 + member as u16, 28.0)]);
                let port = if shares_machine { 9200 } else { port };
                self.add(kind, site, machine_address(site.octet, machines[network]), port);
            }
        }
    }

    fn add(&mut self, kind: Kind, site: Site, address: Ipv4Addr, or_port: u16) {
        let number = self.relays.len();
        let prefix = match kind {
            Kind::Exit => "exit",
            Kind::Guard => "guard",
            Kind::Rest => "relay",
        };
        self.kinds.push(kind);
        self.relays.push(Relay {
            fingerprint: self.draw.bytes(),
            ed25519: self.draw.bytes(),
            ntor: self.draw.bytes(),
            nickname: format!("{prefix}{number}"),
            address,
            or_port,
            exit_address: address,
            ipv6: None,
            flags: Flags::default(),
            weight: 0,
            capacity: 0,
            policy: REJECT_ALL,
            policy_v6: REJECT_ALL,
            family: site.family,
            family_kind: FamilyKind::Alone,
            country: site.country,
            asn: site.asn,
            as_name: site.as_name,
            version: "",
            uptime: 0,
            age: 0,
            flaky: false,
        });
    }

    /// Gives weights out: to exits by their operators' shares, to all others at random.
    fn weigh(&mut self, size: usize) {
        let scale = size as f64 / super::PUBLIC_SIZE as f64;
        for (kind, components, total) in
            [(Kind::Exit, EXITS, EXIT_WEIGHT), (Kind::Guard, GUARDS, GUARD_WEIGHT), (Kind::Rest, REST, REST_WEIGHT)]
        {
            let places: Vec<usize> = (0..self.relays.len()).filter(|at| self.kinds[*at] == kind).collect();
            let mut given = weights::draw(components, places.len(), total * scale, &mut self.draw);
            if kind == Kind::Exit {
                let shares: Vec<f64> = OPERATORS.iter().map(|operator| operator.weight).collect();
                given = weights::deal(&given, &self.operators, &shares, &mut self.draw);
            } else {
                self.draw.shuffle(&mut given);
            }
            for (place, weight) in places.into_iter().zip(given) {
                self.relays[place].weight = weight;
                self.relays[place].capacity = weights::capacity(weight, &mut self.draw);
            }
        }
    }

    /// All that depends on kind, weight or family.
    fn describe(&mut self) {
        let families = self.families as usize + 1;
        let mut sizes = vec![0; families];
        self.relays.iter().for_each(|relay| sizes[relay.family as usize] += 1);
        let habits: Vec<Habits> = (0..families).map(|_| Habits::draw(&mut self.draw)).collect();
        let bad_exits = self.kinds.iter().filter(|kind| **kind == Kind::Exit).count() / 238;
        for place in 0..self.relays.len() {
            let kind = self.kinds[place];
            let relay = &mut self.relays[place];
            relay.family_kind = match sizes[relay.family as usize] {
                1 => FamilyKind::Alone,
                members if members > LONGEST_LIST => FamilyKind::Id,
                _ => FamilyKind::List,
            };
            describe(relay, kind, &habits[relay.family as usize], &mut self.draw);
        }
        let mut exits: Vec<usize> = (0..self.relays.len()).filter(|at| self.kinds[*at] == Kind::Exit).collect();
        self.draw.shuffle(&mut exits);
        exits.into_iter().take(bad_exits).for_each(|at| self.relays[at].flags.bad_exit = true);
    }
}

/// What one operator does alike on all relays.
struct Habits {
    version: &'static str,
    policy: &'static str,
}

impl Habits {
    fn draw(draw: &mut Draw) -> Self {
        Self { version: draw.pick(VERSIONS), policy: draw.pick(POLICIES) }
    }
}

fn describe(relay: &mut Relay, kind: Kind, habits: &Habits, draw: &mut Draw) {
    let is_exit = kind == Kind::Exit;
    let guard = kind == Kind::Guard || (is_exit && draw.chance(0.5));
    let stable = guard || draw.chance(if is_exit { 0.96 } else { 0.54 });
    relay.flags = Flags {
        guard,
        exit: is_exit,
        bad_exit: false,
        stable,
        fast: guard || is_exit || relay.weight >= 100,
        v2dir: guard || draw.chance(0.97),
        hsdir: stable && draw.chance(0.9),
    };
    // One version and one policy an operator, but no relay of the largest may decide the whole network's shares.
    relay.version = if draw.chance(0.5) { habits.version } else { draw.pick(VERSIONS) };
    if draw.chance(if is_exit { 0.85 } else { 0.41 }) {
        relay.ipv6 = Some(local_v6(relay.address));
    }
    if is_exit {
        relay.policy = if draw.chance(0.5) { habits.policy } else { draw.pick(POLICIES) };
        if relay.ipv6.is_some() && draw.chance(0.99) {
            relay.policy_v6 = relay.policy;
        }
    }
    let age = (164.0f64.ln() + 0.746 * draw.normal()).exp() * DAY;
    relay.uptime = uptime(is_exit, draw.unit()).min(age) as u64;
    relay.age = age as u64;
    relay.flaky = draw.chance(if stable { 0.07 } else { 0.8 });
}

/// The uptime at a quantile, in seconds: straight lines between the points that the sample shows.
fn uptime(is_exit: bool, quantile: f64) -> f64 {
    const EXIT: [(f64, f64); 5] = [(0.0, 0.0), (0.15, 1.0), (0.5, 3.9), (0.65, 7.0), (1.0, 60.0)];
    const OTHER: [(f64, f64); 5] = [(0.0, 0.0), (0.06, 1.0), (0.38, 7.0), (0.5, 27.0), (1.0, 120.0)];
    let points = if is_exit { EXIT } else { OTHER };
    let pair = points.windows(2).find(|pair| quantile <= pair[1].0).unwrap_or(&points[3..]);
    let along = (quantile - pair[0].0) / (pair[1].0 - pair[0].0);
    (pair[0].1 + along * (pair[1].1 - pair[0].1)) * DAY
}

/// The `number`-th second octet that relays may have: 1 to 99, then 200 to 254.
fn try_octet(number: usize) -> Option<u8> {
    match number {
        0..=98 => Some(1 + number as u8),
        99..=153 => Some((101 + number) as u8),
        _ => None,
    }
}

fn octet(number: usize) -> u8 {
    try_octet(number).expect("there are fewer operators than octets")
}

/// The address of a machine in its operator's /16. The third octet stays below 240, where [`outside_address`] begins.
fn machine_address(octet: u8, number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, octet, 1 + (number / 200 % 230) as u8, 10 + (number % 200) as u8)
}

/// An address that only streams leave from.
fn outside_address(octet: u8, number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, octet, 240 + (number / 200 % 10) as u8, 10 + (number % 200) as u8)
}

/// An IPv6 address of local use. Its first 32 bits differ wherever the IPv4 address' /16 does: a /32 is to IPv6 what a /16 is
/// to IPv4 where relays of one neighbourhood are kept out of one circuit.
fn local_v6(address: Ipv4Addr) -> Ipv6Addr {
    let [_, octet, c, d] = address.octets();
    Ipv6Addr::new(0xfd00, u16::from(octet), u16::from(c), 0, 0, 0, 0, u16::from(d))
}
