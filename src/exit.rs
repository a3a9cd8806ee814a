//! Exits: what is known of each Tor exit relay and public proxy, and which of them are usable. Pure.
//!
//! Each exit has an [`ExitId`]: a relay its fingerprint, a public proxy its protocol and address. The IP that sites see
//! is observed by checks and stored apart from the announced one, because a relay often leaves from another address than
//! it announces. Countries and pins go by the observed IP.
//!
//! Next: `exit/facts.rs` (what is known of one exit), `exit/catalog.rs` (all exits, indexed), `exit/load.rs` (what changes
//! with every connection); [`crate::route`] chooses among exits; [`crate::dial`] opens streams through them.

pub mod catalog;
pub mod country;
pub mod facts;
pub mod load;
pub mod moment;
pub mod policy;
pub mod public;
mod slot;

pub use catalog::Catalog;
pub use facts::{Exit, Known, Listing, Verdict};
pub use load::Load;
pub use moment::Moment;
pub use public::{Abilities, Anonymity, Login, Offer, Through};
pub use slot::Slot;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

/// A Tor relay's identity: the SHA-1 of its identity key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 20]);

/// The text is not a fingerprint.
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
    /// 40 upper-case digits, as tor writes them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The kinds of exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// Tor exit relays.
    Tor,
    /// Public proxies from free lists.
    Public,
    /// This machine's own address; off unless `gateway.allow_direct`.
    Direct,
}

impl Source {
    /// Every source, in the order of lists.
    pub const ALL: [Self; 3] = [Self::Tor, Self::Public, Self::Direct];

    /// The word in usernames, the API, logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tor => "tor",
            Self::Public => "public",
            Self::Direct => "direct",
        }
    }
}

/// The protocol of a public proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP: CONNECT, or absolute-form where CONNECT is refused.
    Http,
    /// SOCKS4, with names by 4a.
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

/// A public proxy as lists name it: the same address under two protocols is two exits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicId {
    pub protocol: Protocol,
    pub addr: SocketAddr,
}

/// The identity of one exit, the same in code, store, API and logs.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExitId {
    Tor(Fingerprint),
    Public(Arc<PublicId>),
    /// This machine's own address.
    Direct,
    /// No exit: an onion service is reached inside the Tor network. Never in a catalog; it only names what a connection
    /// used.
    Onion,
}

impl ExitId {
    pub fn source(&self) -> Source {
        match self {
            Self::Tor(_) | Self::Onion => Source::Tor,
            Self::Public(_) => Source::Public,
            Self::Direct => Source::Direct,
        }
    }
}

impl fmt::Display for ExitId {
    /// A relay's fingerprint, a public proxy's URL, or `direct`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tor(fingerprint) => write!(f, "{fingerprint}"),
            Self::Public(public) => write!(f, "{}://{}", public.protocol.as_str(), public.addr),
            Self::Direct => f.write_str("direct"),
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
