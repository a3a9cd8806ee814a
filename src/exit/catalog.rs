//! All exits, indexed so that no choice ever walks over them.
//!
//! A catalog is a value: readers hold one edition for as long as they like, a batch of changes makes the next. Copying
//! ten thousand exits for one verdict would be absurd, and a tree of persistent maps would make every reader pay for
//! what only the writer needs. So the catalog is a fan of plain tables behind an `Arc` each (exits in chunks, one set
//! of slots a country, an AS by list, …) and an edit copies, on first touch, the tables that it touches and no other:
//! a verdict copies one chunk of 256 pointers and two sets of 1,250 bytes.
//!
//! Each exit has a slot, a small number that stays its own while it is in the catalog; sets of slots are bits, and the
//! candidates of a selector are the intersection of a few of them.
//!
//! Next: `catalog/edit.rs` makes the next edition; `catalog/bits.rs` is the sets, `catalog/ports.rs` who lets a port out;
//! [`crate::route::pool`] asks.

mod bits;
mod edit;
#[cfg(test)]
pub(crate) mod looks;
mod ports;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Weak};

pub use bits::Bits;
pub use edit::Editor;

use ports::Ports;

use super::country::{Country, CountrySet};
use super::{Exit, ExitId, Source};

/// Exits in one chunk of the table. Arbitrary: the square root of the size aimed at, near enough, halves the sum of
/// chunks copied by one change and of pointers to chunks copied by every change.
const CHUNK: usize = 256;

/// An exit's place in a catalog: its own for as long as it is in it, another's some time after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

type Chunk = Vec<Option<Arc<Exit>>>;

/// One edition of the catalog. `Default` is empty; a clone is a few dozen pointers.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    revision: u64,
    len: usize,
    chunks: Vec<Arc<Chunk>>,
    by_id: Arc<HashMap<ExitId, Slot>>,
    /// Slots that were given back.
    free: Arc<Vec<Slot>>,
    by_country: Arc<BTreeMap<Country, Arc<Bits>>>,
    by_asn: Arc<HashMap<u32, Vec<Slot>>>,
    by_ip: Arc<HashMap<IpAddr, Vec<Slot>>>,
    by_check: Arc<BTreeMap<Arc<str>, Arc<Bits>>>,
    by_source: [Arc<Bits>; 3],
    /// By what they let out to IPv4 targets, and to IPv6 ones.
    ports: [Arc<Ports>; 2],
    alive: Arc<Bits>,
    untested: Arc<Bits>,
    usable: Arc<Bits>,
    distinct: Arc<Bits>,
    /// Of those that are usable and distinct and share an address, one.
    leading: Arc<Bits>,
    tunnels: Arc<Bits>,
}

/// Which exit is in which slot, as a thing to recognise a catalog by; it keeps nothing of it.
#[derive(Clone, Debug)]
pub struct Layout(Weak<HashMap<ExitId, Slot>>);

impl Layout {
    /// True if every exit of the catalog is where it was.
    pub fn is_of(&self, catalog: &Catalog) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&catalog.by_id))
    }
}

/// What is asked of an exit, whatever its state of the moment.
#[derive(Clone, Copy, Debug)]
pub struct Filter<'a> {
    /// Any of these sources.
    pub sources: &'a [Source],
    /// Any of these countries.
    pub countries: &'a CountrySet,
    /// This AS.
    pub asn: Option<u32>,
    /// This check target is passed.
    pub check: Option<&'a str>,
}

impl Filter<'_> {
    /// True of an exit that it asks for: what [`Catalog::matching`] answers for all at once.
    pub fn wants(&self, exit: &Exit) -> bool {
        self.sources.contains(&exit.id().source())
            && self.countries.contains(exit.country())
            && self.asn.is_none_or(|asn| exit.listing().asn == Some(asn))
            && self.check.is_none_or(|check| exit.known().passed.contains(check))
    }
}

/// How many exits a country has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// In the catalog.
    pub known: usize,
    /// Usable now.
    pub usable: usize,
}

impl Catalog {
    /// Goes up by one with every edition.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many exits there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The exit of this name.
    pub fn get(&self, id: &ExitId) -> Option<&Arc<Exit>> {
        self.at(self.slot(id)?)
    }

    /// Its place.
    pub fn slot(&self, id: &ExitId) -> Option<Slot> {
        self.by_id.get(id).copied()
    }

    /// The exit in this slot.
    pub fn at(&self, slot: Slot) -> Option<&Arc<Exit>> {
        #[cfg(test)]
        looks::count();
        self.chunks.get(slot.0 as usize / CHUNK)?.get(slot.0 as usize % CHUNK)?.as_ref()
    }

    /// The exit of this name, found in the slot that it had in some earlier edition if it still has it.
    pub fn still(&self, slot: Slot, id: &ExitId) -> Option<&Arc<Exit>> {
        self.at(slot).filter(|exit| exit.id() == id)
    }

    /// Every exit, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Exit>> {
        let all = self.chunks.iter().flat_map(|chunk| chunk.iter().flatten());
        #[cfg(test)]
        let all = all.inspect(|_| looks::count());
        all
    }

    /// Exits that sites see with this address; if nobody has looked, those that announce it first.
    pub fn by_ip(&self, ip: IpAddr) -> impl Iterator<Item = &Arc<Exit>> {
        self.by_ip.get(&ip).into_iter().flatten().filter_map(|slot| self.at(*slot))
    }

    /// The slots of those.
    pub fn behind(&self, ip: IpAddr) -> Bits {
        self.slots_behind(ip).collect()
    }

    /// The same, one after the other.
    pub fn slots_behind(&self, ip: IpAddr) -> impl Iterator<Item = Slot> + '_ {
        self.by_ip.get(&ip).into_iter().flatten().copied()
    }

    /// Where every exit is.
    pub fn layout(&self) -> Layout {
        Layout(Arc::downgrade(&self.by_id))
    }

    /// True if every address is that of the same exits in the same slots.
    pub fn has_addresses_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.by_ip, &other.by_ip)
    }

    /// Countries that have exits, in order.
    pub fn countries(&self) -> impl Iterator<Item = (Country, Count)> {
        self.by_country
            .iter()
            .map(|(country, all)| (*country, Count { known: all.count(), usable: all.and(&self.usable).count() }))
    }

    /// Exits that are there: running, not bad, not on their way out.
    pub fn alive(&self) -> &Bits {
        &self.alive
    }

    /// Exits that nobody has checked.
    pub fn untested(&self) -> &Bits {
        &self.untested
    }

    /// Exits that are there, with a good verdict.
    pub fn usable(&self) -> &Bits {
        &self.usable
    }

    /// Exits that sites see with one known IPv4 address.
    pub fn distinct(&self) -> &Bits {
        &self.distinct
    }

    /// One exit for each address that usable, distinct exits share.
    pub fn leading(&self) -> &Bits {
        &self.leading
    }

    /// Exits that open streams to targets, rather than only forwarding plain HTTP.
    pub fn tunnels(&self) -> &Bits {
        &self.tunnels
    }

    /// Exits that let the port out to most targets of one family.
    pub fn allowing(&self, port: u16, v6: bool) -> Arc<Bits> {
        self.ports[usize::from(v6)].allowing(port)
    }

    /// Exits that pass a check target.
    pub fn passing(&self, check: &str) -> Option<&Bits> {
        self.by_check.get(check).map(|bits| &**bits)
    }

    /// The exits that a filter asks for, usable or not.
    pub fn matching(&self, filter: &Filter<'_>) -> Bits {
        let mut bits = Bits::default();
        match filter.asn {
            Some(asn) => bits = self.by_asn.get(&asn).into_iter().flatten().copied().collect(),
            None => filter.sources.iter().for_each(|source| bits.add(&self.by_source[*source as usize])),
        }
        if filter.asn.is_some() {
            let mut sources = Bits::default();
            filter.sources.iter().for_each(|source| sources.add(&self.by_source[*source as usize]));
            bits.keep(&sources);
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

    /// Half of the world is many sets; the other half is then the shorter list.
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
