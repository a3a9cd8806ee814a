//! Tests of rotation, on request and by `rotate_every`.

use super::*;

#[test]
fn rotation_is_another_address_and_an_event() {
    let mut world = World::new(&["US"; 4]);
    let mut home = world.first("us-strict");
    for _ in 0..10 {
        let (next, rotated) = world.rotate("us-strict").unwrap();
        assert_eq!((&next.before, next.before_ip), (&Some(id(home)), Some(ip(home))));
        assert!(matches!(&rotated.events[..], [Event::PinMoved { cause: Cause::Rotated, .. }]));
        assert_ne!(number(next.exit.id()), home);
        home = number(next.exit.id());
        assert_eq!(world.first("us-strict"), home);
    }
    let home = world.first("us-session-a");
    let (next, _) = world.rotate("us-session-a").unwrap();
    assert_eq!(next.before, Some(id(home)));
    assert_eq!(world.first("us-session-a"), number(next.exit.id()));
    assert_ne!(world.first("us-session-a"), home);
    (1..4).for_each(|n| world.kill(n));
    world.kill(0);
    world.revive(home);
    assert!(world.rotate("us-session-b").is_ok());
    assert_eq!(world.rotate("us-session-b").unwrap_err().why, Why::AllFailed, "there is no other");
}

#[test]
fn a_successor_changes_nothing_until_it_succeeds_and_then_once() {
    let mut world = World::new(&["US"; 8]);
    world.route("shop", "us", Policy { pool: 3, ..Policy::default() });
    let members = |world: &World| world.routes.get("shop").unwrap().pool.clone();
    for username in ["us-strict", "us-session-a", "shop", "us"] {
        let home = world.first(username);
        let next = world.ask(username, "shop.com:443", successor).unwrap();
        if username == "us-strict" || username == "us-session-a" {
            assert_eq!(next.before, Some(id(home)), "{username}");
            assert_eq!(world.first(username), home, "{username}: nothing has changed");
        }
        assert!(next.before_ip.is_some() && next.exit.ip() != next.before_ip, "{username}");
        assert!(username != "shop" || !members(&world).has(next.exit.id()), "not one that it has");
        // Another rotation is faster: the pin or session has moved already, and this successor comes too late.
        if world.rotate(username).unwrap().0.exit.id() != next.exit.id() {
            let late = world.ask(username, "shop.com:443", |view, memory, ask, _| succeed(view, memory, ask, &next));
            assert_eq!(late.is_none(), matches!(username, "us-strict" | "us-session-a"), "{username}");
        }
    }
}

#[test]
fn a_session_rotates_to_the_exit_that_hashing_picks_unless_its_address_is_the_same() {
    let mut world = World::new(&["US"; 6]);
    world.route("all", "us", Policy { pool: 6, ..Policy::default() });
    let home = world.first("all-session-a");
    let next = |world: &mut World| number(world.ask("all-session-a", "shop.com:443", successor).unwrap().exit.id());
    let there = next(&mut world);
    assert!((0..20).all(|_| next(&mut world) == there), "always the same exit");
    // Sites see the session's exit and that exit with the same address.
    world.learn(there, |known| {
        known.observed.clear();
        known.saw(ip(home), country("US"), START);
    });
    let others: BTreeSet<u16> = (0..50).map(|_| next(&mut world)).collect();
    assert!(!others.contains(&home) && !others.contains(&there), "{others:?}");
    // No rotation goes to an ejected exit.
    let open = *others.first().unwrap();
    (0..6).filter(|n| *n != open).for_each(|n| world.eject(n));
    assert!((0..20).all(|_| next(&mut world) == open));
}

#[test]
fn a_pool_rotates_to_no_ejected_exit_while_there_is_another() {
    let mut world = World::new(&["US"; 6]);
    world.route("one", "us", Policy { pool: 1, ..Policy::default() });
    let home = world.first("one");
    let open = (home + 1) % 6;
    (0..6).filter(|n| *n != home && *n != open).for_each(|n| world.eject(n));
    let next = |world: &mut World| world.ask("one", "shop.com:443", successor).map(|next| number(next.exit.id()));
    assert!((0..20).all(|_| next(&mut world).unwrap() == open));
    world.kill(open);
    assert!(next(&mut world).is_err(), "an ejected exit is no exit to rotate to");
}

#[test]
fn rotate_every_exchanges_pins_sessions_and_pools() {
    let mut world = World::new(&["US"; 12]);
    let policy = || Policy { pool: 3, rotate_every: Some(10 * MINUTE), ..Policy::default() };
    world.route("one", "us-strict", policy());
    world.route("some", "us", policy());
    let pool = |world: &World| {
        world.routes.get("some").unwrap().pool.members().iter().map(|m| number(m.id())).collect::<BTreeSet<_>>()
    };
    let (pin, session, members) = (world.first("one"), world.first("some-session-a"), pool(&world));
    world.pass(10 * MINUTE - SECOND);
    world.refresh();
    assert_eq!((world.first("one"), world.first("some-session-a"), pool(&world)), (pin, session, members.clone()));
    world.pass(SECOND);
    world.refresh();
    let plan = world.decide("one").unwrap();
    assert_ne!(number(plan.first().id()), pin);
    assert!(matches!(&plan.events[..], [Event::PinMoved { cause: Cause::Rotated, .. }]));
    let plan = world.decide("some-session-a").unwrap();
    assert_eq!(plan.moved.unwrap().cause, Cause::Expired);
    assert!(pool(&world).is_disjoint(&members));
    // If there is no other exit, a pin stays at its exit.
    let pin = world.first("one");
    (0..12).filter(|n| *n != pin).for_each(|n| world.kill(n));
    world.pass(20 * MINUTE);
    assert_eq!(world.first("one"), pin);
}

#[test]
fn rotate_every_exchanges_the_pools_of_narrowed_usernames() {
    let mut world = World::new(&["DE"; 8]);
    let policy = |pool| Policy { pool, rotate_every: Some(10 * MINUTE), ..Policy::default() };
    world.route("shop", "any", policy(2));
    let members = |world: &mut World| {
        world.first("shop-de");
        let pool = world.memory.implicit().list()[0].pool();
        pool.members().iter().map(|m| number(m.id())).collect::<BTreeSet<_>>()
    };
    let first = members(&mut world);
    world.pass(10 * MINUTE - SECOND);
    assert_eq!(members(&mut world), first);
    world.pass(SECOND);
    let second = members(&mut world);
    assert!(second.is_disjoint(&first), "{first:?} {second:?}");
    // The pool is exchanged as well if its username is not used for so long that the pool ends in between.
    world.pass(10 * MINUTE);
    world.tidy();
    assert!(world.memory.implicit().is_empty());
    world.pass(10 * MINUTE);
    let fourth = members(&mut world);
    assert_ne!(fourth, first);
    // Another policy with the same `rotate_every` exchanges nothing, also after a rotation on request.
    world.rotate("shop-de").unwrap();
    let rotated = members(&mut world);
    assert_ne!(rotated, fourth);
    world.route("shop", "any", policy(3));
    assert!(members(&mut world).is_superset(&rotated));
    // `tidy` exchanges a pool that nobody uses at the moment.
    let before = world.memory.implicit().list()[0].pool();
    world.pass(9 * MINUTE);
    world.first("shop-de");
    world.pass(MINUTE);
    world.tidy();
    assert!(before.members().iter().all(|member| !world.memory.implicit().list()[0].pool().has(member.id())));
}

#[test]
fn rotating_a_pool_exchanges_its_exits() {
    let mut world = World::new(&["US"; 9]);
    let pool = |world: &World| {
        world.memory.implicit().list()[0].pool().members().iter().map(|m| number(m.id())).collect::<BTreeSet<_>>()
    };
    world.first("us");
    let before = pool(&world);
    world.rotate("us").unwrap();
    assert!(pool(&world).is_disjoint(&before));
    world.route("shop", "us", Policy { pool: 3, ..Policy::default() });
    let of = |table: &RouteTable| table.get("shop").unwrap().pool.clone();
    let rotated = world.routes.rotated("shop", &world.catalog, world.now).unwrap();
    assert!(of(&rotated).members().iter().all(|member| !of(&world.routes).has(member.id())));
    assert_eq!(*of(&rotated.refreshed(&world.catalog, world.now)), *of(&rotated), "exchanged once");
}
