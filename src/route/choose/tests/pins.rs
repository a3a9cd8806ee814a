//! Tests of pins: how long a pin lasts, and which other pins may use its address.

use super::*;

#[test]
fn a_pin_holds_until_its_exit_has_been_down_for_long_enough() {
    let mut world = World::new(&["US"; 5]);
    world.route("shop", "us-strict", Policy { repin_after: Some(10 * MINUTE), ..Policy::default() });
    let plan = world.decide("shop").unwrap();
    assert!(matches!(&plan.events[..], [Event::PinMade { .. }]));
    let home = number(plan.first().id());
    world.kill(home);
    world.pass(SECOND);
    let refusal = world.decide("shop").unwrap_err();
    let since = world.now;
    let repin_at = Some(since.after(10 * MINUTE));
    assert_eq!(refusal.why, Why::PinDown { exit: id(home), ip: ip(home), since, repin_at });
    // The exit comes back before `repin_after` (10 minutes) is over, so the pin does not move.
    world.pass(9 * MINUTE);
    world.revive(home);
    assert_eq!(world.first("shop"), home);
    world.kill(home);
    world.tidy();
    world.pass(9 * MINUTE);
    assert!(matches!(world.decide("shop").unwrap_err().why, Why::PinDown { .. }), "the clock began anew");
    world.pass(MINUTE);
    let plan = world.decide("shop").unwrap();
    let there = number(plan.first().id());
    assert_ne!(there, home);
    match &plan.events[..] {
        [Event::PinMoved { from, to, cause: Cause::Down, .. }] => assert_eq!((from.ip, to.ip), (ip(home), ip(there))),
        other => panic!("{other:?}"),
    }
    world.revive(home);
    assert_eq!(world.first("shop"), there, "it does not go back");
}

#[test]
fn a_pin_that_never_moves_waits_for_its_exit() {
    let mut world = World::new(&["US"; 3]);
    world.route("shop", "us-strict", Policy { repin_after: None, ..Policy::default() });
    let home = world.first("shop");
    world.kill(home);
    for _ in 0..20 {
        world.pass(24 * 60 * MINUTE);
        assert!(matches!(world.decide("shop").unwrap_err().why, Why::PinDown { repin_at: None, .. }));
    }
    world.revive(home);
    assert_eq!(world.first("shop"), home);
}

#[test]
fn what_else_counts_as_a_pinned_exit_being_down() {
    type Change = fn(&mut World, u16);
    let changes: [(&str, Change); 5] = [
        ("another address", |world, n| {
            world.learn(n, |known| {
                known.observed.clear();
                known.saw(ip(77), country("US"), START);
            });
        }),
        ("several addresses", |world, n| world.learn(n, |known| known.saw(ip(77), country("US"), START))),
        ("a bad verdict", |world, n| world.learn(n, |known| known.verdict = Verdict::Bad)),
        ("caught tampering", |world, n| world.learn(n, |known| known.marks.bad_for_good = true)),
        ("another country", |world, n| world.learn(n, |known| known.saw(ip(n), country("DE"), START))),
    ];
    for (what, change) in changes {
        let mut world = World::new(&["US"; 3]);
        let home = world.first("us-strict");
        change(&mut world, home);
        assert!(matches!(world.decide("us-strict").unwrap_err().why, Why::PinDown { .. }), "{what}");
        world.tidy();
        world.pass(180 * MINUTE - SECOND);
        assert!(world.decide("us-strict").is_err(), "{what}: three hours are not over");
        world.tidy();
        world.pass(SECOND);
        assert_ne!(world.first("us-strict"), home, "{what}");
    }
    let mut world = World::new(&["US"; 3]);
    let home = world.first("us-strict");
    world.learn(home, |known| known.verdict = Verdict::Untested);
    world.eject(home);
    assert_eq!(world.first("us-strict"), home, "an overdue check and an ejection leave the pin alone");
    world.relist(home, |listing| listing.policy = "accept 80".parse().unwrap());
    assert_eq!(world.decide("us-strict").unwrap_err().why, Why::PinPort { exit: id(home) });
}

#[test]
fn a_pin_stays_on_an_exit_that_the_directory_misses_for_as_long_as_on_one_that_is_down() {
    let mut world = World::new(&["US"; 5]);
    let home = world.first("us-strict");
    world.unlist(home);
    let since = world.now;
    world.tidy();
    world.pass(180 * MINUTE - SECOND);
    assert_eq!(world.first("us-strict"), home, "its circuits may serve");
    // Now the exit drains (gets no new connections), so it no longer serves its pin. The nearly three hours in which it
    // was missing from the directory count as down time.
    world.learn(home, |known| known.marks.draining = true);
    world.tidy();
    let repin_at = Some(since.after(180 * MINUTE));
    let why = Why::PinDown { exit: id(home), ip: ip(home), since, repin_at };
    assert_eq!(world.explain("us-strict", "shop.com:443").why.as_ref(), Some(&why));
    assert_eq!(world.decide("us-strict").unwrap_err().why, why);
    world.pass(SECOND);
    let plan = world.decide("us-strict").unwrap();
    assert_ne!(number(plan.first().id()), home);
    assert!(matches!(&plan.events[..], [Event::PinMoved { cause: Cause::Down, .. }]));

    let mut world = World::new(&["US"; 5]);
    world.route("quick", "us-strict", Policy { repin_after: Some(MINUTE), ..Policy::default() });
    world.route("never", "us-strict", Policy { repin_after: None, ..Policy::default() });
    let (quick, never) = (world.first("quick"), world.first("never"));
    world.unlist(quick);
    world.unlist(never);
    world.pass(MINUTE - SECOND);
    assert_eq!((world.first("quick"), world.first("never")), (quick, never));
    world.pass(SECOND);
    assert_ne!(world.first("quick"), quick, "a route that waits for a minute waits for a minute");
    world.pass(600 * MINUTE);
    assert_eq!(world.first("never"), never);
    // This exit goes down first and vanishes from the directory later. It counts as down since it went down.
    let mut world = World::new(&["US"; 5]);
    let home = world.first("us-strict");
    world.kill(home);
    world.tidy();
    let since = world.now;
    world.pass(MINUTE);
    world.unlist(home);
    assert!(matches!(world.decide("us-strict").unwrap_err().why, Why::PinDown { since: at, .. } if at == since));
}

#[test]
fn new_pins_go_to_stable_exits_of_much_capacity() {
    let mut world = World::new(&["US"; 60]);
    // Every third exit is not stable. Half of the exits have sixteen times the capacity of the other half.
    for n in 0..60 {
        world.relist(n, |listing| listing.flags.stable = n % 3 > 0);
    }
    world.weigh((0..60).map(|n| if n % 2 == 0 { 31_768 } else { 1_048 }));
    let home = |world: &mut World, n: u32| {
        let home = world.first(&format!("us-strict-session-s{n}"));
        world.memory.pins().forget(|_, _| true, world.now);
        home
    };
    let homes: Vec<u16> = (0..400).map(|n| home(&mut world, n)).collect();
    assert!(homes.iter().all(|n| n % 3 > 0), "an exit that is often down is no home for weeks");
    let small = homes.iter().filter(|n| *n % 2 == 1).count();
    // The small stable exits have 6 % of the capacity of all stable exits: 20 × 2,048 of 20 × 2,048 + 20 × 32,768. They
    // get a few more than 6 % of the pins, because four exits are drawn, and a pin uses the best of them.
    assert!((4..80).contains(&small), "{small} of 400");
    // A pin uses an exit that is not stable if every stable exit has an address that another pin uses already.
    let all: BTreeSet<u16> = (0..60).map(|n| world.first(&format!("us-strict-session-t{n}"))).collect();
    assert_eq!(all.len(), 60);
}

#[test]
fn a_new_pin_takes_no_ejected_exit_while_there_is_another() {
    for n in 0..20 {
        let mut world = World::new(&["US"; 3]);
        world.eject(0);
        world.eject(1);
        assert_eq!(world.first(&format!("us-strict-session-s{n}")), 2);
        world.kill(2);
        assert_ne!(world.first(&format!("us-strict-session-t{n}")), 2, "an ejected exit is better than none");
    }
}

#[test]
fn a_banned_pin_is_an_error_that_says_until_when_and_what_to_do() {
    let mut world = World::new(&["US"; 4]);
    world.route("shop", "us-strict", Policy::default());
    let home = world.first("shop");
    world.ban("shop.com", home, MINUTE);
    let refusal = world.decide("shop").unwrap_err();
    let said = refusal.to_string();
    let until = world.now.after(MINUTE);
    assert!(matches!(&refusal.why, Why::PinBanned { exit, until: said, .. } if *exit == id(home) && *said == until));
    for part in [&ip(home).to_string(), "shop.com", &until.to_string(), "exitgate routes rotate shop"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let elsewhere = world.decide_to("shop", "other.com:443").unwrap();
    assert_eq!(number(elsewhere.first().id()), home, "other sites are not affected");
    assert!(world.decide("shop").is_err(), "and the pin has not moved");
    let mut rotated = World { routes: world.routes.clone(), ..world.restart() };
    let (next, _) = rotated.rotate("shop").unwrap();
    assert_eq!(rotated.first("shop"), number(next.exit.id()), "rotation helps");
    world.pass(MINUTE);
    assert_eq!(world.first("shop"), home, "so does waiting");
}

#[test]
fn another_exit_behind_the_same_address_takes_over_at_once() {
    let mut world = World::new(&["US", "DE", "DE"]);
    assert_eq!(world.first("us-strict"), 0);
    world.join(7, "US");
    world.learn(7, |known| {
        known.observed.clear();
        known.saw(ip(0), country("US"), START);
    });
    world.kill(0);
    let plan = world.decide("us-strict").unwrap();
    assert_eq!((number(plan.first().id()), plan.first().pinnable()), (7, Some(ip(0))));
    assert!(matches!(&plan.events[..], [Event::PinMoved { from, to, .. }] if from.ip == to.ip));
}

#[test]
fn pins_outlive_routes_and_restarts_and_end_unused() {
    let mut world = World::new(&["US"; 50]);
    let names: Vec<String> = (0..20).map(|n| format!("us-strict-session-s{n}")).collect();
    let homes: Vec<u16> = names.iter().map(|name| world.first(name)).collect();
    assert_eq!(homes.iter().collect::<BTreeSet<_>>().len(), 20, "a new pin prefers an address that no other uses");
    for days in [1, 29, 29] {
        world.pass(days * 24 * 60 * MINUTE);
        world.tidy();
        world = world.restart();
        assert_eq!(names.iter().map(|name| world.first(name)).collect::<Vec<_>>(), homes);
    }
    world.pass(30 * 24 * 60 * MINUTE);
    let ended = world.tidy();
    assert_eq!(ended.len(), 20);
    assert!(ended.iter().all(|event| matches!(event, Event::PinEnded { evicted: false, .. })));
    assert!(world.memory.pins().is_empty() && homes.iter().all(|n| world.memory.pins().uses(ip(*n)) == 0));
}

#[test]
fn new_pins_take_every_free_address_before_they_share() {
    let mut world = World::new(&["US"; 200]);
    let mut seen = BTreeMap::new();
    (0..400).for_each(|n| *seen.entry(world.first(&format!("us-strict-session-s{n}"))).or_insert(0) += 1);
    assert_eq!(seen.len(), 200);
    assert!(seen.values().all(|count| (1..5).contains(count)), "{seen:?}");
}

#[test]
fn an_exclusive_pin_is_alone_or_not_at_all() {
    let mut world = World::new(&["US"; 3]);
    let exclusive = || Policy { exclusive: true, ..Policy::default() };
    for name in ["a", "b", "c", "d"] {
        world.route(&format!("shop-{name}"), "us-strict", exclusive());
    }
    let shared = world.first("us-strict");
    let (a, b) = (world.first("shop-a"), world.first("shop-b"));
    assert_eq!([a, b, shared].iter().collect::<BTreeSet<_>>().len(), 3);
    let refusal = world.decide("shop-c").unwrap_err();
    assert_eq!(refusal.why, Why::Exclusive);
    assert_eq!(world.first("us-strict-session-x"), shared, "an exclusive address is not shared");
    assert_eq!((world.first("shop-a"), world.first("shop-b")), (a, b));
    // If there is no other exit, a rotation changes nothing.
    assert_eq!(world.rotate("shop-a").unwrap_err().why, Why::Exclusive);
    assert_eq!(world.first("shop-a"), a);
    world.join(9, "US");
    assert_eq!(world.first("shop-d"), 9);
    let refusal = world.decide("shop-c").unwrap_err();
    assert!(
        refusal.funnel.to_string().ends_with("4 with one known IP -> 0 with an IP free for this pin"),
        "{}",
        refusal.funnel
    );
}

#[test]
fn a_strict_route_needs_an_exit_with_one_address() {
    let mut world = World::new(&["US", "US"]);
    world.learn(0, |known| known.saw(ip(50), country("US"), START));
    assert!((0..20).all(|n| world.first(&format!("us-strict-session-s{n}")) == 1));
    world.learn(1, |known| known.observed.clear());
    assert_eq!(world.decide("us-strict-session-new").unwrap_err().why, Why::NoneDistinct);
    assert!(world.decide("us").is_ok(), "flexible may use what is left");
}
