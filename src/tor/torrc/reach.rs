//! What the user's lines in torrc say about how tor connects to guards.

use super::UserLines;

/// Options with which tor does not connect to guards directly, or connects from another address of this machine.
const INDIRECT: &[&str] = &[
    "HTTPProxy",
    "HTTPSProxy",
    "Socks4Proxy",
    "Socks5Proxy",
    "TCPProxy",
    "ClientTransportPlugin",
    "OutboundBindAddress",
    "OutboundBindAddressOR",
];

impl UserLines {
    /// Returns all values of an option with commas between them. `None` if the user's lines do not set the option.
    pub fn list(&self, option: &str) -> Option<String> {
        self.sets(option).then(|| self.values(option).collect::<Vec<_>>().join(","))
    }

    /// Returns true if tor connects to guards directly: without a bridge, a proxy or a configured source address.
    pub fn connects_directly(&self) -> bool {
        !self.use_bridges() && !INDIRECT.iter().any(|option| self.sets(option))
    }
}
