//! Counts how many pins use each IP address. A new pin prefers an address that no other pin uses. An exclusive pin must
//! have such an address.
//!
//! The count of pins of each address is exact, because exclusive pins depend on it.
//!
//! A second structure, [`UsedExits`], holds sets of exits: the exits whose address is used by one pin, by two pins, and
//! so on. With these sets, a new pin looks at a few exits and not at the whole catalog. The sets may be slightly out of
//! date, so the code that chooses an exit reads the exact count before it takes an address.
//!
//! Lock order: an entry of `by_ip` first, and `used_exits` inside that lock. A thread that holds an entry of `by_ip`
//! does not use `by_ip` again.

use std::net::IpAddr;
use std::sync::Mutex;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::lru::open;
use crate::exit::Catalog;
use crate::exit::catalog::Bits;

/// The number of sets of exits by pin count: one set for addresses with one pin, one set for addresses with two pins,
/// and so on. The last set is for addresses with eight pins or more. From the last set, the code that chooses an exit
/// draws a sample and compares the exact counts. Not tuned.
const LEVELS: u32 = 8;

/// How many pins use each address. Addresses that no pin uses have no entry.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_ip: DashMap<IpAddr, Claim>,
    used_exits: Mutex<UsedExits>,
}

/// How many pins use one address.
#[derive(Clone, Copy, Debug, Default)]
struct Claim {
    pins: u32,
    /// How many of these pins are exclusive.
    exclusive: u32,
}

/// Sets of the exits whose addresses are used by pins.
#[derive(Debug, Default)]
struct UsedExits {
    /// The edition of the catalog to which the sets belong.
    catalog: Catalog,
    /// The exits whose address is used by any pin.
    used: Bits,
    /// The first set has the exits whose address is used by one pin, the second set has the exits whose address is used
    /// by two pins, and so on. The last set is for [`LEVELS`] pins or more.
    levels: [Bits; LEVELS as usize],
    /// The exits whose address is used by an exclusive pin.
    exclusive: Bits,
}

impl Claim {
    /// Returns true if another pin may use the address. `exclusive` is true if that other pin is exclusive.
    fn allows(self, exclusive: bool) -> bool {
        if exclusive { self.pins == 0 } else { self.exclusive == 0 }
    }

    fn with(self, exclusive: bool) -> Self {
        Self { pins: self.pins + 1, exclusive: self.exclusive + u32::from(exclusive) }
    }
}

impl UsedExits {
    fn of(catalog: &Catalog, claims: &[(IpAddr, Claim)]) -> Self {
        let mut sets = Self { catalog: catalog.clone(), ..Self::default() };
        claims.iter().for_each(|(ip, claim)| sets.mark(*ip, *claim));
        sets
    }

    fn mark(&mut self, ip: IpAddr, claim: Claim) {
        for slot in self.catalog.slots_behind(ip) {
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
    pub(super) fn uses(&self, ip: IpAddr) -> u32 {
        self.of(ip).pins
    }

    /// Returns how many pins use an address. `None` if a new pin may not use the address.
    pub(super) fn free(&self, ip: IpAddr, exclusive: bool) -> Option<u32> {
        let claim = self.of(ip);
        claim.allows(exclusive).then_some(claim.pins)
    }

    /// Returns the exits of the set `of` whose addresses a new pin may use and whose addresses the fewest pins use.
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

    /// Returns the exits whose addresses a new pin may not use.
    pub(super) fn taken(&self, catalog: &Catalog, exclusive: bool) -> Bits {
        self.follow(catalog);
        let sets = open(&self.used_exits);
        if exclusive { sets.used.clone() } else { sets.exclusive.clone() }
    }

    /// Brings the sets up to date with this catalog. The sets are rebuilt if exits have other addresses than before.
    /// [`super::pin::Pins::tidy`] calls this after each new catalog, so a connection hardly ever has to wait for a
    /// rebuild.
    pub(super) fn follow(&self, catalog: &Catalog) {
        {
            let mut sets = open(&self.used_exits);
            // The sets belong to a newer catalog than the connection reads. The connection uses the newer sets.
            if sets.catalog.revision() >= catalog.revision() {
                return;
            }
            if sets.catalog.has_addresses_of(catalog) {
                sets.catalog = catalog.clone();
                return;
            }
        }
        // This needs locks of entries in `by_ip`, so the lock of the sets must not be held here.
        let claims: Vec<_> = self.by_ip.iter().map(|entry| (*entry.key(), *entry.value())).collect();
        let rebuilt = UsedExits::of(catalog, &claims);
        *open(&self.used_exits) = rebuilt;
    }

    /// If a new pin may use the address, counts the pin and returns true. Otherwise returns false.
    ///
    /// `own` describes the holder's present pin, which the new pin replaces and which therefore does not count:
    /// `Some(true)` if it has the same address and is exclusive, `Some(false)` if it has the same address and is not
    /// exclusive, `None` if it has another address or does not exist.
    pub(super) fn take(&self, ip: IpAddr, exclusive: bool, own: Option<bool>) -> bool {
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

    /// Counts a pin from the store, even if an exclusive pin of another holder has the same address.
    pub(super) fn force(&self, ip: IpAddr) {
        let mut claim = self.by_ip.entry(ip).or_default();
        claim.pins += 1;
        open(&self.used_exits).mark(ip, *claim);
    }

    /// Decreases the number of pins that use an address by one, after a pin of this address ended or moved. `exclusive`
    /// is true if that pin was exclusive.
    pub(super) fn give_back(&self, ip: IpAddr, exclusive: bool) {
        let Entry::Occupied(mut entry) = self.by_ip.entry(ip) else { return };
        let claim = entry.get_mut();
        claim.pins = claim.pins.saturating_sub(1);
        claim.exclusive = claim.exclusive.saturating_sub(u32::from(exclusive));
        open(&self.used_exits).mark(ip, *claim);
        if claim.pins == 0 {
            entry.remove();
        }
    }

    fn of(&self, ip: IpAddr) -> Claim {
        self.by_ip.get(&ip).map(|claim| *claim).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::{World, id, ip};
    use super::*;

    /// The slow reference: computes the exact count for every exit of the catalog.
    fn walk(catalog: &Catalog, claims: &Claims, exclusive: bool) -> (Vec<u32>, Vec<u32>) {
        let exits = || catalog.iter().filter_map(|exit| Some((exit.slot().0, exit.pinnable()?)));
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
                            known.saw(ip(to), us, super::super::fixture::START);
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
