//! Computes from pools and pins which circuits Tor should keep ready.
//!
//! A guard relay builds about one circuit a second, so a thousand unused routes must not want circuits to eight exits
//! each. Each exit of a route that was used lately gets two spare circuits. An unused named route gets one spare
//! circuit for each of its first two exits, so its first connection does not wait. An unused implicit route gets no
//! circuit.

use std::collections::BTreeMap;
use std::time::Duration;

use super::memory::Memory;
use super::policy::Policy;
use super::pool::Pool;
use super::view::View;
use super::{OwnEngine, WantedExit, WantedExits};
use crate::exit::{ExitId, Fingerprint, Moment};

/// A route or pin counts as used "lately" if its last use was within this time. A circuit that was used is kept for the
/// same time.
const LATELY: Duration = Duration::from_secs(600);

/// The number of spare circuits to an exit in use: one on each of two engines (tor processes), so the crash of one
/// engine delays nobody. `tor.spare_circuits` scales this number.
pub const SPARES: u8 = 2;

/// The number of exits of an unused named route that get a spare circuit. Not tuned.
const READY: usize = 2;

/// The largest number of spare circuits to one exit, however many routes use the exit. Not tuned.
const MOST: u8 = 4;

/// Returns the circuits that pools and pins need now.
pub fn wanted(view: View<'_>, memory: &Memory, now: Moment) -> WantedExits {
    let mut wanted = WantedExits::default();
    let lately = |used: Moment| now.since(used) < LATELY;
    for entry in view.routes.iter() {
        let used = entry.used().is_some_and(lately);
        add_pool(wanted.of(entry.route.own_engine()), &entry.pool, &entry.route.policy, used, true);
    }
    // The scope of a route that a username narrows is `route:selector`.
    let route_of = |scope: &str| view.routes.get(scope.split(':').next().unwrap_or(scope));
    for route in memory.implicit().list() {
        let own = route_of(route.scope()).and_then(|entry| entry.route.own_engine());
        add_pool(wanted.of(own), &route.pool(), route.policy(), lately(route.used()), false);
    }
    for pin in memory.pins().list(now) {
        let policy = view.routes.get(&pin.holder.scope).map_or(view.routes.defaults(), |entry| &entry.route.policy);
        let spares = if lately(pin.used) { SPARES } else { u8::from(view.routes.get(&pin.holder.scope).is_some()) };
        let own = route_of(&pin.holder.scope).and_then(|entry| entry.route.own_engine());
        add(wanted.of(own), &pin.to.exit, spares, policy.hops);
    }
    wanted
}

type Exits = BTreeMap<Fingerprint, WantedExit>;

impl WantedExits {
    fn of(&mut self, own: Option<OwnEngine>) -> &mut Exits {
        match own {
            Some(own) => self.own.entry(own).or_default(),
            None => &mut self.exits,
        }
    }
}

fn add_pool(exits: &mut Exits, pool: &Pool, policy: &Policy, used: bool, named: bool) {
    let (count, spares) = match (used, named) {
        (true, _) => (pool.have(), SPARES),
        (false, true) => (READY, 1),
        (false, false) => return,
    };
    pool.members().iter().take(count).for_each(|member| add(exits, member.id(), spares, policy.hops));
}

/// Adds the spare circuits that one route wants to an exit. If routes want different circuit lengths, the longer length
/// is kept, because it is good for both.
fn add(exits: &mut Exits, exit: &ExitId, spares: u8, hops: u8) {
    let ExitId::Tor(relay) = exit else { return };
    if spares > 0 {
        let wanted = exits.entry(*relay).or_insert(WantedExit { spares: 0, hops });
        wanted.spares = (wanted.spares + spares).min(MOST);
        wanted.hops = wanted.hops.max(hops);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::super::policy::Engine;
    use super::*;

    fn spares(world: &World) -> BTreeMap<u16, u8> {
        let wanted = wanted(world.view(), &world.memory, world.now);
        wanted.exits.into_iter().map(|(relay, exit)| (number(&ExitId::Tor(relay)), exit.spares)).collect()
    }

    #[test]
    fn used_exits_get_two_spares_and_unused_routes_two_exits_with_one() {
        let mut world = World::new(&["US", "US", "US", "US", "DE", "DE", "FR", "FR", "FR", "FR"]);
        assert!(spares(&world).is_empty());
        world.route("shop", "us", Policy { pool: 4, ..Policy::default() });
        let idle = spares(&world);
        assert!(idle.len() == 2 && idle.values().all(|spares| *spares == 1), "{idle:?}");
        world.first("shop");
        assert_eq!(spares(&world), (0..4).map(|n| (n, 2)).collect());
        world.first("de-session-a");
        let pin = world.first("fr-strict");
        let mut busy: BTreeMap<u16, u8> = (0..6).map(|n| (n, 2)).collect();
        busy.insert(pin, 2);
        assert_eq!(spares(&world), busy);
        world.first("nonfr");
        assert_eq!(spares(&world).values().filter(|spares| **spares == 4).count(), 3, "two pools want three of them");
        world.pass(11 * MINUTE);
        world.tidy();
        assert_eq!(spares(&world), idle, "an unused pin stays, without a spare circuit");
    }

    #[test]
    fn a_circuit_is_short_only_if_every_route_asks_for_that() {
        let mut world = World::new(&["US"]);
        world.route("quick", "us", Policy { hops: 2, ..Policy::default() });
        world.first("quick");
        let hops = |world: &World| {
            wanted(world.view(), &world.memory, world.now).exits.values().map(|exit| exit.hops).collect::<Vec<_>>()
        };
        assert_eq!(hops(&world), [2]);
        world.first("us");
        assert_eq!(hops(&world), [3]);
    }

    #[test]
    fn a_route_with_its_own_engine_wants_nothing_of_the_shared_ones() {
        let mut world = World::new(&["US", "US"]);
        world.route("alone", "us", Policy { engine: Engine::Own, ..Policy::default() });
        let own = |world: &World| wanted(world.view(), &world.memory, world.now).own;
        let idle = own(&world);
        assert!(idle.len() == 1 && idle.values().all(|exits| exits.values().all(|exit| exit.spares == 1)), "{idle:?}");
        world.first("alone-session-a");
        world.first("alone");
        assert!(spares(&world).is_empty(), "{:?}", spares(&world));
        assert_eq!(own(&world).values().map(BTreeMap::len).collect::<Vec<_>>(), [2]);
        world.first("us");
        assert_eq!((spares(&world).len(), own(&world).len()), (2, 1));
    }
}
