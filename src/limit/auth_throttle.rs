//! Wrong keys: how many different ones an address may try before it has to wait.
//!
//! The pair of address and key is counted. A scraper that keeps sending last month's key is one pair, however often it
//! tries, so it locks nobody out. A guesser tries many keys and makes many pairs; its address is then paused, and only keys
//! that were used successfully from that address before are accepted. Other clients behind the same NAT go on working, and
//! the guesser gets the same answer whether a guess is right or wrong.
//!
//! Keys are remembered as hashes under a random seed of this process: that recognises the same key again, and tells nothing
//! to somebody who reads the memory. Both tables are bounded, because strangers fill them.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::Damping;
use super::allowance::{lock, subscriber};

/// Addresses whose wrong keys are counted at once: a few megabytes. Not tuned.
const MAX_ADDRESSES: usize = 16_384;

/// Successful pairs of address and key that are remembered at once: more clients than one gateway has. Not tuned.
const MAX_GOOD: usize = 65_536;

/// How long a successful pair is remembered: longer than scrapers usually pause. Not tuned.
const GOOD_FOR: Duration = Duration::from_secs(3600);

/// Which wrong keys each address tried, and which keys it used successfully.
#[derive(Debug, Default)]
pub struct AuthThrottle {
    hasher: RandomState,
    wrong: Mutex<HashMap<IpAddr, WrongKeys>>,
    good: Mutex<HashMap<(IpAddr, u64), Instant>>,
}

/// The wrong keys of one address.
#[derive(Debug)]
struct WrongKeys {
    /// Different ones since the last pause, as hashes.
    tried: Vec<u64>,
    last: Instant,
    paused_until: Option<Instant>,
}

impl AuthThrottle {
    /// Counts a key that was tried; `right` says whether it is valid. Returns how long to wait where it may not be used.
    pub fn check(&self, client: IpAddr, key: &[u8], right: bool, terms: Damping, now: Instant) -> Option<Duration> {
        let client = subscriber(client);
        let pair = (client, self.hasher.hash_one(key));
        let mut wrong = lock(&self.wrong);
        let pause = wrong.get(&client).and_then(|keys| keys.paused_until?.checked_duration_since(now));
        if let Some(wait) = pause.filter(|wait| !wait.is_zero()) {
            drop(wrong);
            // `right` is of this moment: a key that a reload removed is not accepted for having been good before.
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
            // Rarely, and all at once: looking for the oldest each time would cost a walk for each stranger's guess.
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
            good.clear(); // each client that goes on working is back with its next connection
        }
        good.insert(pair, now);
    }

    pub(super) fn tidy(&self, now: Instant) {
        let mut wrong = lock(&self.wrong);
        // The configuration allows pauses of an hour at most, so older entries have no effect.
        wrong.retain(|_, keys| now.saturating_duration_since(keys.last) < GOOD_FOR || keys.paused_until > Some(now));
        drop(wrong);
        lock(&self.good).retain(|_, at| now.saturating_duration_since(*at) < GOOD_FOR);
    }

    /// Addresses with wrong keys.
    #[cfg(test)]
    pub(super) fn addresses(&self) -> usize {
        lock(&self.wrong).len()
    }
}
