//! Decides which guards this machine can reach: the FILTERED set of guard-spec. Pure: no I/O.
//!
//! A firewall may let out only some ports, or the machine may have only IPv6. The user tells tor so with options of its
//! torrc. tor would refuse to connect to other guards, so such guards must not be chosen. The options have the meaning
//! that tor gives them: a list is read from the left, the first rule that fits an address decides, and an address that
//! fits no rule is rejected.

use std::net::{IpAddr, Ipv6Addr};

use super::super::netdir::Relay;

/// One rule of a list such as `accept 18.0.0.0/8:80, reject *:*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    accept: bool,
    net: Net,
    /// The lowest and the highest port.
    ports: (u16, u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Net {
    Any,
    /// All IPv6 addresses if true, and all IPv4 addresses if false.
    Version(bool),
    /// All addresses that equal this address in this number of first bits.
    Prefix(IpAddr, u8),
}

/// The rules that tell which addresses this machine can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reachable {
    /// The rules, in order. `None` if every address can be reached.
    rules: Option<Vec<Rule>>,
    v4: bool,
    v6: bool,
}

impl Default for Reachable {
    fn default() -> Self {
        Self { rules: None, v4: true, v6: false }
    }
}

impl Reachable {
    /// The names of the options of tor from which this type is read.
    pub const OPTIONS: [&'static str; 6] = [
        "ReachableAddresses",
        "ReachableORAddresses",
        "FascistFirewall",
        "FirewallPorts",
        "ClientUseIPv4",
        "ClientUseIPv6",
    ];

    /// Reads the options of tor. `value` returns all values of an option, with commas between them, or `None` if the
    /// option is not set. A list that cannot be parsed is ignored: tor itself has already accepted its options.
    pub fn of(value: impl Fn(&str) -> Option<String>) -> Self {
        let list = |option: &str| value(option).filter(|text| !text.trim().is_empty()).and_then(|text| rules(&text));
        let is = |option: &str, word: &str| value(option).is_some_and(|text| text.trim() == word);
        let firewall = || {
            let ports = value("FirewallPorts").filter(|ports| !ports.trim().is_empty());
            let ports = ports.unwrap_or_else(|| "443".to_owned());
            rules(&ports.split(',').map(|port| format!("*:{}", port.trim())).collect::<Vec<_>>().join(","))
        };
        let rules = list("ReachableORAddresses").or_else(|| list("ReachableAddresses"));
        let rules = rules.or_else(|| is("FascistFirewall", "1").then(firewall).flatten());
        Self { rules, v4: !is("ClientUseIPv4", "0"), v6: is("ClientUseIPv6", "1") }
    }

    /// Returns true if this machine can reach the relay.
    pub(super) fn reaches(&self, relay: Relay<'_>) -> bool {
        let allows = |ip| self.allows(ip, relay.or_port());
        (self.v4 && allows(relay.v4().into())) || (self.v6 && relay.v6().is_some_and(|ip| allows(ip.into())))
    }

    fn allows(&self, ip: IpAddr, port: u16) -> bool {
        let Some(rules) = &self.rules else { return true };
        let fits = |rule: &&Rule| (rule.ports.0..=rule.ports.1).contains(&port) && rule.net.contains(ip);
        rules.iter().find(fits).is_some_and(|rule| rule.accept)
    }
}

impl Net {
    fn contains(self, ip: IpAddr) -> bool {
        match (self, ip) {
            (Self::Any, _) => true,
            (Self::Version(v6), ip) => ip.is_ipv6() == v6,
            (Self::Prefix(IpAddr::V4(net), bits), IpAddr::V4(ip)) => {
                first_bits(net.to_bits().into(), bits, 32) == first_bits(ip.to_bits().into(), bits, 32)
            }
            (Self::Prefix(IpAddr::V6(net), bits), IpAddr::V6(ip)) => {
                first_bits(net.to_bits(), bits, 128) == first_bits(ip.to_bits(), bits, 128)
            }
            (Self::Prefix(..), _) => false,
        }
    }
}

fn first_bits(value: u128, bits: u8, length: u8) -> u128 {
    value.checked_shr(u32::from(length - bits.min(length))).unwrap_or(0)
}

/// Parses a list of rules. Returns `None` if one of the rules cannot be parsed.
fn rules(text: &str) -> Option<Vec<Rule>> {
    let rules = text.split(',').map(str::trim).filter(|rule| !rule.is_empty());
    let mut all = Vec::new();
    for rule in rules {
        all.extend(parse(rule)?);
    }
    Some(all)
}

/// Parses one rule. Returns several rules for `private`, because this word stands for several networks. Returns `None`
/// if the text is not a rule.
fn parse(text: &str) -> Option<Vec<Rule>> {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or(("accept", text));
    let accept = match word.to_ascii_lowercase().as_str() {
        "accept" | "accept6" => true,
        "reject" | "reject6" => false,
        _ => return None,
    };
    let rest = rest.trim();
    // The port comes after the last colon, unless that colon belongs to an IPv6 address.
    let (net, port) = match rest.rsplit_once(':') {
        Some((net, port)) if !net.contains('[') || net.contains(']') => (net, port),
        _ => (rest, "*"),
    };
    let ports = match port.split_once('-') {
        _ if port == "*" => (1, u16::MAX),
        Some((low, high)) => (low.parse().ok()?, high.parse().ok()?),
        None => (port.parse().ok()?, port.parse().ok()?),
    };
    let nets = match net {
        "*" => vec![Net::Any],
        "*4" => vec![Net::Version(false)],
        "*6" => vec![Net::Version(true)],
        "private" => PRIVATE.iter().map(|net| prefix(net)).collect::<Option<_>>()?,
        net => vec![prefix(net)?],
    };
    Some(nets.into_iter().map(|net| Rule { accept, net, ports }).collect())
}

/// The networks that the word `private` of tor's options stands for.
const PRIVATE: [&str; 11] = [
    "0.0.0.0/8",
    "169.254.0.0/16",
    "127.0.0.0/8",
    "192.168.0.0/16",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "[::]/8",
    "[fc00::]/7",
    "[fe80::]/10",
    "[fec0::]/10",
    "[ff00::]/8",
];

/// Parses an address, with or without the length of a network's prefix.
fn prefix(text: &str) -> Option<Net> {
    let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
    let ip: IpAddr = match ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().ok()?.into(),
        None => ip.parse().ok()?,
    };
    let longest = if ip.is_ipv6() { 128 } else { 32 };
    let bits = bits.map_or(Some(longest), |bits| bits.parse().ok()).filter(|bits| *bits <= longest)?;
    Some(Net::Prefix(ip, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[(&str, &str)]) -> Reachable {
        Reachable::of(|option| options.iter().find(|(name, _)| *name == option).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn lists_mean_what_they_mean_to_tor() {
        for (list, reached, not) in [
            ("*:443", &["1.2.3.4 443", "2001:db8::1 443"][..], &["1.2.3.4 9001"][..]),
            ("accept *:80, accept *:443", &["1.2.3.4 80", "1.2.3.4 443"], &["1.2.3.4 81"]),
            ("reject 18.0.0.0/7:80, *:80", &["20.0.0.1 80"], &["18.0.0.1 80", "19.255.0.1 80", "20.0.0.1 81"]),
            ("99.0.0.0/8, reject *:*", &["99.1.1.1 1"], &["98.1.1.1 1"]),
            ("*4:9001-9003", &["1.1.1.1 9001", "1.1.1.1 9003"], &["1.1.1.1 9004", "1.1.1.1 9000", "2001:db8::1 9001"]),
            ("*6:443", &["2001:db8::1 443"], &["1.1.1.1 443"]),
            ("[2001:db8::]/32:443", &["2001:db8:ffff::1 443"], &["2001:db9::1 443", "1.1.1.1 443"]),
            ("[2001:db8::1]", &["2001:db8::1 7"], &["2001:db8::2 7"]),
            ("reject private:*, accept *:*", &["9.9.9.9 1"], &["10.1.1.1 1", "127.0.0.1 1", "fe80::1 1"]),
            ("1.2.3.4/32:5", &["1.2.3.4 5"], &["1.2.3.5 5"]),
            ("0.0.0.0/0:5", &["200.2.3.4 5"], &["2001:db8::1 5"]),
        ] {
            let reachable = of(&[("ReachableAddresses", list)]);
            for (addresses, want) in [(reached, true), (not, false)] {
                for address in addresses {
                    let (ip, port) = address.split_once(' ').unwrap();
                    assert_eq!(reachable.allows(ip.parse().unwrap(), port.parse().unwrap()), want, "{list}: {address}");
                }
            }
        }
    }

    #[test]
    fn the_options_are_read_in_tors_order() {
        let allows = |options: &[(&str, &str)], port| of(options).allows("1.2.3.4".parse().unwrap(), port);
        assert!(allows(&[], 9001), "nothing is set");
        assert!(allows(&[("FascistFirewall", "1")], 443) && !allows(&[("FascistFirewall", "1")], 9001));
        assert!(allows(&[("FascistFirewall", "0")], 9001));
        let ports = [("FascistFirewall", "1"), ("FirewallPorts", "9001, 80")];
        assert!(allows(&ports, 9001) && allows(&ports, 80) && !allows(&ports, 443));
        assert!(allows(&[("FirewallPorts", "80")], 443), "these ports count only behind such a firewall");
        let both = [("FascistFirewall", "1"), ("ReachableAddresses", "*:9001"), ("ReachableORAddresses", "*:5")];
        assert!(allows(&both, 5) && !allows(&both, 9001) && !allows(&both, 443));
        assert!(allows(&both[..2], 9001) && !allows(&both[..2], 443));
        for unreadable in ["nonsense", "accept", "*:x", "1.2.3.4/33", "*:9-x", "deny *:*"] {
            assert!(allows(&[("ReachableAddresses", unreadable)], 1), "{unreadable}");
        }
    }

    #[test]
    fn versions_of_ip_are_turned_on_and_off() {
        let versions = |options: &[(&str, &str)]| (of(options).v4, of(options).v6);
        assert_eq!(versions(&[]), (true, false));
        assert_eq!(versions(&[("ClientUseIPv4", "0"), ("ClientUseIPv6", "1")]), (false, true));
        assert_eq!(versions(&[("ClientUseIPv4", "1"), ("ClientUseIPv6", "auto")]), (true, false));
    }
}
