//! Merges the three sources of Tor exits into one list.
//!
//! The *directory* (consensus and microdescriptors) is what the Tor engines build circuits from. *Onionoo* describes
//! relays with more facts. The *exit list* contains the addresses from which traffic left. The three are updated at
//! different times, so for about an hour after a change they contradict one another. This table shows which source is
//! used for each field:
//!
//! | field of a listing | source that is used | reason |
//! | --- | --- | --- |
//! | whether listed, and since when not | the directory, once downloaded | engines build circuits only to relays in their directory |
//! | policies, running, stable, fast, weight, name | the directory | the relay and the engines use these values |
//! | `bad_exit` flag | the directory or Onionoo: one is enough | a wrong flag costs only one exit |
//! | addresses | all three, in this order: exit list (last day, newest first), Onionoo, directory | sites often see another address than a relay announces |
//! | country | the geoip data of the first address; if unknown there, Onionoo | checks use the same geoip data |
//! | AS | Onionoo | no other source has it |
//!
//! Three rules limit the harm of contradictions. First, Onionoo's country and AS are used only if Onionoo has the same
//! address as the directory, because otherwise the relay has got a new address. Second, a relay whose microdescriptor
//! has not arrived yet keeps its last listing, so no exit loses its connections while a directory is being downloaded.
//! Third, a relay that vanishes from the directory stays in the merged list, marked as not listed, for as long as a
//! consensus is valid ([`UNLISTED_FOR`]).
//!
//! The reason for the third rule: every hour 1.2 % of all relays vanish from the consensus, and half of them are in the
//! next one. Sessions and pins must not move to another exit because a relay is absent for an hour. tor builds no new
//! circuits to an absent relay, but open circuits to the relay continue.
//!
//! Next: `source/relay_sources.rs` passes the data to this file, and applies the merged list to [`crate::state`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::consensus;
use super::exit_list::Sighting;
use crate::exit::country::{Country, GeoIp};
use crate::exit::facts::OBSERVED_FOR;
use crate::exit::{ExitId, Fingerprint, Listing, Moment};
use crate::tor::netdir::{Netdir, Relay};

/// The longest time for which a relay that vanished from the directory stays in the merged list. A consensus of the
/// public network is valid for this time. If the consensus of another network is valid for a shorter time, that time is
/// used instead.
const UNLISTED_FOR: Duration = Duration::from_secs(3 * 3600);

/// New data of one source. The new data replaces all earlier data of that source.
#[derive(Clone, Debug)]
pub enum SourceData {
    Directory(Arc<Netdir>),
    Onionoo(Vec<Listing>),
    /// The exit list: the addresses from which the traffic of exits left.
    Sightings(Vec<Sighting>),
}

/// The latest data of all three sources.
#[derive(Debug)]
pub struct RelayMerge {
    geoip: Arc<GeoIp>,
    directory: Option<Arc<Netdir>>,
    /// The listings of Onionoo, sorted by fingerprint.
    onionoo: Vec<Listing>,
    /// The entries of the exit list, sorted by fingerprint; for each exit, the newest entry is first.
    sightings: Vec<Sighting>,
    /// The merged list that was applied last, sorted by fingerprint. At the start, this is the list of the last run.
    current: Vec<Listing>,
}

impl RelayMerge {
    /// Returns a merge that has no data of any source yet. `current` is the list of the last run.
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

    /// Returns the merged list, sorted by fingerprint. Returns `None` if this list is the current one, or if no source
    /// has listed an exit yet.
    pub fn changed(&self, now: Moment) -> Option<Vec<Listing>> {
        let exits: Vec<Listing> = match &self.directory {
            Some(directory) => directory.relays().filter_map(|relay| self.in_directory(relay, now)).collect(),
            None => self.onionoo.iter().map(|listing| self.placed(listing.clone(), Some(listing), now)).collect(),
        };
        if exits.is_empty() {
            return None;
        }
        let exits = sorted(exits.into_iter().chain(self.vanished(now)).collect());
        (exits != self.current).then_some(exits)
    }

    /// Returns the relays of the current list that the directory does not list, except those that have been absent for
    /// too long. A relay that is in the directory and is no exit any more has not vanished.
    fn vanished(&self, now: Moment) -> impl Iterator<Item = Listing> {
        let valid = |directory: &Netdir| directory.valid_until()?.duration_since(directory.valid_after()?).ok();
        let valid = self.directory.as_deref().and_then(valid);
        let longest = valid.map_or(UNLISTED_FOR, |valid| valid.min(UNLISTED_FOR));
        let absent = self.current.iter().filter(|listing| !self.is_listed(&listing.id));
        let unlisted =
            absent.map(move |listing| Listing { unlisted: listing.unlisted.or(Some(now)), ..listing.clone() });
        unlisted.filter(move |listing| listing.unlisted.is_some_and(|since| now.since(since) < longest))
    }

    fn is_listed(&self, id: &ExitId) -> bool {
        match (&self.directory, id) {
            (Some(directory), ExitId::Tor(relay)) => directory.relay(relay).is_some(),
            _ => find(&self.onionoo, id).is_some(),
        }
    }

    /// Records that this merged list was applied to the state.
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
            Listing { flags: consensus::flags(relay), unlisted: None, ..other?.clone() }
        };
        listing.flags.bad_exit |= onionoo.is_some_and(|listing| listing.flags.bad_exit);
        let here = IpAddr::V4(relay.v4());
        let other = other.filter(|other| other.announced.contains(&here));
        Some(self.placed(listing, other, now))
    }

    /// Returns the listing with all its addresses in order of precedence, and with the country and AS of the first
    /// address. `other` is the listing of another source, or the current listing, with the same address.
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

    /// Returns the addresses from which the traffic of an exit left within the last [`OBSERVED_FOR`].
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
