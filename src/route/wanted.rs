//! What circuits to keep warm: pools and pins, as plain numbers for Tor.
//!
//! A circuit takes a guard a second, so a thousand routes that nobody uses must not ask for eight exits each. What was
//! used lately gets spares on both of two engines; a named route that was not gets one for each of its first two exits,
//! so that its first connection does not wait; an idle implicit route gets none.

use std::collections::BTreeMap;
use std::time::Duration;

use super::choose::View;
use super::memory::Memory;
use super::policy::Policy;
use super::pool::Pool;
use super::{OwnEngine, WantedExit, WantedExits};
use crate::exit::{ExitId, Fingerprint, Moment};

/// How long ago "lately" is: the time that a used circuit is kept.
const LATELY: Duration = Duration::from_secs(600);

/// Spares of an exit in use: one on each of two engines, so that a crash is not noticed. Tor may be told to keep more, or
/// fewer, of everything.
pub const SPARES: u8 = 2;

/// Exits of an idle route that are kept ready, with one spare each.
const READY: usize = 2;

/// Spares that several routes can want of one exit together.
const MOST: u8 = 4;

/// What the pools and pins of this moment ask of Tor.
pub fn wanted(view: View<'_>, memory: &Memory, now: Moment) -> WantedExits {
    let mut wanted = WantedExits::default();
    let lately = |used: Moment| now.since(used) < LATELY;
    for entry in view.routes.iter() {
        let used = entry.used().is_some_and(lately);
        add_pool(wanted.of(entry.route.own_engine()), &entry.pool, &entry.route.policy, used, true);
    }
    // What narrows a route has the route's name before the colon.
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

    /// Every exit that something is wanted of.
    pub fn every_exit(&self) -> impl Iterator<Item = Fingerprint> {
        self.exits.keys().chain(self.own.values().flat_map(BTreeMap::keys)).copied()
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

/// Several wishes for one exit are added up; of two lengths the longer, which serves both.
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
    fn what_is_used_is_kept_warm_and_what_is_not_hardly() {
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
        assert_eq!(spares(&world), idle, "an idle pin is kept, not kept warm");
    }

    #[test]
    fn two_hops_are_for_those_alone_who_all_asked_for_them() {
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
    fn a_route_with_an_engine_of_its_own_wants_nothing_of_the_others() {
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
