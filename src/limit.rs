//! Who may do how much: keys and what each may do, wrong keys and when they are no longer read, targets that nobody may
//! reach.
//!
//! A limit is counted where it holds: a connection takes a [`Admission`] and gives it back by dropping it, so that no
//! path out of a connection can forget to. All counters are atomics or sit behind a lock that is held for the length of
//! one look-up; nothing here waits.
//!
//! Next: `limit/allowance.rs` (one key's or one address's share), `limit/auth_throttle.rs` (wrong keys), `limit/target.rs` (where
//! nobody may go), `limit/bucket.rs` (bytes).

mod allowance;
mod auth_throttle;
mod bucket;
pub mod target;

use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use self::allowance::{Allowance, ClientAllowances, Held};
pub use self::auth_throttle::AuthThrottle;
pub use self::bucket::Bucket;
use crate::net::Secret;

/// How much somebody may do; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Connections at once.
    pub connections: Option<NonZeroU32>,
    /// New connections a second.
    pub per_second: Option<NonZeroU32>,
    /// Bytes a second, both ways together.
    pub bytes_per_second: Option<NonZeroU64>,
}

/// A client's key.
#[derive(Clone, Debug)]
pub struct Key {
    /// What it is called: this, and never the secret, is what pins, sessions and logs know.
    pub name: Arc<str>,
    /// What the client sends.
    pub secret: Secret,
    /// What its holder may do.
    pub amounts: Amounts,
}

/// When wrong keys are no longer read.
#[derive(Clone, Copy, Debug)]
pub struct Damping {
    /// Different wrong keys from one address.
    pub failures: NonZeroU32,
    /// For how long nothing but keys that are known to be good from there are taken.
    pub pause: Duration,
}

/// All limits of clients: a cheap handle.
#[derive(Clone, Debug)]
pub struct Limits(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    terms: ArcSwap<Terms>,
    throttle: AuthThrottle,
    clients: ClientAllowances,
}

/// What a configuration says; replaced as a whole.
#[derive(Debug)]
struct Terms {
    keys: Vec<(Key, Arc<Allowance>)>,
    each_client: Amounts,
    damping: Damping,
}

/// Whose key it was; nobody's where none is needed.
#[derive(Clone, Debug)]
pub struct Who(Option<(Arc<str>, Arc<Allowance>)>);

impl Who {
    /// Somebody without a key.
    pub fn nobody() -> Self {
        Self(None)
    }

    /// The key's name; empty for nobody.
    pub fn name(&self) -> &str {
        self.0.as_ref().map_or("", |(name, _)| name)
    }
}

/// Why a key was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// None was given.
    NoKey,
    /// It is nobody's.
    WrongKey,
    /// Too many wrong ones came from this address: it was not read.
    Damped {
        /// When keys are read again.
        retry_after: Duration,
    },
}

/// Why somebody who is known may not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Too many connections at once.
    #[error("{whose} has its {limit} connections open already")]
    Connections {
        /// Whose limit it is.
        whose: Whose,
        /// How many there may be.
        limit: NonZeroU32,
    },
    /// Too many new ones in this second.
    #[error("{whose} may open {limit} connections a second")]
    PerSecond {
        /// Whose limit it is.
        whose: Whose,
        /// How many there may be.
        limit: NonZeroU32,
        /// When the next one may come.
        retry_after: Duration,
    },
}

/// Whose limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The key's.
    Key,
    /// The client address's.
    Client,
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Key => "this key",
            Self::Client => "this address",
        })
    }
}

/// A place under the limits, given back when dropped.
#[derive(Debug)]
pub struct Admission {
    rate: Option<Arc<Bucket>>,
    _key: Option<Held>,
    _client: Option<Held>,
}

impl Admission {
    /// The rate to hold the connection to: the key's, else the address's.
    pub fn rate(&self) -> Option<Arc<Bucket>> {
        self.rate.clone()
    }
}

impl Limits {
    /// Limits by these keys, and for each client address.
    pub fn new(keys: Vec<Key>, each_client: Amounts, damping: Damping) -> Self {
        let terms = Terms::new(keys, each_client, damping, &[]);
        Self(Arc::new(Shared {
            terms: ArcSwap::from_pointee(terms),
            throttle: AuthThrottle::default(),
            clients: ClientAllowances::default(),
        }))
    }

    /// Other keys and amounts from now on. What a key's holders have open goes on counting, if the key keeps its name.
    pub fn replace(&self, keys: Vec<Key>, each_client: Amounts, damping: Damping) {
        let old = self.0.terms.load();
        self.0.terms.store(Arc::new(Terms::new(keys, each_client, damping, &old.keys)));
        self.0.throttle.forget_good();
        self.0.clients.change(each_client);
    }

    /// Whether keys are asked for at all.
    pub fn has_keys(&self) -> bool {
        !self.0.terms.load().keys.is_empty()
    }

    /// Whose key this is. While an address is damped, only keys that were good from there lately are looked at, so that
    /// others behind the same address go on working and whoever guesses learns nothing.
    pub fn identify(&self, client: IpAddr, password: Option<&[u8]>, now: Instant) -> Result<Who, Refused> {
        let terms = self.0.terms.load();
        if terms.keys.is_empty() {
            return Ok(Who::nobody());
        }
        let password = password.filter(|password| !password.is_empty()).ok_or(Refused::NoKey)?;
        // Every key is compared, so that the time does not tell which was near.
        let matches = terms.keys.iter().enumerate().filter(|(_, (key, _))| key.secret.matches(password));
        let found = matches.fold(None, |found, (at, _)| found.or(Some(at)));
        let verdict = self.0.throttle.check(client, password, found.is_some(), terms.damping, now);
        if let Some(retry_after) = verdict {
            return Err(Refused::Damped { retry_after });
        }
        let (key, allowance) = &terms.keys[found.ok_or(Refused::WrongKey)?];
        Ok(Who(Some((key.name.clone(), allowance.clone()))))
    }

    /// Takes a place for one more connection.
    pub fn admit(&self, who: &Who, client: IpAddr, now: Instant) -> Result<Admission, Denied> {
        let key = who.0.as_ref().map(|(_, allowance)| allowance.take(Whose::Key, now)).transpose()?;
        let client = self.0.clients.take(client, self.0.terms.load().each_client, now)?;
        let rate = [&key, &client].into_iter().flatten().find_map(Held::bucket);
        Ok(Admission { rate, _key: key, _client: client })
    }

    /// Forgets addresses of which nothing is left to remember; to be called now and then.
    pub fn tidy(&self, now: Instant) {
        self.0.throttle.tidy(now);
        self.0.clients.tidy(now);
    }
}

impl Terms {
    fn new(keys: Vec<Key>, each_client: Amounts, damping: Damping, old: &[(Key, Arc<Allowance>)]) -> Self {
        let keys = keys.into_iter().map(|key| {
            let kept = old.iter().find(|(old, _)| old.name == key.name).map(|(_, allowance)| allowance.clone());
            let allowance = kept.unwrap_or_default();
            allowance.change(key.amounts);
            (key, allowance)
        });
        Self { keys: keys.collect(), each_client, damping }
    }
}

#[cfg(test)]
mod tests;
