//! What the user's torrc lines say about the way to guards.

use super::UserLines;

/// Options with which tor does not connect to guards directly, or not from the usual address.
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
    /// Returns all values of an option with commas between them, or `None` if the user's lines do not set it.
    pub fn list(&self, option: &str) -> Option<String> {
        self.sets(option).then(|| self.values(option).collect::<Vec<_>>().join(","))
    }

    /// Returns true if tor connects to guards directly: over no bridge, no proxy and no address of its own.
    pub fn connects_directly(&self) -> bool {
        !self.use_bridges() && !INDIRECT.iter().any(|option| self.sets(option))
    }
}
