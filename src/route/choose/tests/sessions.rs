//! Tests of sessions: what moves a session to another exit, and what does not.

use super::*;

#[test]
fn a_session_stays_through_what_happens_to_others() {
    let mut world = World::new(&["US"; 6]);
    let home = world.first("us-session-a");
    for round in 0..200 {
        match round {
            50 => (20..40).for_each(|n| world.join(n, "US")),
            100 => (0..40).filter(|n| *n != home && *n < 6).for_each(|n| world.eject(n)),
            120 => world.eject(home),
            150 => world = world.restart(),
            170 => world.learn(home, |known| known.verdict = Verdict::Untested),
            _ => {}
        }
        world.pass(MINUTE);
        let plan = world.decide("us-session-a").unwrap();
        assert_eq!((number(plan.first().id()), plan.moved), (home, None), "round {round}");
    }
}

#[test]
fn two_gateways_put_a_session_on_the_same_exit() {
    // The two worlds have the same exits but different random numbers, like two gateways. Both must choose the
    // same exit for a session.
    let (mut one, mut other) = (World::new(&["US"; 9]), World::new(&["US"; 9]));
    let sessions = (0..50).map(|n| format!("us-session-s{n}"));
    let homes: Vec<_> = sessions.map(|name| (one.first(&name), other.first(&name))).collect();
    assert!(homes.iter().all(|(here, there)| here == there), "{homes:?}");
    assert!(homes.iter().any(|(here, _)| *here != homes[0].0), "every session is on one exit, so nothing was hashed");
}

#[test]
fn a_session_moves_only_for_a_reason_and_says_so() {
    type Change = fn(&mut World, u16);
    let changes: [(&str, Change, Cause); 7] = [
        ("gone", |world, n| world.kill(n), Cause::Down),
        ("tested and found bad", |world, n| world.learn(n, |known| known.verdict = Verdict::Bad), Cause::Down),
        ("left the directory", |world, n| world.learn(n, |known| known.marks.draining = true), Cause::Down),
        ("seen elsewhere", |world, n| world.learn(n, |known| known.saw(ip(90), country("DE"), START)), Cause::Down),
        ("banned", |world, n| world.ban("shop.com", n, MINUTE), Cause::Banned),
        ("time over", |world, _| world.pass(MINUTE), Cause::Expired),
        ("idle", |world, _| world.pass(Duration::ZERO), Cause::Expired),
    ];
    for (what, change, cause) in changes {
        let mut world = World::new(&["US"; 6]);
        let home = world.first("us-session-a-ttl-1m");
        change(&mut world, home);
        let plan = world.decide("us-session-a-ttl-1m").unwrap();
        if what == "idle" {
            assert_eq!((number(plan.first().id()), plan.moved), (home, None));
            continue;
        }
        let there = number(plan.first().id());
        assert_ne!(there, home, "{what}");
        assert_eq!(plan.moved, Some(Moved { from: id(home), to: id(there), cause }), "{what}");
        if cause != Cause::Expired {
            world.revive(home);
            world.bans = Bans::default();
        }
        let plan = world.decide("us-session-a-ttl-1m").unwrap();
        assert_eq!((number(plan.first().id()), plan.moved), (there, None), "{what}: it stays where it went");
    }
}

#[test]
fn an_idle_session_is_forgotten_and_a_busy_one_is_not() {
    let mut world = World::new(&["US"; 30]);
    let home = world.first("us-session-a");
    (0..10).for_each(|_| {
        world.pass(9 * MINUTE);
        assert_eq!(world.first("us-session-a"), home);
    });
    assert_eq!(world.memory.sessions().len(), 1);
    world.pass(9 * MINUTE);
    world.tidy();
    assert_eq!(world.memory.sessions().list(world.now).len(), 1);
    world.pass(11 * MINUTE);
    world.tidy();
    assert!(world.memory.sessions().is_empty());
}

#[test]
fn a_port_that_the_sessions_exit_refuses_takes_another_exit_and_moves_nothing() {
    let mut world = World::new(&["US"; 4]);
    let home = world.first("us-session-a");
    world.relist(home, |listing| listing.policy = "accept 80,443".parse().unwrap());
    let round: BTreeSet<u16> =
        (0..20).map(|_| number(world.decide_to("us-session-a", "irc.net:6667").unwrap().first().id())).collect();
    assert!(round.len() == 1 && !round.contains(&home), "always the same other exit: {round:?}");
    assert_eq!(world.first("us-session-a"), home);
}

#[test]
fn a_session_whose_dial_fails_moves_once_for_all() {
    let mut world = World::new(&["US"; 3]);
    let home = world.first("us-session-a");
    let (there, plan) = world.fail_over("us-session-a");
    let there = there.unwrap();
    assert_eq!(plan.moved, Some(Moved { from: id(home), to: id(there), cause: Cause::Failed }));
    assert_eq!(world.first("us-session-a"), there);
    // This connection chose the old exit before the session moved, and fails only now. It must follow the session.
    let (wish, target) = (world.wish("us-session-b"), target("shop.com:443"));
    let ask = Ask { wish: &wish, key: "", target: &target, now: world.now, avoid: &[], plain: false };
    let view = View { catalog: &world.catalog, routes: &world.routes, bans: &world.bans };
    let mut plans: Vec<Plan> = (0..3).map(|_| decide(view, &world.memory, &ask, &mut world.rng).unwrap()).collect();
    let home = plans[0].first().id().clone();
    plans[2].exits.swap(1, 2);
    let firsts: BTreeSet<ExitId> =
        plans.iter_mut().map(|plan| plan.fail_over(view, &world.memory, &ask).unwrap().id().clone()).collect();
    assert_eq!(firsts.len(), 1, "whatever each would have chosen");
    let left = |plan: &Plan| plan.exits.iter().map(|exit| exit.id().clone()).collect::<BTreeSet<_>>();
    assert!(plans.iter().all(|plan| plan.exits.len() == 2 && left(plan).len() == 2), "each has one more exit to try");
    assert!(plans.iter().all(|plan| plan.moved.as_ref().is_some_and(|moved| moved.from == home)));
}

#[test]
fn a_session_stays_if_its_exit_only_refuses_the_target() {
    let mut world = World::new(&["US"; 3]);
    let mut plan = world.decide("us-session-a").unwrap();
    let home = plan.first().id().clone();
    let other = plan.skip().unwrap().id().clone();
    assert!(other != home && plan.moved.is_none());
    assert_eq!(id(world.first("us-session-a")), home);
    while plan.skip().is_some() {}
    assert_eq!(plan.exits.len(), 1, "the last exit stays in the plan");
}

#[test]
fn a_session_whose_time_is_over_leaves_an_exit_that_is_the_whole_pool() {
    let mut world = World::new(&["US"; 6]);
    world.route("one", "us", Policy { pool: 1, ..Policy::default() });
    for n in 0..20 {
        let name = format!("one-session-s{n}-ttl-1m");
        let home = world.first(&name);
        let ejected: Vec<u16> = (0..6).filter(|n| *n != home).take(3).collect();
        ejected.iter().for_each(|n| world.eject(*n));
        world.pass(MINUTE);
        let plan = world.decide(&name).unwrap();
        let there = number(plan.first().id());
        assert!(there != home && !ejected.contains(&there), "from {home} to {there}, ejected: {ejected:?}");
        world.pass(60 * MINUTE);
        (0..6).for_each(|n| {
            (0..5).for_each(|_| _ = world.exit(n).load().succeeded(SECOND / 20, DialSpeed::Kept, world.now))
        });
    }
}

#[test]
fn two_that_renew_an_ended_session_get_one_exit() {
    let mut world = World::new(&["US"; 3]);
    world.route("all", "us", Policy { pool: 3, ..Policy::default() });
    let home = id(world.first("all-session-a"));
    world.pass(11 * MINUTE);
    let holder_of = |world: &mut World, exit: &ExitId| {
        let exit = exit.clone();
        world.ask("all-session-a", "shop.com:443", move |_, memory, ask, _| {
            let holder = HolderRef { key: "", scope: &ask.wish.scope, session: ask.wish.selector.session.as_ref() };
            let term = ask.wish.policy.session_term(&ask.wish.selector);
            memory.sessions().bind(holder, &exit, None, term, ask.now).exit
        })
    };
    let other = (0..3).map(id).find(|exit| *exit != home).unwrap();
    assert_eq!(holder_of(&mut world, &home), home, "the first renews it with its old exit");
    assert_eq!(holder_of(&mut world, &other), home, "the second gets that exit, whatever it proposes");
}

#[test]
fn an_exit_of_more_capacity_gets_more_sessions() {
    let mut world = World::new(&["US"; 4]);
    world.weigh([1_048, 3_096, 7_192, 15_384]); // capacities 2,048, 4,096, 8,192, 16,384
    world.route("all", "us", Policy { pool: 4, ..Policy::default() });
    let mut counts = [0; 4];
    (0..3_000).for_each(|n| counts[usize::from(world.first(&format!("all-session-s{n}")))] += 1);
    for (count, want) in counts.into_iter().zip([200i32, 400, 800, 1_600]) {
        // The standard deviation of each count is at most 27 sessions, so a difference of 110 is more than four
        // standard deviations.
        assert!((count - want).abs() < 110, "{counts:?}");
    }
    // Two exits change their weights by 5 % or less. The rounded capacities stay equal, so no session gets
    // another exit.
    let before: Vec<u16> = (0..200).map(|n| world.first(&format!("all-session-t{n}"))).collect();
    let mut after = World { routes: world.routes.clone(), ..world.restart() };
    after.memory = Memory::new(crate::route::memory::Bounds::default());
    after.weigh([1_100, 3_000]);
    assert_eq!((0..200).map(|n| after.first(&format!("all-session-t{n}"))).collect::<Vec<_>>(), before);
}

#[test]
fn a_session_whose_exit_dies_moves_to_the_second_exit_of_its_plan() {
    for n in 0..20 {
        let mut world = World::new(&["US"; 8]);
        world.weigh((0..8).map(|n| 3_000 * n));
        world.route("all", "us", Policy { pool: 8, ..Policy::default() });
        let plan = world.decide(&format!("all-session-s{n}")).unwrap();
        let [home, second, third] = [0, 1, 2].map(|place| number(plan.exits[place].id()));
        world.kill(home);
        world.kill(second);
        assert_eq!(world.first(&format!("all-session-s{n}")), third);
        world.revive(second);
        world.kill(third);
        assert_eq!(world.first(&format!("all-session-s{n}")), second);
    }
}

#[test]
fn a_session_stays_on_an_exit_that_the_directory_misses_and_nothing_new_goes_there() {
    let mut world = World::new(&["US"; 4]);
    world.route("all", "us", Policy { pool: 4, ..Policy::default() });
    let home = world.first("all-session-a");
    world.unlist(home);
    for _ in 0..30 {
        let plan = world.decide("all-session-a").unwrap();
        assert_eq!((number(plan.first().id()), &plan.moved), (home, &None));
        assert!(plan.exits[1..].iter().all(|exit| exit.id() != plan.first().id()));
    }
    assert!((0..60).all(|n| world.first(&format!("all-session-n{n}")) != home), "no new session");
    assert!((0..60).all(|_| world.first("all") != home), "no connection of the pool");
    assert!((0..30).all(|n| world.first(&format!("us-strict-session-p{n}")) != home), "no new pin");
    world.learn(home, |known| known.marks.draining = true);
    assert_eq!(world.decide("all-session-a").unwrap().moved.unwrap().cause, Cause::Down, "until it is given up");
}

#[test]
fn sessions_spread_over_the_pool_and_belong_to_key_and_route() {
    let mut world = World::new(&["US"; 8]);
    world.route("all", "us", Policy { pool: 8, ..Policy::default() });
    let mut counts = BTreeMap::new();
    (0..800).for_each(|n| *counts.entry(world.first(&format!("all-session-s{n}"))).or_insert(0) += 1);
    assert_eq!(counts.len(), 8);
    assert!(counts.values().all(|count| (60..140).contains(count)), "{counts:?}");
    let places = |key: &str, username: &str, world: &mut World| {
        let (wish, target) = (world.wish(username), target("shop.com:443"));
        let ask = Ask { wish: &wish, key, target: &target, now: world.now, avoid: &[], plain: false };
        let view = View { catalog: &world.catalog, routes: &world.routes, bans: &world.bans };
        number(decide(view, &world.memory, &ask, &mut world.rng).unwrap().first().id())
    };
    let of = |key: &str, world: &mut World| {
        (0..40).map(|n| places(key, &format!("all-session-s{n}"), world)).collect::<Vec<_>>()
    };
    assert_ne!(of("a", &mut world), of("b", &mut world));
    assert_eq!(of("a", &mut world), of("a", &mut world));
}
