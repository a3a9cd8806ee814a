//! Which addresses pins use: a new pin prefers one that no other uses, and an exclusive pin insists on it.
//!
//! How many pins use an address is kept exactly, by address, because an exclusive pin rests on it. Beside that a map of
//! the catalog says which exits lie behind unused addresses, or behind those that fewest use, so that a new pin looks
//! at a few exits and not at all of them. The map follows each claim, and is drawn anew when exits have other
//! addresses; it may lag behind by a moment, and whoever chooses by it asks the exact table before he takes.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Mutex;

use super::lru::open;
use crate::exit::Catalog;
use crate::exit::catalog::Bits;

/// Numbers of pins an address that the map tells apart; beyond, a sample is compared. Arbitrary.
const LEVELS: u32 = 8;

/// Who uses which address.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_ip: [Mutex<HashMap<Ipv4Addr, Claim>>; 16],
    map: Mutex<Map>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Claim {
    pins: u32,
    exclusive: u32,
}

/// The exits behind used addresses.
#[derive(Debug, Default)]
struct Map {
    /// Whose addresses these are.
    catalog: Catalog,
    /// Behind addresses that any pin uses.
    used: Bits,
    /// Behind addresses that one pin uses, two, three, …, and at last so many or more.
    levels: [Bits; LEVELS as usize],
    /// Behind addresses that an exclusive pin uses.
    exclusive: Bits,
}

impl Claim {
    fn allows(self, exclusive: bool) -> bool {
        if exclusive { self.pins == 0 } else { self.exclusive == 0 }
    }

    fn with(self, exclusive: bool) -> Self {
        Self { pins: self.pins + 1, exclusive: self.exclusive + u32::from(exclusive) }
    }
}

impl Map {
    fn of(catalog: &Catalog, claims: &[(Ipv4Addr, Claim)]) -> Self {
        let mut map = Self { catalog: catalog.clone(), ..Self::default() };
        claims.iter().for_each(|(ip, claim)| map.mark(*ip, *claim));
        map
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
    /// How many pins use an address.
    pub(super) fn uses(&self, ip: Ipv4Addr) -> u32 {
        self.of(ip).pins
    }

    /// How many pins use an address, if a new one may use it now.
    pub(super) fn free(&self, ip: Ipv4Addr, exclusive: bool) -> Option<u32> {
        let claim = self.of(ip);
        claim.allows(exclusive).then_some(claim.pins)
    }

    /// Those of some exits whose addresses a new pin may use, and the fewest pins do.
    pub(super) fn least_used(&self, catalog: &Catalog, of: &Bits, exclusive: bool) -> Bits {
        self.look_up(catalog);
        let map = open(&self.map);
        let mut unused = of.clone();
        unused.drop(&map.used);
        if exclusive || !unused.is_empty() {
            return unused;
        }
        let level = map.levels.iter().find(|level| of.meets(level, &map.exclusive));
        level.map_or_else(Bits::default, |level| {
            let mut shared = of.and(level);
            shared.drop(&map.exclusive);
            shared
        })
    }

    /// The exits whose addresses a new pin may not use.
    pub(super) fn taken(&self, catalog: &Catalog, exclusive: bool) -> Bits {
        self.look_up(catalog);
        let map = open(&self.map);
        if exclusive { map.used.clone() } else { map.exclusive.clone() }
    }

    /// Draws the map anew if exits of this catalog have other addresses than when that was done last. Whoever makes
    /// editions calls it, so that a decision hardly ever has to.
    pub(super) fn look_up(&self, catalog: &Catalog) {
        {
            let mut map = open(&self.map);
            // A reader of an older edition makes do with the newer one's.
            if map.catalog.revision() >= catalog.revision() {
                return;
            }
            if map.catalog.has_addresses_of(catalog) {
                map.catalog = catalog.clone();
                return;
            }
        }
        // Not under the map's lock: a claim is marked under its address's.
        let held = |shard: &Mutex<HashMap<Ipv4Addr, Claim>>| -> Vec<(Ipv4Addr, Claim)> {
            open(shard).iter().map(|(ip, claim)| (*ip, *claim)).collect()
        };
        let claims: Vec<_> = self.by_ip.iter().flat_map(held).collect();
        let drawn = Map::of(catalog, &claims);
        *open(&self.map) = drawn;
    }

    /// Takes a share of an address if it may be had, giving back the holder's own former share of the same address.
    pub(super) fn take(&self, ip: Ipv4Addr, exclusive: bool, own: Option<bool>) -> bool {
        let mut shard = open(self.shard(ip));
        let claim = shard.get(&ip).copied().unwrap_or_default();
        let others = match own {
            Some(exclusive) => Claim { pins: claim.pins - 1, exclusive: claim.exclusive - u32::from(exclusive) },
            None => claim,
        };
        let free = others.allows(exclusive);
        if free {
            let claim = others.with(exclusive);
            shard.insert(ip, claim);
            open(&self.map).mark(ip, claim);
        }
        free
    }

    /// Takes a share of an address whoever has it.
    pub(super) fn force(&self, ip: Ipv4Addr) {
        let mut shard = open(self.shard(ip));
        let claim = shard.entry(ip).or_default();
        claim.pins += 1;
        open(&self.map).mark(ip, *claim);
    }

    /// Gives back a share.
    pub(super) fn give_back(&self, ip: Ipv4Addr, exclusive: bool) {
        let mut shard = open(self.shard(ip));
        let Some(claim) = shard.get_mut(&ip) else { return };
        claim.pins = claim.pins.saturating_sub(1);
        claim.exclusive = claim.exclusive.saturating_sub(u32::from(exclusive));
        open(&self.map).mark(ip, *claim);
        if claim.pins == 0 {
            shard.remove(&ip);
        }
    }

    fn shard(&self, ip: Ipv4Addr) -> &Mutex<HashMap<Ipv4Addr, Claim>> {
        let at = ip.octets().iter().fold(0, |sum: u8, octet| sum.wrapping_mul(31).wrapping_add(*octet));
        &self.by_ip[usize::from(at) % self.by_ip.len()]
    }

    fn of(&self, ip: Ipv4Addr) -> Claim {
        open(self.shard(ip)).get(&ip).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::{World, id, ip};
    use super::*;

    /// The slow reference: every exit is asked.
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
        fn the_map_says_what_a_walk_finds(steps in prop::collection::vec(step(), 0..60)) {
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
