//! The limits of clients: which keys exist and how much each key may use, how many wrong keys an address may try, and
//! which targets are forbidden.
//!
//! A connection takes an [`Admission`] when its client is accepted. The admission counts this connection until it is
//! dropped, so the counter is also decreased if the connection ends by a panic.
//!
//! No function in this module waits: the counters are atomics, the tables of addresses are sharded, and each lock is
//! held only for one look-up.
//!
//! Next: `limit/allowance.rs` (how much one key or one address may use), `limit/auth_throttle.rs` (wrong keys),
//! `limit/target.rs` (forbidden targets), `limit/bucket.rs` (bytes per second).

mod allowance;
mod auth_throttle;
mod bucket;
pub mod target;

use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

pub use self::allowance::subscriber;
use self::allowance::{Allowance, ClientAllowances, Clock, Slot};
pub use self::auth_throttle::AuthThrottle;
pub use self::bucket::Bucket;
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

/// A client's key.
#[derive(Clone, Debug)]
pub struct Key {
    /// The name of the key. Pins, sessions and access lines contain the name, because they must never contain the
    /// secret.
    pub name: Arc<str>,
    /// The password that clients send.
    pub secret: Secret,
    pub amounts: Amounts,
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
    throttle: AuthThrottle,
    clients: ClientAllowances,
    clock: Clock,
}

/// The configured part of the limits. A reload replaces all of this struct.
#[derive(Debug)]
struct Terms {
    keys: Vec<(Key, Arc<Allowance>)>,
    each_client: Amounts,
    damping: Damping,
}

/// The key of a client, if the client needed one.
#[derive(Clone, Debug)]
pub struct Identity(Option<(Arc<str>, Arc<Allowance>)>);

impl Identity {
    pub fn anonymous() -> Self {
        Self(None)
    }

    /// Returns the key's name, or `None` if the client needed no key.
    pub fn key(&self) -> Option<&Arc<str>> {
        self.0.as_ref().map(|(name, _)| name)
    }
}

/// Why a key was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefusal {
    NoKey,
    WrongKey,
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
        let terms = Terms::new(keys, each_client, damping, &[], &clock);
        let clients = ClientAllowances::new(each_client, clock.clone());
        let throttle = AuthThrottle::default();
        Self(Arc::new(Shared { terms: ArcSwap::from_pointee(terms), throttle, clients, clock }))
    }

    /// Replaces the keys and the amounts. A key that keeps its name keeps the count of its open connections.
    pub fn replace(&self, keys: Vec<Key>, each_client: Amounts, damping: Damping) {
        let old = self.0.terms.load();
        self.0.terms.store(Arc::new(Terms::new(keys, each_client, damping, &old.keys, &self.0.clock)));
        self.0.clients.change(each_client);
    }

    /// Finds the key that a client sent. During a pause, only keys that the address used successfully before are
    /// accepted. Other clients behind the same address can therefore continue, and an attacker cannot find out whether
    /// a guess was right.
    pub fn identify(&self, client: IpAddr, password: Option<&[u8]>, now: Instant) -> Result<Identity, KeyRefusal> {
        let terms = self.0.terms.load();
        if terms.keys.is_empty() {
            return Ok(Identity::anonymous());
        }
        let password = password.filter(|password| !password.is_empty()).ok_or(KeyRefusal::NoKey)?;
        // All keys are compared, even after one has matched. Otherwise the duration of the loop would show the position
        // of the matching key.
        let matches = terms.keys.iter().enumerate().filter(|(_, (key, _))| key.secret.matches(password));
        let found = matches.fold(None, |found, (at, _)| found.or(Some(at)));
        let wait = self.0.throttle.check(client, password, found.is_some(), terms.damping, now);
        if let Some(retry_after) = wait {
            return Err(KeyRefusal::Damped { retry_after });
        }
        let (key, allowance) = &terms.keys[found.ok_or(KeyRefusal::WrongKey)?];
        Ok(Identity(Some((key.name.clone(), allowance.clone()))))
    }

    /// Counts one more connection. If the connection would exceed a limit, the error tells which limit, and the
    /// connection is not counted.
    pub fn admit(&self, identity: &Identity, client: IpAddr) -> Result<Admission, Denied> {
        let key = identity.0.as_ref().map(|(_, allowance)| allowance.take(LimitOf::Key)).transpose()?;
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
