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
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsConnector;

use super::country::CountrySet;
use super::{Login, Moment, Protocol, Source};
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
    /// True if the source makes exits when requests need them, and can make some now.
    makes_exits: bool,
    /// The countries of requests that found no exit of this source, each with the time of the request.
    asked: Vec<(CountrySet, Moment)>,
}

/// How long a source remembers the countries of a request that found no exit: as long as a route counts as used.
const ASKED_FOR: Duration = Duration::from_secs(600);

/// The largest number of requests that a source remembers. Not tuned.
const MOST_ASKED: usize = 64;

/// An interned name.
#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Name(&'static str);

/// The name of one entry of `[[sources.upstream]]`. This is a thin pointer, because a selector contains it, and each
/// connection holds a selector.
#[derive(Clone, Copy, Eq, PartialOrd, Ord)]
pub struct UpstreamName(&'static Name);

impl PartialEq for UpstreamName {
    /// Each name is interned once, so equal names have equal pointers.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Hash for UpstreamName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl UpstreamName {
    /// Returns the name of a source that the configuration has. Returns `None` if the text cannot be such a name.
    pub fn configured(text: &str) -> Option<Self> {
        let name = Self::intern(text)?;
        let mut names = NAMES.write().unwrap_or_else(PoisonError::into_inner);
        names.get_mut(name.as_str()).into_iter().for_each(|named| named.configured = true);
        Some(name)
    }

    /// Returns the names of all sources that the configuration has.
    pub fn all_configured() -> Vec<Self> {
        let names = NAMES.read().unwrap_or_else(PoisonError::into_inner);
        names.values().filter(|named| named.configured).map(|named| named.name).collect()
    }

    /// Makes `configured` the names of the sources that the configuration has. Called after a configuration was refused
    /// whose names [`Self::configured`] has stored.
    pub fn restore_configured(configured: &[Self]) {
        let mut names = NAMES.write().unwrap_or_else(PoisonError::into_inner);
        names.values_mut().for_each(|named| named.configured = configured.contains(&named.name));
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
        let named = Named { name, configured: false, alone, makes_exits: false, asked: Vec::new() };
        names.insert(name.as_str(), named);
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

    /// Records whether the source can make exits when requests need them. Called by the worker of a gateway.
    pub fn set_makes_exits(self, makes_exits: bool) {
        let mut names = NAMES.write().unwrap_or_else(PoisonError::into_inner);
        names.get_mut(self.as_str()).into_iter().for_each(|named| named.makes_exits = makes_exits);
    }

    /// Returns true if the source can make exits when requests need them.
    pub fn makes_exits(self) -> bool {
        let names = NAMES.read().unwrap_or_else(PoisonError::into_inner);
        names.get(self.as_str()).is_some_and(|named| named.makes_exits)
    }

    /// Records that a request for these countries found no exit of this source. Returns true if the source makes an
    /// exit for the request soon.
    pub fn ask(self, countries: &CountrySet, now: Moment) -> bool {
        let mut names = NAMES.write().unwrap_or_else(PoisonError::into_inner);
        let Some(named) = names.get_mut(self.as_str()).filter(|named| named.makes_exits) else { return false };
        named.asked.retain(|(other, at)| other != countries && now.since(*at) < ASKED_FOR);
        if named.asked.len() >= MOST_ASKED {
            named.asked.remove(0);
        }
        named.asked.push((*countries, now));
        true
    }

    /// Returns the countries of requests that found no exit of this source during the last [`ASKED_FOR`].
    pub fn asked(self, now: Moment) -> Vec<CountrySet> {
        let names = NAMES.read().unwrap_or_else(PoisonError::into_inner);
        let asked = names.get(self.as_str()).map(|named| named.asked.as_slice()).unwrap_or_default();
        asked.iter().filter(|(_, at)| now.since(*at) < ASKED_FOR).map(|(countries, _)| *countries).collect()
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
    /// The account at a provider, which all sessions of a gateway share. `None` for a proxy of a list.
    pub account: Option<AccountRef>,
}

/// Why a provider refuses an account. This counts against no exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountFault {
    #[error("the provider refuses the login: check user, password and template; no exit is used until it accepts them")]
    Login,
    #[error(
        "the provider says that the account has no traffic or money left; no exit is used until it accepts requests"
    )]
    Quota,
}

impl AccountFault {
    /// The code of the fault in `/sources` and in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Quota => "quota",
        }
    }
}

/// What the provider said of an account lately. Dials write it, and the worker of the source reads it.
#[derive(Debug, Default)]
pub struct Account(AtomicU8);

impl Account {
    const ACCEPTED: u8 = 1;
    const LOGIN: u8 = 2;
    const QUOTA: u8 = 3;

    /// Records that the provider refused a request because of the account.
    pub fn refuse(&self, fault: AccountFault) {
        let code = if fault == AccountFault::Login { Self::LOGIN } else { Self::QUOTA };
        self.0.store(code, Ordering::Relaxed);
    }

    /// Records that the provider served a request.
    pub fn accept(&self) {
        self.0.store(Self::ACCEPTED, Ordering::Relaxed);
    }

    /// Returns what the last request showed, and forgets it. `None` if there was no request since the last call.
    pub fn take(&self) -> Option<Result<(), AccountFault>> {
        match self.0.swap(0, Ordering::Relaxed) {
            Self::ACCEPTED => Some(Ok(())),
            Self::LOGIN => Some(Err(AccountFault::Login)),
            Self::QUOTA => Some(Err(AccountFault::Quota)),
            _ => None,
        }
    }
}

/// A shared account. Two are equal if they are the same object.
#[derive(Clone, Debug)]
pub struct AccountRef(pub Arc<Account>);

impl PartialEq for AccountRef {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for AccountRef {}

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
        UpstreamProxy { protocol: Protocol::Http, at, tls: None, login, allow_private: false, account: None }
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

        // The names are those of the whole process, so other tests may add names meanwhile.
        let before = UpstreamName::all_configured();
        assert!(before.contains(&acme));
        UpstreamName::configured("of_a_refused_file").unwrap();
        UpstreamName::restore_configured(&before);
        assert_eq!((UpstreamName::find("of_a_refused_file"), UpstreamName::find("acme")), (None, Some(acme)));
    }

    #[test]
    fn a_source_remembers_for_which_countries_it_was_asked_while_it_can_make_exits() {
        let (name, now) = (UpstreamName::intern("maker").unwrap(), Moment(1_000_000));
        assert!(!name.ask(&CountrySet::ALL, now) && name.asked(now).is_empty());
        name.set_makes_exits(true);
        assert!(name.ask(&CountrySet::ALL, now) && name.ask(&CountrySet::ALL, now));
        assert_eq!(name.asked(now), [CountrySet::ALL]);
        assert!(name.asked(now.after(ASKED_FOR)).is_empty());
    }

    #[test]
    fn an_account_says_what_the_last_request_showed_once() {
        let account = Account::default();
        assert_eq!(account.take(), None);
        account.accept();
        account.refuse(AccountFault::Quota);
        assert_eq!((account.take(), account.take()), (Some(Err(AccountFault::Quota)), None));
        account.accept();
        assert_eq!(account.take(), Some(Ok(())));
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
