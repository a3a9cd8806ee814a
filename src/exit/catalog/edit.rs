//! The next edition of a catalog: a batch of changes, each index touched only where something in it changed.
//!
//! What an exit is filed under is worked out for the edition before and the edition after, and only where the two
//! differ is an index touched, and thereby copied. A verdict that confirms the last one touches none.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use super::super::country::Country;
use super::super::policy::PortPolicy;
use super::super::{Exit, ExitId, Known, Listing, Source, Verdict};
use super::{Bits, CHUNK, Catalog, Slot};

/// Changes on their way into the next edition; nobody sees them before [`Editor::finish`].
#[derive(Debug)]
pub struct Editor(Catalog);

/// What an exit is filed under.
struct Files<'a> {
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
}

impl<'a> Files<'a> {
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
        }
    }

    /// The address that it may lead.
    fn leads(&self) -> Option<IpAddr> {
        self.ip.filter(|_| self.usable && self.distinct)
    }
}

impl Catalog {
    /// Begins the next edition.
    pub fn edit(&self) -> Editor {
        let mut next = self.clone();
        next.revision += 1;
        Editor(next)
    }
}

impl Editor {
    /// What a source says of an exit, new or known. What checks found stays, but the exit drains no longer: it is
    /// listed.
    pub fn list(&mut self, listing: Listing) -> Slot {
        let known = self.0.by_id.get(&listing.id).copied();
        let slot = known.unwrap_or_else(|| self.give_slot(listing.id.clone()));
        let old = self.0.at(slot).cloned();
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

    /// Changes what is known of an exit; false if there is none of that name.
    pub fn learn(&mut self, id: &ExitId, change: impl FnOnce(&mut Known)) -> bool {
        let Some(exit) = self.0.get(id) else { return false };
        let (slot, mut known) = (exit.slot(), exit.known().clone());
        change(&mut known);
        if known != *exit.known() {
            let next = Exit::new(slot, exit.listing().clone(), known, exit.load().clone());
            self.put(slot, next);
        }
        true
    }

    /// Forgets an exit; false if there is none of that name. Its slot may be given to another.
    pub fn remove(&mut self, id: &ExitId) -> bool {
        let Some(slot) = self.0.by_id.get(id).copied() else { return false };
        Arc::make_mut(&mut self.0.by_id).remove(id);
        Arc::make_mut(&mut self.0.free).push(slot);
        self.0.len -= 1;
        if let Some(old) = self.replace(slot, None) {
            self.file(slot, Some(&old), None);
        }
        true
    }

    /// What the changes so far come to, before anybody else sees it.
    pub fn peek(&self) -> &Catalog {
        &self.0
    }

    /// The next edition.
    pub fn finish(self) -> Catalog {
        self.0
    }

    fn give_slot(&mut self, id: ExitId) -> Slot {
        let used = self.0.by_id.len();
        let given_back = if self.0.free.is_empty() { None } else { Arc::make_mut(&mut self.0.free).pop() };
        let slot = given_back.unwrap_or(Slot(used as u32));
        Arc::make_mut(&mut self.0.by_id).insert(id, slot);
        self.0.len += 1;
        slot
    }

    fn put(&mut self, slot: Slot, exit: Exit) {
        let exit = Arc::new(exit);
        let old = self.replace(slot, Some(exit.clone()));
        self.file(slot, old.as_deref(), Some(&exit));
    }

    fn replace(&mut self, slot: Slot, exit: Option<Arc<Exit>>) -> Option<Arc<Exit>> {
        let (chunk, at) = (slot.0 as usize / CHUNK, slot.0 as usize % CHUNK);
        if chunk == self.0.chunks.len() {
            self.0.chunks.push(Arc::new(vec![None; CHUNK]));
        }
        std::mem::replace(&mut Arc::make_mut(&mut self.0.chunks[chunk])[at], exit)
    }

    fn file<'a>(&mut self, slot: Slot, old: Option<&'a Exit>, new: Option<&'a Exit>) {
        let (old, new) = (old.map(Files::of), new.map(Files::of));
        let changed = Changed { slot, old: old.as_ref(), new: new.as_ref() };
        let next = &mut self.0;
        changed.key(|f| Some(f.country), |key, on| set_in(&mut next.by_country, key, slot, on));
        changed.key(|f| f.asn, |key, on| list_in(&mut next.by_asn, key, slot, on));
        changed.key(|f| f.ip, |key, on| list_in(&mut next.by_ip, key, slot, on));
        for source in Source::ALL {
            changed.flag(&mut next.by_source[source as usize], |f| f.source == source);
        }
        changed.flag(&mut next.alive, |f| f.alive);
        changed.flag(&mut next.untested, |f| f.untested);
        changed.flag(&mut next.usable, |f| f.usable);
        changed.flag(&mut next.distinct, |f| f.distinct);
        changed.flag(&mut next.tunnels, |f| f.tunnels);
        for (family, ports) in next.ports.iter_mut().enumerate() {
            let policy = |files: &Files<'a>| files.policies[family];
            let (old, new) = (changed.old.map(policy), changed.new.map(policy));
            if old != new {
                Arc::make_mut(ports).file(slot, old, new);
            }
        }
        let nothing = BTreeSet::new();
        let passed = |files: Option<&Files<'a>>| files.map_or(&nothing, |files| files.passed);
        let (before, after) = (passed(changed.old), passed(changed.new));
        before.difference(after).for_each(|check| set_in(&mut next.by_check, check.clone(), slot, false));
        after.difference(before).for_each(|check| set_in(&mut next.by_check, check.clone(), slot, true));
        let leads = |files: Option<&Files<'_>>| files.and_then(Files::leads);
        let (before, after) = (leads(changed.old), leads(changed.new));
        if before != after {
            self.lead(slot, before, after);
        }
    }

    /// Of the exits that could lead an address one does, for as long as it can.
    fn lead(&mut self, slot: Slot, before: Option<IpAddr>, after: Option<IpAddr>) {
        let next = &mut self.0;
        let behind = |ip: Option<IpAddr>| ip.and_then(|ip| next.by_ip.get(&ip)).into_iter().flatten().copied();
        if next.leading.has(slot) {
            let heir = behind(before).find(|heir| next.usable.has(*heir) && next.distinct.has(*heir));
            let leading = Arc::make_mut(&mut next.leading);
            leading.set(slot, false);
            heir.into_iter().for_each(|heir| leading.set(heir, true));
        }
        if after.is_some() && !behind(after).any(|other| next.leading.has(other)) {
            Arc::make_mut(&mut next.leading).set(slot, true);
        }
    }
}

/// One exit's files before and after.
struct Changed<'f, 'a> {
    slot: Slot,
    old: Option<&'f Files<'a>>,
    new: Option<&'f Files<'a>>,
}

impl Changed<'_, '_> {
    fn key<K: PartialEq>(&self, key: impl Fn(&Files<'_>) -> Option<K>, mut file: impl FnMut(K, bool)) {
        let (old, new) = (self.old.and_then(&key), self.new.and_then(&key));
        if old != new {
            old.into_iter().for_each(|old| file(old, false));
            new.into_iter().for_each(|new| file(new, true));
        }
    }

    fn flag(&self, bits: &mut Arc<Bits>, flag: impl Fn(&Files<'_>) -> bool) {
        let (old, new) = (self.old.is_some_and(&flag), self.new.is_some_and(&flag));
        if old != new {
            Arc::make_mut(bits).set(self.slot, new);
        }
    }
}

/// A key whose set is empty is dropped: countries and targets come and go.
fn set_in<K: Clone + Ord>(index: &mut Arc<BTreeMap<K, Arc<Bits>>>, key: K, slot: Slot, on: bool) {
    let index = Arc::make_mut(index);
    let bits = index.entry(key.clone()).or_default();
    Arc::make_mut(bits).set(slot, on);
    if !on && bits.is_empty() {
        index.remove(&key);
    }
}

fn list_in<K: Copy + Eq + Hash>(
    index: &mut Arc<std::collections::HashMap<K, Vec<Slot>>>,
    key: K,
    slot: Slot,
    on: bool,
) {
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
