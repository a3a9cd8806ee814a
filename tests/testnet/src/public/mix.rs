//! How many proxies of which kind, where they stand and what a list says of them: pure and the same on every run.

use std::net::{Ipv4Addr, SocketAddrV4};

use serde::Serialize;

use crate::ground::Ground;

/// The first of the third octets that proxies stand on; the rest of the /16 is theirs.
pub(crate) const FIRST_SUBNET: u8 = 128;
/// How many third octets lie in one country.
pub(crate) const SUBNETS_A_COUNTRY: u8 = 8;
/// The countries of the subnets, in order; the last is in no geoip file.
pub(crate) const COUNTRIES: [&str; 16] =
    ["US", "DE", "FR", "NL", "GB", "CA", "JP", "BR", "IN", "ID", "RU", "CN", "SE", "CH", "PL", "ZZ"];

/// Most proxies of one network: 254 on each of 128 subnets.
const CAPACITY: u32 = 128 * 254;

/// What a proxy really does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// What it should.
    Good,
    /// Nobody listens.
    Dead,
    /// Takes connections and never answers.
    Hanging,
    /// Does what it should after three seconds.
    Slow,
    /// Replaces its own address in plain answers by one that is not its own ([`super::Proxy::claims`]).
    Lying,
    /// Changes HTML and binary bodies that pass through in the clear.
    Tampering,
    /// Ends TLS itself, with a certificate from a CA of its own.
    BreaksTls,
    /// Tells the target the client's address in `X-Forwarded-For`. Only HTTP proxies can; another protocol is [`Kind::Good`].
    Transparent,
    /// Says that it is a proxy (`Via`) but not for whom. Only HTTP proxies can.
    Anonymous,
    /// Forwards plain requests and refuses CONNECT. Only HTTP proxies can.
    NoConnect,
    /// Resets every other connection.
    Flapping,
    /// Asks for a password.
    Locked,
    /// An ordinary web server that answers 200 to anything.
    WebServer,
}

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP, with CONNECT where the list says `https`.
    Http,
    /// SOCKS4 and 4a.
    Socks4,
    /// SOCKS5 without a password.
    Socks5,
}

/// How many of each kind. Protocols take turns: two of HTTP, one SOCKS4, one SOCKS5, as on real lists.
#[derive(Clone, Debug)]
pub struct Mix(Vec<(Kind, u32)>);

impl Mix {
    /// Exactly these.
    pub fn of(counts: &[(Kind, u32)]) -> Self {
        Self(counts.to_vec())
    }

    /// About `total`, in proportions as on a free list: most are dead or hang, one in five is good.
    pub fn typical(total: u32) -> Self {
        const PERMILLE: [(Kind, u32); 13] = [
            (Kind::Good, 200),
            (Kind::Dead, 350),
            (Kind::Hanging, 150),
            (Kind::Slow, 40),
            (Kind::Lying, 30),
            (Kind::Tampering, 30),
            (Kind::BreaksTls, 30),
            (Kind::Transparent, 50),
            (Kind::Anonymous, 20),
            (Kind::NoConnect, 30),
            (Kind::Flapping, 20),
            (Kind::Locked, 30),
            (Kind::WebServer, 20),
        ];
        Self(PERMILLE.iter().map(|&(kind, share)| (kind, (total * share).div_ceil(1000))).collect())
    }
}

/// One proxy: the truth, and what the list says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// What it really does.
    pub kind: Kind,
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it stands, and what a target sees.
    pub address: SocketAddrV4,
    /// The country of its address in the geoip file; `ZZ` is none.
    pub country: &'static str,
    /// Whether the list says that it takes CONNECT.
    pub listed_https: bool,
    /// The country on the list: right for half of them, else `ZZ` or wrong.
    pub listed_country: &'static str,
    /// The anonymity on the list, which is often wrong.
    pub listed_anonymity: &'static str,
}

impl Proxy {
    /// `socks5://127.100.128.1:1080`.
    pub fn url(&self) -> String {
        let scheme = match self.protocol {
            Protocol::Http => "http",
            Protocol::Socks4 => "socks4",
            Protocol::Socks5 => "socks5",
        };
        format!("{scheme}://{}", self.address)
    }

    /// The address that a lying proxy puts in the place of its own: as long as that, so that no length changes.
    pub fn claims(&self) -> Ipv4Addr {
        let [.., last] = self.address.ip().octets();
        Ipv4Addr::new(203, 113, 113, last)
    }
}

/// The proxies of a mix on `ground`: kinds, protocols and countries take turns, so that every combination is there.
pub(super) fn lay_out(mix: &Mix, ground: &Ground) -> anyhow::Result<Vec<Proxy>> {
    let total: u32 = mix.0.iter().map(|(_, count)| count).sum();
    anyhow::ensure!(total <= CAPACITY, "{total} proxies: there is room for {CAPACITY}");
    let kinds = mix.0.iter().flat_map(|&(kind, count)| (0..count).map(move |turn| (kind, turn)));
    Ok(kinds.zip(0..).map(|((kind, turn), index)| proxy(kind, turn, index, ground)).collect())
}

/// The `turn`-th proxy of its kind, the `index`-th of all.
fn proxy(kind: Kind, turn: u32, index: u32, ground: &Ground) -> Proxy {
    const TURNS: [Protocol; 4] = [Protocol::Http, Protocol::Socks5, Protocol::Http, Protocol::Socks4];
    const HTTP_PORTS: [u16; 4] = [8080, 3128, 80, 8888];
    const CLAIMS: [&str; 4] = ["elite", "anonymous", "elite", "transparent"];
    let needs_http = matches!(kind, Kind::Transparent | Kind::Anonymous | Kind::NoConnect);
    let protocol = if needs_http { Protocol::Http } else { TURNS[turn as usize % TURNS.len()] };
    let block = (index % 16) as u8; // one country after the other
    let (subnet, host) = ((index / 16 / 254) as u8, (index / 16 % 254) as u8);
    let port = match protocol {
        Protocol::Http => unprivileged(HTTP_PORTS[turn as usize / 4 % HTTP_PORTS.len()]),
        Protocol::Socks4 => 4145,
        Protocol::Socks5 => 1080,
    };
    let country = COUNTRIES[usize::from(block)];
    Proxy {
        kind,
        protocol,
        address: SocketAddrV4::new(ground.ip(FIRST_SUBNET + block * SUBNETS_A_COUNTRY + subnet, host + 1), port),
        country,
        listed_https: protocol == Protocol::Http && turn % 3 != 2,
        listed_country: match turn % 6 {
            0..3 => country,
            3 | 4 => "ZZ",
            _ => COUNTRIES[usize::from(block + 5) % COUNTRIES.len()],
        },
        listed_anonymity: CLAIMS[turn as usize % CLAIMS.len()],
    }
}

/// Port 80 needs a privilege that not everybody has, and there must be no difference between machines.
fn unprivileged(port: u16) -> u16 {
    if port < 1024 { port + 8000 } else { port }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_proxies_share_an_address_and_countries_are_where_they_should_be() {
        let ground = Ground::claim().unwrap();
        let proxies = lay_out(&Mix::typical(5_000), &ground).unwrap();
        let addresses: BTreeSet<_> = proxies.iter().map(|proxy| *proxy.address.ip()).collect();
        assert_eq!(addresses.len(), proxies.len());
        for proxy in &proxies {
            let block = (proxy.address.ip().octets()[2] - FIRST_SUBNET) / SUBNETS_A_COUNTRY;
            assert_eq!(proxy.country, COUNTRIES[usize::from(block)]);
        }
    }

    #[test]
    fn a_mix_has_what_was_ordered() {
        let ground = Ground::claim().unwrap();
        let proxies = lay_out(&Mix::of(&[(Kind::Good, 8), (Kind::NoConnect, 3)]), &ground).unwrap();
        let count = |kind, protocol| proxies.iter().filter(|p| p.kind == kind && p.protocol == protocol).count();
        assert_eq!((count(Kind::Good, Protocol::Http), count(Kind::Good, Protocol::Socks4)), (4, 2));
        assert_eq!(count(Kind::NoConnect, Protocol::Http), 3, "only HTTP has a CONNECT to refuse");
        assert!(lay_out(&Mix::of(&[(Kind::Good, CAPACITY + 1)]), &ground).is_err());
    }

    #[test]
    fn a_lie_is_as_long_as_the_truth() {
        let ground = Ground::claim().unwrap();
        for proxy in lay_out(&Mix::of(&[(Kind::Lying, 3_000)]), &ground).unwrap() {
            assert_eq!(proxy.claims().to_string().len(), proxy.address.ip().to_string().len());
        }
    }
}
