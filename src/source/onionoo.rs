//! Onionoo's details document: a stream of bytes in, exits out, one relay in memory at a time.
//!
//! The document is 20 MB and most of it is of no use to us, so it is never held: a splitter cuts the array of relays
//! into records as the bytes arrive, and each record is read on its own. That also makes a bad record harmless: one
//! that is too long, has a number where a text belongs, or is no object at all is skipped and counted, and the next
//! one is read. What is not harmless is a document that ends early or is no document: then there is no answer, and the
//! caller keeps the one it has.
//!
//! Every field may be missing, because at one time or another each of them was.
//!
//! Next: `onionoo/split.rs` cuts; `source/poll.rs` fetches and decides what an answer is worth.

mod split;

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::Deserialize;

use self::split::{Piece, Splitter};
use super::{Garbage, Parse, Parsed, utc};
use crate::exit::country::Country;
use crate::exit::facts::Flags;
use crate::exit::policy::PortPolicy;
use crate::exit::{ExitId, Fingerprint, Listing, Moment};

/// What to ask of an Onionoo server: exits that run, and only what we read of them. (An unknown parameter is a 400.)
pub const QUERY: &str = "type=relay&running=true&flag=Exit&fields=nickname,fingerprint,or_addresses,exit_addresses,last_seen,\
                         running,flags,country,as,as_name,consensus_weight,exit_policy_summary,exit_policy_v6_summary";

/// Reads a details document as it arrives.
#[derive(Debug, Default)]
pub struct Details {
    splitter: Splitter,
    listings: Vec<Listing>,
    /// Where in `listings` a relay stands, and when it was last seen.
    known: HashMap<Fingerprint, (usize, Option<Moment>)>,
    /// Names of autonomous systems: a hundred of them make up most of the network.
    names: HashMap<Box<str>, Arc<str>>,
    published: Option<Moment>,
    skipped: u32,
}

/// A relay as the document has it.
#[derive(Deserialize)]
struct Relay<'a> {
    #[serde(borrow)]
    fingerprint: Cow<'a, str>,
    #[serde(borrow)]
    nickname: Option<Cow<'a, str>>,
    or_addresses: Option<Vec<String>>,
    exit_addresses: Option<Vec<String>>,
    #[serde(borrow)]
    last_seen: Option<Cow<'a, str>>,
    running: Option<bool>,
    flags: Option<Vec<Flag>>,
    #[serde(borrow)]
    country: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "as")]
    asn: Option<Cow<'a, str>>,
    #[serde(borrow)]
    as_name: Option<Cow<'a, str>>,
    consensus_weight: Option<u64>,
    exit_policy_summary: Option<PortPolicy>,
    exit_policy_v6_summary: Option<PortPolicy>,
}

/// The flags that mean something here.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
enum Flag {
    Exit,
    BadExit,
    Fast,
    Stable,
    Running,
    #[serde(other)]
    Another,
}

impl Details {
    fn record(&mut self, record: &[u8]) {
        match serde_json::from_slice::<Relay<'_>>(record).ok().and_then(|relay| self.exit(relay)) {
            Some((listing, seen)) => self.merge(listing, seen),
            None => self.skipped += 1,
        }
    }

    /// What the record says of an exit, `None` if it is unusable. A relay that is no exit comes back with no way out.
    fn exit(&mut self, relay: Relay<'_>) -> Option<(Listing, Option<Moment>)> {
        let fingerprint: Fingerprint = relay.fingerprint.parse().ok()?;
        let flags = relay.flags.unwrap_or_default();
        let has = |flag| flags.contains(&flag);
        let exits = relay.exit_addresses.iter().flatten().filter_map(|text| text.parse().ok());
        let mut routers = relay.or_addresses.iter().flatten().filter_map(|text| text.parse::<SocketAddr>().ok());
        let described = routers.next().map(|router| router.ip());
        let mut announced: Vec<IpAddr> = Vec::new();
        for ip in exits.chain(described).chain(routers.map(|router| router.ip())) {
            if !announced.contains(&ip) {
                announced.push(ip);
            }
        }
        let holds = described.is_none_or(|ip| same_net(ip, announced[0]));
        let listing = Listing {
            id: ExitId::Tor(fingerprint),
            nickname: relay.nickname.unwrap_or_default().into(),
            announced,
            country: relay.country.as_deref().filter(|_| holds).and_then(Country::parse).unwrap_or(Country::UNKNOWN),
            asn: relay.asn.filter(|_| holds).and_then(|text| text.strip_prefix("AS")?.parse().ok()),
            as_name: relay.as_name.filter(|_| holds).map(|name| self.shared(&name)),
            policy: relay.exit_policy_summary.unwrap_or_default(),
            policy_v6: relay.exit_policy_v6_summary.unwrap_or_default(),
            flags: Flags {
                running: relay.running.unwrap_or(has(Flag::Running)),
                stable: has(Flag::Stable),
                fast: has(Flag::Fast),
                bad_exit: has(Flag::BadExit),
            },
            weight: u32::try_from(relay.consensus_weight.unwrap_or(0)).unwrap_or(u32::MAX),
            public: None,
        };
        Some((listing, relay.last_seen.and_then(|text| utc(&text))))
    }

    fn shared(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        let shared: Arc<str> = name.into();
        self.names.insert(name.into(), shared.clone());
        shared
    }

    /// One relay, one listing: of two records of one relay the one that was seen later counts.
    fn merge(&mut self, listing: Listing, seen: Option<Moment>) {
        let ExitId::Tor(fingerprint) = listing.id else { return };
        match self.known.get_mut(&fingerprint) {
            Some((_, before)) if *before > seen => {}
            Some((at, before)) => {
                *before = seen;
                self.listings[*at] = listing;
            }
            // A policy that lets nothing out is no exit, whatever flags it has; one that does is, with or without.
            None if listing.policy.is_reject_all() && listing.policy_v6.is_reject_all() => {}
            None => {
                self.known.insert(fingerprint, (self.listings.len(), seen));
                self.listings.push(listing);
            }
        }
    }
}

/// True if what Onionoo says of the one address holds for the other. Its country and AS are those of the first OR
/// address, and sites see another one. Within the smallest network that the internet routes on its own, both are the
/// same; beyond that they are anybody's guess.
fn same_net(described: IpAddr, seen: IpAddr) -> bool {
    match (described, seen) {
        (IpAddr::V4(a), IpAddr::V4(b)) => a.to_bits() >> 8 == b.to_bits() >> 8,
        (IpAddr::V6(a), IpAddr::V6(b)) => a.to_bits() >> 80 == b.to_bits() >> 80,
        _ => false,
    }
}

impl Parse for Details {
    type Output = Vec<Listing>;

    fn feed(&mut self, bytes: &[u8]) -> Result<(), Garbage> {
        let mut splitter = std::mem::take(&mut self.splitter);
        let fed = splitter.feed(bytes, &mut |piece| match piece {
            Piece::Record(record) => self.record(record),
            Piece::Skipped => self.skipped += 1,
            Piece::Field("relays_published", value) => {
                self.published = serde_json::from_str::<&str>(value).ok().and_then(utc)
            }
            Piece::Field(..) => {}
        });
        self.splitter = splitter;
        fed
    }

    fn finish(self) -> Result<Parsed<Vec<Listing>>, Garbage> {
        self.splitter.finish()?;
        let records = u32::try_from(self.listings.len()).unwrap_or(u32::MAX);
        Ok(Parsed { value: self.listings, records, skipped: self.skipped, published: self.published })
    }
}

#[cfg(test)]
mod tests;
