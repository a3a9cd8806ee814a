//! What only public proxies have: what a list says of one, and what checks found it able to do.
//!
//! What a list says about country and anonymity is not kept: half of it is wrong, and it describes the proxy's own address
//! and not the one that sites see. Kept is what cannot be measured: the login, and how the operator wants the list's
//! proxies to be reached.
//!
//! Next: [`crate::source`] makes offers, [`crate::check`] measures abilities, [`crate::dial`] uses both.

use std::sync::Arc;
use std::time::Duration;

use crate::net::Secret;

/// How a public proxy is reached, from the list that names it. Part of a [`super::Listing`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The list that named it first.
    pub list: Arc<str>,
    /// The user and password that the proxy asks for.
    pub login: Option<Login>,
    pub through: Through,
}

/// A username and a password from a proxy's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub user: Box<str>,
    /// May be empty.
    pub password: Secret,
}

/// The path to public proxies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Through {
    /// From this machine's own address.
    #[default]
    Direct,
    /// Through a Tor exit, so that they never learn this machine's address.
    Tor,
}

impl Through {
    /// The word in the configuration and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Tor => "tor",
        }
    }
}

/// What a proxy could do when it last passed a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    pub anonymity: Anonymity,
    /// It opens tunnels (CONNECT or SOCKS). If false, it only forwards plain HTTP.
    pub tunnels: bool,
    /// An HTTPS site was reached through it, with the site's own certificate.
    pub tls: bool,
    /// How long its last good check took, from the connection to the end of the answer.
    pub took: Duration,
    /// Requests of the extended check that succeeded.
    pub passed: u16,
    /// Requests of the extended check; 0 before it was made.
    pub asked: u16,
}

/// How much a public proxy reveals of the client to the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Anonymity {
    /// Not measured yet.
    #[default]
    Unknown,
    /// The proxy reveals the client's address.
    Transparent,
    /// It reveals that it is a proxy, but not the client's address.
    Anonymous,
    /// It reveals nothing.
    Elite,
}

impl Anonymity {
    /// Every level, the least anonymous first.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Transparent, Self::Anonymous, Self::Elite];

    /// The word in lists and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Transparent => "transparent",
            Self::Anonymous => "anonymous",
            Self::Elite => "elite",
        }
    }
}
