//! The protocols that clients use towards the gateway.

/// The protocol of a client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// SOCKS4 or 4a.
    Socks4,
    Socks5,
    /// HTTP with the method CONNECT: a tunnel.
    Connect,
    /// Any other HTTP request: the gateway reads and forwards it.
    Http,
}

impl Protocol {
    /// The value of metric labels and of the access line's field `protocol`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Socks4 => "socks4",
            Self::Socks5 => "socks5",
            Self::Connect => "connect",
            Self::Http => "http",
        }
    }
}
