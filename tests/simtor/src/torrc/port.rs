//! What the line of a port says: where it listens, and what may come in there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::lines::unquoted;

/// Where a port listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// Nowhere: the port is off.
    Off,
    /// A unix socket.
    Unix(PathBuf),
    /// An address; port 0 takes any that is free.
    Tcp(SocketAddr),
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// Where it listens.
    pub(crate) listen: Listen,
    /// Targets with an IPv4 address may be asked for.
    pub(crate) ipv4: bool,
    /// Targets with an IPv6 address may be asked for.
    pub(crate) ipv6: bool,
    /// Onion services may be asked for.
    pub(crate) onion: bool,
    /// Names may be asked for.
    pub(crate) names: bool,
    /// Failures of onion services have codes of their own.
    pub(crate) extended_errors: bool,
    /// An IPv6 address is taken where a name has both.
    pub(crate) prefers_ipv6: bool,
}

impl Port {
    /// Reads the value of an option of this name; none if it makes no sense.
    pub(crate) fn read(name: &str, value: &str) -> Option<Self> {
        let value = value.trim();
        let (listen, flags) = match value.strip_prefix("unix:") {
            Some(path) if path.starts_with('"') => {
                let (path, flags) = unquoted(path)?;
                (Listen::Unix(path.into()), flags)
            }
            Some(path) => {
                let (path, flags) = path.split_once(' ').unwrap_or((path, ""));
                (Listen::Unix(path.into()), flags)
            }
            None if name == "ControlSocket" => {
                let (path, flags) = value.split_once(' ').unwrap_or((value, ""));
                (if path == "0" { Listen::Off } else { Listen::Unix(path.into()) }, flags)
            }
            None => {
                let (address, flags) = value.split_once(' ').unwrap_or((value, ""));
                (tcp(address)?, flags)
            }
        };
        let mut port = Self {
            listen,
            ipv4: true,
            ipv6: true,
            onion: true,
            names: true,
            extended_errors: false,
            prefers_ipv6: true,
        };
        flags.split_whitespace().for_each(|flag| port.flag(flag));
        Some(port)
    }

    /// Flags that say who shares a circuit are passed over: whoever attaches streams decides that.
    fn flag(&mut self, flag: &str) {
        match flag {
            "NoIPv4Traffic" => self.ipv4 = false,
            "IPv4Traffic" => self.ipv4 = true,
            "NoIPv6Traffic" => self.ipv6 = false,
            "IPv6Traffic" => self.ipv6 = true,
            "NoOnionTraffic" => self.onion = false,
            "OnionTrafficOnly" => (self.ipv4, self.ipv6, self.names) = (false, false, false),
            "NoDNSRequest" => self.names = false,
            "ExtendedErrors" => self.extended_errors = true,
            "PreferIPv6" => self.prefers_ipv6 = true,
            "NoPreferIPv6Automap" | "NoPreferIPv6" => self.prefers_ipv6 = false,
            _ => {}
        }
    }
}

fn tcp(address: &str) -> Option<Listen> {
    let local = |port| Listen::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    match address {
        "0" => Some(Listen::Off),
        "auto" => Some(local(0)),
        _ => match address.parse::<u16>() {
            Ok(port) => Some(local(port)),
            Err(_) => match address.strip_suffix(":auto") {
                Some(host) => Some(Listen::Tcp(SocketAddr::new(host.parse().ok()?, 0))),
                None => address.parse().ok().map(Listen::Tcp),
            },
        },
    }
}
