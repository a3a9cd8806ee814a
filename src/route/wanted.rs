//! Computes from pools and pins which circuits Tor should keep ready. Spare circuits follow use.
//!
//! A spare circuit is built before a connection needs it. Only about one circuit a second can be built through a guard
//! relay, so a thousand unused routes must not want circuits to eight exits each. These exits get spare circuits:
//!
//! - an exit that carried a connection lately (in the last ten minutes), if its route or pin was used lately
//! - the first member of the pool of a route that was used lately, because a client may come back to a route
//!   whose other exits were not used
//! - the first member of the pool, or the pin, of a new named route, so the first connection need not wait
//!
//! No other exit gets spare circuits, so a gateway that nobody uses builds no circuits. `tor/spares.rs` limits the
//! number of all spare circuits together.

use std::collections::BTreeMap;
use std::time::Duration;

use super::memory::Memory;
use super::policy::Policy;
use super::pool::Pool;
use super::selector::Mode;
use super::view::View;
use super::{CircuitDemand, OwnEngine, Rank, SpareCircuits};
use crate::exit::{Catalog, ExitId, Fingerprint, Moment};

/// A route, pin or exit counts as used lately if its last use was within this time. A route counts as new for this time
/// after it was created. Not longer, because a circuit that was used is also kept for this time only.
const LATELY: Duration = Duration::from_secs(600);

/// The number of spare circuits to an exit in use: one on each of two engines (tor processes), so the crash of one
/// engine delays nobody. `tor.spare_circuits` scales this number.
pub const SPARES: u8 = 2;

/// The largest number of spare circuits to one exit, however many routes use the exit. Not tuned.
const MOST: u8 = 4;

/// Returns the circuits that pools and pins need now.
pub fn wanted(view: View<'_>, memory: &Memory, now: Moment) -> CircuitDemand {
    let mut wanted = CircuitDemand::default();
    let lately = |used: Moment| now.since(used) < LATELY;
    let look = Look { catalog: view.catalog, now };
    for entry in view.routes.iter() {
        let used = entry.used().is_some_and(lately);
        let exits = wanted.of(entry.route.own_engine());
        // The one exit of a strict route is its pin, which is not always in the pool.
        let pooled = entry.route.selector.mode != Mode::Strict;
        let new = pooled && lately(entry.route.created);
        let how = PoolUse { used: used && pooled, new };
        look.add_pool(exits, &entry.pool, &entry.route.policy, how);
    }
    // The scope of a route that a username narrows is `route:selector`.
    let route_of = |scope: &str| view.routes.get(scope.split(':').next().unwrap_or(scope));
    for route in memory.implicit().list() {
        let own = route_of(route.scope()).and_then(|entry| entry.route.own_engine());
        let used = lately(route.used());
        let how = PoolUse { used, new: false };
        look.add_pool(wanted.of(own), &route.pool(), route.policy(), how);
    }
    for pin in memory.pins().list(now) {
        let named = view.routes.get(&pin.holder.scope);
        let policy = named.map_or(view.routes.defaults(), |entry| &entry.route.policy);
        let (spares, rank) = match named {
            _ if lately(pin.used) => (SPARES, Rank::Used),
            Some(entry) => (u8::from(lately(entry.route.created)), Rank::Fresh),
            None => continue,
        };
        let own = route_of(&pin.holder.scope).and_then(|entry| entry.route.own_engine());
        add(wanted.of(own), &pin.to.exit, SpareCircuits { spares, rank, hops: policy.hops });
    }
    wanted
}

type Exits = BTreeMap<Fingerprint, SpareCircuits>;

impl CircuitDemand {
    fn of(&mut self, own: Option<OwnEngine>) -> &mut Exits {
        match own {
            Some(own) => self.own.entry(own).or_default(),
            None => &mut self.exits,
        }
    }
}

struct Look<'a> {
    catalog: &'a Catalog,
    now: Moment,
}

/// How the route of a pool is used.
#[derive(Clone, Copy)]
struct PoolUse {
    /// True if the route was used within [`LATELY`].
    used: bool,
    /// True if the route is new and named.
    new: bool,
}

impl Look<'_> {
    /// Adds the circuits of one pool.
    fn add_pool(&self, exits: &mut Exits, pool: &Pool, policy: &Policy, PoolUse { used, new }: PoolUse) {
        for (at, member) in pool.members().iter().enumerate() {
            let exit = member.exit(self.catalog).filter(|_| used);
            let (spares, rank) = match exit.is_some_and(|exit| exit.load().carried_within(LATELY, self.now)) {
                true => (SPARES, Rank::Used),
                false if at == 0 && used => (1, Rank::First),
                false => (u8::from(at == 0 && new), Rank::Fresh),
            };
            add(exits, member.id(), SpareCircuits { spares, rank, hops: policy.hops });
        }
    }
}

/// Adds the spare circuits that one route wants to an exit. If routes want different circuit lengths, the longer length
/// is kept, because it is good for both.
fn add(exits: &mut Exits, exit: &ExitId, want: SpareCircuits) {
    let ExitId::Tor(relay) = exit else { return };
    if want.spares == 0 {
        return;
    }
    let wanted = exits.entry(*relay).or_insert(SpareCircuits { spares: 0, ..want });
    wanted.spares = (wanted.spares + want.spares).min(MOST);
    wanted.rank = wanted.rank.max(want.rank);
    wanted.hops = wanted.hops.max(want.hops);
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::super::policy::Engine;
    use super::*;
    use crate::exit::load::DialSpeed;

    fn spares(world: &World) -> BTreeMap<u16, (u8, Rank)> {
        let wanted = wanted(world.view(), &world.memory, world.now);
        let of = |(relay, exit): (Fingerprint, SpareCircuits)| (number(&ExitId::Tor(relay)), (exit.spares, exit.rank));
        wanted.exits.into_iter().map(of).collect()
    }

    /// A connection of this username opens a stream through its exit.
    fn carry(world: &mut World, username: &str) -> u16 {
        let exit = world.first(username);
        world.exit(exit).load().succeeded(Duration::from_millis(50), DialSpeed::Unknown, world.now);
        exit
    }

    fn first_member(world: &World, route: &str) -> u16 {
        number(world.routes.get(route).unwrap().pool.members()[0].id())
    }

    #[test]
    fn a_new_route_gets_one_circuit_and_an_old_unused_one_none() {
        let mut world = World::new(&["US"; 8]);
        assert!(spares(&world).is_empty());
        world.route("shop", "us", Policy { pool: 4, ..Policy::default() });
        let first = first_member(&world, "shop");
        assert_eq!(spares(&world), BTreeMap::from([(first, (1, Rank::Fresh))]));
        world.pass(LATELY - Duration::from_secs(1));
        assert_eq!(spares(&world).len(), 1);
        world.pass(Duration::from_secs(1));
        assert_eq!(spares(&world), BTreeMap::new(), "nobody used it");
    }

    #[test]
    fn a_used_route_keeps_circuits_to_the_exits_that_it_used() {
        let mut world = World::new(&["US"; 8]);
        world.route("shop", "us", Policy { pool: 6, ..Policy::default() });
        world.pass(LATELY);
        let first = first_member(&world, "shop");
        world.first("shop"); // this chooses an exit for a connection, but the connection has not used the exit yet
        assert_eq!(spares(&world), BTreeMap::from([(first, (1, Rank::First))]));
        let used: Vec<u16> = (0..4).map(|n| carry(&mut world, &format!("shop-session-s{n}"))).collect();
        let mut want = BTreeMap::from([(first, (1, Rank::First))]);
        want.extend(used.into_iter().map(|exit| (exit, (SPARES, Rank::Used))));
        assert_eq!(spares(&world), want);
        world.pass(LATELY);
        assert_eq!(spares(&world), BTreeMap::new());
    }

    #[test]
    fn an_exit_that_carries_for_others_is_no_reason_for_a_route_that_nobody_uses() {
        let mut world = World::new(&["US"]);
        world.route("idle", "us", Policy::default());
        world.pass(LATELY);
        carry(&mut world, "any");
        assert_eq!(spares(&world), BTreeMap::from([(0, (SPARES, Rank::Used))]), "once, for `any`");
        world.first("idle");
        assert_eq!(spares(&world), BTreeMap::from([(0, (4, Rank::Used))]), "for both");
        world.first("us");
        assert_eq!(spares(&world), BTreeMap::from([(0, (MOST, Rank::Used))]), "never more than that");
    }

    #[test]
    fn members_that_carried_nothing_lately_get_no_circuit() {
        let mut world = World::new(&["US"; 8]);
        world.route("shop", "us", Policy { pool: 4, ..Policy::default() });
        world.pass(LATELY);
        assert!(wanted(world.view(), &world.memory, world.now).exits.is_empty());
        world.first("shop");
        assert_eq!(spares(&world).len(), 1);
        world.pass(LATELY);
        assert!(wanted(world.view(), &world.memory, world.now).exits.is_empty());
    }

    #[test]
    fn implicit_routes_get_circuits_while_they_are_used() {
        let mut world = World::new(&["US"; 8]);
        let used = carry(&mut world, "us-session-a");
        let before = spares(&world);
        assert_eq!(before.get(&used), Some(&(SPARES, Rank::Used)));
        assert!(before.len() <= 2, "and the first member: {before:?}");
        world.pass(LATELY);
        world.tidy();
        assert_eq!(spares(&world), BTreeMap::new());
    }

    #[test]
    fn a_pin_gets_circuits_while_it_is_used_or_its_route_is_new() {
        let mut world = World::new(&["US"; 8]);
        let loose = world.first("us-strict");
        assert_eq!(spares(&world), BTreeMap::from([(loose, (SPARES, Rank::Used))]));
        world.pass(LATELY);
        world.tidy();
        assert_eq!(spares(&world), BTreeMap::new(), "the pin stays, without a spare circuit");
        world.route("one", "us-strict", Policy::default());
        assert_eq!(spares(&world), BTreeMap::new(), "no exit is chosen yet");
        let pinned = world.first("one");
        assert_eq!(spares(&world), BTreeMap::from([(pinned, (SPARES, Rank::Used))]));
    }

    #[test]
    fn a_pin_of_a_new_route_gets_one_circuit_before_its_first_use() {
        let mut world = World::new(&["US"; 3]);
        world.route("one", "us-strict", Policy::default());
        let created = world.now;
        world.now = Moment(created.0 - 2 * u64::try_from(LATELY.as_micros()).unwrap());
        let pinned = world.first("one"); // the pin was made before a restart of the process
        world.now = created;
        assert_eq!(spares(&world), BTreeMap::from([(pinned, (1, Rank::Fresh))]));
        world.pass(LATELY);
        assert_eq!(spares(&world), BTreeMap::new());
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
        let of_idle: u8 = idle.values().flat_map(BTreeMap::values).map(|exit| exit.spares).sum();
        assert!(idle.len() == 1 && of_idle == 1, "{idle:?}");
        carry(&mut world, "alone-session-a");
        assert!(spares(&world).is_empty(), "{:?}", spares(&world));
        assert!(own(&world).values().flat_map(BTreeMap::values).any(|exit| exit.rank == Rank::Used));
        world.first("us");
        assert_eq!((spares(&world).is_empty(), own(&world).len()), (false, 1));
    }
}
