//! The throttle for wrong keys: how many different wrong keys an address may try before it has to wait.
//!
//! The throttle counts the different wrong keys of each address. A scraper that continues to send last month's key
//! tries only one wrong key, no matter how many times it tries, so this scraper does not cause a pause. An attacker who
//! guesses tries many keys, and the attacker's address is then paused.
//!
//! During the pause of an address, only keys that were used successfully from this address before are accepted. So
//! other clients behind the same NAT can continue, and the attacker gets the same answer for a right and for a wrong
//! guess.
//!
//! Keys are stored as hashes with a random seed of this process. The same key has the same hash, but a reader of the
//! memory learns nothing about the key. The size of both tables is limited, because unknown clients add the entries.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::Damping;
use super::allowance::{lock, subscriber};

/// The maximum number of addresses whose wrong keys are stored at the same time. This number of addresses takes a few
/// megabytes. Not tuned.
const MAX_ADDRESSES: usize = 16_384;

/// The maximum number of successful pairs of address and key that are stored at the same time. One gateway has fewer
/// clients. Not tuned.
const MAX_GOOD: usize = 65_536;

/// How long a successful pair of address and key is stored. Most scrapers are idle for a shorter time. Not tuned.
const GOOD_FOR: Duration = Duration::from_secs(3600);

/// The wrong keys that each address tried, and the keys that each address used successfully.
#[derive(Debug, Default)]
pub struct AuthThrottle {
    hasher: RandomState,
    wrong: Mutex<HashMap<IpAddr, WrongKeys>>,
    good: Mutex<HashMap<(IpAddr, u64), Instant>>,
}

/// The wrong keys of one address.
#[derive(Debug)]
struct WrongKeys {
    /// The hashes of the different wrong keys since the last pause.
    tried: Vec<u64>,
    last: Instant,
    paused_until: Option<Instant>,
}

impl AuthThrottle {
    /// Counts a key that a client sent. `right` is true if the key is valid.
    ///
    /// Returns the remaining time of the pause if the client's address is paused and the key must be refused. During a
    /// pause, this applies to every key except a right key that was used successfully from this address before.
    /// Otherwise returns `None`, and the caller refuses a wrong key itself.
    pub fn check(&self, client: IpAddr, key: &[u8], right: bool, terms: Damping, now: Instant) -> Option<Duration> {
        let client = subscriber(client);
        let pair = (client, self.hasher.hash_one(key));
        let mut wrong = lock(&self.wrong);
        let pause = wrong.get(&client).and_then(|keys| keys.paused_until?.checked_duration_since(now));
        if let Some(wait) = pause.filter(|wait| !wait.is_zero()) {
            drop(wrong);
            // `right` is computed for this request. A key that a reload removed is not accepted, even if it was used
            // successfully before.
            let known =
                right && lock(&self.good).get(&pair).is_some_and(|at| now.saturating_duration_since(*at) < GOOD_FOR);
            return (!known).then_some(wait);
        }
        if right {
            drop(wrong);
            self.remember(pair, now);
            return None;
        }
        if wrong.len() >= MAX_ADDRESSES && !wrong.contains_key(&client) {
            // The table is rarely full. All addresses without a running pause are then removed in one step. A search
            // for the oldest entry would walk through the table for each guess of an unknown client.
            wrong.retain(|_, keys| keys.paused_until > Some(now));
            if wrong.len() >= MAX_ADDRESSES {
                wrong.clear();
            }
        }
        let keys =
            wrong.entry(client).or_insert_with(|| WrongKeys { tried: Vec::new(), last: now, paused_until: None });
        if now.saturating_duration_since(keys.last) > terms.pause || keys.paused_until.is_some() {
            (keys.tried, keys.paused_until) = (Vec::new(), None);
        }
        keys.last = now;
        if !keys.tried.contains(&pair.1) {
            keys.tried.push(pair.1);
        }
        if keys.tried.len() >= terms.failures.get() as usize {
            keys.paused_until = Some(now + terms.pause);
        }
        None
    }

    fn remember(&self, pair: (IpAddr, u64), now: Instant) {
        let mut good = lock(&self.good);
        if good.len() >= MAX_GOOD && !good.contains_key(&pair) {
            good.clear(); // the next connection of each active client adds its key to the table again
        }
        good.insert(pair, now);
    }

    pub(super) fn tidy(&self, now: Instant) {
        let mut wrong = lock(&self.wrong);
        // The configuration allows pauses of at most an hour, so older entries have no effect.
        wrong.retain(|_, keys| now.saturating_duration_since(keys.last) < GOOD_FOR || keys.paused_until > Some(now));
        drop(wrong);
        lock(&self.good).retain(|_, at| now.saturating_duration_since(*at) < GOOD_FOR);
    }

    /// Returns the number of addresses with wrong keys.
    #[cfg(test)]
    pub(super) fn addresses(&self) -> usize {
        lock(&self.wrong).len()
    }
}
