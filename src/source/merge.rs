//! Three witnesses of Tor's exits, and what they say together.
//!
//! The engines' *directory* is what circuits are built by, *Onionoo* describes relays with what others know of them, and
//! the *exit list* has seen addresses that traffic left from. They change at different times and contradict one another
//! for an hour or so whenever something changes; each field has one witness that knows best.
//!
//! | field | whose word counts | because |
//! | --- | --- | --- |
//! | listed at all | the directory, once there is one | an engine builds no circuit to a relay that it has not heard of |
//! | policies, running, stable, fast, weight, name | the directory | it is what the relay and the engine act on |
//! | bad exit | either | the cost of believing a false one is one exit |
//! | addresses | seen within a day, the newest first; then Onionoo's, then the directory's | what a relay announces is often not what sites see |
//! | country | the geo data of the first address; where they are silent, Onionoo's | checks judge by the same data |
//! | AS | Onionoo's | nobody else knows it |
//!
//! Two rules keep contradictions from doing harm. Onionoo's word on where a relay is counts only if it names the
//! address that the directory has: else the relay has moved. And a relay that is in the directory while its
//! microdescriptor is still on its way stands as it stood: a directory that arrives in pieces drains nobody.
//!
//! Next: `source/relays.rs` listens to the witnesses and tells [`crate::state`].

use std::net::IpAddr;
use std::sync::Arc;

use super::consensus;
use super::exit_list::Sighting;
use crate::exit::country::{Country, GeoIp};
use crate::exit::facts::OBSERVED_FOR;
use crate::exit::{ExitId, Fingerprint, Listing, Moment};
use crate::tor::netdir::{Netdir, Relay};

/// What one witness says. Each replaces what it said before.
#[derive(Clone, Debug)]
pub enum Word {
    /// The engines' directory.
    Directory(Arc<Netdir>),
    /// Onionoo's relays.
    Onionoo(Vec<Listing>),
    /// Addresses that exits were seen with.
    Sightings(Vec<Sighting>),
}

/// What the witnesses said last.
#[derive(Debug)]
pub struct Merge {
    geoip: Arc<GeoIp>,
    directory: Option<Arc<Netdir>>,
    /// By fingerprint.
    onionoo: Vec<Listing>,
    /// By fingerprint, the newest of each first.
    sightings: Vec<Sighting>,
    /// What was said together last, also in the last run of the gateway; by fingerprint.
    stood: Vec<Listing>,
}

impl Merge {
    /// Nobody has said anything; `stood` is remembered from before.
    pub fn new(geoip: Arc<GeoIp>, stood: Vec<Listing>) -> Self {
        let stood = sorted(stood);
        Self { geoip, directory: None, onionoo: Vec::new(), sightings: Vec::new(), stood }
    }

    /// A witness speaks.
    pub fn hear(&mut self, word: Word) {
        match word {
            Word::Directory(directory) => self.directory = Some(directory),
            Word::Onionoo(listings) => self.onionoo = sorted(listings),
            Word::Sightings(mut sightings) => {
                sightings.sort_unstable_by(|a, b| (a.relay, b.at).cmp(&(b.relay, a.at)));
                self.sightings = sightings;
            }
        }
    }

    /// Every exit, by fingerprint; `None` if that is what stands already, or if nobody has named an exit yet.
    pub fn news(&self, now: Moment) -> Option<Vec<Listing>> {
        let exits: Vec<Listing> = match &self.directory {
            Some(directory) => directory.relays().filter_map(|relay| self.in_directory(relay, now)).collect(),
            None => self.onionoo.iter().map(|listing| self.placed(listing.clone(), Some(listing), now)).collect(),
        };
        (!exits.is_empty() && exits != self.stood).then_some(exits)
    }

    /// From now on these are what stands.
    pub fn stands(&mut self, exits: Vec<Listing>) {
        self.stood = exits;
    }

    fn in_directory(&self, relay: Relay<'_>, now: Moment) -> Option<Listing> {
        let id = ExitId::Tor(relay.fingerprint());
        let onionoo = find(&self.onionoo, &id);
        let other = onionoo.or_else(|| find(&self.stood, &id));
        let mut listing = if relay.is_known() {
            consensus::listing(relay)?
        } else {
            Listing { flags: consensus::flags(relay), ..other?.clone() }
        };
        listing.flags.bad_exit |= onionoo.is_some_and(|listing| listing.flags.bad_exit);
        let here = IpAddr::V4(relay.v4());
        let other = other.filter(|other| other.announced.contains(&here));
        Some(self.placed(listing, other, now))
    }

    /// The exit with its addresses in order and with what follows from the first. `other` is who knows more of them.
    fn placed(&self, mut listing: Listing, other: Option<&Listing>, now: Moment) -> Listing {
        let seen = self.seen(&listing.id, now);
        let theirs = other.into_iter().flat_map(|other| other.announced.iter().copied());
        let mut announced: Vec<IpAddr> = Vec::new();
        for ip in seen.chain(theirs).chain(listing.announced) {
            if !announced.contains(&ip) {
                announced.push(ip);
            }
        }
        let first = announced.first().copied();
        let other = other.filter(|other| other.announced.first().copied() == first);
        let known = first.map(|ip| self.geoip.country(ip)).filter(|country| country.is_known());
        listing.country = known.or(other.map(|other| other.country)).unwrap_or(Country::UNKNOWN);
        (listing.asn, listing.as_name) = other.map_or((None, None), |other| (other.asn, other.as_name.clone()));
        listing.announced = announced;
        listing
    }

    /// Where an exit was seen within [`OBSERVED_FOR`].
    fn seen(&self, id: &ExitId, now: Moment) -> impl Iterator<Item = IpAddr> {
        let relay = if let ExitId::Tor(relay) = id { *relay } else { Fingerprint([0; 20]) };
        let from = self.sightings.partition_point(|sighting| sighting.relay < relay);
        let of_it = self.sightings[from..].iter().take_while(move |sighting| sighting.relay == relay);
        of_it.filter(move |sighting| now.since(sighting.at) < OBSERVED_FOR).map(|sighting| sighting.ip)
    }
}

fn sorted(mut listings: Vec<Listing>) -> Vec<Listing> {
    listings.sort_by(|a, b| a.id.cmp(&b.id));
    listings
}

fn find<'a>(listings: &'a [Listing], id: &ExitId) -> Option<&'a Listing> {
    listings.binary_search_by(|listing| listing.id.cmp(id)).ok().map(|at| &listings[at])
}

#[cfg(test)]
mod tests;
