//! How much one key or one client address may use: connections at the same time, new connections per second, bytes per
//! second.
//!
//! New connections per second are counted by the crate `governor`, which uses the algorithm GCRA. With this algorithm,
//! all connections of one second may come at the same time, and after that one connection every `1 / limit` seconds.
//!
//! Each key has a limiter object of its own. For addresses there is one limiter object with a table of addresses,
//! because there are many addresses and most of them are removed soon.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use dashmap::DashMap;
use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{NotUntil, Quota, RateLimiter};

use super::{Amounts, Bucket, Denied, LimitOf};

/// The clock of the limiters. In unit tests, the test advances this clock by hand.
#[cfg(not(test))]
pub(super) type Clock = governor::clock::MonotonicClock;
#[cfg(test)]
pub(super) type Clock = governor::clock::FakeRelativeClock;

type ClockInstant = <Clock as governor::clock::Clock>::Instant;
type Limiter<K, S> = RateLimiter<K, S, Clock, NoOpMiddleware<ClockInstant>>;

/// A limiter and the limit for which it was made. The limit is stored here because the limiter cannot return it.
#[derive(Debug)]
struct Pace<L> {
    limit: NonZeroU32,
    limiter: L,
}

type KeyPace = Pace<Limiter<NotKeyed, InMemoryState>>;
type ClientPace = Pace<Limiter<IpAddr, DashMapStateStore<IpAddr>>>;

impl<L> Pace<L> {
    fn denied(&self, of: LimitOf, until: NotUntil<ClockInstant>, clock: &Clock) -> Denied {
        Denied::PerSecond { of, limit: self.limit, retry_after: until.wait_time_from(clock.now()) }
    }
}

/// The open connections and the limits of one key or of one address. The `Default` value has no limits.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    open: AtomicU32,
    terms: ArcSwap<Terms>,
}

#[derive(Debug, Default)]
struct Terms {
    amounts: Amounts,
    bytes: Option<Arc<Bucket>>,
    /// The limiter for the new connections of a key. `None` for an address, because [`ClientAllowances`] counts the
    /// connections of addresses.
    pace: Option<Box<KeyPace>>,
}

/// Counts one open connection in an [`Allowance`]. Dropping this value ends the count of this connection.
#[derive(Debug)]
pub(super) struct Slot(Arc<Allowance>);

impl Slot {
    pub(super) fn bucket(&self) -> Option<Arc<Bucket>> {
        self.0.terms.load().bytes.clone()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

impl Allowance {
    /// Sets the limits. Open connections stay in the count. `clock` is set if the allowance belongs to a key, and
    /// `None` if the allowance belongs to an address.
    pub(super) fn change(&self, amounts: Amounts, clock: Option<&Clock>) {
        let old = self.terms.load();
        if old.amounts == amounts {
            return;
        }
        let pace = amounts.per_second.zip(clock).map(|(limit, clock)| {
            let limiter = RateLimiter::direct_with_clock(Quota::per_second(limit), clock.clone());
            Box::new(Pace { limit, limiter })
        });
        let bytes = amounts.bytes_per_second.map(|rate| match &old.bytes {
            // The bucket is kept and only its rate changes, because open connections hold this bucket. Therefore open
            // connections also get the new rate.
            Some(bucket) => {
                bucket.set_rate(rate.get());
                bucket.clone()
            }
            None => Arc::new(Bucket::new(rate.get(), Instant::now())),
        });
        self.terms.store(Arc::new(Terms { amounts, bytes, pace }));
    }

    pub(super) fn amounts(&self) -> Amounts {
        self.terms.load().amounts
    }

    /// Returns how many connections are open.
    pub(super) fn open(&self) -> u32 {
        self.open.load(Relaxed)
    }

    /// Counts one more connection. A refused connection is not counted.
    pub(super) fn take(self: &Arc<Self>, of: LimitOf) -> Result<Slot, Denied> {
        let terms = self.terms.load();
        let limit = terms.amounts.connections;
        let one_more = |open: u32| limit.is_none_or(|limit| open < limit.get()).then_some(open + 1);
        let taken = self.open.fetch_update(Relaxed, Relaxed, one_more);
        if let (Err(_), Some(limit)) = (taken, limit) {
            return Err(Denied::Connections { of, limit });
        }
        let slot = Slot(self.clone());
        if let Some(pace) = &terms.pace {
            pace.limiter.check().map_err(|until| pace.denied(of, until, pace.limiter.clock()))?;
        }
        Ok(slot)
    }
}

/// The allowances of client addresses. An address stays in the table while it has open connections.
#[derive(Debug)]
pub(super) struct ClientAllowances {
    /// A guard of a map entry must not be held during another call of the map, because that would deadlock.
    table: DashMap<IpAddr, Arc<Allowance>>,
    pace: ArcSwapOption<ClientPace>,
    clock: Clock,
}

impl ClientAllowances {
    pub(super) fn new(each: Amounts, clock: Clock) -> Self {
        let pace = ArcSwapOption::new(client_pace(each, &clock));
        Self { table: DashMap::new(), pace, clock }
    }

    /// Counts one more connection of an address. Returns `None` if addresses have no limits.
    pub(super) fn take(&self, client: IpAddr, each: Amounts) -> Result<Option<Slot>, Denied> {
        if each == Amounts::default() {
            return Ok(None);
        }
        let client = subscriber(client);
        let allowance = self.table.entry(client).or_insert_with(|| new_allowance(each)).clone();
        let slot = allowance.take(LimitOf::Client)?;
        if let Some(pace) = &*self.pace.load() {
            pace.limiter.check_key(&client).map_err(|until| pace.denied(LimitOf::Client, until, &self.clock))?;
        }
        Ok(Some(slot))
    }

    pub(super) fn change(&self, each: Amounts) {
        if self.pace.load().as_ref().map(|pace| pace.limit) != each.per_second {
            self.pace.store(client_pace(each, &self.clock));
        }
        self.table.iter().for_each(|entry| entry.change(each, None));
    }

    pub(super) fn tidy(&self) {
        // An allowance is kept while it is in use. The table itself holds one reference to each allowance, and any
        // further reference belongs to a connection or to a call of `take` that runs now.
        self.table.retain(|_, allowance| Arc::strong_count(allowance) > 1);
        self.table.shrink_to_fit();
        if let Some(pace) = &*self.pace.load() {
            pace.limiter.retain_recent();
            pace.limiter.shrink_to_fit();
        }
    }

    /// Returns the number of addresses in the table, and the number of addresses whose rate of new connections is
    /// remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.table.len(), self.pace.load().as_ref().map_or(0, |pace| pace.limiter.len()))
    }
}

fn client_pace(each: Amounts, clock: &Clock) -> Option<Arc<ClientPace>> {
    let limit = each.per_second?;
    let limiter = RateLimiter::dashmap_with_clock(Quota::per_second(limit), clock.clone());
    Some(Arc::new(Pace { limit, limiter }))
}

fn new_allowance(amounts: Amounts) -> Arc<Allowance> {
    let allowance = Allowance::default();
    allowance.change(amounts, None);
    Arc::new(allowance)
}

/// Returns the address under which a client is counted. For IPv6 this is the /64 prefix, because one subscriber usually
/// has a whole /64.
pub fn subscriber(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
        v4 => v4,
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
