//! Facts that only public proxies have: what a list says about a proxy, and what checks found the proxy able to do.
//!
//! The country and the anonymity that a list states for a proxy are not kept. Half of these statements are wrong, and
//! they describe the proxy's own address and not the address that sites see. Only facts that checks cannot measure are
//! kept: the login of the proxy, and whether the configuration wants the proxies of this list to be reached directly or
//! through Tor.
//!
//! Next: [`crate::source`] makes offers, [`crate::check`] measures abilities, and [`crate::dial`] uses both.

use std::sync::Arc;
use std::time::Duration;

use crate::net::Secret;

/// How the gateway reaches a public proxy, according to the list that contains the proxy. Part of a [`super::Listing`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The name of the first list that contained the proxy.
    pub list: Arc<str>,
    /// The username and password that the proxy requires. `None` if the proxy requires no login.
    pub login: Option<Login>,
    pub through: Through,
}

/// A username and a password from a proxy's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub user: Box<str>,
    /// The password. May be empty.
    pub password: Secret,
}

/// The path from the gateway to public proxies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Through {
    /// The gateway connects to the proxies from this machine's own address.
    #[default]
    Direct,
    /// The gateway connects through a Tor exit, so the proxies never learn this machine's address.
    Tor,
}

impl Through {
    /// The name of the path in the configuration and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Tor => "tor",
        }
    }
}

/// What a public proxy was able to do when it last passed a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    pub anonymity: Anonymity,
    /// The proxy opens tunnels (CONNECT or SOCKS). If false, the proxy only forwards plain HTTP requests.
    pub tunnels: bool,
    /// An HTTPS site was reached through the proxy, and the connection had the site's own certificate.
    pub tls: bool,
    /// How long the proxy's last good check took, from the connection to the end of the answer.
    pub took: Duration,
    /// The number of successful requests in the extended check.
    pub passed: u16,
    /// The number of all requests in the extended check. 0 before that check was made.
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
    /// The proxy reveals that it is a proxy, but not the client's address.
    Anonymous,
    /// The proxy reveals neither itself nor the client.
    Elite,
}

impl Anonymity {
    /// Every level, the least anonymous first.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Transparent, Self::Anonymous, Self::Elite];

    /// The name of the level in lists and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Transparent => "transparent",
            Self::Anonymous => "anonymous",
            Self::Elite => "elite",
        }
    }
}
