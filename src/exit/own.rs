//! Exits that are addresses of this machine: which addresses the configured networks stand for.
//!
//! An operator with several addresses, or with a whole IPv6 prefix, lets connections leave from each of them. Each
//! address is one exit. A prefix has too many addresses to test all of them, so it stands for a fixed number of its
//! addresses. These are chosen by a hash of the prefix, so they are the same after each restart: pins keep their
//! addresses.
//!
//! In an IPv6 prefix the chosen addresses are spread over all its /64 networks, because sites count a /64 network as one
//! visitor.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::capacity::stir;

/// What an id of an own address begins with. The address follows.
const SCHEME: &str = "direct://";

/// Returns the text of an own address as the id of an exit.
pub(super) fn id(ip: IpAddr) -> String {
    format!("{SCHEME}{ip}")
}

/// Reads the text that [`id`] writes.
pub(super) fn parse_id(text: &str) -> Option<IpAddr> {
    text.strip_prefix(SCHEME)?.parse().ok()
}

/// Returns the addresses that the networks stand for, each once. A network that is one address stands for itself. A
/// larger one stands for all its host addresses, or for `most` of them if it has more.
pub fn addresses(networks: &[IpNet], most: usize) -> Vec<IpAddr> {
    let mut seen = BTreeSet::new();
    networks.iter().flat_map(|network| of_network(network, most)).filter(|ip| seen.insert(*ip)).collect()
}

fn of_network(network: &IpNet, most: usize) -> Vec<IpAddr> {
    let host_bits = u32::from(network.max_prefix_len() - network.prefix_len());
    if host_bits == 0 {
        return vec![network.addr()];
    }
    let reserved = reserved(network);
    // A shift by 128 bits would overflow; no list is that long, so 2^127 stands for it.
    let size = 1u128 << host_bits.min(127);
    if size <= most as u128 + 2 {
        let all = (0..size).map(|host| with_host(network, host));
        return all.filter(|ip| !reserved.contains(ip)).take(most).collect();
    }
    let mut chosen = BTreeSet::new();
    let mut drawn = Vec::new();
    for index in 0.. {
        let ip = with_host(network, host(network, index) & (size - 1));
        if !reserved.contains(&ip) && chosen.insert(ip) {
            drawn.push(ip);
        }
        if drawn.len() == most {
            break;
        }
    }
    drawn
}

/// The addresses of a network that belong to no host: the network and the broadcast address of IPv4, and the anycast
/// address of the routers of IPv6. A network of two addresses has none of them (RFC 3021, RFC 6164).
fn reserved(network: &IpNet) -> Vec<IpAddr> {
    match network {
        _ if network.max_prefix_len() - network.prefix_len() < 2 => Vec::new(),
        IpNet::V4(_) => vec![network.network(), network.broadcast()],
        IpNet::V6(_) => vec![network.network()],
    }
}

/// The host part of the address with this index, as a hash.
fn host(network: &IpNet, index: u64) -> u128 {
    let bits = bits(network.network());
    let seed = stir((bits >> 64) as u64, bits as u64);
    let half = |n: u64| u128::from(stir(seed, n));
    half(2 * index) << 64 | half(2 * index + 1)
}

fn with_host(network: &IpNet, host: u128) -> IpAddr {
    let whole = bits(network.network()) | host;
    match network {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(whole as u32)),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(whole)),
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(networks: &[&str], most: usize) -> Vec<String> {
        let networks: Vec<IpNet> = networks.iter().map(|network| network.parse().unwrap()).collect();
        addresses(&networks, most).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn small_networks_stand_for_all_their_hosts() {
        assert_eq!(of(&["192.0.2.10/32", "2001:db8::1/128"], 1), ["192.0.2.10", "2001:db8::1"]);
        assert_eq!(of(&["192.0.2.8/30"], 9), ["192.0.2.9", "192.0.2.10"], "without network and broadcast address");
        assert_eq!(of(&["192.0.2.8/29"], 1).len(), 1, "one of six");
        assert_eq!(of(&["192.0.2.8/31"], 9), ["192.0.2.8", "192.0.2.9"], "a link of two hosts has no broadcast");
        assert_eq!(of(&["2001:db8::/127"], 9), ["2001:db8::", "2001:db8::1"]);
        assert_eq!(of(&["2001:db8::/126"], 9), ["2001:db8::1", "2001:db8::2", "2001:db8::3"]);
        assert_eq!(of(&["192.0.2.9/32", "192.0.2.8/30"], 9), ["192.0.2.9", "192.0.2.10"], "each address once");
    }

    /// Pins keep their addresses over updates of the program, so these addresses must never change.
    #[test]
    fn a_prefix_stands_for_the_same_addresses_forever() {
        assert_eq!(of(&["2001:db8::/48"], 2), of(&["2001:db8::/48"], 5)[..2]);
        assert_ne!(of(&["2001:db8::/48"], 2), of(&["2001:db8:1::/48"], 2));
        assert_eq!(
            of(&["2001:db8::/48"], 2),
            ["2001:db8:0:e272:51f0:5ce:e99f:7ffa", "2001:db8:0:d9d5:c9a1:fd86:be1c:1711"]
        );
    }

    #[test]
    fn addresses_of_a_prefix_are_in_different_64_networks() {
        let all = of(&["2001:db8::/48"], 64);
        let nets: BTreeSet<u64> =
            all.iter().map(|ip| (ip.parse::<Ipv6Addr>().unwrap().to_bits() >> 64) as u64).collect();
        assert!(nets.len() > 60, "{nets:?}");
    }

    #[test]
    fn an_id_is_read_back() {
        for ip in ["192.0.2.1", "2001:db8::1"] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(parse_id(&id(ip)), Some(ip));
        }
        for bad in ["direct", "direct://", "direct://host", "http://192.0.2.1:80", "192.0.2.1"] {
            assert_eq!(parse_id(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn addresses_are_inside_and_different(ip in any::<u128>(), four in any::<bool>(), length in 0u8..=128, most in 1usize..40) {
            let ip = if four { IpAddr::V4(Ipv4Addr::from_bits(ip as u32)) } else { IpAddr::V6(Ipv6Addr::from_bits(ip)) };
            let network = IpNet::new(ip, length.min(if four { 32 } else { 128 })).unwrap();
            let all = addresses(&[network], most);
            prop_assert!(!all.is_empty() && all.len() <= most);
            prop_assert!(all.iter().all(|ip| network.contains(ip)));
            prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        }
    }
}
