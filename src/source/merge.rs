//! Merges three sources of Tor exits into one list.
//!
//! The engines' *directory* (consensus and microdescriptors) is what circuits are built from, *Onionoo* describes relays
//! with further facts, and the *exit list* contains addresses from which traffic left. They change at different times, so
//! for about an hour after a change they contradict one another. For each field one source counts:
//!
//! | field | source | reason |
//! | --- | --- | --- |
//! | listed at all | the directory, once there is one | an engine builds circuits only to relays in its directory |
//! | policies, running, stable, fast, weight, name | the directory | the relay and the engine act on it |
//! | bad exit | the directory or Onionoo | a wrong mark costs one exit |
//! | addresses | the exit list's of the last day, newest first; then Onionoo's, then the directory's | sites often see another address than a relay announces |
//! | country | geo data of the first address; if unknown, Onionoo's | checks use the same geo data |
//! | AS | Onionoo | no other source has it |
//!
//! Two rules limit the harm of contradictions. Onionoo's country and AS count only if Onionoo has the address that the
//! directory has, because otherwise the relay has moved. And a relay whose microdescriptor has not arrived yet keeps its
//! last listing, so no exit drains while a directory is downloaded.
//!
//! Next: `source/relays.rs` feeds this and applies the list to [`crate::state`].

use std::net::IpAddr;
use std::sync::Arc;

use super::consensus;
use super::exit_list::Sighting;
use crate::exit::country::{Country, GeoIp};
use crate::exit::facts::OBSERVED_FOR;
use crate::exit::{ExitId, Fingerprint, Listing, Moment};
use crate::tor::netdir::{Netdir, Relay};

/// The data of one source. It replaces the source's earlier data.
#[derive(Clone, Debug)]
pub enum SourceData {
    Directory(Arc<Netdir>),
    Onionoo(Vec<Listing>),
    /// The exit list: addresses from which exits' traffic left.
    Sightings(Vec<Sighting>),
}

/// The latest data of all sources.
#[derive(Debug)]
pub struct RelayMerge {
    geoip: Arc<GeoIp>,
    directory: Option<Arc<Netdir>>,
    /// By fingerprint.
    onionoo: Vec<Listing>,
    /// By fingerprint, the newest of each first.
    sightings: Vec<Sighting>,
    /// The merged list that was applied last, at first that of the last run; by fingerprint.
    current: Vec<Listing>,
}

impl RelayMerge {
    /// Without data of any source; `current` is the list of the last run.
    pub fn new(geoip: Arc<GeoIp>, current: Vec<Listing>) -> Self {
        let current = sorted(current);
        Self { geoip, directory: None, onionoo: Vec::new(), sightings: Vec::new(), current }
    }

    pub fn take(&mut self, data: SourceData) {
        match data {
            SourceData::Directory(directory) => self.directory = Some(directory),
            SourceData::Onionoo(listings) => self.onionoo = sorted(listings),
            SourceData::Sightings(mut sightings) => {
                sightings.sort_unstable_by(|a, b| (a.relay, b.at).cmp(&(b.relay, a.at)));
                self.sightings = sightings;
            }
        }
    }

    /// The merged list, by fingerprint; `None` if it is the current one, or if no source has listed an exit yet.
    pub fn changed(&self, now: Moment) -> Option<Vec<Listing>> {
        let exits: Vec<Listing> = match &self.directory {
            Some(directory) => directory.relays().filter_map(|relay| self.in_directory(relay, now)).collect(),
            None => self.onionoo.iter().map(|listing| self.placed(listing.clone(), Some(listing), now)).collect(),
        };
        (!exits.is_empty() && exits != self.current).then_some(exits)
    }

    /// The list was applied.
    pub fn applied(&mut self, exits: Vec<Listing>) {
        self.current = exits;
    }

    fn in_directory(&self, relay: Relay<'_>, now: Moment) -> Option<Listing> {
        let id = ExitId::Tor(relay.fingerprint());
        let onionoo = find(&self.onionoo, &id);
        let other = onionoo.or_else(|| find(&self.current, &id));
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

    /// The listing with all its addresses in order, and with the country and AS of the first. `other` is the listing of
    /// another source, or the current one, that has the same address.
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

    /// The addresses at which an exit was seen within [`OBSERVED_FOR`].
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
