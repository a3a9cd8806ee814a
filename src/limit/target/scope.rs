//! Classifies IP addresses by IANA's registries of special-purpose addresses.
//!
//! An IPv6 address may contain an IPv4 address, and a translator (NAT64, 6to4, a mapped socket) would connect to this
//! IPv4 address. Therefore such an IPv6 address gets the class of the IPv4 address in it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kind of network that an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The public internet.
    Public,
    /// `0.0.0.0`. With this address as a target, most kernels connect to this machine.
    Unspecified,
    Loopback,
    Private,
    /// The local network segment.
    LinkLocal,
    /// The metadata service of a cloud provider, which gives credentials to every client inside the cloud machine.
    Metadata,
    /// The network behind a provider's NAT (RFC 6598).
    Shared,
    Multicast,
    /// Addresses for examples in documents.
    Documentation,
    Benchmark,
    /// Addresses that are reserved or not assigned yet.
    Reserved,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::Metadata => "a metadata service",
            Self::Shared => "a provider's inner network",
            Self::Multicast => "multicast",
            Self::Documentation => "documentation",
            Self::Benchmark => "for benchmarks",
            Self::Reserved => "reserved",
        })
    }
}

/// Classifies an address. An IPv6 address that contains an IPv4 address gets the class of the IPv4 address.
pub fn scope(ip: IpAddr) -> Scope {
    match ip {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => v6(ip),
    }
}

fn v4(ip: Ipv4Addr) -> Scope {
    use Scope::*;
    match ip.octets() {
        // The metadata services of AWS and nearly all others, AWS containers, Alibaba, Oracle and Azure. These
        // addresses must be checked first, because they lie in the ranges below.
        [169, 254, 169, 254] | [169, 254, 170, 2] | [100, 100, 100, 200] | [192, 0, 0, 192] | [168, 63, 129, 16] => {
            Metadata
        }
        [0, ..] => Unspecified,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Private,
        [100, 64..=127, ..] => Shared,
        [127, ..] => Loopback,
        [169, 254, ..] => LinkLocal,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Documentation,
        [198, 18..=19, ..] => Benchmark,
        [192, 0, 0, _] | [192, 88, 99, _] => Reserved,
        [224..=239, ..] => Multicast,
        [240..=255, ..] => Reserved,
        _ => Public,
    }
}

fn v6(ip: Ipv6Addr) -> Scope {
    use Scope::*;
    let words = ip.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        v4(Ipv4Addr::new(a, b, c, d))
    };
    match words {
        [0, 0, 0, 0, 0, 0, 0, 0] => Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Loopback,
        // IPv4-mapped addresses, IPv4-translated addresses, and NAT64's well-known prefix.
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),    // 6to4
        [0x64, 0xff9b, 1, ..] => Private,                  // NAT64 inside one network
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => Metadata, // AWS metadata
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Private,
        [0xfe80..=0xfebf, ..] => LinkLocal,
        [0xff00..=0xffff, ..] => Multicast,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Documentation,
        [0x2001, 2, 0, ..] => Benchmark,
        [0x2001, 0..=0x1ff, ..] => Reserved, // Teredo, ORCHID and other protocols of the IETF
        // ISATAP addresses: any prefix, followed by the IPv4 address of a machine behind the router.
        [0x2000..=0x3fff, _, _, _, 0 | 0x200, 0x5efe, high, low] => embedded(high, low),
        [0x2000..=0x3fff, ..] => Public,
        _ => Reserved,
    }
}

#[cfg(test)]
mod tests {
    use super::Scope::*;
    use super::*;

    #[test]
    fn sorts_every_special_range_at_both_of_its_edges() {
        for (want, addresses) in [
            (Unspecified, "0.0.0.0 0.255.255.255 ::"),
            (Loopback, "127.0.0.1 127.0.0.0 127.255.255.255 ::1 ::ffff:127.0.0.1 64:ff9b::7f00:1 2002:7f00:1::"),
            (Private, "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255"),
            (
                Private,
                "fc00:: fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff fec0::1 feff::1 64:ff9b:1::1 64:ff9b:1:ffff::808:808",
            ),
            (Private, "::ffff:10.0.0.1 ::ffff:0:10.0.0.1 64:ff9b::10.0.0.1 2002:c0a8:101::1 2002:a00:1:2:3:4:5:6"),
            (Private, "2a00:1450::5efe:10.0.0.1 2a00:1450::200:5efe:192.168.0.1"),
            (LinkLocal, "169.254.0.0 169.254.255.255 fe80::1 febf::1 2002:a9fe:1::"),
            (Metadata, "169.254.169.254 169.254.170.2 100.100.100.200 192.0.0.192 168.63.129.16 fd00:ec2::254"),
            (Metadata, "::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1"),
            (Shared, "100.64.0.0 100.127.255.255"),
            (Multicast, "224.0.0.0 239.255.255.255 ff00:: ff02::1 ffff::"),
            (Documentation, "192.0.2.0 192.0.2.255 198.51.100.1 203.0.113.1 2001:db8::1 3fff::1 3fff:fff::1"),
            (Benchmark, "198.18.0.0 198.19.255.255 2001:2::1"),
            (Reserved, "192.0.0.1 192.88.99.1 240.0.0.0 255.255.255.255 100::1 2001::1 2001:10::1 2001:1ff::1 4000::"),
            (Reserved, "::2 ::127.0.0.1 ::8.8.8.8 1fff:: 5f00::1 fbff::"),
            (Public, "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 172.15.255.255 172.32.0.0 192.167.0.1 192.169.0.1"),
            (
                Public,
                "100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.0.1 198.17.0.1 198.20.0.1 223.0.0.1",
            ),
            (Public, "2000:: 2606:4700::1111 2001:200::1 2a00:1450::1 3ffe::1 64:ff9b::8.8.8.8 2002:808:808::1"),
            (Public, "::ffff:8.8.8.8 2a00:1450::5efe:8.8.8.8"),
        ] {
            for text in addresses.split(' ') {
                assert_eq!(scope(text.parse().unwrap()), want, "{text}");
            }
        }
    }
}
