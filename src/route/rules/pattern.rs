//! Which hosts a rule matches, as people write it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::net::{BadTarget, Host};

/// A pattern for the host of a target.
///
/// Patterns for names do not match targets that are IP addresses, and patterns for addresses do not match names: no
/// name is resolved to find a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// `*`: every host, whether a name or an IP address.
    Any,
    /// `example.org`: this name alone.
    Name(Box<str>),
    /// `*.example.org`: every name below this name, at any depth, but not this name itself.
    Below(Box<str>),
    /// `.example.org`: this name, and every name below it.
    Within(Box<str>),
    /// `192.0.2.1` or `10.0.0.0/8`: IP addresses.
    Net(IpNet),
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    #[error("it is empty; write a host, or \"*\" for every host")]
    Empty,
    #[error("`*` stands only alone or at the front, as in \"*.example.org\"")]
    Star,
    #[error("it has a port; write the port into `port`")]
    Port,
    #[error("it is a URL; write only its host")]
    Url,
    #[error("it is no network such as \"10.0.0.0/8\"")]
    Net,
    #[error("the address has bits beyond its prefix; write \"{0}\"")]
    HostBits(IpNet),
    #[error("it is no domain name: {0}")]
    Name(#[from] BadTarget),
    #[error("it has characters that no domain name has")]
    Idn,
}

impl HostPattern {
    /// Reads a pattern. Upper case, a dot at the end, and letters beyond ASCII are brought into the form that targets
    /// have: lower case, no dot at the end, and `xn--` labels.
    pub fn parse(text: &str) -> Result<Self, BadPattern> {
        let text = text.trim();
        match text {
            "" => return Err(BadPattern::Empty),
            "*" => return Ok(Self::Any),
            _ if text.contains("://") => return Err(BadPattern::Url),
            _ if text.contains('/') => return net(text),
            _ => {}
        }
        let (make, name): (fn(Box<str>) -> Self, _) = match (text.strip_prefix("*."), text.strip_prefix('.')) {
            (Some(name), _) => (Self::Below, name),
            (None, Some(name)) => (Self::Within, name),
            (None, None) => (Self::Name, text),
        };
        if name.contains('*') {
            return Err(BadPattern::Star);
        }
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            let single = name.len() == text.len();
            return if single { Ok(Self::Net(ip.to_canonical().into())) } else { Err(BadPattern::Star) };
        }
        if name.contains(':') {
            return Err(BadPattern::Port);
        }
        let ascii =
            if name.is_ascii() { name.to_owned() } else { idna::domain_to_ascii(name).map_err(|_| BadPattern::Idn)? };
        match Host::parse(&ascii)? {
            Host::Name(name) => Ok(make(name)),
            Host::Ip(ip) => Ok(Self::Net(ip.into())),
        }
    }
}

/// Reads a network. A network of IPv4 addresses in IPv6 form (`::ffff:10.0.0.0/104`) becomes a network of IPv4
/// addresses, as the addresses of targets do.
fn net(text: &str) -> Result<HostPattern, BadPattern> {
    let net: IpNet = text.parse().map_err(|_| BadPattern::Net)?;
    if net != net.trunc() {
        return Err(BadPattern::HostBits(net.trunc()));
    }
    let mapped = |net: &IpNet| -> Option<Ipv4Net> {
        let IpNet::V6(v6) = net else { return None };
        let v4: Ipv4Addr = v6.addr().to_ipv4_mapped()?;
        Ipv4Net::new(v4, v6.prefix_len().checked_sub(96)?).ok()
    };
    Ok(HostPattern::Net(mapped(&net).map_or(net, IpNet::V4)))
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Name(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Within(name) => write!(f, ".{name}"),
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => write!(f, "{}", net.addr()),
            Self::Net(net) => write!(f, "{net}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_brought_into_the_form_of_targets() {
        for (text, want) in [
            ("*", "*"),
            ("Shop.Example", "shop.example"),
            ("shop.example.", "shop.example"),
            ("*.SHOP.example.", "*.shop.example"),
            (".shop.example", ".shop.example"),
            ("*.example", "*.example"),
            ("localhost", "localhost"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("*.BÜCHER.example", "*.xn--bcher-kva.example"),
            ("XN--bcher-kva.example", "xn--bcher-kva.example"),
            ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:DB8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.1/32", "192.0.2.1"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            (" shop.example ", "shop.example"),
        ] {
            let pattern = HostPattern::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(pattern.to_string(), want, "{text}");
            assert_eq!(HostPattern::parse(want), Ok(pattern), "{want} is read as it is written");
        }
    }

    #[test]
    fn a_text_that_is_no_pattern_is_refused_with_its_reason() {
        for (text, want) in [
            ("", BadPattern::Empty),
            ("shop.*", BadPattern::Star),
            ("*shop.example", BadPattern::Star),
            ("*.*.example", BadPattern::Star),
            ("*.192.0.2.1", BadPattern::Star),
            ("shop.example:443", BadPattern::Port),
            ("https://shop.example", BadPattern::Url),
            ("shop.example/list", BadPattern::Net),
            ("10.0.0.0/33", BadPattern::Net),
            ("10.0.0.1/8", BadPattern::HostBits("10.0.0.0/8".parse().unwrap())),
            ("shop..example", BadPattern::Name(BadTarget::HostLabel)),
            ("..", BadPattern::Name(BadTarget::EmptyHost)),
            ("shop example", BadPattern::Name(BadTarget::HostByte)),
            ("127.1", BadPattern::Name(BadTarget::HostByte)),
        ] {
            assert_eq!(HostPattern::parse(text), Err(want), "{text}");
        }
    }
}
