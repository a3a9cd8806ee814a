//! Parses the details document of Onionoo (the Tor project's database of relays). Only one relay is in memory at a
//! time.
//!
//! The document has 20 MB, and most of it is not needed, so the document is never kept in memory. While its bytes
//! arrive, a splitter cuts the array of relays into records, and each record is parsed separately. An invalid record
//! (too long, a number in place of a text, not an object) is skipped and counted. A document that ends too early, or is
//! not a details document, is an error.
//!
//! Every field may be missing, because in the past each field was missing at some time.
//!
//! Next: `onionoo/split.rs` splits the document. `source/poll.rs` makes the requests and decides whether an answer is
//! used.

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

/// The query of the request: running exits, and only the fields that are parsed. Onionoo answers a query with an
/// unknown parameter with status 400.
pub const QUERY: &str = "type=relay&running=true&flag=Exit&fields=nickname,fingerprint,or_addresses,exit_addresses,last_seen,\
                         running,flags,country,as,as_name,consensus_weight,exit_policy_summary,exit_policy_v6_summary";

/// Parses a details document while the document arrives.
#[derive(Debug, Default)]
pub struct Details {
    splitter: Splitter,
    listings: Vec<Listing>,
    /// For each relay, its index in `listings` and the time at which the relay was last seen.
    known: HashMap<Fingerprint, (usize, Option<Moment>)>,
    /// The names of autonomous systems. Relays share these strings, because about a hundred names make up most of the
    /// network.
    names: HashMap<Box<str>, Arc<str>>,
    published: Option<Moment>,
    skipped: u32,
}

/// The record of one relay in the document.
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

/// The relay flags that this file uses.
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

    /// Returns the listing of a record, and the time at which the relay was last seen. Returns `None` if the record is
    /// invalid.
    fn exit(&mut self, relay: Relay<'_>) -> Option<(Listing, Option<Moment>)> {
        let fingerprint: Fingerprint = relay.fingerprint.parse().ok()?;
        let flags = relay.flags.unwrap_or_default();
        let has = |flag| flags.contains(&flag);
        let exits = relay.exit_addresses.iter().flatten().filter_map(|text| text.parse().ok());
        let mut routers = relay.or_addresses.iter().flatten().filter_map(|text| text.parse::<SocketAddr>().ok());
        let first_router = routers.next().map(|router| router.ip());
        let mut announced: Vec<IpAddr> = Vec::new();
        for ip in exits.chain(first_router).chain(routers.map(|router| router.ip())) {
            if !announced.contains(&ip) {
                announced.push(ip);
            }
        }
        let located = first_router.is_none_or(|ip| same_net(ip, announced[0]));
        let listing = Listing {
            id: ExitId::Tor(fingerprint),
            nickname: relay.nickname.unwrap_or_default().into(),
            announced,
            country: relay.country.as_deref().filter(|_| located).and_then(Country::parse).unwrap_or(Country::UNKNOWN),
            asn: relay.asn.filter(|_| located).and_then(|text| text.strip_prefix("AS")?.parse().ok()),
            as_name: relay.as_name.filter(|_| located).map(|name| self.shared(&name)),
            policy: relay.exit_policy_summary.unwrap_or_default(),
            policy_v6: relay.exit_policy_v6_summary.unwrap_or_default(),
            flags: Flags {
                running: relay.running.unwrap_or(has(Flag::Running)),
                stable: has(Flag::Stable),
                fast: has(Flag::Fast),
                bad_exit: has(Flag::BadExit),
            },
            weight: u32::try_from(relay.consensus_weight.unwrap_or(0)).unwrap_or(u32::MAX),
            unlisted: None,
            public: None,
            upstream: None,
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

    /// Adds a listing. If one relay has two records, the record that was seen later is used.
    fn merge(&mut self, listing: Listing, seen: Option<Moment>) {
        let ExitId::Tor(fingerprint) = listing.id else { return };
        match self.known.get_mut(&fingerprint) {
            Some((_, before)) if *before > seen => {}
            Some((at, before)) => {
                *before = seen;
                self.listings[*at] = listing;
            }
            // The exit policy decides whether a relay is an exit. The flags do not.
            None if listing.policy.is_reject_all() && listing.policy_v6.is_reject_all() => {}
            None => {
                self.known.insert(fingerprint, (self.listings.len(), seen));
                self.listings.push(listing);
            }
        }
    }
}

/// Returns true if two addresses certainly have the same country and AS. This is needed because Onionoo's country and
/// AS belong to the first OR address of a relay, but sites may see another address. The two addresses must be in one
/// network of the size /24 (IPv4) or /48 (IPv6). Smaller networks are not routed separately on the internet.
fn same_net(first_router: IpAddr, seen: IpAddr) -> bool {
    match (first_router, seen) {
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
