//! Makes the next edition of a catalog. A batch of changes copies only the indexes in which something changes.
//!
//! The index keys of an exit (its country, its address, whether it is usable, …) are computed before and after a
//! change. Only the indexes for which the key has changed are copied. A check result that is equal to the last check
//! result changes no index.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use super::super::country::Country;
use super::super::facts::{Exit, Known, Listing, Verdict};
use super::super::policy::PortPolicy;
use super::super::{ExitId, Slot, Source};
use super::draw::Weights;
use super::{Bits, CHUNK, Catalog};

/// Collects changes for the next edition. Readers see the changes after [`Editor::finish`].
#[derive(Debug)]
pub struct Editor {
    next: Catalog,
    /// True if exits came or went, or if their capacities changed.
    weighed_anew: bool,
}

/// The keys under which the indexes store one exit.
struct IndexKeys<'a> {
    country: Country,
    asn: Option<u32>,
    ip: Option<IpAddr>,
    source: Source,
    policies: [&'a PortPolicy; 2],
    passed: &'a BTreeSet<Arc<str>>,
    alive: bool,
    untested: bool,
    usable: bool,
    distinct: bool,
    tunnels: bool,
    stable: bool,
}

impl<'a> IndexKeys<'a> {
    fn of(exit: &'a Exit) -> Self {
        Self {
            country: exit.country(),
            asn: exit.listing().asn,
            ip: exit.ip().or_else(|| exit.listing().announced.first().copied()),
            source: exit.id().source(),
            policies: [&exit.listing().policy, &exit.listing().policy_v6],
            passed: &exit.known().passed,
            alive: exit.alive(),
            untested: exit.known().verdict == Verdict::Untested,
            usable: exit.usable(),
            distinct: exit.distinct(),
            tunnels: exit.tunnels(),
            stable: exit.is_stable(),
        }
    }

    /// Returns the address for which this exit may be the leading exit ([`Catalog::leading`] has one for each address).
    /// `None` if the exit is not usable or not distinct.
    fn leads(&self) -> Option<IpAddr> {
        self.ip.filter(|_| self.usable && self.distinct)
    }
}

impl Catalog {
    /// Starts the next edition of the catalog.
    pub fn edit(&self) -> Editor {
        let mut next = self.clone();
        next.revision += 1;
        Editor { next, weighed_anew: false }
    }
}

impl Editor {
    /// Adds an exit, or replaces the facts from the exit's source. Check results stay. The exit is no longer draining,
    /// because its source lists the exit.
    pub fn list(&mut self, listing: Listing) -> Slot {
        let known = self.next.by_id.get(&listing.id).copied();
        let slot = known.unwrap_or_else(|| self.give_slot(listing.id.clone()));
        let old = self.next.at(slot).cloned();
        let (mut known, load) = match &old {
            Some(exit) => (exit.known().clone(), exit.load().clone()),
            None => (Known::default(), Arc::default()),
        };
        known.marks.draining = false;
        if old.as_ref().is_none_or(|exit| **exit.listing() != listing || *exit.known() != known) {
            let listing = Arc::new(listing);
            self.put(slot, Exit::new(slot, listing, known, load));
        }
        slot
    }

    /// Changes what checks know about an exit. Returns false if there is no such exit.
    pub fn learn(&mut self, id: &ExitId, change: impl FnOnce(&mut Known)) -> bool {
        let Some(exit) = self.next.get(id) else { return false };
        let (slot, mut known) = (exit.slot(), exit.known().clone());
        change(&mut known);
        if known != *exit.known() {
            let next = Exit::new(slot, exit.listing().clone(), known, exit.load().clone());
            self.put(slot, next);
        }
        true
    }

    /// Removes an exit. Returns false if there is no such exit. The slot may later belong to another exit.
    pub fn remove(&mut self, id: &ExitId) -> bool {
        let Some(slot) = self.next.by_id.get(id).copied() else { return false };
        Arc::make_mut(&mut self.next.by_id).remove(id);
        Arc::make_mut(&mut self.next.free).push(slot);
        self.next.len -= 1;
        if let Some(old) = self.replace(slot, None) {
            self.reindex(slot, Some(&old), None);
        }
        true
    }

    /// The catalog with the changes so far.
    pub fn peek(&self) -> &Catalog {
        &self.next
    }

    /// Returns the next edition.
    pub fn finish(mut self) -> Catalog {
        if self.weighed_anew {
            self.next.weights = Arc::new(Weights::of(self.next.iter().map(|exit| &**exit)));
        }
        self.next
    }

    fn give_slot(&mut self, id: ExitId) -> Slot {
        let used = self.next.by_id.len();
        let given_back = if self.next.free.is_empty() { None } else { Arc::make_mut(&mut self.next.free).pop() };
        let slot = given_back.unwrap_or(Slot(used as u32));
        Arc::make_mut(&mut self.next.by_id).insert(id, slot);
        self.next.len += 1;
        slot
    }

    fn put(&mut self, slot: Slot, exit: Exit) {
        let exit = Arc::new(exit);
        let old = self.replace(slot, Some(exit.clone()));
        self.reindex(slot, old.as_deref(), Some(&exit));
    }

    fn replace(&mut self, slot: Slot, exit: Option<Arc<Exit>>) -> Option<Arc<Exit>> {
        let (chunk, at) = (slot.0 as usize / CHUNK, slot.0 as usize % CHUNK);
        if chunk == self.next.chunks.len() {
            self.next.chunks.push(Arc::new(vec![None; CHUNK]));
        }
        std::mem::replace(&mut Arc::make_mut(&mut self.next.chunks[chunk])[at], exit)
    }

    fn reindex<'a>(&mut self, slot: Slot, old: Option<&'a Exit>, new: Option<&'a Exit>) {
        let weight = |exit: &Exit| (exit.seed(), exit.capacity());
        self.weighed_anew |= old.map(weight) != new.map(weight);
        let (old, new) = (old.map(IndexKeys::of), new.map(IndexKeys::of));
        let changed = Changed { slot, old: old.as_ref(), new: new.as_ref() };
        let next = &mut self.next;
        changed.key(|f| Some(f.country), |key, on| set_in(&mut next.by_country, key, slot, on));
        changed.key(|f| f.asn, |key, on| list_in(&mut next.by_asn, key, slot, on));
        changed.key(|f| f.ip, |key, on| list_in(&mut next.by_ip, key, slot, on));
        changed.key(|f| Some(f.source), |key, on| set_in(&mut next.by_source, key, slot, on));
        changed.flag(&mut next.with_asn, |f| f.asn.is_some());
        changed.flag(&mut next.alive, |f| f.alive);
        changed.flag(&mut next.untested, |f| f.untested);
        changed.flag(&mut next.usable, |f| f.usable);
        changed.flag(&mut next.distinct, |f| f.distinct);
        changed.flag(&mut next.tunnels, |f| f.tunnels);
        changed.flag(&mut next.stable, |f| f.stable);
        for (family, ports) in next.ports.iter_mut().enumerate() {
            let policy = |keys: &IndexKeys<'a>| keys.policies[family];
            let (old, new) = (changed.old.map(policy), changed.new.map(policy));
            if old != new {
                Arc::make_mut(ports).file(slot, old, new);
            }
        }
        let nothing = BTreeSet::new();
        let passed = |keys: Option<&IndexKeys<'a>>| keys.map_or(&nothing, |keys| keys.passed);
        let (before, after) = (passed(changed.old), passed(changed.new));
        before.difference(after).for_each(|check| set_in(&mut next.by_check, check.clone(), slot, false));
        after.difference(before).for_each(|check| set_in(&mut next.by_check, check.clone(), slot, true));
        let leads = |keys: Option<&IndexKeys<'_>>| keys.and_then(IndexKeys::leads);
        let (before, after) = (leads(changed.old), leads(changed.new));
        if before != after {
            self.lead(slot, before, after);
        }
    }

    /// Keeps one leading exit for each address. `before` and `after` are the results of [`IndexKeys::leads`] for the
    /// exit before and after the change.
    fn lead(&mut self, slot: Slot, before: Option<IpAddr>, after: Option<IpAddr>) {
        let next = &mut self.next;
        let behind = |ip: Option<IpAddr>| ip.and_then(|ip| next.by_ip.get(&ip)).into_iter().flatten().copied();
        if next.leading.has(slot) {
            let successor = behind(before).find(|other| next.usable.has(*other) && next.distinct.has(*other));
            let leading = Arc::make_mut(&mut next.leading);
            leading.set(slot, false);
            successor.into_iter().for_each(|other| leading.set(other, true));
        }
        if after.is_some() && !behind(after).any(|other| next.leading.has(other)) {
            Arc::make_mut(&mut next.leading).set(slot, true);
        }
    }
}

/// The index keys of one exit before and after a change.
struct Changed<'f, 'a> {
    slot: Slot,
    old: Option<&'f IndexKeys<'a>>,
    new: Option<&'f IndexKeys<'a>>,
}

impl Changed<'_, '_> {
    fn key<K: PartialEq>(&self, key: impl Fn(&IndexKeys<'_>) -> Option<K>, mut file: impl FnMut(K, bool)) {
        let (old, new) = (self.old.and_then(&key), self.new.and_then(&key));
        if old != new {
            old.into_iter().for_each(|old| file(old, false));
            new.into_iter().for_each(|new| file(new, true));
        }
    }

    fn flag(&self, bits: &mut Arc<Bits>, flag: impl Fn(&IndexKeys<'_>) -> bool) {
        let (old, new) = (self.old.is_some_and(&flag), self.new.is_some_and(&flag));
        if old != new {
            Arc::make_mut(bits).set(self.slot, new);
        }
    }
}

/// Adds the slot to the set of a key if `on` is true, and removes the slot otherwise. A key with an empty set is
/// removed too, because countries and check targets come and go.
fn set_in<K: Clone + Ord>(index: &mut Arc<BTreeMap<K, Arc<Bits>>>, key: K, slot: Slot, on: bool) {
    let index = Arc::make_mut(index);
    let bits = index.entry(key.clone()).or_default();
    Arc::make_mut(bits).set(slot, on);
    if !on && bits.is_empty() {
        index.remove(&key);
    }
}

/// As [`set_in`], for an index whose values are sorted lists of slots.
fn list_in<K: Copy + Eq + Hash>(index: &mut Arc<HashMap<K, Vec<Slot>>>, key: K, slot: Slot, on: bool) {
    let index = Arc::make_mut(index);
    let slots = index.entry(key).or_default();
    match slots.binary_search(&slot) {
        Err(at) if on => slots.insert(at, slot),
        Ok(at) if !on => _ = slots.remove(at),
        _ => {}
    }
    if slots.is_empty() {
        index.remove(&key);
    }
}
