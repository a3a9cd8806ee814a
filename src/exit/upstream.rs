//! Exits of one's own: proxies that the operator owns or pays for, from `[[sources.upstream]]` of the configuration.
//!
//! Each such source has a name, which usernames, routes, the API and metrics use. Names are interned: a
//! [`UpstreamName`] is a pointer to a text that is never freed, so a [`Source`] stays a small value that can be copied.
//! Names come only from the configuration and from the store, so their number is small.
//!
//! The id of an exit never contains the login of its proxy, because ids are in logs, in metrics and in answers of the
//! API.
//!
//! Next: [`crate::source`] makes these exits, [`crate::dial`] opens streams through them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsConnector;

use super::{Login, Protocol, Source};
use crate::net::Target;

/// The longest name of a source, in bytes.
pub const LONGEST_NAME: usize = 32;

/// How many hexadecimal digits of a hash are in the id of a proxy. With 16 digits (64 bits), two of a million proxies
/// have the same id with a probability below 1 to 10 million.
const KEY_DIGITS: usize = 16;

/// All names that were interned in this process.
static NAMES: RwLock<BTreeMap<&'static str, Named>> = RwLock::new(BTreeMap::new());

/// What is known of an interned name.
struct Named {
    name: UpstreamName,
    /// True if the configuration has a source of this name. The store may contain exits of a source that was removed
    /// from the configuration.
    configured: bool,
    /// The list that contains only this source.
    alone: &'static [Source],
}

/// An interned name.
#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Name(&'static str);

/// The name of one entry of `[[sources.upstream]]`. This is a thin pointer, because a selector contains it, and each
/// connection holds a selector.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamName(&'static Name);

impl UpstreamName {
    /// Returns the name of a source that the configuration has. Returns `None` if the text cannot be such a name.
    pub fn configured(text: &str) -> Option<Self> {
        let name = Self::intern(text)?;
        let mut names = NAMES.write().unwrap_or_else(PoisonError::into_inner);
        names.get_mut(name.as_str()).into_iter().for_each(|named| named.configured = true);
        Some(name)
    }

    /// Returns the name of a source that the configuration may have or may have had. Returns `None` if the text cannot
    /// be such a name.
    pub fn intern(text: &str) -> Option<Self> {
        if !is_name(text) {
            return None;
        }
        let mut names = NAMES.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(named) = names.get(text) {
            return Some(named.name);
        }
        let name = Self(Box::leak(Box::new(Name(Box::leak(text.to_owned().into_boxed_str())))));
        let alone: &'static [Source] = Box::leak(Box::new([Source::Upstream(name)]));
        names.insert(name.as_str(), Named { name, configured: false, alone });
        Some(name)
    }

    /// Returns the source of this name, if the configuration has one. Never stores the text, so clients may send any
    /// text.
    pub fn find(text: &str) -> Option<Self> {
        let names = NAMES.read().unwrap_or_else(PoisonError::into_inner);
        names.get(text).filter(|named| named.configured).map(|named| named.name)
    }

    pub fn as_str(self) -> &'static str {
        self.0.0
    }

    /// Returns the list that contains only this source.
    pub fn alone(self) -> &'static [Source] {
        let names = NAMES.read().unwrap_or_else(PoisonError::into_inner);
        names.get(self.as_str()).map_or(&[], |named| named.alone)
    }
}

/// Returns true if the text can be the name of an upstream source: it starts with a letter, and the words that mean
/// other sources are excluded. The name is a token of usernames, so it contains no `-`.
fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let is_taken = ["any", "upstream", "onion"].contains(&text) || Source::BUILT_IN.iter().any(|s| s.as_str() == text);
    let starts = text.starts_with(|c: char| c.is_ascii_lowercase());
    starts && text.len() <= LONGEST_NAME && text.bytes().all(fits) && !is_taken
}

impl fmt::Debug for UpstreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The identity of an exit of an upstream source: the name of the source, and a key that differs between the exits of
/// this source. The key is the same after a restart, and contains no login.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamId {
    pub source: UpstreamName,
    pub key: Box<str>,
}

impl UpstreamId {
    /// Returns the id of a proxy. Two proxies have different ids if their protocols, addresses or usernames differ. The
    /// id does not depend on the password, so an exit stays the same exit when its password is changed.
    pub fn of_proxy(source: UpstreamName, proxy: &UpstreamProxy) -> Self {
        let user = proxy.login.as_ref().map_or("", |login| &login.user);
        let tls = if proxy.tls.is_some() { "tls" } else { "" };
        let text = format!("{}{tls}\n{}\n{user}", proxy.protocol.as_str(), proxy.at);
        let hash = Sha256::digest(text.as_bytes());
        let digits = hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self { source, key: digits[..KEY_DIGITS].into() }
    }

    /// Parses the text that [`fmt::Display`] writes. `name` finds the source of a name.
    pub fn parse(text: &str, name: fn(&str) -> Option<UpstreamName>) -> Option<Self> {
        let (source, key) = text.split_once(':')?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let is_key = (1..=64).contains(&key.len()) && key.bytes().all(fits);
        is_key.then(|| name(source)).flatten().map(|source| Self { source, key: key.into() })
    }
}

impl fmt::Display for UpstreamId {
    /// Writes the name of the source, a colon and the key: `acme:9f2c31ab44d0e1f2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source.as_str(), self.key)
    }
}

/// How the gateway reaches an exit of an upstream source. Part of a [`super::Listing`].
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamProxy {
    pub protocol: Protocol,
    /// The host and port of the proxy. A host name is resolved at each dial.
    pub at: Target,
    /// How to make the TLS connection to the proxy. `None` if the connection to the proxy is not encrypted.
    pub tls: Option<ProxyTls>,
    /// The username and password that the proxy requires. `None` if the proxy requires no login.
    pub login: Option<Login>,
    /// True if the proxy may have a private address.
    pub allow_private: bool,
}

impl fmt::Debug for UpstreamProxy {
    /// Writes where the proxy is, without its login.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.protocol.as_str(), self.at)
    }
}

/// The certificates that a source trusts for TLS connections to its proxies. A clone is cheap.
#[derive(Clone)]
pub struct ProxyTls(pub TlsConnector);

impl PartialEq for ProxyTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(self.0.config(), other.0.config())
    }
}

impl Eq for ProxyTls {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Secret;

    fn proxy(user: &str, password: &str) -> UpstreamProxy {
        let login = Some(Login { user: user.into(), password: Secret::new(password) });
        let at = "proxy.example:3128".parse().unwrap();
        UpstreamProxy { protocol: Protocol::Http, at, tls: None, login, allow_private: false }
    }

    #[test]
    fn only_names_that_usernames_can_contain_are_names() {
        for good in ["acme", "a1", "de_isp", "us", &"a".repeat(LONGEST_NAME)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "1a", "a-b", "Acme", "tor", "public", "direct", "any", "a:b", &"a".repeat(LONGEST_NAME + 1)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn clients_can_name_only_sources_of_the_configuration() {
        let gone = UpstreamName::intern("gone").unwrap();
        assert_eq!((UpstreamName::find("gone"), UpstreamName::find("never")), (None, None));
        let acme = UpstreamName::configured("acme").unwrap();
        assert_eq!((UpstreamName::find("acme"), UpstreamName::intern("acme")), (Some(acme), Some(acme)));
        assert!(acme != gone && acme < gone);
        assert_eq!(acme.alone(), [Source::Upstream(acme)]);
    }

    #[test]
    fn an_id_is_stable_and_says_nothing_of_the_login() {
        let acme = UpstreamName::intern("acme").unwrap();
        let id = |user, password| UpstreamId::of_proxy(acme, &proxy(user, password));
        assert_eq!(id("planted-user", "a").to_string(), "acme:c1f8042a11a83923");
        assert_eq!(id("planted-user", "a"), id("planted-user", "b"), "a new password is no new exit");
        assert_ne!(id("planted-user", "a"), id("other", "a"));
        let (first, other) = (proxy("u", "p"), UpstreamProxy { protocol: Protocol::Socks5, ..proxy("u", "p") });
        assert_ne!(UpstreamId::of_proxy(acme, &first), UpstreamId::of_proxy(acme, &other));
        let text = id("u", "p").to_string();
        assert_eq!(UpstreamId::parse(&text, UpstreamName::intern), Some(id("u", "p")));
        for bad in ["acme", "acme:", ":x", "acme:a/b", "acme:a b", "Acme:a", "tor:a"] {
            assert_eq!(UpstreamId::parse(bad, UpstreamName::intern), None, "{bad}");
        }
        let shown = format!("{:?}", proxy("planted-user", "planted-password"));
        assert!(!shown.contains("planted"), "{shown}");
    }
}
