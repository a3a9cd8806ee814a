//! The limits of clients: which keys exist and how much each key may use, how many wrong keys an address may try, and
//! which targets are forbidden.
//!
//! A connection takes an [`Admission`] when its client is accepted. The admission counts this connection until it is
//! dropped, so the counter is also decreased if the connection ends by a panic.
//!
//! No function in this module waits: the counters are atomics, the tables of addresses are sharded, and each lock is
//! held only for one look-up.
//!
//! Next: `limit/keys.rs` (all keys, and how the key of a client is found), `limit/allowance.rs` (how much one key or one
//! address may use at the same time), `limit/account.rs` (how much one key may use in a day and a month),
//! `limit/auth_throttle.rs` (wrong keys), `limit/target.rs` (forbidden targets), `limit/bucket.rs` (bytes per second).

mod account;
mod allowance;
mod auth_throttle;
mod bucket;
pub mod keys;
mod ledger;
pub mod target;

use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;

pub use self::account::{Account, Budgets, Crossing, Spend, Usage};
pub use self::allowance::subscriber;
use self::allowance::{ClientAllowances, Clock, Slot, lock};
pub use self::auth_throttle::AuthThrottle;
pub use self::bucket::Bucket;
use self::keys::{ApiKey, Digester, KeyState, Keys};
pub use self::ledger::{Budget, Ledger, Level, Period, Spent, Used};
use crate::exit::Moment;
use crate::net::Secret;

/// How much one key or one client address may use. In each field, `None` means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// The maximum number of connections that are open at the same time.
    pub connections: Option<NonZeroU32>,
    /// The maximum number of new connections per second.
    pub per_second: Option<NonZeroU32>,
    /// The maximum number of bytes per second, both directions together.
    pub bytes_per_second: Option<NonZeroU64>,
}

/// A client's key of the configuration.
#[derive(Clone, Debug)]
pub struct Key {
    /// The name of the key. Pins, sessions and access lines contain the name, because they must never contain the
    /// secret.
    pub name: Arc<str>,
    /// The password that clients send.
    pub secret: Secret,
    pub amounts: Amounts,
    pub budgets: Budgets,
}

/// The settings for the pause of an address that tries wrong keys.
#[derive(Clone, Copy, Debug)]
pub struct Damping {
    /// The number of different wrong keys from one address after which a pause begins.
    pub failures: NonZeroU32,
    /// The length of the pause. During the pause, the address may use only keys that it used successfully before.
    pub pause: Duration,
}

/// All limits of clients. Clones share the same counts.
#[derive(Clone, Debug)]
pub struct Limits(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    terms: ArcSwap<Terms>,
    /// True if a key that existed before cannot be recognized. Then every client needs a key, also if no key is left.
    is_closed: AtomicBool,
    /// Held while the terms are replaced, because a reload and a change of keys by the API may come at the same time.
    replacing: Mutex<()>,
    throttle: AuthThrottle,
    clients: ClientAllowances,
    clock: Clock,
}

/// The part of the limits that a reload or a change of keys by the API replaces.
#[derive(Debug)]
struct Terms {
    keys: Keys,
    each_client: Amounts,
    damping: Damping,
}

/// The key of a client, if the client needed one.
#[derive(Clone, Debug)]
pub struct Identity(Option<Arc<KeyState>>);

impl Identity {
    pub fn anonymous() -> Self {
        Self(None)
    }

    /// Returns the key's name, or `None` if the client needed no key.
    pub fn key(&self) -> Option<&Arc<str>> {
        self.0.as_ref().map(|key| &key.name)
    }

    /// Returns what this key has used. `None` if the client needed no key.
    pub fn account(&self) -> Option<&Arc<Account>> {
        self.0.as_ref().map(|key| &key.account)
    }

    /// Returns true if the client may use the route with this name. `None` means a username without a route.
    pub fn may_use_route(&self, route: Option<&str>) -> bool {
        let Some(routes) = self.0.as_ref().and_then(|key| key.rights.routes.as_deref()) else { return true };
        route.is_some_and(|route| routes.iter().any(|allowed| **allowed == *route))
    }

    /// Returns the names of the routes that the client may use. The list is empty if the client may use all.
    pub fn routes(&self) -> &[Box<str>] {
        self.0.as_ref().and_then(|key| key.rights.routes.as_deref()).unwrap_or_default()
    }

    /// Returns true if the client may use the source with this name.
    pub fn may_use_source(&self, source: &str) -> bool {
        let Some(sources) = self.0.as_ref().and_then(|key| key.rights.sources.as_deref()) else { return true };
        sources.iter().any(|allowed| **allowed == *source)
    }
}

/// Why a key was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefusal {
    NoKey,
    WrongKey,
    /// The key was right, but it has expired.
    Expired,
    /// Too many wrong keys came from this address, so this key was not accepted, right or wrong.
    Damped {
        /// The time after which keys from this address are accepted again.
        retry_after: Duration,
    },
}

/// Which limit a client has reached. The client's key was accepted before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("{of} has its {limit} connections open already")]
    Connections { of: LimitOf, limit: NonZeroU32 },
    #[error("{of} may open {limit} connections a second")]
    PerSecond {
        of: LimitOf,
        limit: NonZeroU32,
        /// The time after which the next connection will be accepted.
        retry_after: Duration,
    },
    #[error("{} of {} are used, and the next ones may be used from {} on", .0.limit, .0.what, .0.until)]
    Budget(Spent),
}

/// The owner of a limit: a key or a client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitOf {
    Key,
    Client,
}

impl std::fmt::Display for LimitOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Key => "this key",
            Self::Client => "this address",
        })
    }
}

/// Counts one open connection for its key and for its address. Dropping this value ends the count of this connection.
#[derive(Debug)]
pub struct Admission {
    rate: Option<Arc<Bucket>>,
    _key: Option<Slot>,
    _client: Option<Slot>,
}

impl Admission {
    /// Returns the byte rate that limits this connection: the rate of the key, or the rate of the address if the key
    /// has none.
    pub fn rate(&self) -> Option<Arc<Bucket>> {
        self.rate.clone()
    }
}

impl Limits {
    pub fn new(keys: Vec<Key>, each_client: Amounts, damping: Damping) -> Self {
        let clock = Clock::default();
        let keys = Keys::default().with_configured(keys, &clock, SystemTime::now().into());
        let terms = Terms { keys, each_client, damping };
        let clients = ClientAllowances::new(each_client, clock.clone());
        let (terms, throttle) = (ArcSwap::from_pointee(terms), AuthThrottle::default());
        Self(Arc::new(Shared {
            terms,
            is_closed: AtomicBool::new(false),
            replacing: Mutex::default(),
            throttle,
            clients,
            clock,
        }))
    }

    /// Replaces the keys of the configuration and the amounts. A key that keeps its name keeps the count of its open
    /// connections and of what it used. Keys of the API stay.
    pub fn replace(&self, keys: Vec<Key>, each_client: Amounts, damping: Damping) {
        let _one_at_a_time = lock(&self.0.replacing);
        let keys = self.0.terms.load().keys.with_configured(keys, &self.0.clock, SystemTime::now().into());
        self.0.terms.store(Arc::new(Terms { keys, each_client, damping }));
        self.0.clients.change(each_client);
    }

    /// Replaces the keys of the API. A key that keeps its name and the time of its creation keeps the count of its open
    /// connections and of what it used.
    pub fn set_api_keys(&self, digester: Arc<Digester>, keys: Vec<ApiKey>) {
        self.change_keys(|old, clock, now| old.with_api(digester, keys, clock, now));
    }

    /// Adds a key of the API, or replaces the key with the same name.
    pub fn put_api_key(&self, digester: Arc<Digester>, key: ApiKey) {
        self.change_keys(|keys, clock, now| keys.with_one(digester, key, clock, now));
    }

    /// Removes a key of the API. Connections of this key stay open.
    pub fn drop_api_key(&self, name: &str) {
        self.change_keys(|keys, _, _| keys.without(name));
    }

    fn change_keys(&self, change: impl FnOnce(&Keys, &Clock, Moment) -> Keys) {
        let _one_at_a_time = lock(&self.0.replacing);
        let terms = self.0.terms.load();
        let keys = change(&terms.keys, &self.0.clock, SystemTime::now().into());
        self.0.terms.store(Arc::new(Terms { keys, each_client: terms.each_client, damping: terms.damping }));
    }

    /// Returns all keys: those of the configuration first.
    pub fn keys(&self) -> Vec<Arc<KeyState>> {
        self.0.terms.load().keys.list().cloned().collect()
    }

    /// Returns true if clients need a key.
    pub fn needs_key(&self) -> bool {
        self.0.is_closed.load(Ordering::Relaxed) || !self.0.terms.load().keys.is_empty()
    }

    /// Makes a key necessary until the process ends, although there may be none. Called if keys were lost: without them,
    /// the gateway would be open for everybody.
    pub fn close(&self) {
        self.0.is_closed.store(true, Ordering::Relaxed);
    }

    /// Finds the key that a client sent. During a pause, only keys that the address used successfully before are
    /// accepted. Other clients behind the same address can therefore continue, and an attacker cannot find out whether
    /// a guess was right.
    pub fn identify(&self, client: IpAddr, password: Option<&[u8]>, now: Instant) -> Result<Identity, KeyRefusal> {
        let terms = self.0.terms.load();
        if terms.keys.is_empty() && !self.0.is_closed.load(Ordering::Relaxed) {
            return Ok(Identity::anonymous());
        }
        let password = password.filter(|password| !password.is_empty()).ok_or(KeyRefusal::NoKey)?;
        let found = terms.keys.find(password);
        let valid = found.filter(|key| !key.is_expired(now));
        let wait = self.0.throttle.check(client, password, valid.is_some(), terms.damping, now);
        if let Some(retry_after) = wait {
            return Err(KeyRefusal::Damped { retry_after });
        }
        let refusal = if found.is_some() { KeyRefusal::Expired } else { KeyRefusal::WrongKey };
        valid.map(|key| Identity(Some(key.clone()))).ok_or(refusal)
    }

    /// Counts one more connection. If the connection would exceed a limit, the error tells which limit, and the
    /// connection is not counted.
    pub fn admit(&self, identity: &Identity, client: IpAddr) -> Result<Admission, Denied> {
        let key = identity.0.as_ref().map(|key| key.allowance.take(LimitOf::Key)).transpose()?;
        let client = self.0.clients.take(client, self.0.terms.load().each_client)?;
        let rate = [&key, &client].into_iter().flatten().find_map(Slot::bucket);
        Ok(Admission { rate, _key: key, _client: client })
    }

    /// Removes the addresses that have no open connection and whose rate of new connections need not be remembered any
    /// more. Must be called every few seconds.
    pub fn tidy(&self, now: Instant) {
        self.0.throttle.tidy(now);
        self.0.clients.tidy();
    }
}

#[cfg(test)]
mod tests;
