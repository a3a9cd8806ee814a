//! How many proxies of which kind there are, their addresses, and what a list says of them: no I/O, and the same on every run.

use std::net::{Ipv4Addr, SocketAddrV4};

use serde::Serialize;

use crate::sandbox::Sandbox;

/// The lowest third octet of the proxies' addresses. All higher ones belong to proxies.
pub(crate) const FIRST_SUBNET: u8 = 128;
/// How many third octets are in one country.
pub(crate) const SUBNETS_A_COUNTRY: u8 = 8;
/// The countries of the subnets, in order. The last one is in no geoip file.
pub(crate) const COUNTRIES: [&str; 16] =
    ["US", "DE", "FR", "NL", "GB", "CA", "JP", "BR", "IN", "ID", "RU", "CN", "SE", "CH", "PL", "ZZ"];

/// The most proxies of one sandbox: 254 in each of 128 subnets.
const CAPACITY: u32 = 128 * 254;

/// What a proxy really does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Works well.
    Good,
    /// Nobody listens.
    Dead,
    /// Accepts connections and never answers.
    Hanging,
    /// Works well after three seconds.
    Slow,
    /// Replaces its own address in plain answers by another one ([`super::Proxy::claims`]).
    Lying,
    /// Changes HTML and binary bodies that are not encrypted.
    Tampering,
    /// Ends TLS itself, with a certificate from a CA of its own.
    BreaksTls,
    /// Tells the target the client's address in `X-Forwarded-For`. Only HTTP proxies can; another protocol is [`Kind::Good`].
    Transparent,
    /// Tells the target that it is a proxy (`Via`), but not the client's address. Only HTTP proxies can.
    Anonymous,
    /// Forwards plain requests and refuses CONNECT. Only HTTP proxies can.
    NoConnect,
    /// Resets every second connection.
    Flapping,
    /// Asks for a password.
    Locked,
    /// An ordinary web server that answers 200 to anything.
    WebServer,
}

/// The protocol of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP; with CONNECT if the list says `https`.
    Http,
    /// SOCKS4 and 4a.
    Socks4,
    /// SOCKS5 without a password.
    Socks5,
}

/// How many proxies of each kind. The protocols alternate: two HTTP, one SOCKS4, one SOCKS5, as on real lists.
#[derive(Clone, Debug)]
pub struct Mix(Vec<(Kind, u32)>);

impl Mix {
    pub fn of(counts: &[(Kind, u32)]) -> Self {
        Self(counts.to_vec())
    }

    /// About `total`, in the proportions of a free list: half are dead or hang, one in five is good.
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
    pub protocol: Protocol,
    /// Its address, which is also the source that a target sees.
    pub address: SocketAddrV4,
    /// The country of its address in the geoip file; `ZZ` means none.
    pub country: &'static str,
    /// Whether the list says that it accepts CONNECT.
    pub listed_https: bool,
    /// The country on the list: right for half of the proxies, else `ZZ` or wrong.
    pub listed_country: &'static str,
    /// The anonymity on the list; often wrong.
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

    /// The address that a lying proxy writes instead of its own. It is as long, so that no length changes.
    pub fn claims(&self) -> Ipv4Addr {
        let [.., last] = self.address.ip().octets();
        Ipv4Addr::new(203, 113, 113, last)
    }
}

/// The proxies of a mix in `sandbox`. Protocols and countries alternate, so that every combination exists.
pub(super) fn lay_out(mix: &Mix, sandbox: &Sandbox) -> anyhow::Result<Vec<Proxy>> {
    let total: u32 = mix.0.iter().map(|(_, count)| count).sum();
    anyhow::ensure!(total <= CAPACITY, "{total} proxies are too many: there are addresses for {CAPACITY}");
    let kinds = mix.0.iter().flat_map(|&(kind, count)| (0..count).map(move |number| (kind, number)));
    Ok(kinds.zip(0..).map(|((kind, number), index)| proxy(kind, number, index, sandbox)).collect())
}

/// The proxy with this number among its kind and this index among all.
fn proxy(kind: Kind, number: u32, index: u32, sandbox: &Sandbox) -> Proxy {
    const ORDER: [Protocol; 4] = [Protocol::Http, Protocol::Socks5, Protocol::Http, Protocol::Socks4];
    const HTTP_PORTS: [u16; 4] = [8080, 3128, 80, 8888];
    const ANONYMITIES: [&str; 4] = ["elite", "anonymous", "elite", "transparent"];
    let needs_http = matches!(kind, Kind::Transparent | Kind::Anonymous | Kind::NoConnect);
    let protocol = if needs_http { Protocol::Http } else { ORDER[number as usize % ORDER.len()] };
    let block = (index % 16) as u8; // the countries alternate
    let (subnet, host) = ((index / 16 / 254) as u8, (index / 16 % 254) as u8);
    let port = match protocol {
        Protocol::Http => unprivileged(HTTP_PORTS[number as usize / 4 % HTTP_PORTS.len()]),
        Protocol::Socks4 => 4145,
        Protocol::Socks5 => 1080,
    };
    let country = COUNTRIES[usize::from(block)];
    Proxy {
        kind,
        protocol,
        address: SocketAddrV4::new(sandbox.ip(FIRST_SUBNET + block * SUBNETS_A_COUNTRY + subnet, host + 1), port),
        country,
        listed_https: protocol == Protocol::Http && number % 3 != 2,
        listed_country: match number % 6 {
            0..3 => country,
            3 | 4 => "ZZ",
            _ => COUNTRIES[usize::from(block + 5) % COUNTRIES.len()],
        },
        listed_anonymity: ANONYMITIES[number as usize % ANONYMITIES.len()],
    }
}

/// Port 80 needs a privilege that some users lack, and the proxies must be the same on every machine.
fn unprivileged(port: u16) -> u16 {
    if port < 1024 { port + 8000 } else { port }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_proxies_share_an_address_and_countries_are_where_they_should_be() {
        let sandbox = Sandbox::claim().unwrap();
        let proxies = lay_out(&Mix::typical(5_000), &sandbox).unwrap();
        let addresses: BTreeSet<_> = proxies.iter().map(|proxy| *proxy.address.ip()).collect();
        assert_eq!(addresses.len(), proxies.len());
        for proxy in &proxies {
            let block = (proxy.address.ip().octets()[2] - FIRST_SUBNET) / SUBNETS_A_COUNTRY;
            assert_eq!(proxy.country, COUNTRIES[usize::from(block)]);
        }
    }

    #[test]
    fn a_mix_has_the_ordered_counts() {
        let sandbox = Sandbox::claim().unwrap();
        let proxies = lay_out(&Mix::of(&[(Kind::Good, 8), (Kind::NoConnect, 3)]), &sandbox).unwrap();
        let count = |kind, protocol| proxies.iter().filter(|p| p.kind == kind && p.protocol == protocol).count();
        assert_eq!((count(Kind::Good, Protocol::Http), count(Kind::Good, Protocol::Socks4)), (4, 2));
        assert_eq!(count(Kind::NoConnect, Protocol::Http), 3, "only HTTP has a CONNECT to refuse");
        assert!(lay_out(&Mix::of(&[(Kind::Good, CAPACITY + 1)]), &sandbox).is_err());
    }

    #[test]
    fn a_claimed_address_is_as_long_as_the_real_one() {
        let sandbox = Sandbox::claim().unwrap();
        for proxy in lay_out(&Mix::of(&[(Kind::Lying, 3_000)]), &sandbox).unwrap() {
            assert_eq!(proxy.claims().to_string().len(), proxy.address.ip().to_string().len());
        }
    }
}
