//! Exits: what the gateway knows about each Tor exit relay and each proxy, and which exits are usable. The code here
//! does no I/O.
//!
//! Each exit has an [`ExitId`]. The id of a relay is its fingerprint. The id of a public proxy is its protocol and
//! address. The id of a proxy of one's own is the name of its source and a hash (`exit/upstream.rs`).
//!
//! Checks observe the IP that sites see. This observed IP of an exit is stored apart from the announced IP, because the
//! traffic of a relay often leaves from another address than the relay announces. The country of an exit and the
//! address that a pin promises come from the observed IP.
//!
//! Next: `exit/facts.rs` (what is known of one exit), `exit/capacity.rs` (how much it can carry), `exit/catalog.rs`
//! (all exits, indexed), `exit/load.rs` (what changes with every connection), `exit/identity.rs` (time zone and languages).
//! [`crate::route`] chooses among exits. [`crate::dial`] opens streams through exits.

pub(crate) mod capacity;
pub mod catalog;
pub mod country;
pub mod facts;
pub mod identity;
pub mod load;
pub mod moment;
pub mod own;
pub mod policy;
pub mod public;
mod slot;
pub mod upstream;

pub use catalog::Catalog;
pub use facts::{Exit, Known, Listing, Verdict};
pub use load::Load;
pub use moment::Moment;
pub use public::{Abilities, Anonymity, Login, Offer, Through};
pub use slot::Slot;
pub use upstream::{Account, AccountFault, AccountRef, ProxyTls, UpstreamId, UpstreamName, UpstreamProxy};

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

/// The identity of a Tor relay: the SHA-1 hash of the relay's identity key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 20]);

/// The error for a text that is not a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 40 hexadecimal digits")]
pub struct BadFingerprint;

impl FromStr for Fingerprint {
    type Err = BadFingerprint;

    /// Reads 40 hexadecimal digits of either case, with or without a leading `$`.
    fn from_str(text: &str) -> Result<Self, BadFingerprint> {
        let digits = text.strip_prefix('$').unwrap_or(text).as_bytes();
        let mut id = [0; 20];
        if digits.len() != 40 {
            return Err(BadFingerprint);
        }
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |b: u8| (b as char).to_digit(16).ok_or(BadFingerprint);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(Self(id))
    }
}

impl fmt::Display for Fingerprint {
    /// Writes 40 upper-case hexadecimal digits, as tor does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where an exit comes from. Each exit has one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// Tor exit relays.
    Tor,
    /// Public proxies from free lists.
    Public,
    /// This machine's own address. This source is off unless `gateway.allow_direct` is true.
    Direct,
    /// Proxies of one's own, from the entry of `[[sources.upstream]]` with this name.
    Upstream(UpstreamName),
}

impl Source {
    /// The sources that need no name, in the order in which lists show them.
    pub const BUILT_IN: [Self; 3] = [Self::Tor, Self::Public, Self::Direct];

    /// Returns the source of this name, if it is built in or the configuration has an upstream source of this name.
    pub fn find(text: &str) -> Option<Self> {
        let built_in = Self::BUILT_IN.into_iter().find(|source| source.as_str() == text);
        built_in.or_else(|| UpstreamName::find(text).map(Self::Upstream))
    }

    /// The name of the source in usernames, the API, logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tor => "tor",
            Self::Public => "public",
            Self::Direct => "direct",
            Self::Upstream(name) => name.as_str(),
        }
    }
}

/// The protocol of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// An HTTP proxy. The gateway sends CONNECT, or a request with an absolute URL if the proxy refuses CONNECT.
    Http,
    /// SOCKS4. Host names are sent with the SOCKS4a extension.
    Socks4,
    Socks5,
}

impl Protocol {
    /// The URL scheme of the protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Socks4 => "socks4",
            Self::Socks5 => "socks5",
        }
    }
}

/// The identity of a public proxy: its protocol and address. The same address with two protocols counts as two exits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicId {
    pub protocol: Protocol,
    pub addr: SocketAddr,
}

/// The identity of one exit. Code, store, API and logs use the same identity.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExitId {
    Tor(Fingerprint),
    Public(Arc<PublicId>),
    Upstream(Arc<UpstreamId>),
    /// This machine, with the address that the operating system chooses.
    Direct,
    /// One of the own addresses of this machine from `sources.direct.bind`.
    Own(IpAddr),
    /// Stands for a connection to an onion service, which is reached inside the Tor network without an exit. No catalog
    /// contains this id. Only records of connections contain this id.
    Onion,
}

impl ExitId {
    pub fn source(&self) -> Source {
        match self {
            Self::Tor(_) | Self::Onion => Source::Tor,
            Self::Public(_) => Source::Public,
            Self::Upstream(id) => Source::Upstream(id.source),
            Self::Direct | Self::Own(_) => Source::Direct,
        }
    }
}

impl ExitId {
    /// Reads the id of an exit of the source `direct`.
    pub fn parse_direct(text: &str) -> Option<Self> {
        if text == "direct" { Some(Self::Direct) } else { own::parse_id(text).map(Self::Own) }
    }
}

impl fmt::Display for ExitId {
    /// Writes a relay's fingerprint, a public proxy's URL, the source and key of a proxy of one's own, `direct`,
    /// `direct://` and an own address, or `onion`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tor(fingerprint) => write!(f, "{fingerprint}"),
            Self::Public(public) => write!(f, "{}://{}", public.protocol.as_str(), public.addr),
            Self::Upstream(id) => write!(f, "{id}"),
            Self::Direct => f.write_str("direct"),
            Self::Own(ip) => f.write_str(&own::id(*ip)),
            Self::Onion => f.write_str("onion"),
        }
    }
}

impl fmt::Debug for ExitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_forty_digits_of_either_case() {
        let text = "0008D9640FE4947F73E355F67E20C2D290BBC72C";
        let id: Fingerprint = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(format!("${}", text.to_lowercase()).parse(), Ok(id));
        for bad in ["", "00", &text[1..], &format!("{text}0"), &text.replace('F', "G"), &text.replace("00", "é")] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(BadFingerprint), "{bad}");
        }
    }
}
