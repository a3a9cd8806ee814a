//! Wrong keys: how many different ones an address may try before they are no longer read.
//!
//! What is counted is the pair of address and key. A scraper that goes on sending last month's key is one pair, however
//! often it tries, and locks out nobody; whoever tries many keys makes many pairs, and then for a while nothing from its
//! address is read but keys that were good from there shortly before. So a NAT full of clients goes on working while
//! one of them guesses, and the one that guesses is told nothing, right or wrong.
//!
//! Keys are remembered as hashes with a random seed of this process: enough to see the same one again, useless to whoever
//! reads memory. Both tables are bounded, since it is strangers who fill them.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::Damping;
use super::allowance::{open, whole};

/// Addresses that are watched at once. Arbitrary: some megabytes at most.
const WATCHED: usize = 16_384;

/// Good pairs that are remembered at once. Arbitrary: more clients than one gateway has.
const GOOD: usize = 65_536;

/// How long a key that was good stays known as good. Arbitrary: longer than a scraper pauses.
const GOOD_FOR: Duration = Duration::from_secs(3600);

/// Who tried which wrong keys, and which were good.
#[derive(Debug, Default)]
pub struct AuthThrottle {
    hasher: RandomState,
    wrong: Mutex<HashMap<IpAddr, Suspect>>,
    good: Mutex<HashMap<(IpAddr, u64), Instant>>,
}

#[derive(Debug)]
struct Suspect {
    /// Different wrong keys since it was last let be.
    tried: Vec<u64>,
    /// When the last of them came.
    last: Instant,
    /// Until when nothing is read.
    until: Option<Instant>,
}

impl AuthThrottle {
    /// Takes note of a key that was tried; how long to wait, if it may not even be looked at.
    pub fn check(&self, client: IpAddr, key: &[u8], right: bool, terms: Damping, now: Instant) -> Option<Duration> {
        let client = whole(client);
        let pair = (client, self.hasher.hash_one(key));
        let mut wrong = open(&self.wrong);
        let damped = wrong.get(&client).and_then(|suspect| suspect.until?.checked_duration_since(now));
        if let Some(wait) = damped.filter(|wait| !wait.is_zero()) {
            drop(wrong);
            let known =
                right && open(&self.good).get(&pair).is_some_and(|at| now.saturating_duration_since(*at) < GOOD_FOR);
            return (!known).then_some(wait);
        }
        if right {
            drop(wrong);
            self.remember(pair, now);
            return None;
        }
        if wrong.len() >= WATCHED && !wrong.contains_key(&client) {
            // All at once and seldom: to look for the oldest each time would make every stranger's guess cost a walk.
            wrong.retain(|_, suspect| suspect.until > Some(now));
            if wrong.len() >= WATCHED {
                wrong.clear();
            }
        }
        let suspect = wrong.entry(client).or_insert_with(|| Suspect { tried: Vec::new(), last: now, until: None });
        if now.saturating_duration_since(suspect.last) > terms.pause || suspect.until.is_some() {
            (suspect.tried, suspect.until) = (Vec::new(), None);
        }
        suspect.last = now;
        if !suspect.tried.contains(&pair.1) {
            suspect.tried.push(pair.1);
        }
        if suspect.tried.len() >= terms.failures.get() as usize {
            suspect.until = Some(now + terms.pause);
        }
        None
    }

    fn remember(&self, pair: (IpAddr, u64), now: Instant) {
        let mut good = open(&self.good);
        if good.len() >= GOOD && !good.contains_key(&pair) {
            good.clear(); // what goes on working is back with its next connection
        }
        good.insert(pair, now);
    }

    /// Other keys may be good now.
    pub(super) fn forget_good(&self) {
        open(&self.good).clear();
    }

    pub(super) fn tidy(&self, now: Instant) {
        let mut wrong = open(&self.wrong);
        // A pause is at most an hour by the configuration; what is older than that counts for nothing.
        wrong.retain(|_, suspect| now.saturating_duration_since(suspect.last) < GOOD_FOR || suspect.until > Some(now));
        drop(wrong);
        open(&self.good).retain(|_, at| now.saturating_duration_since(*at) < GOOD_FOR);
    }

    #[cfg(test)]
    pub(super) fn watched(&self) -> usize {
        open(&self.wrong).len()
    }
}
