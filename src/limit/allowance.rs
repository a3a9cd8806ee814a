//! One key's, or one client address's, share: how many connections it has, and how fast they may come.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::{Amounts, Bucket, Denied, Whose};

/// Locks that addresses are spread over. Arbitrary: more than there are threads.
const SHARDS: usize = 16;

/// How long an address without connections is remembered, so that its pace holds: a pace is by the second.
const REMEMBERED: Duration = Duration::from_secs(2);

/// One share. The `Default` allows everything.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    open: AtomicU32,
    terms: ArcSwap<Terms>,
}

#[derive(Debug, Default)]
struct Terms {
    amounts: Amounts,
    pace: Option<Pace>,
    bytes: Option<Arc<Bucket>>,
}

/// New connections a second, as the time up to which they are paid for (GCRA): one second's worth may come at once.
#[derive(Debug)]
struct Pace {
    limit: NonZeroU32,
    paid_until: Mutex<Option<Instant>>,
}

/// A place in a share, given back when dropped.
#[derive(Debug)]
pub(super) struct Held(Arc<Allowance>);

impl Held {
    pub(super) fn bucket(&self) -> Option<Arc<Bucket>> {
        self.0.terms.load().bytes.clone()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

impl Pace {
    fn take(&self, now: Instant) -> Result<(), Duration> {
        let each = Duration::from_secs(1) / self.limit.get();
        let mut paid_until = open(&self.paid_until);
        let paid = paid_until.map_or(now, |paid| paid.max(now));
        let ahead = paid + each - now;
        match ahead.checked_sub(Duration::from_secs(1)) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                *paid_until = Some(paid + each);
                Ok(())
            }
        }
    }
}

impl Allowance {
    /// Other amounts from now on; what is open goes on counting.
    pub(super) fn change(&self, amounts: Amounts) {
        let old = self.terms.load();
        if old.amounts == amounts {
            return;
        }
        let pace = amounts.per_second.map(|limit| Pace { limit, paid_until: Mutex::default() });
        let bytes = amounts.bytes_per_second.map(|rate| match &old.bytes {
            // Connections that hold the bucket go on under the new rate.
            Some(bucket) => {
                bucket.set_rate(rate.get());
                bucket.clone()
            }
            None => Arc::new(Bucket::new(rate.get(), Instant::now())),
        });
        self.terms.store(Arc::new(Terms { amounts, pace, bytes }));
    }

    pub(super) fn take(self: &Arc<Self>, whose: Whose, now: Instant) -> Result<Held, Denied> {
        let terms = self.terms.load();
        let limit = terms.amounts.connections;
        let room = |open: u32| limit.is_none_or(|limit| open < limit.get()).then_some(open + 1);
        let taken = self.open.fetch_update(Relaxed, Relaxed, room);
        if let (Err(_), Some(limit)) = (taken, limit) {
            return Err(Denied::Connections { whose, limit });
        }
        let held = Held(self.clone());
        if let Some(pace) = &terms.pace {
            let limit = pace.limit;
            pace.take(now).map_err(|retry_after| Denied::PerSecond { whose, limit, retry_after })?;
        }
        Ok(held)
    }

    /// Nothing about it matters any more.
    fn is_idle(&self, now: Instant) -> bool {
        let paced = |pace: &Pace| open(&pace.paid_until).is_some_and(|paid| now < paid + REMEMBERED);
        self.open.load(Relaxed) == 0 && !self.terms.load().pace.as_ref().is_some_and(paced)
    }
}

/// The shares of client addresses. Only those that are in use are kept.
#[derive(Debug)]
pub(super) struct ClientAllowances {
    hasher: RandomState,
    shards: [Mutex<HashMap<IpAddr, Arc<Allowance>>>; SHARDS],
}

impl Default for ClientAllowances {
    fn default() -> Self {
        Self { hasher: RandomState::new(), shards: Default::default() }
    }
}

impl ClientAllowances {
    /// A place in an address's share; `None` where addresses have no limits.
    pub(super) fn take(&self, client: IpAddr, each: Amounts, now: Instant) -> Result<Option<Held>, Denied> {
        if each == Amounts::default() {
            return Ok(None);
        }
        let client = whole(client);
        let shard = &self.shards[self.hasher.hash_one(client) as usize % SHARDS];
        let allowance = open(shard).entry(client).or_insert_with(|| fresh(each)).clone();
        allowance.take(Whose::Client, now).map(Some)
    }

    pub(super) fn change(&self, each: Amounts) {
        for shard in &self.shards {
            open(shard).values().for_each(|allowance| allowance.change(each));
        }
    }

    pub(super) fn tidy(&self, now: Instant) {
        for shard in &self.shards {
            let mut shard = open(shard);
            // Two hands: this table's, and that of somebody who is just taking a place.
            shard.retain(|_, allowance| Arc::strong_count(allowance) > 1 || !allowance.is_idle(now));
            if shard.capacity() > 4 * (shard.len() + 16) {
                shard.shrink_to_fit();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| open(shard).len()).sum()
    }
}

fn fresh(amounts: Amounts) -> Arc<Allowance> {
    let allowance = Allowance::default();
    allowance.change(amounts);
    Arc::new(allowance)
}

/// Whom an address stands for: an IPv6 subscriber has a /64.
pub(super) fn whole(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
        v4 => v4,
    }
}

pub(super) fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
