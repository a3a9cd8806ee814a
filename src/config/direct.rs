//! `[sources.direct]`: the own addresses from which direct connections leave.

use std::net::IpAddr;

use ipnet::IpNet;

use super::findings::Findings;
use super::key_path::KeyPath;
use super::schema;
use super::text_value::Text;
use crate::exit::own;

/// The largest number of own addresses. Each of them is tested and takes some kilobytes of memory. Not tuned.
const MOST: usize = 10_000;

/// The settings of `[sources.direct]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Direct {
    /// The networks whose addresses are exits. If empty, this machine is one exit, with the address that the operating
    /// system chooses.
    pub bind: Vec<IpNet>,
    /// The addresses that `bind` stands for.
    pub addresses: Vec<IpAddr>,
}

impl Direct {
    pub(super) fn validate(file: &schema::Direct, allowed: bool, findings: &mut Findings) -> Self {
        let mut bind = Vec::new();
        for (index, Text(network)) in file.bind.iter() {
            let ip = network.addr();
            if ip.is_unspecified() || ip.is_multicast() || matches!(ip, IpAddr::V4(v4) if v4.is_broadcast()) {
                let what = format!("is {network}, from which no connection can leave");
                let hint = "write an address of this machine, or a network that is routed to this machine";
                findings.fault(KeyPath::from("sources.direct.bind").index(index), what, hint);
            }
            bind.push(*network);
        }
        let addresses = own::addresses(&bind, file.per_network.0 as usize);
        if addresses.len() > MOST {
            let what = format!("makes {} exits of sources.direct.bind", addresses.len());
            findings.fault(
                "sources.direct.per_network",
                what,
                format!("write a smaller number: {MOST} exits are possible"),
            );
        }
        if !bind.is_empty() && !allowed {
            let hint = "set gateway.allow_direct = true if sites may see these addresses";
            findings.warn("sources.direct.bind", "has no effect, because direct connections are not allowed", hint);
        }
        Self { bind, addresses }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    fn direct(text: &str) -> (Result<Vec<String>, String>, String) {
        let text = format!("[gateway]\nallow_direct = true\n[sources.direct]\n{text}");
        match parse("t.toml", &text, [], None) {
            Ok((config, warnings)) => {
                let all = config.sources.direct.addresses.iter().map(ToString::to_string).collect();
                (Ok(all), warnings.iter().map(ToString::to_string).collect())
            }
            Err(faults) => (Err(faults.to_string()), String::new()),
        }
    }

    #[test]
    fn networks_become_addresses() {
        let (all, warned) = direct("bind = ['192.0.2.10', '2001:db8::/48']\nper_network = 3");
        let all = all.unwrap();
        assert_eq!((all.len(), &*all[0], &*warned), (4, "192.0.2.10", ""));
        assert!(all[1..].iter().all(|ip| ip.starts_with("2001:db8:0:")), "{all:?}");
        assert_eq!(direct("").0.unwrap(), [""; 0]);
    }

    #[test]
    fn useless_addresses_are_faults() {
        for bad in ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255"] {
            let why = direct(&format!("bind = ['{bad}']")).0.unwrap_err();
            assert!(why.contains("from which no connection can leave"), "{why}");
        }
        let many = direct("bind = ['10.0.0.0/16', '10.1.0.0/16']\nper_network = 8000").0.unwrap_err();
        assert!(many.contains("makes 16000 exits") && many.contains("10000 exits are possible"), "{many}");
    }

    #[test]
    fn without_permission_there_is_a_warning() {
        let text = "[sources.direct]\nbind = ['192.0.2.1']";
        let (config, warnings) = parse("t.toml", text, [], None).unwrap();
        assert_eq!(config.sources.direct.addresses.len(), 1);
        assert!(warnings.iter().any(|warning| warning.to_string().contains("gateway.allow_direct = true")));
    }
}
