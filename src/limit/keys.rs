//! All keys of clients: those of the configuration and those that the API created.
//!
//! The gateway stores no secret of an API key, only its digest: HMAC-SHA-256 with a secret of this gateway. Such a digest
//! is found in a map, so the time of a look-up does not depend on the number of keys. The reason for this kind of digest
//! is in `docs/decisions/0050-keys-by-api.md`.
//!
//! If there are no keys of the API, no digest is computed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::account::{Account, Budgets};
use super::allowance::{Allowance, Clock};
use super::{Amounts, Key};
use crate::exit::Moment;
use crate::net::Secret;

/// The digest of a secret.
pub type Digest = [u8; 32];

/// Computes the digests of secrets.
pub struct Digester(Hmac<Sha256>);

impl std::fmt::Debug for Digester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digester")
    }
}

impl Digester {
    /// `secret` is the content of the key file of this gateway. Without it, the digests are worthless for a thief of
    /// the database.
    pub fn new(secret: &Secret) -> Self {
        // HMAC accepts a key of any length, so this never fails.
        let mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes());
        Self(mac.unwrap_or_else(|_| Hmac::new(&Default::default())))
    }

    pub fn digest(&self, secret: &[u8]) -> Digest {
        let mut mac = self.0.clone();
        mac.update(secret);
        mac.finalize().into_bytes().into()
    }
}

/// What a key may use. In each field, `None` means everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// The names of routes. A key with such a list cannot use usernames without a route.
    pub routes: Option<Box<[Box<str>]>>,
    /// The names of sources.
    pub sources: Option<Box<[Box<str>]>>,
}

/// A key that the API created.
#[derive(Clone, Debug)]
pub struct ApiKey {
    pub name: Arc<str>,
    pub digest: Digest,
    /// When the key was created. A key that gets the name of a deleted key is another key.
    pub created: Moment,
    /// When the key expires, and how long the key is still valid. `None`: the key does not expire.
    pub expires: Option<(Moment, Duration)>,
    pub amounts: Amounts,
    pub budgets: Budgets,
    pub rights: Rights,
}

/// One key as connections use it.
#[derive(Debug)]
pub struct KeyState {
    pub name: Arc<str>,
    /// When the API created the key. `None` for a key of the configuration.
    pub created: Option<Moment>,
    pub account: Arc<Account>,
    pub(super) allowance: Arc<Allowance>,
    pub(super) rights: Rights,
    expires: Option<(Moment, Instant)>,
}

impl KeyState {
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|(_, expires)| now >= expires)
    }

    /// Returns when the key expires. `None` if it does not.
    pub fn expires(&self) -> Option<Moment> {
        self.expires.map(|(at, _)| at)
    }

    /// Returns the limits of the key.
    pub fn amounts(&self) -> Amounts {
        self.allowance.amounts()
    }

    /// Returns what the key may use.
    pub fn rights(&self) -> &Rights {
        &self.rights
    }

    /// Returns how many connections of this key are open.
    pub fn open_connections(&self) -> u32 {
        self.allowance.open()
    }
}

/// All keys.
#[derive(Debug, Default)]
pub(super) struct Keys {
    configured: Vec<(Secret, Arc<KeyState>)>,
    /// Digest → key of the API. The full digest is compared again after the look-up, in constant time.
    api: HashMap<Digest, Arc<KeyState>>,
    digester: Option<Arc<Digester>>,
    /// The keys of the configuration that a reload removed. If a later reload adds a key of the same name, it continues
    /// with what was used.
    removed: Vec<Arc<KeyState>>,
}

impl Keys {
    pub(super) fn is_empty(&self) -> bool {
        self.configured.is_empty() && self.api.is_empty()
    }

    pub(super) fn list(&self) -> impl Iterator<Item = &Arc<KeyState>> {
        self.configured.iter().map(|(_, key)| key).chain(self.api.values())
    }

    /// Finds the key whose secret is `password`.
    pub(super) fn find(&self, password: &[u8]) -> Option<&Arc<KeyState>> {
        // All keys are compared, even after one has matched. Otherwise the duration of the loop would show the position
        // of the matching key.
        let matches = self.configured.iter().filter(|(secret, _)| secret.matches(password));
        let configured = matches.fold(None, |found, (_, key)| found.or(Some(key)));
        let Some(digester) = self.digester.as_ref().filter(|_| !self.api.is_empty()) else { return configured };
        let digest = digester.digest(password);
        let found = self.api.get_key_value(&digest);
        let found = found.filter(|(stored, _)| bool::from(stored[..].ct_eq(&digest[..]))).map(|(_, key)| key);
        configured.or(found)
    }

    /// Returns the keys with other keys of the configuration.
    pub(super) fn with_configured(&self, keys: Vec<Key>, clock: &Clock, now: Moment) -> Self {
        let was = |name: &str| {
            let configured = self.configured.iter().map(|(_, key)| key);
            configured.chain(&self.removed).find(|key| *key.name == *name)
        };
        let configured = keys.into_iter().map(|Key { name, secret, amounts, budgets }| {
            let key = state((name, None), was, (amounts, &budgets), Rights::default(), None, (clock, now));
            (secret, Arc::new(key))
        });
        let configured: Vec<_> = configured.collect();
        let is_gone = |key: &&Arc<KeyState>| !configured.iter().any(|(_, now)| now.name == key.name);
        let all = self.configured.iter().map(|(_, key)| key).chain(&self.removed);
        let removed = all.filter(is_gone).cloned().collect();
        Self { configured, api: self.api.clone(), digester: self.digester.clone(), removed }
    }

    /// Returns the keys with other keys of the API.
    pub(super) fn with_api(&self, digester: Arc<Digester>, keys: Vec<ApiKey>, clock: &Clock, now: Moment) -> Self {
        let mut old: HashMap<&str, &Arc<KeyState>> = self.api.values().map(|key| (&*key.name, key)).collect();
        let api = keys.into_iter().map(|key| {
            let was = old.remove(&*key.name);
            api_state(key, was, (clock, now))
        });
        let api = api.collect();
        Self { configured: self.configured.clone(), api, digester: Some(digester), removed: self.removed.clone() }
    }

    /// Returns the keys with one more key of the API. It replaces the key with the same name.
    pub(super) fn with_one(&self, digester: Arc<Digester>, key: ApiKey, clock: &Clock, now: Moment) -> Self {
        let was = self.api.values().find(|was| was.name == key.name);
        let mut keys = self.without(&key.name);
        let (digest, key) = api_state(key, was, (clock, now));
        keys.api.insert(digest, key);
        Self { digester: Some(digester), ..keys }
    }

    /// Returns the keys without the key of the API that has this name.
    pub(super) fn without(&self, name: &str) -> Self {
        let mut api = self.api.clone();
        api.retain(|_, key| *key.name != *name);
        let (configured, removed) = (self.configured.clone(), self.removed.clone());
        Self { configured, api, digester: self.digester.clone(), removed }
    }
}

/// Returns a key of the API with its digest. `was` is the key that had the same name before.
fn api_state(key: ApiKey, was: Option<&Arc<KeyState>>, (clock, now): (&Clock, Moment)) -> (Digest, Arc<KeyState>) {
    let ApiKey { name, digest, created, expires, amounts, budgets, rights } = key;
    let was = was.filter(|key| key.created == Some(created));
    let expires = expires.and_then(|(at, span)| Some((at, Instant::now().checked_add(span)?)));
    let key = state((name, Some(created)), |_| was, (amounts, &budgets), rights, expires, (clock, now));
    (digest, Arc::new(key))
}

fn state<'k>(
    (name, created): (Arc<str>, Option<Moment>),
    was: impl FnOnce(&str) -> Option<&'k Arc<KeyState>>,
    (amounts, budgets): (Amounts, &Budgets),
    rights: Rights,
    expires: Option<(Moment, Instant)>,
    (clock, now): (&Clock, Moment),
) -> KeyState {
    let kept = was(&name).map(|key| (key.allowance.clone(), key.account.clone()));
    let (allowance, account) = kept.unwrap_or_default();
    allowance.change(amounts, Some(clock));
    account.set_budgets(budgets, now);
    KeyState { name, created, account, allowance, rights, expires }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digester() -> Arc<Digester> {
        Arc::new(Digester::new(&Secret::new("the secret of this gateway")))
    }

    fn api_key(name: &str, secret: &str) -> ApiKey {
        ApiKey {
            name: name.into(),
            digest: digester().digest(secret.as_bytes()),
            created: Moment(1),
            expires: None,
            amounts: Amounts::default(),
            budgets: Budgets::default(),
            rights: Rights::default(),
        }
    }

    #[test]
    fn a_digest_is_hmac_sha256() {
        // RFC 4231, test case 2.
        let hex: String = Digester::new(&Secret::new("Jefe"))
            .digest(b"what do ya want for nothing?")
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn keys_of_both_origins_are_found_and_a_change_of_one_keeps_the_other() {
        let (clock, now) = (Clock::default(), Moment(1));
        let configured = |name: &str, secret: &str| Key {
            name: name.into(),
            secret: Secret::new(secret),
            amounts: Amounts::default(),
            budgets: Budgets::default(),
        };
        let name = |keys: &Keys, secret: &str| keys.find(secret.as_bytes()).map(|key| key.name.to_string());
        let keys = Keys::default();
        assert!(keys.is_empty() && name(&keys, "one").is_none());
        let keys = keys.with_configured(vec![configured("a", "one")], &clock, now);
        let keys = keys.with_api(digester(), vec![api_key("b", "two"), api_key("c", "three")], &clock, now);
        assert_eq!([name(&keys, "one"), name(&keys, "two"), name(&keys, "three")].map(Option::unwrap), ["a", "b", "c"]);
        assert_eq!(name(&keys, "tw"), None);
        let account = keys.find(b"two").unwrap().account.clone();
        account.spend("tor").add(7);
        let keys = keys.with_api(digester(), vec![api_key("b", "two")], &clock, now);
        let keys = keys.with_configured(vec![], &clock, now);
        assert_eq!((name(&keys, "one"), name(&keys, "three")), (None, None));
        assert!(Arc::ptr_eq(&keys.find(b"two").unwrap().account, &account), "what was used stays");
        let again = ApiKey { created: Moment(2), ..api_key("b", "two") };
        let keys = keys.with_api(digester(), vec![again], &clock, now);
        assert!(!Arc::ptr_eq(&keys.find(b"two").unwrap().account, &account), "another key of the same name");
        let keys = keys.with_configured(vec![configured("a", "four")], &clock, now);
        assert_eq!(name(&keys, "four").as_deref(), Some("a"));
    }

    #[test]
    fn a_key_that_a_reload_brings_back_continues_with_what_it_used() {
        let (clock, now) = (Clock::default(), Moment(1));
        let key = Key {
            name: "a".into(),
            secret: Secret::new("one"),
            amounts: Amounts::default(),
            budgets: Budgets::default(),
        };
        let keys = Keys::default().with_configured(vec![key.clone()], &clock, now);
        let account = keys.find(b"one").unwrap().account.clone();
        let keys = keys.with_configured(vec![], &clock, now).with_configured(vec![], &clock, now);
        let keys = keys.with_configured(vec![key], &clock, now);
        assert!(Arc::ptr_eq(&keys.find(b"one").unwrap().account, &account));
        assert!(keys.removed.is_empty());
    }
}
