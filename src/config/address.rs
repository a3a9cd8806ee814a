//! Ports, port ranges, addresses, networks and URLs as people write them in the configuration.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use http::Uri;
use ipnet::IpNet;

use super::text_value::TextValue;
use crate::net::{BadTarget, Target};

/// A range of ports. It is never empty and never contains port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Creates the range from `first` to `last`, both included. Returns `None` if the range is empty or begins with 0.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first == 0 || first > last { None } else { Some(Self { first, last }) }
    }

    pub const ALL: Self = Self { first: 1, last: u16::MAX };

    /// The default range for the routes' own ports.
    pub(super) const OF_ROUTES: Self = Self { first: 20_000, last: 20_999 };

    pub fn first(self) -> u16 {
        self.first
    }

    pub fn last(self) -> u16 {
        self.last
    }

    pub fn count(self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl TextValue for PortRange {
    const WANT: &'static str = "a port or a range from 1 to 65535, such as 443 or \"20000-20999\"";

    fn read(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| String::new());
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err("the first port is higher than the last".to_owned());
        }
        Self::new(first, last).ok_or_else(String::new)
    }

    fn number(number: i64) -> Option<Self> {
        let port = u16::try_from(number).ok()?;
        Self::new(port, port)
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

/// An HTTP status code, which the configuration writes as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status(pub(super) u16);

impl TextValue for Status {
    const WANT: &'static str = "an HTTP status from 100 to 599";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().ok().and_then(Self::number).ok_or_else(String::new)
    }

    fn number(number: i64) -> Option<Self> {
        u16::try_from(number).ok().filter(|status| (100..600).contains(status)).map(Self)
    }

    fn write(&self) -> String {
        self.0.to_string()
    }
}

/// An address at which tor listens: a Unix socket, or a host and a port. The host may be a name, such as that of a
/// container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    Unix(PathBuf),
    Tcp(Target),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(target) => write!(f, "{target}"),
        }
    }
}

impl TextValue for Endpoint {
    const WANT: &'static str = "\"unix:/path/of/the/socket\" or a host and port such as \"127.0.0.1:9051\"";

    fn read(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err("the path must begin with /".to_owned()),
            None => text.parse().map(Self::Tcp).map_err(|why: BadTarget| why.to_string()),
        }
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl TextValue for SocketAddr {
    const WANT: &'static str = "an address and port: \"127.0.0.1:1080\" for this machine only, \"0.0.0.0:1080\" or \"[::]:1080\" for every network";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| String::new())
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl TextValue for IpAddr {
    const WANT: &'static str = "an IP address such as \"127.0.0.1\" or \"::1\"";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| String::new())
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl TextValue for IpNet {
    const WANT: &'static str = "a network such as \"10.0.0.0/8\" or \"fd00::/8\", or one address";

    fn read(text: &str) -> Result<Self, String> {
        let one = text.parse::<IpAddr>().map(Self::from);
        one.or_else(|_| text.parse::<Self>()).map(|net| net.trunc()).map_err(|_| String::new())
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl TextValue for Uri {
    const WANT: &'static str = "a URL such as \"https://example.com/path\"";

    fn read(text: &str) -> Result<Self, String> {
        let url: Self = text.parse().map_err(|why: http::uri::InvalidUri| why.to_string())?;
        match url.authority() {
            None => Err(String::new()),
            Some(authority) if authority.as_str().contains('@') => Err("it must not contain a username".to_owned()),
            Some(_) if !matches!(url.scheme_str(), Some("http" | "https")) => {
                Err("it does not begin with http:// or https://".to_owned())
            }
            Some(_) => Ok(url),
        }
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round<T: TextValue>(text: &str) -> Option<String> {
        T::read(text).ok().map(|value| value.write())
    }

    #[test]
    fn values_are_read_and_written_back() {
        for (text, want) in [("443", Some("443")), ("20000-20999", Some("20000-20999")), ("1-65535", Some("1-65535"))] {
            assert_eq!(round::<PortRange>(text).as_deref(), want);
        }
        for bad in ["", "0", "0-5", "9-5", "70000", "1-", "-1", "1-2-3", "a"] {
            assert_eq!(round::<PortRange>(bad), None, "{bad}");
        }
        for (text, want) in
            [("10.1.2.3/8", "10.0.0.0/8"), ("10.1.2.3", "10.1.2.3/32"), ("fd00::/8", "fd00::/8"), ("::1", "::1/128")]
        {
            assert_eq!(round::<IpNet>(text).as_deref(), Some(want));
        }
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "localhost"] {
            assert_eq!(round::<IpNet>(bad), None, "{bad}");
        }
        for text in ["unix:/run/tor/control", "tor:9051", "127.0.0.1:9051", "[::1]:9051"] {
            assert_eq!(round::<Endpoint>(text).as_deref(), Some(text));
        }
        for bad in ["", "unix:", "unix:run/tor", "tor", "tor:0", "/run/tor/control"] {
            assert_eq!(round::<Endpoint>(bad), None, "{bad}");
        }
        for (text, want) in [("http://a.test", "http://a.test/"), ("https://a.test:1/b?c=d", "https://a.test:1/b?c=d")]
        {
            assert_eq!(round::<Uri>(text).as_deref(), Some(want));
        }
        for bad in ["", "a.test", "/b", "ftp://a.test", "http://u:p@a.test/", "http://", "localhost:80"] {
            assert_eq!(round::<Uri>(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_range_knows_its_ports() {
        let range = PortRange::new(5, 7).unwrap();
        assert_eq!((range.first(), range.last(), range.count()), (5, 7, 3));
        assert_eq!([4, 5, 7, 8].map(|port| range.contains(port)), [false, true, true, false]);
        assert_eq!(PortRange::ALL.count(), 65_535);
        assert_eq!((PortRange::new(0, 5), PortRange::new(7, 5)), (None, None));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}|[0-9a-f:./\\[\\]-]{0,30}") {
            _ = (PortRange::read(&text), Endpoint::read(&text), SocketAddr::read(&text), IpNet::read(&text));
            if let Ok(url) = Uri::read(&text) {
                prop_assert!(url.host().is_some());
            }
        }
    }
}
