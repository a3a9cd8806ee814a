//! The protocols that clients use to connect to the gateway.

/// The protocol of a client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// SOCKS4 or SOCKS4a.
    Socks4,
    Socks5,
    /// HTTP with the method CONNECT: opens a tunnel.
    Connect,
    /// HTTP with any other method: the gateway reads the request and forwards it.
    Http,
}

impl Protocol {
    /// Returns the text that metric labels and the access line's field `protocol` use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Socks4 => "socks4",
            Self::Socks5 => "socks5",
            Self::Connect => "connect",
            Self::Http => "http",
        }
    }
}
