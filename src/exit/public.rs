//! What is peculiar to public proxies: what a list offers of one, and what the judge found it able to do.
//!
//! A list's words about country and anonymity are not kept: half of them are wrong, and all of them are about the
//! proxy's own address rather than the one that sites see. What is kept of a list is what cannot be measured, namely
//! how to log in, and what its owner said of how to get there.
//!
//! Next: [`crate::source`] makes offers, [`crate::check`] finds abilities, [`crate::dial`] uses both.

use std::sync::Arc;
use std::time::Duration;

use super::country::GeoIp;
use super::facts::Listing;
use super::{ExitId, PublicId};
use crate::net::Secret;

/// What a list offers: how a proxy is reached. Belongs to a [`Listing`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The list that named it first.
    pub list: Arc<str>,
    /// What it wants to hear before it serves.
    pub login: Option<Login>,
    /// The way to it.
    pub through: Through,
}

impl Offer {
    /// The proxy as an exit. Its country is a guess until a site has seen it: many leave from elsewhere.
    pub fn listing(self, id: PublicId, geoip: &GeoIp) -> Listing {
        let ip = id.addr.ip();
        Listing {
            announced: vec![ip],
            country: geoip.country(ip),
            public: Some(Arc::new(self)),
            ..Listing::new(ExitId::Public(Arc::new(id)))
        }
    }
}

/// A user name and a password that stood in a proxy's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user name.
    pub user: Box<str>,
    /// The password; may be empty.
    pub password: Secret,
}

/// How public proxies are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Through {
    /// From this machine's own address.
    #[default]
    Direct,
    /// Through a Tor exit, so that they never learn it.
    Tor,
}

impl Through {
    /// The word for it in the config and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Tor => "tor",
        }
    }
}

/// What the judge found a proxy able to do, when it last passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// How much it tells of who is behind it.
    pub anonymity: Anonymity,
    /// It opens tunnels (CONNECT or SOCKS) rather than only forwarding plain HTTP.
    pub tunnels: bool,
    /// An HTTPS site was reached through it, with the site's own certificate.
    pub tls: bool,
    /// How long its last good test took, from the connection to the end of an answer.
    pub took: Duration,
    /// Requests of the long test that came back well.
    pub passed: u16,
    /// Requests of the long test; 0 until it was made.
    pub asked: u16,
}

/// How much a public proxy tells the far side of who is behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Anonymity {
    /// Nobody looked yet.
    #[default]
    Unknown,
    /// It passes the client's address on.
    Transparent,
    /// It says that it is a proxy, not for whom.
    Anonymous,
    /// It says nothing.
    Elite,
}

impl Anonymity {
    /// Every word, the least anonymous first.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Transparent, Self::Anonymous, Self::Elite];

    /// The word for it in lists and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Transparent => "transparent",
            Self::Anonymous => "anonymous",
            Self::Elite => "elite",
        }
    }
}
