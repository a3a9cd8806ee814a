//! How many pins use each IP address. A new pin prefers an address that no other pin uses; an exclusive pin must have one.
//!
//! The count of each address is exact, because exclusive pins depend on it. A second structure, [`UsedExits`], holds the
//! exits with those addresses as sets, so that a new pin looks at a few exits and not at the whole catalog. Every change
//! of a count updates the sets, and they are rebuilt when exits get other addresses. The sets may be a moment old, so a
//! chooser asks for the exact count before it takes an address.
//!
//! Lock order: an entry of `by_ip` first, `used_exits` inside it. Nothing calls `by_ip` while it holds one of its entries.

use std::net::Ipv4Addr;
use std::sync::Mutex;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::lru::open;
use crate::exit::Catalog;
use crate::exit::catalog::Bits;

/// Counts of pins that the sets tell apart. Addresses with this many pins or more count as equal, and the chooser then
/// compares the exact counts of a sample. Not tuned.
const LEVELS: u32 = 8;

/// The counts of all addresses that pins use.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_ip: DashMap<Ipv4Addr, Claim>,
    used_exits: Mutex<UsedExits>,
}

/// The pins of one address.
#[derive(Clone, Copy, Debug, Default)]
struct Claim {
    pins: u32,
    /// How many of them are exclusive.
    exclusive: u32,
}

/// Sets of exits whose addresses pins use.
#[derive(Debug, Default)]
struct UsedExits {
    /// The edition of the catalog that the sets belong to.
    catalog: Catalog,
    /// Exits whose address any pin uses.
    used: Bits,
    /// Exits whose address one pin uses, two pins, …; the last set has those with [`LEVELS`] pins or more.
    levels: [Bits; LEVELS as usize],
    /// Exits whose address an exclusive pin uses.
    exclusive: Bits,
}

impl Claim {
    /// True if another pin may use the address.
    fn allows(self, exclusive: bool) -> bool {
        if exclusive { self.pins == 0 } else { self.exclusive == 0 }
    }

    fn with(self, exclusive: bool) -> Self {
        Self { pins: self.pins + 1, exclusive: self.exclusive + u32::from(exclusive) }
    }
}

impl UsedExits {
    fn of(catalog: &Catalog, claims: &[(Ipv4Addr, Claim)]) -> Self {
        let mut sets = Self { catalog: catalog.clone(), ..Self::default() };
        claims.iter().for_each(|(ip, claim)| sets.mark(*ip, *claim));
        sets
    }

    fn mark(&mut self, ip: Ipv4Addr, claim: Claim) {
        for slot in self.catalog.slots_behind(ip.into()) {
            for (level, bits) in (1..).zip(&mut self.levels) {
                bits.set(slot, level == claim.pins.min(LEVELS));
            }
            self.used.set(slot, claim.pins > 0);
            self.exclusive.set(slot, claim.exclusive > 0);
        }
    }
}

impl Claims {
    #[cfg(test)]
    pub(super) fn uses(&self, ip: Ipv4Addr) -> u32 {
        self.of(ip).pins
    }

    /// How many pins use an address; `None` if a new pin may not use it.
    pub(super) fn free(&self, ip: Ipv4Addr, exclusive: bool) -> Option<u32> {
        let claim = self.of(ip);
        claim.allows(exclusive).then_some(claim.pins)
    }

    /// Those exits of `of` whose addresses a new pin may use and the fewest pins use.
    pub(super) fn least_used(&self, catalog: &Catalog, of: &Bits, exclusive: bool) -> Bits {
        self.follow(catalog);
        let sets = open(&self.used_exits);
        let mut unused = of.clone();
        unused.drop(&sets.used);
        if exclusive || !unused.is_empty() {
            return unused;
        }
        let level = sets.levels.iter().find(|level| of.meets(level, &sets.exclusive));
        level.map_or_else(Bits::default, |level| {
            let mut shared = of.and(level);
            shared.drop(&sets.exclusive);
            shared
        })
    }

    /// The exits whose addresses a new pin may not use.
    pub(super) fn taken(&self, catalog: &Catalog, exclusive: bool) -> Bits {
        self.follow(catalog);
        let sets = open(&self.used_exits);
        if exclusive { sets.used.clone() } else { sets.exclusive.clone() }
    }

    /// Rebuilds the sets if exits have other addresses in this catalog than in the one before. [`super::pin::Pins::tidy`]
    /// calls it after each new catalog, so that a connection hardly ever has to.
    pub(super) fn follow(&self, catalog: &Catalog) {
        {
            let mut sets = open(&self.used_exits);
            // A connection that still reads an older catalog uses the sets of the newer one.
            if sets.catalog.revision() >= catalog.revision() {
                return;
            }
            if sets.catalog.has_addresses_of(catalog) {
                sets.catalog = catalog.clone();
                return;
            }
        }
        // Without the lock of the sets, which comes after that of an entry.
        let claims: Vec<_> = self.by_ip.iter().map(|entry| (*entry.key(), *entry.value())).collect();
        let rebuilt = UsedExits::of(catalog, &claims);
        *open(&self.used_exits) = rebuilt;
    }

    /// Counts a pin at an address, if it may use it. `own` is given if the holder's present pin has the same address, and
    /// says whether that is exclusive: it is replaced and does not count.
    pub(super) fn take(&self, ip: Ipv4Addr, exclusive: bool, own: Option<bool>) -> bool {
        let entry = self.by_ip.entry(ip);
        let claim = if let Entry::Occupied(entry) = &entry { *entry.get() } else { Claim::default() };
        let others = match own {
            Some(exclusive) => Claim { pins: claim.pins - 1, exclusive: claim.exclusive - u32::from(exclusive) },
            None => claim,
        };
        let free = others.allows(exclusive);
        if free {
            let claim = others.with(exclusive);
            let _entry = entry.insert(claim);
            open(&self.used_exits).mark(ip, claim);
        }
        free
    }

    /// Counts a pin at an address that it may not use: one that the store kept.
    pub(super) fn force(&self, ip: Ipv4Addr) {
        let mut claim = self.by_ip.entry(ip).or_default();
        claim.pins += 1;
        open(&self.used_exits).mark(ip, *claim);
    }

    /// Ends the count of a pin.
    pub(super) fn give_back(&self, ip: Ipv4Addr, exclusive: bool) {
        let Entry::Occupied(mut entry) = self.by_ip.entry(ip) else { return };
        let claim = entry.get_mut();
        claim.pins = claim.pins.saturating_sub(1);
        claim.exclusive = claim.exclusive.saturating_sub(u32::from(exclusive));
        open(&self.used_exits).mark(ip, *claim);
        if claim.pins == 0 {
            entry.remove();
        }
    }

    fn of(&self, ip: Ipv4Addr) -> Claim {
        self.by_ip.get(&ip).map(|claim| *claim).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::{World, id, ip};
    use super::*;

    /// The slow reference: the exact count of every exit of the catalog.
    fn walk(catalog: &Catalog, claims: &Claims, exclusive: bool) -> (Vec<u32>, Vec<u32>) {
        let exits = || catalog.iter().filter_map(|exit| Some((exit.slot().0, exit.v4()?)));
        let free: Vec<_> = exits().filter(|(_, ip)| claims.free(*ip, exclusive).is_some()).collect();
        let fewest = free.iter().map(|(_, ip)| claims.uses(*ip).min(LEVELS)).min();
        let least = free.iter().filter(|(_, ip)| Some(claims.uses(*ip).min(LEVELS)) == fewest);
        let taken = exits().filter(|(_, ip)| claims.free(*ip, exclusive).is_none());
        let (mut least, mut taken): (Vec<_>, Vec<_>) =
            (least.map(|(at, _)| *at).collect(), taken.map(|(at, _)| at).collect());
        least.sort_unstable();
        taken.sort_unstable();
        (least, taken)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(u16, bool),
        Force(u16),
        GiveBack(usize),
        Move(u16, u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0u16..8, prop::bool::weighted(0.2)).prop_map(|(n, exclusive)| Step::Take(n, exclusive)),
            2 => (0u16..8).prop_map(Step::Force),
            3 => any::<usize>().prop_map(Step::GiveBack),
            1 => (0u16..12, 0u16..8).prop_map(|(n, to)| Step::Move(n, to)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_sets_hold_what_a_walk_over_the_catalog_finds(steps in prop::collection::vec(step(), 0..60)) {
            let mut world = World::new(&["US"; 12]);
            let claims = Claims::default();
            let mut held = Vec::new();
            for step in steps {
                match step {
                    Step::Take(n, exclusive) => {
                        held.extend(claims.take(ip(n), exclusive, None).then_some((ip(n), exclusive)));
                    }
                    Step::Force(n) => {
                        claims.force(ip(n));
                        held.push((ip(n), false));
                    }
                    Step::GiveBack(at) if !held.is_empty() => {
                        let (ip, exclusive) = held.swap_remove(at % held.len());
                        claims.give_back(ip, exclusive);
                    }
                    Step::GiveBack(_) => {}
                    Step::Move(n, to) => {
                        let us = super::super::fixture::country("US");
                        world.learn(n, |known| {
                            known.observed.clear();
                            known.saw(ip(to).into(), us, super::super::fixture::START);
                        });
                    }
                }
                let all: Bits = world.catalog.iter().map(|exit| exit.slot()).collect();
                for exclusive in [false, true] {
                    let slots = |bits: Bits| bits.iter().map(|slot| slot.0).collect::<Vec<_>>();
                    let least = slots(claims.least_used(&world.catalog, &all, exclusive));
                    let taken = slots(claims.taken(&world.catalog, exclusive));
                    prop_assert_eq!((least, taken), walk(&world.catalog, &claims, exclusive));
                }
            }
            prop_assert!(world.catalog.get(&id(0)).is_some());
        }
    }
}
