//! Limits of clients: keys and what each key may do, how many wrong keys an address may try, and which targets are forbidden.
//!
//! A connection takes an [`Admission`] when it is let in and gives it back by dropping it, so no path that ends a connection
//! can forget to. Counters are atomics; the tables of addresses are sharded, and no lock is held longer than one look-up.
//! Nothing here waits.
//!
//! Next: `limit/allowance.rs` (what one key or one address may use), `limit/auth_throttle.rs` (wrong keys), `limit/target.rs`
//! (forbidden targets), `limit/bucket.rs` (bytes per second).

mod allowance;
mod auth_throttle;
mod bucket;
pub mod target;

use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use self::allowance::{Allowance, ClientAllowances, Clock, Slot};
pub use self::auth_throttle::AuthThrottle;
pub use self::bucket::Bucket;
use crate::net::Secret;

/// What one key or one client address may use; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Connections open at once.
    pub connections: Option<NonZeroU32>,
    /// New connections per second.
    pub per_second: Option<NonZeroU32>,
    /// Bytes per second, both directions together.
    pub bytes_per_second: Option<NonZeroU64>,
}

/// A client's key.
#[derive(Clone, Debug)]
pub struct Key {
    /// Stands for the key in pins, sessions and access lines, which must never hold the secret.
    pub name: Arc<str>,
    /// The password that clients send.
    pub secret: Secret,
    pub amounts: Amounts,
}

/// When an address that tries wrong keys is made to wait.
#[derive(Clone, Copy, Debug)]
pub struct Damping {
    /// Different wrong keys from one address that start a pause.
    pub failures: NonZeroU32,
    /// How long the pause lasts. During it, the address may only use keys that it used successfully before.
    pub pause: Duration,
}

/// All limits of clients. Clones share the same counts.
#[derive(Clone, Debug)]
pub struct Limits(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    terms: ArcSwap<Terms>,
    throttle: AuthThrottle,
    clients: ClientAllowances,
    clock: Clock,
}

/// The configured part; a reload replaces it whole.
#[derive(Debug)]
struct Terms {
    keys: Vec<(Key, Arc<Allowance>)>,
    each_client: Amounts,
    damping: Damping,
}

/// The key that a client proved to have, if it needed one.
#[derive(Clone, Debug)]
pub struct Identity(Option<(Arc<str>, Arc<Allowance>)>);

impl Identity {
    pub fn anonymous() -> Self {
        Self(None)
    }

    /// The key's name; `None` without a key.
    pub fn key(&self) -> Option<&Arc<str>> {
        self.0.as_ref().map(|(name, _)| name)
    }
}

/// Why a key was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefusal {
    NoKey,
    WrongKey,
    /// Too many wrong keys came from this address: this one was not compared.
    Damped {
        /// When keys from this address are compared again.
        retry_after: Duration,
    },
}

/// Which limit an identified client has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("{of} has its {limit} connections open already")]
    Connections { of: LimitOf, limit: NonZeroU32 },
    #[error("{of} may open {limit} connections a second")]
    PerSecond {
        of: LimitOf,
        limit: NonZeroU32,
        /// When the next connection will be let in.
        retry_after: Duration,
    },
}

/// Whether a limit belongs to a key or to a client's address.
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

/// One connection that counts against the limits of its key and its address until this is dropped.
#[derive(Debug)]
pub struct Admission {
    rate: Option<Arc<Bucket>>,
    _key: Option<Slot>,
    _client: Option<Slot>,
}

impl Admission {
    /// The byte rate to hold the connection to: the key's, else the address's.
    pub fn rate(&self) -> Option<Arc<Bucket>> {
        self.rate.clone()
    }
}

impl Limits {
    pub fn new(keys: Vec<Key>, each_client: Amounts, damping: Damping) -> Self {
        let clock = Clock::default();
        let terms = Terms::new(keys, each_client, damping, &[], &clock);
        let clients = ClientAllowances::new(each_client, clock.clone());
        let throttle = AuthThrottle::default();
        Self(Arc::new(Shared { terms: ArcSwap::from_pointee(terms), throttle, clients, clock }))
    }

    /// Replaces keys and amounts. A key that keeps its name keeps the count of its open connections.
    pub fn replace(&self, keys: Vec<Key>, each_client: Amounts, damping: Damping) {
        let old = self.0.terms.load();
        self.0.terms.store(Arc::new(Terms::new(keys, each_client, damping, &old.keys, &self.0.clock)));
        self.0.clients.change(each_client);
    }

    /// Finds the key that a client sent. During a pause, only keys that the address used successfully before are accepted:
    /// other clients behind the same address go on working, and a guesser cannot learn whether a guess was right.
    pub fn identify(&self, client: IpAddr, password: Option<&[u8]>, now: Instant) -> Result<Identity, KeyRefusal> {
        let terms = self.0.terms.load();
        if terms.keys.is_empty() {
            return Ok(Identity::anonymous());
        }
        let password = password.filter(|password| !password.is_empty()).ok_or(KeyRefusal::NoKey)?;
        // Every key is compared: stopping at a match would show in the time which key was found.
        let matches = terms.keys.iter().enumerate().filter(|(_, (key, _))| key.secret.matches(password));
        let found = matches.fold(None, |found, (at, _)| found.or(Some(at)));
        let wait = self.0.throttle.check(client, password, found.is_some(), terms.damping, now);
        if let Some(retry_after) = wait {
            return Err(KeyRefusal::Damped { retry_after });
        }
        let (key, allowance) = &terms.keys[found.ok_or(KeyRefusal::WrongKey)?];
        Ok(Identity(Some((key.name.clone(), allowance.clone()))))
    }

    /// Counts one more connection, or says which limit it would exceed.
    pub fn admit(&self, identity: &Identity, client: IpAddr) -> Result<Admission, Denied> {
        let key = identity.0.as_ref().map(|(_, allowance)| allowance.take(LimitOf::Key)).transpose()?;
        let client = self.0.clients.take(client, self.0.terms.load().each_client)?;
        let rate = [&key, &client].into_iter().flatten().find_map(Slot::bucket);
        Ok(Admission { rate, _key: key, _client: client })
    }

    /// Forgets addresses that have no connection open and no pace to keep. To be called every few seconds.
    pub fn tidy(&self, now: Instant) {
        self.0.throttle.tidy(now);
        self.0.clients.tidy();
    }
}

impl Terms {
    fn new(
        keys: Vec<Key>,
        each_client: Amounts,
        damping: Damping,
        old: &[(Key, Arc<Allowance>)],
        clock: &Clock,
    ) -> Self {
        let keys = keys.into_iter().map(|key| {
            let kept = old.iter().find(|(old, _)| old.name == key.name).map(|(_, allowance)| allowance.clone());
            let allowance = kept.unwrap_or_default();
            allowance.change(key.amounts, Some(clock));
            (key, allowance)
        });
        Self { keys: keys.collect(), each_client, damping }
    }
}

#[cfg(test)]
mod tests;
