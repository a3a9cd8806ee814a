//! All exits, with indexes. The choice of an exit never has to look at every exit.
//!
//! A catalog is an immutable value. A batch of changes does not change the catalog but makes its next edition, and a
//! reader may keep an old edition as long as necessary.
//!
//! It would be too slow to copy ten thousand exits because of one check result, and persistent maps would slow down
//! every reader. So the catalog is a group of plain tables, each behind an `Arc`: exits in chunks, one set of exits for
//! each country, a list for each AS, and so on. The next edition shares all tables that a change does not touch. For
//! example, a new check result copies one chunk of 256 pointers and two sets of 1,250 bytes.
//!
//! Each exit has a [`Slot`], which is a small number. A set of slots is stored as bits. The candidates of a selector
//! are the intersection of a few sets.
//!
//! Next: `catalog/edit.rs` (the next edition), `catalog/bits.rs` (sets of slots), `catalog/draw.rs` (draws
//! by capacity), `catalog/ports.rs` (exits by allowed port). [`crate::route::pool`] queries a catalog.

mod bits;
mod draw;
mod edit;
mod ports;
#[cfg(test)]
pub(crate) mod scan_count;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use rand::Rng;

pub use bits::Bits;
pub use edit::Editor;

use draw::Weights;
use ports::Ports;

use super::country::{Country, CountrySet};
use super::facts::Exit;
use super::{ExitId, Slot, Source};

/// The number of exits in one chunk of the catalog's table. A change copies one chunk and the list of all chunks. Both
/// together are smallest if a chunk has about the square root of the expected number of exits (10,000).
const CHUNK: usize = 256;

type Chunk = Vec<Option<Arc<Exit>>>;

/// One edition of the catalog. `Default` is an empty catalog. A clone copies a few dozen pointers.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    revision: u64,
    len: usize,
    chunks: Vec<Arc<Chunk>>,
    by_id: Arc<HashMap<ExitId, Slot>>,
    /// Slots of removed exits. New exits get these slots.
    free: Arc<Vec<Slot>>,
    by_country: Arc<BTreeMap<Country, Arc<Bits>>>,
    by_asn: Arc<HashMap<u32, Vec<Slot>>>,
    /// Exits whose AS is known.
    with_asn: Arc<Bits>,
    by_ip: Arc<HashMap<IpAddr, Vec<Slot>>>,
    by_check: Arc<BTreeMap<Arc<str>, Arc<Bits>>>,
    by_source: Arc<BTreeMap<Source, Arc<Bits>>>,
    /// Exits by allowed port: the first index is for IPv4 targets, the second for IPv6 targets.
    ports: [Arc<Ports>; 2],
    alive: Arc<Bits>,
    untested: Arc<Bits>,
    usable: Arc<Bits>,
    distinct: Arc<Bits>,
    /// For each address, one exit (the leading exit) that stands for all usable and distinct exits with this address.
    leading: Arc<Bits>,
    tunnels: Arc<Bits>,
    stable: Arc<Bits>,
    weights: Arc<Weights>,
}

/// The layout of a catalog: which exit has which slot. A layout does not keep its catalog in memory. A set of slots
/// that was computed for one catalog is valid for every catalog with the same layout.
#[derive(Clone, Debug)]
pub struct Layout(Weak<HashMap<ExitId, Slot>>);

impl Layout {
    /// Returns true if every exit of this catalog has the same slot as when the layout was taken.
    pub fn is_of(&self, catalog: &Catalog) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&catalog.by_id))
    }
}

/// What a selector requires of exits. Whether an exit is up or passed its check does not matter here.
#[derive(Clone, Copy, Debug)]
pub struct Filter<'a> {
    /// The exit must be from one of these sources.
    pub sources: &'a [Source],
    /// The exit must be in one of these countries.
    pub countries: &'a CountrySet,
    pub asn: Option<u32>,
    /// The exit must be in none of these autonomous systems. If the list is not empty, the exit's AS must be known: an
    /// exit whose AS is unknown may be in one of them.
    pub not_asn: &'a [u32],
    /// The name of the check target that the exit must pass. `None`: no check target is required.
    pub check: Option<&'a str>,
}

impl Filter<'_> {
    /// Returns true if the exit matches the filter. [`Catalog::matching`] computes the set of all exits that match.
    pub fn wants(&self, exit: &Exit) -> bool {
        self.sources.contains(&exit.id().source())
            && self.countries.contains(exit.country())
            && self.asn.is_none_or(|asn| exit.listing().asn == Some(asn))
            && (self.not_asn.is_empty() || exit.listing().asn.is_some_and(|asn| !self.not_asn.contains(&asn)))
            && self.check.is_none_or(|check| exit.known().passed.contains(check))
    }
}

/// How many exits of one country are known, and how many of these exits are usable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub known: usize,
    pub usable: usize,
}

impl Catalog {
    /// The number of this edition. Each edit makes an edition with a new number.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The number of exits in the catalog.
    pub fn len(&self) -> usize {
        self.len
    }

    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "clippy wants it beside `len`; tests use it"))]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn get(&self, id: &ExitId) -> Option<&Arc<Exit>> {
        self.at(self.slot(id)?)
    }

    pub fn slot(&self, id: &ExitId) -> Option<Slot> {
        self.by_id.get(id).copied()
    }

    pub fn at(&self, slot: Slot) -> Option<&Arc<Exit>> {
        #[cfg(test)]
        scan_count::count();
        self.chunks.get(slot.0 as usize / CHUNK)?.get(slot.0 as usize % CHUNK)?.as_ref()
    }

    /// Returns the exit with this id if the exit still has this slot. `None` if the exit is gone or has another slot
    /// now. Callers keep slots from earlier editions of the catalog.
    pub fn still(&self, slot: Slot, id: &ExitId) -> Option<&Arc<Exit>> {
        self.at(slot).filter(|exit| exit.id() == id)
    }

    /// Iterates over every exit, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Exit>> {
        let all = self.chunks.iter().flat_map(|chunk| chunk.iter().flatten());
        #[cfg(test)]
        let all = all.inspect(|_| scan_count::count());
        all
    }

    /// Exits that sites see with this address. An exit that no site has seen yet is found by the first address that the
    /// exit announces.
    pub fn by_ip(&self, ip: IpAddr) -> impl Iterator<Item = &Arc<Exit>> {
        self.by_ip.get(&ip).into_iter().flatten().filter_map(|slot| self.at(*slot))
    }

    /// The same exits as [`Self::by_ip`], as a set of slots.
    pub fn behind(&self, ip: IpAddr) -> Bits {
        self.slots_behind(ip).collect()
    }

    /// The slots of the same exits as [`Self::by_ip`].
    pub fn slots_behind(&self, ip: IpAddr) -> impl Iterator<Item = Slot> + '_ {
        self.by_ip.get(&ip).into_iter().flatten().copied()
    }

    pub fn layout(&self) -> Layout {
        Layout(Arc::downgrade(&self.by_id))
    }

    /// Returns true if the same slots have the same addresses in both catalogs.
    pub fn has_addresses_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.by_ip, &other.by_ip)
    }

    /// The countries that have exits, in sorted order.
    pub fn countries(&self) -> impl Iterator<Item = (Country, Count)> {
        self.by_country
            .iter()
            .map(|(country, all)| (*country, Count { known: all.count(), usable: all.and(&self.usable).count() }))
    }

    /// Exits that are up: running, without the flag `BadExit`, not condemned for tampering, and not draining (about to
    /// leave the catalog).
    pub fn alive(&self) -> &Bits {
        &self.alive
    }

    /// Exits that have no valid check result.
    pub fn untested(&self) -> &Bits {
        &self.untested
    }

    /// Exits that are up and passed their last check.
    pub fn usable(&self) -> &Bits {
        &self.usable
    }

    /// Exits for which checks have observed exactly one IPv4 address.
    pub fn distinct(&self) -> &Bits {
        &self.distinct
    }

    /// For each address, one exit (the leading exit) that stands for all usable and distinct exits with this address.
    pub fn leading(&self) -> &Bits {
        &self.leading
    }

    /// Exits that open streams to targets. Other exits only forward plain HTTP requests.
    pub fn tunnels(&self) -> &Bits {
        &self.tunnels
    }

    /// Exits that are rarely down ([`Exit::is_stable`]).
    pub fn stable(&self) -> &Bits {
        &self.stable
    }

    /// Draws `count` different exits of the set at random, by their capacities. If the set has at most `count` exits,
    /// returns all of them. The first exit of the result has the same chances as in a draw of one exit.
    pub fn draw<R: Rng + ?Sized>(&self, from: &Bits, count: usize, rng: &mut R) -> Vec<Slot> {
        self.weights.draw(from, count, rng)
    }

    /// Returns the `count` exits of the set that are first by [`super::capacity::rank`] for this seed, each with its
    /// rank, in no particular order.
    pub fn first(&self, from: &Bits, seed: u64, count: usize) -> Vec<(f64, Slot)> {
        self.weights.first(from, seed, count)
    }

    /// The mean capacity of all exits.
    pub fn mean_capacity(&self) -> u32 {
        self.weights.mean()
    }

    /// Exits that allow connections to the port. `v6` is true if the target is an IPv6 address.
    pub fn allowing(&self, port: u16, v6: bool) -> Arc<Bits> {
        self.ports[usize::from(v6)].allowing(port)
    }

    /// Exits that pass the check target with this name. `None` if the catalog has no set for this name.
    pub fn passing(&self, check: &str) -> Option<&Bits> {
        self.by_check.get(check).map(|bits| &**bits)
    }

    /// The exits that match a filter. Unusable exits are included.
    pub fn matching(&self, filter: &Filter<'_>) -> Bits {
        let mut bits = Bits::default();
        for set in filter.sources.iter().filter_map(|source| self.by_source.get(source)) {
            bits.add(set);
        }
        if let Some(asn) = filter.asn {
            bits.keep(&self.by_asn.get(&asn).into_iter().flatten().copied().collect());
        }
        if !filter.not_asn.is_empty() {
            bits.keep(&self.with_asn);
            let excluded = filter.not_asn.iter().filter_map(|asn| self.by_asn.get(asn)).flatten();
            excluded.for_each(|slot| bits.set(*slot, false));
        }
        self.keep_countries(&mut bits, filter.countries);
        if let Some(check) = filter.check {
            match self.passing(check) {
                Some(passed) => bits.keep(passed),
                None => bits = Bits::default(),
            }
        }
        bits
    }

    /// Removes from `bits` all exits that are not in a wanted country. The method either removes the sets of the other
    /// countries, or keeps the sets of the wanted countries, whichever are fewer.
    fn keep_countries(&self, bits: &mut Bits, wanted: &CountrySet) {
        let (inside, outside): (Vec<_>, Vec<_>) =
            self.by_country.iter().partition(|(country, _)| wanted.contains(**country));
        if outside.len() <= inside.len() {
            outside.iter().for_each(|(_, slots)| bits.drop(slots));
        } else {
            let mut all = Bits::default();
            inside.iter().for_each(|(_, slots)| all.add(slots));
            bits.keep(&all);
        }
    }
}

#[cfg(test)]
mod tests;
