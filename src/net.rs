//! Host names, targets and secrets: the types that carry untrusted or secret text through the program.
//!
//! All rooms of the code pass a [`Target`] and not a string such as `host:port`. A name that a client sent is checked
//! once, in [`Host::parse`], before that name is written into a SOCKS request, an HTTP head, a control command or a log
//! line. A [`Host`] never contains a space, a line break, a NUL or a colon. So a client cannot inject headers into a
//! request to the next server.
//!
//! A [`Secret`] is compared in constant time, is never printed, and is overwritten in memory when it is dropped.
//!
//! Next: [`crate::gateway`] makes targets from the requests of clients; [`crate::dial`] opens streams to targets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize as _, ZeroizeOnDrop};

mod printable;

pub use printable::Printable;

/// The host of a target: either a name that is not resolved yet, or an IP address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// An IP address. `::ffff:127.0.0.1` is stored as `127.0.0.1`, because the rules on private addresses must
    /// recognise it.
    Ip(IpAddr),
    /// A host name in lower case: 1 to 253 bytes, no trailing dot.
    Name(Box<str>),
}

/// Why a text is not a [`Host`] or a [`Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    #[error("the host is empty")]
    EmptyHost,
    #[error("the host is longer than 253 bytes")]
    HostTooLong,
    #[error("the host holds a byte that is not a letter, digit, '-', '_' or '.'")]
    HostByte,
    #[error("the host has an empty label or one longer than 63 bytes")]
    HostLabel,
    #[error("the port is missing")]
    NoPort,
    #[error("the port is not a number from 1 to 65535")]
    BadPort,
}

impl Host {
    /// Parses a host as clients write it: a name, an IPv4 address, or an IPv6 address with or without brackets.
    pub fn parse(text: &str) -> Result<Self, BadTarget> {
        if text.is_empty() {
            return Err(BadTarget::EmptyHost);
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        if let Some(v6) = bare {
            return v6.parse::<Ipv6Addr>().map(|ip| Self::from(IpAddr::V6(ip))).map_err(|_| BadTarget::HostByte);
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::from(ip));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(BadTarget::EmptyHost);
        }
        if name.len() > 253 {
            return Err(BadTarget::HostTooLong);
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return Err(BadTarget::HostByte);
        }
        if name.split('.').any(|label| label.is_empty() || label.len() > 63) {
            return Err(BadTarget::HostLabel);
        }
        // A name whose last label begins with a digit is refused. No such name exists in DNS, but some resolvers read
        // names such as "127.1" and "0x7f.1" as addresses, which Rust does not. So a client could use such a name to
        // bypass the rules on private addresses.
        let last = name.rsplit('.').next().unwrap_or(name);
        if last.bytes().next().is_some_and(|b| b.is_ascii_digit()) {
            return Err(BadTarget::HostByte);
        }
        Ok(Self::Name(name.to_ascii_lowercase().into()))
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip.to_canonical())
    }
}

impl From<Ipv4Addr> for Host {
    fn from(ip: Ipv4Addr) -> Self {
        Self::Ip(IpAddr::V4(ip))
    }
}

impl fmt::Display for Host {
    /// Writes the host as in a URL: an IPv6 address is in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// The host and the port that a client wants to reach.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    pub host: Host,
    /// The port, which is never 0.
    pub port: u16,
}

impl Target {
    /// Makes a target from host and port. Port 0 is refused.
    pub fn new(host: Host, port: u16) -> Result<Self, BadTarget> {
        if port == 0 { Err(BadTarget::BadPort) } else { Ok(Self { host, port }) }
    }
}

impl FromStr for Target {
    type Err = BadTarget;

    /// Parses `host:port`, as in `CONNECT host:port` and in the authority part of a URL.
    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let (host, port) = text.rsplit_once(':').ok_or(BadTarget::NoPort)?;
        // "::1" contains colons but no port. An IPv6 address with a port must be in brackets.
        if host.contains(':') && !host.starts_with('[') {
            return Err(BadTarget::NoPort);
        }
        if port.is_empty() || port.len() > 5 || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(BadTarget::BadPort);
        }
        Self::new(Host::parse(host)?, port.parse().map_err(|_| BadTarget::BadPort)?)
    }
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Self {
        Self { host: addr.ip().into(), port: addr.port() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A key, token or password. It is compared in constant time, printed as `***`, and overwritten with zeros when
/// dropped.
#[derive(Clone, Default, serde::Deserialize)]
#[serde(transparent)]
pub struct Secret(Box<str>);

impl Secret {
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// Returns the text itself, for code that must send or store the secret.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares the secret with `given`. The duration depends only on the two lengths, not on the content.
    pub fn matches(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.0.as_bytes())
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn targets_are_read_as_clients_write_them() {
        for (text, want) in [
            ("example.com:443", "example.com:443"),
            ("EXAMPLE.com.:80", "example.com:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("_dmarc.x_y.test:65535", "_dmarc.x_y.test:65535"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), want, "{text}");
        }
    }

    #[test]
    fn malformed_targets_are_refused() {
        use BadTarget::*;
        for (text, why) in [
            ("", NoPort),
            (":80", EmptyHost),
            (".:80", EmptyHost),
            ("a..b:80", HostLabel),
            ("a b:80", HostByte),
            ("a\r\nX: y:80", NoPort),
            ("a\0b:80", HostByte),
            ("127.1:80", HostByte),
            ("0x7f.0.0.0x1:80", HostByte),
            ("2130706433:80", HostByte),
            ("::1:80", NoPort),
            ("[::1:80", HostByte),
            ("a:0", BadPort),
            ("a:65536", BadPort),
            ("a:+80", BadPort),
            ("a:", BadPort),
            ("a", NoPort),
            ("münchen.de:80", HostByte),
        ] {
            assert_eq!(text.parse::<Target>(), Err(why), "{text:?}");
        }
        assert_eq!(Host::parse(&format!("{}.b", "a".repeat(64))), Err(HostLabel));
        assert_eq!(Host::parse(&"a.".repeat(130)), Err(HostTooLong));
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "***");
        assert!(secret.matches(b"hunter2") && !secret.matches(b"hunter") && !secret.matches(b""));
    }

    #[test]
    fn a_secret_is_wiped_when_it_is_dropped() {
        fn wiped<T: ZeroizeOnDrop>(_: &T) {}
        let mut secret = Secret::new("hunter2");
        wiped(&secret);
        // To test `drop` itself, the test would have to read freed memory, which needs `unsafe`. So the test calls the
        // function that `drop` calls.
        secret.0.zeroize();
        assert_eq!(secret.expose(), "\0".repeat(7));
    }

    proptest! {
        #[test]
        fn a_target_survives_being_written_and_read(host in "([a-z][a-z0-9-]{0,10}\\.){0,3}[a-z]{2,5}", port in 1u16..) {
            let target = Target::new(Host::parse(&host).unwrap(), port).unwrap();
            prop_assert_eq!(target.to_string().parse::<Target>().unwrap(), target);
        }

        #[test]
        fn no_text_makes_a_host_with_a_dangerous_byte(text in ".{0,300}") {
            if let Ok(host) = Host::parse(&text) {
                prop_assert!(host.to_string().bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }
}
