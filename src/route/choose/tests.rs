//! The rules of choosing, one test a rule; and decisions against a slow reference that walks over everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Barrier;
use std::time::Duration;

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::super::balance::prefers;
use super::super::event::{Cause, Event, Moved};
use super::super::explain::Why;
use super::super::fixture::*;
use super::super::policy::Policy;
use super::*;
use crate::exit::Verdict;
use crate::exit::load::{Pace, Turn};
use crate::exit::policy::PortPolicy;

fn share(counts: &BTreeMap<u16, usize>, n: u16) -> f64 {
    counts.get(&n).copied().unwrap_or(0) as f64 / counts.values().sum::<usize>() as f64
}

/// So many connections, each lasting as long as twenty others take to come; dials take `latency(exit)` on average.
fn traffic(world: &mut World, username: &str, count: usize, latency: impl Fn(u16) -> u64) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    let mut open = std::collections::VecDeque::new();
    let mut rng = SmallRng::seed_from_u64(7);
    for _ in 0..count {
        world.pass(Duration::from_millis(5));
        let n = world.first(username);
        *counts.entry(n).or_default() += 1;
        let took = Duration::from_millis(latency(n) * rng.random_range(50..150) / 100);
        open.push_back((world.exit(n).load().begin(), n, took));
        if open.len() > 20 {
            let (tunnel, n, took) = open.pop_front().unwrap();
            world.exit(n).load().succeeded(took, Pace::Unknown, world.now);
            drop(tunnel);
        }
    }
    counts
}

#[test]
fn equal_exits_share_evenly() {
    let mut world = World::new(&["US", "US", "US", "US", "DE", "FR"]);
    world.route("three", "us", Policy { pool: 3, ..Policy::default() });
    let counts = traffic(&mut world, "three", 2000, |_| 60);
    assert_eq!(counts.len(), 3, "a pool of three is three exits: {counts:?}");
    for n in counts.keys() {
        assert!((share(&counts, *n) * 3.0 - 1.0).abs() < 0.15, "{counts:?}");
    }
}

#[test]
fn a_slow_exit_gets_far_less() {
    let mut world = World::new(&["US"; 6]);
    world.route("six", "us", Policy { pool: 6, ..Policy::default() });
    let counts = traffic(&mut world, "six", 3000, |n| if n == 2 { 3000 } else { 60 });
    assert!(share(&counts, 2) < 0.02, "{counts:?}");
    assert!((0..6).filter(|n| *n != 2).all(|n| share(&counts, n) > 0.12), "{counts:?}");
}

/// Whoever asked for three addresses gets these three while they work, however slow.
#[test]
fn slow_members_serve_before_exits_outside_the_pool() {
    let mut world = World::new(&["US"; 6]);
    world.route("three", "us", Policy { pool: 3, ..Policy::default() });
    let seen: BTreeSet<_> = (0..100).map(|_| world.first("three")).collect();
    assert_eq!(seen.len(), 3);
    for exit in &seen {
        world.pass(SECOND);
        (0..6).for_each(|n| {
            let now = world.now.after(SECOND / 5 * n);
            world.exit(*exit).load().succeeded(SECOND, Pace::Late, now);
        });
        assert!(world.exit(*exit).load().is_slow());
    }
    assert!((0..100).all(|_| seen.contains(&world.first("three"))));
}

/// A slow exit whose dials are seen to be late is out after a while of them but for trials, one each time that its while
/// is over.
#[test]
fn an_exit_that_is_late_each_time_gets_next_to_nothing() {
    let mut world = World::new(&["US"; 6]);
    world.route("six", "us", Policy { pool: 6, ..Policy::default() });
    let (mut slow, mut trials) = (0, Vec::new());
    for n in 0..10_000 {
        world.pass(Duration::from_millis(30));
        let exit = world.first("six");
        let (took, pace) = if exit == 2 { (90, Pace::Late) } else { (30, Pace::Kept) };
        world.exit(exit).load().succeeded(Duration::from_millis(took), pace, world.now);
        if exit == 2 {
            slow += 1;
            trials.push(n);
        }
    }
    assert!((6..=20).contains(&slow), "of 10,000 in five minutes: {trials:?}");
    world.pass(2 * MINUTE);
    assert_eq!(world.first("six"), 2, "its trial is due");
    world.exit(2).load().succeeded(Duration::from_millis(30), Pace::Kept, world.now);
    assert!((0..100).any(|_| world.first("six") == 2), "it was quick, and is one of them again");
}

#[test]
fn two_choices_follow_load_and_latency() {
    let world = World::new(&["US"; 2]);
    let mut rng = SmallRng::seed_from_u64(1);
    let (one, other) = (world.exit(0), world.exit(1));
    let wins = (0..1000).filter(|_| prefers(one, other, world.now, &mut rng)).count();
    assert!((400..600).contains(&wins), "equals toss a coin: {wins}");
    let tunnel = one.load().begin();
    assert!((0..50).all(|_| !prefers(one, other, world.now, &mut rng)), "fewer tunnels win");
    drop(tunnel);
    one.load().succeeded(Duration::from_millis(500), Pace::Unknown, world.now);
    assert!((0..50).all(|_| !prefers(one, other, world.now, &mut rng)), "lower latency wins");
    let tunnels: Vec<_> = (0..9).map(|_| other.load().begin()).collect();
    assert!((0..50).all(|_| prefers(one, other, world.now, &mut rng)), "until load outweighs it");
    drop(tunnels);
}

#[test]
fn nonus_is_never_the_us_nor_unknown() {
    let mut world = World::new(&["US", "??", "DE", "US", "FR", "??", "US", "US"]);
    world.learn(4, |known| known.saw(ip(99).into(), country("US"), START));
    for username in ["nonus", "nonus-rotate", "nonus-strict", "nonus-session-a", "nonus+fr-asn-3"] {
        let mut seen = BTreeSet::new();
        for round in 0..200 {
            if round == 100 {
                world.kill(2);
            }
            match world.decide(username) {
                Ok(plan) => seen.extend(plan.exits.iter().map(|exit| number(exit.id()))),
                Err(refusal) => assert!(round >= 100, "{username}: {refusal}"),
            }
        }
        world.revive(2);
        assert_eq!(seen, [2].into(), "{username}: an exit seen in two countries is in neither");
    }
}

#[test]
fn a_port_or_a_ban_that_empties_the_pool_reaches_beyond_it() {
    let mut world = World::new(&["US"; 6]);
    world.route("two", "us", Policy { pool: 2, ..Policy::default() });
    let pool: Vec<u16> = world.routes.get("two").unwrap().pool.members().iter().map(|m| number(m.id())).collect();
    for n in &pool {
        world.relist(*n, |listing| listing.policy = "accept 80,443".parse().unwrap());
    }
    let plan = world.decide_to("two", "irc.net:6667").unwrap();
    assert!(plan.exits.iter().all(|exit| !pool.contains(&number(exit.id()))));
    assert!(pool.contains(&world.first("two")));
    pool.iter().for_each(|n| world.ban("shop.com", *n, MINUTE));
    assert!(!pool.contains(&world.first("two")));
    assert!(pool.contains(&number(world.decide_to("two", "other.com:443").unwrap().first().id())), "only that site");
    world.pass(MINUTE);
    assert!(pool.contains(&world.first("two")), "bans end");
}

#[test]
fn an_ejected_exit_rests_and_comes_back_by_one_trial() {
    let mut world = World::new(&["US"; 3]);
    world.eject(1);
    assert!((0..100).all(|_| world.first("us") != 1));
    let exits = world.decide("us").unwrap().exits;
    assert!(exits.iter().all(|exit| number(exit.id()) != 1));
    world.pass(11 * SECOND);
    assert_eq!(world.first("us"), 1, "the trial leads");
    assert!((0..20).all(|_| world.first("us") != 1), "and is one");
    let back = world.exit(1).load().succeeded(Duration::from_millis(50), Pace::Unknown, world.now);
    assert_eq!(back, Turn::Back);
    assert!((0..20).all(|_| world.first("us") != 1), "its failures are remembered as slowness for a while");
    world.pass(30 * SECOND);
    assert!((0..100).any(|_| world.first("us") == 1));
}

#[test]
fn when_all_are_ejected_one_is_better_than_none() {
    let mut world = World::new(&["US"; 3]);
    (0..3).for_each(|n| world.eject(n));
    assert_eq!(world.decide("us").unwrap().exits.len(), 3);
    world.decide("us-session-a").unwrap();
}

#[test]
fn rotate_is_another_exit_each_time() {
    let mut world = World::new(&["US"; 4]);
    let seen: Vec<u16> = (0..300).map(|_| world.first("us-rotate")).collect();
    assert!(seen.windows(2).all(|pair| pair[0] != pair[1]));
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 3, "a pool of three");
    (1..4).for_each(|n| world.kill(n));
    assert_eq!((world.first("us-rotate"), world.first("us-rotate")), (0, 0), "the only one is better than none");
}

#[test]
fn a_pool_of_many_is_used_in_full() {
    let mut world = World::new(&["US"; 100]);
    world.route("many", "us", Policy { pool: 80, ..Policy::default() });
    let counts = traffic(&mut world, "many", 4000, |_| 60);
    assert_eq!(counts.len(), 80);
    assert!(counts.values().all(|count| (15..100).contains(count)), "{counts:?}");
}

#[test]
fn what_failed_this_request_is_not_tried_again() {
    let mut world = World::new(&["US"; 3]);
    let wish = world.wish("us");
    let (target, avoid) = (target("shop.com:80"), [id(0), id(2)]);
    let ask = Ask { wish: &wish, key: "", target: &target, now: world.now, avoid: &avoid, plain: false };
    let view = View { catalog: &world.catalog, routes: &world.routes, bans: &world.bans };
    let plan = decide(view, &world.memory, &ask, &mut world.rng).unwrap();
    assert_eq!(plan.exits.iter().map(|exit| number(exit.id())).collect::<Vec<_>>(), [1]);
    let avoid = [id(0), id(1), id(2)];
    let refusal = decide(view, &world.memory, &Ask { avoid: &avoid, ..ask }, &mut world.rng).unwrap_err();
    assert_eq!(refusal.why, Why::AllFailed);
}

#[test]
fn a_picked_exit_is_that_or_nothing() {
    let mut world = World::new(&["US", "US", "DE"]);
    let relay = id(1).to_string();
    assert_eq!(world.first(&format!("any-exit-{relay}")), 1);
    let plan = world.decide(&format!("any-exit-{}", ip(2))).unwrap();
    assert_eq!((number(plan.first().id()), plan.exits.len(), plan.hedge), (2, 1, false));
    assert_eq!(world.decide(&format!("de-exit-{relay}")).unwrap_err().why, Why::NoneMatch);
    world.kill(1);
    assert_eq!(world.decide(&format!("any-exit-{relay}-session-a")).unwrap_err().why, Why::NoneRunning);
}

#[test]
fn hedging_and_isolation_follow_the_mode() {
    let mut world = World::new(&["US"; 4]);
    let mut seen = BTreeSet::new();
    for (username, hedge, exits) in [
        ("us", true, 3),
        ("us-rotate", true, 3),
        ("us-session-a", false, 3),
        ("us-session-b", false, 3),
        ("us-strict", false, 1),
        ("us-strict-session-a", false, 1),
    ] {
        let plan = world.decide(username).unwrap();
        assert_eq!((plan.hedge, plan.exits.len()), (hedge, exits), "{username}");
        assert!(seen.insert(plan.isolation), "{username} shares circuits with another");
        assert_eq!(world.decide(username).unwrap().isolation, plan.isolation);
    }
}

#[test]
fn ipv6_targets_need_a_route_that_opted_in() {
    let mut world = World::new(&["US"]);
    world.relist(0, |listing| listing.policy_v6 = PortPolicy::accept_all());
    world.route("six", "us", Policy { ipv6: true, ..Policy::default() });
    assert_eq!(world.decide_to("us", "[2001:db8::1]:443").unwrap_err().why, Why::Ipv6);
    assert!(world.decide_to("six", "[2001:db8::1]:443").is_ok());
    world.relist(0, |listing| listing.policy_v6 = PortPolicy::reject_all());
    assert_eq!(world.decide_to("six", "[2001:db8::1]:443").unwrap_err().why, Why::PortRefused);
}

// Sessions.

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
    // Two worlds share nothing but facts; what one process draws at random must have no say.
    let (mut one, mut other) = (World::new(&["US"; 9]), World::new(&["US"; 9]));
    let sessions = (0..50).map(|n| format!("us-session-s{n}"));
    let homes: Vec<_> = sessions.map(|name| (one.first(&name), other.first(&name))).collect();
    assert!(homes.iter().all(|(here, there)| here == there), "{homes:?}");
    assert!(homes.iter().any(|(here, _)| *here != homes[0].0), "every session is on one exit: nothing was hashed");
}

#[test]
fn a_session_moves_only_for_a_reason_and_says_so() {
    type Blow = fn(&mut World, u16);
    let blows: [(&str, Blow, Cause); 7] = [
        ("gone", |world, n| world.kill(n), Cause::Down),
        ("tested and found bad", |world, n| world.learn(n, |known| known.verdict = Verdict::Bad), Cause::Down),
        ("left the directory", |world, n| world.learn(n, |known| known.marks.draining = true), Cause::Down),
        (
            "seen elsewhere",
            |world, n| world.learn(n, |known| known.saw(ip(90).into(), country("DE"), START)),
            Cause::Down,
        ),
        ("banned", |world, n| world.ban("shop.com", n, MINUTE), Cause::Banned),
        ("time over", |world, _| world.pass(MINUTE), Cause::Expired),
        ("idle", |world, _| world.pass(Duration::ZERO), Cause::Expired),
    ];
    for (what, blow, cause) in blows {
        let mut world = World::new(&["US"; 6]);
        let home = world.first("us-session-a-ttl-1m");
        blow(&mut world, home);
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
fn a_session_goes_round_a_port_that_its_exit_refuses_without_moving() {
    let mut world = World::new(&["US"; 4]);
    let home = world.first("us-session-a");
    world.relist(home, |listing| listing.policy = "accept 80,443".parse().unwrap());
    let round: BTreeSet<u16> =
        (0..20).map(|_| number(world.decide_to("us-session-a", "irc.net:6667").unwrap().first().id())).collect();
    assert!(round.len() == 1 && !round.contains(&home), "always the same other way: {round:?}");
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
    // A connection that had decided before, and fails on the old exit only now, follows.
    let (wish, target) = (world.wish("us-session-b"), target("shop.com:443"));
    let ask = Ask { wish: &wish, key: "", target: &target, now: world.now, avoid: &[], plain: false };
    let view = View { catalog: &world.catalog, routes: &world.routes, bans: &world.bans };
    let mut plans: Vec<Plan> = (0..3).map(|_| decide(view, &world.memory, &ask, &mut world.rng).unwrap()).collect();
    let home = plans[0].first().id().clone();
    plans[2].exits.swap(1, 2);
    let firsts: BTreeSet<ExitId> =
        plans.iter_mut().map(|plan| plan.fail_over(view, &world.memory, &ask).unwrap().id().clone()).collect();
    assert_eq!(firsts.len(), 1, "whatever each would have chosen");
    assert!(plans.iter().all(|plan| plan.moved.as_ref().is_some_and(|moved| moved.from == home)));
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

// Strict.

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
    // It comes back in time: nothing has happened.
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
fn a_pin_without_repin_waits_for_ever() {
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
fn what_else_takes_a_pinned_exit_down() {
    type Blow = fn(&mut World, u16);
    let blows: [(&str, Blow); 5] = [
        ("another address", |world, n| {
            world.learn(n, |known| {
                known.observed.clear();
                known.saw(ip(77).into(), country("US"), START);
            });
        }),
        ("several addresses", |world, n| world.learn(n, |known| known.saw(ip(77).into(), country("US"), START))),
        ("a bad verdict", |world, n| world.learn(n, |known| known.verdict = Verdict::Bad)),
        ("caught tampering", |world, n| world.learn(n, |known| known.marks.bad_for_good = true)),
        ("another country", |world, n| world.learn(n, |known| known.saw(ip(n).into(), country("DE"), START))),
    ];
    for (what, blow) in blows {
        let mut world = World::new(&["US"; 3]);
        let home = world.first("us-strict");
        blow(&mut world, home);
        assert!(matches!(world.decide("us-strict").unwrap_err().why, Why::PinDown { .. }), "{what}");
        world.pass(10 * MINUTE);
        assert_ne!(world.first("us-strict"), home, "{what}");
    }
    let mut world = World::new(&["US"; 3]);
    let home = world.first("us-strict");
    world.learn(home, |known| known.verdict = Verdict::Untested);
    world.eject(home);
    world.ban("shop.com", home, MINUTE);
    assert_eq!(world.first("us-strict"), home, "an overdue check, a full exit and a ban break no promise");
    world.relist(home, |listing| listing.policy = "accept 80".parse().unwrap());
    assert_eq!(world.decide("us-strict").unwrap_err().why, Why::PinPort { exit: id(home) });
}

#[test]
fn another_exit_behind_the_same_address_takes_over_at_once() {
    let mut world = World::new(&["US", "DE", "DE"]);
    assert_eq!(world.first("us-strict"), 0);
    world.join(7, "US");
    world.learn(7, |known| {
        known.observed.clear();
        known.saw(ip(0).into(), country("US"), START);
    });
    world.kill(0);
    let plan = world.decide("us-strict").unwrap();
    assert_eq!((number(plan.first().id()), plan.first().v4()), (7, Some(ip(0))));
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
    assert_eq!(world.first("us-strict-session-x"), shared, "what is somebody's alone is not shared");
    assert_eq!((world.first("shop-a"), world.first("shop-b")), (a, b));
    // A rotation with nowhere to go changes nothing.
    assert_eq!(world.rotate("shop-a").unwrap_err().why, Why::Exclusive);
    assert_eq!(world.first("shop-a"), a);
    world.join(9, "US");
    assert_eq!(world.first("shop-d"), 9);
    let refusal = world.decide("shop-c").unwrap_err();
    assert!(refusal.funnel.to_string().ends_with("4 with one IP -> 0 not taken"), "{}", refusal.funnel);
}

#[test]
fn strict_wants_one_address() {
    let mut world = World::new(&["US", "US"]);
    world.learn(0, |known| known.saw(ip(50).into(), country("US"), START));
    assert!((0..20).all(|n| world.first(&format!("us-strict-session-s{n}")) == 1));
    world.learn(1, |known| known.observed.clear());
    assert_eq!(world.decide("us-strict-session-new").unwrap_err().why, Why::NoneDistinct);
    assert!(world.decide("us").is_ok(), "flexible may use what is left");
}

#[test]
fn rotation_is_another_address_and_an_event() {
    let mut world = World::new(&["US"; 4]);
    let mut home = world.first("us-strict");
    for _ in 0..10 {
        let (next, rotated) = world.rotate("us-strict").unwrap();
        assert_eq!((&next.before, next.before_ip), (&Some(id(home)), Some(ip(home).into())));
        assert!(matches!(&rotated.events[..], [Event::PinMoved { cause: Cause::Rotated, .. }]));
        assert_ne!(number(next.exit.id()), home);
        home = number(next.exit.id());
        assert_eq!(world.first("us-strict"), home);
    }
    let home = world.first("us-session-a");
    let (next, rotated) = world.rotate("us-session-a").unwrap();
    assert_eq!(rotated.moved.as_ref().map(|moved| (moved.from.clone(), moved.cause)), Some((id(home), Cause::Rotated)));
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
        // Somebody else rotates first: a pin and a session have moved, and this successor comes too late.
        if world.rotate(username).unwrap().0.exit.id() != next.exit.id() {
            let late = world.ask(username, "shop.com:443", |view, memory, ask, _| succeed(view, memory, ask, &next));
            assert_eq!(late.is_none(), matches!(username, "us-strict" | "us-session-a"), "{username}");
        }
    }
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
    // With nobody else left a pin stays where it is.
    let pin = world.first("one");
    (0..12).filter(|n| *n != pin).for_each(|n| world.kill(n));
    world.pass(20 * MINUTE);
    assert_eq!(world.first("one"), pin);
}

#[test]
fn turning_a_pool_exchanges_its_exits() {
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
    let turned = world.routes.turned("shop", &world.catalog, world.now).unwrap();
    assert!(of(&turned).members().iter().all(|member| !of(&world.routes).has(member.id())));
    assert_eq!(*of(&turned.refreshed(&world.catalog, world.now)), *of(&turned), "turned once");
}

// A thousand at once.

fn at_once(world: &World, usernames: impl Fn(usize) -> String + Sync) -> Vec<(usize, ExitId)> {
    const THREADS: usize = 50;
    let (barrier, usernames) = (Barrier::new(THREADS), &usernames);
    let run = |thread: usize, barrier: &Barrier| {
        let mut rng = SmallRng::seed_from_u64(thread as u64);
        barrier.wait();
        let one = |n: usize| {
            let (wish, target) = (world.wish(&usernames(n)), target("shop.com:443"));
            let ask = Ask { wish: &wish, key: "team", target: &target, now: world.now, avoid: &[], plain: false };
            let plan = decide(world.view(), &world.memory, &ask, &mut rng).unwrap();
            (n, plan.first().id().clone())
        };
        (0..20).map(one).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn({
                    let barrier = &barrier;
                    move || run(thread, barrier)
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn a_thousand_first_uses_are_one_exit() {
    for username in ["us-session-a", "us-strict", "us-strict-session-a"] {
        let world = World::new(&["US"; 100]);
        let exits: BTreeSet<_> = at_once(&world, |_| username.to_owned()).into_iter().map(|(_, exit)| exit).collect();
        assert_eq!(exits.len(), 1, "{username}");
        let puts = world.memory.changes().len();
        assert_eq!(puts, 1, "{username}: and one thing to write down");
    }
}

#[test]
fn a_thousand_first_uses_of_exclusive_pins_share_no_address() {
    let mut world = World::new(&["US"; 20]);
    (0..20)
        .for_each(|n| world.route(&format!("shop-{n}"), "us-strict", Policy { exclusive: true, ..Policy::default() }));
    let pairs: BTreeSet<_> = at_once(&world, |n| format!("shop-{n}")).into_iter().collect();
    let exits: BTreeSet<_> = pairs.iter().map(|(_, exit)| exit).collect();
    assert_eq!((pairs.len(), exits.len()), (20, 20), "twenty routes, twenty exits, one each");
}

// Against the slow reference.

#[derive(Clone, Debug)]
struct Planted {
    code: &'static str,
    ip: u16,
    several: bool,
    verdict: Verdict,
    running: bool,
    policy: &'static str,
    banned: bool,
    passes: bool,
}

fn planted() -> impl Strategy<Value = Planted> {
    let code = prop::sample::select(vec!["US", "US", "DE", "FR", "??"]);
    let policy = prop::sample::select(vec!["accept 1-65535", "accept 80,443", "accept 22"]);
    let verdict =
        prop::sample::select(vec![Verdict::Good, Verdict::Good, Verdict::Good, Verdict::Bad, Verdict::Untested]);
    let odds = (prop::bool::weighted(0.1), prop::bool::weighted(0.9), prop::bool::weighted(0.2), any::<bool>());
    (code, 0u16..12, policy, verdict, odds).prop_map(
        |(code, ip, policy, verdict, (several, running, banned, passes))| Planted {
            code,
            ip,
            several,
            verdict,
            running,
            policy,
            banned,
            passes,
        },
    )
}

fn plant(exits: &[Planted]) -> World {
    let mut world = World::new(&[]);
    let mut edit = world.catalog.edit();
    for (n, planted) in (0..).zip(exits) {
        let mut listing = listing(n, planted.code);
        listing.policy = planted.policy.parse().unwrap();
        listing.flags.running = planted.running;
        edit.list(listing);
        edit.learn(&id(n), |known| {
            known.saw(ip(500 + planted.ip).into(), country(planted.code), START);
            if planted.several {
                known.saw(ip(600 + n).into(), country(planted.code), START);
            }
            known.verdict = planted.verdict;
            known.passed.extend(planted.passes.then(|| "steam".into()));
        });
    }
    world.catalog = edit.finish();
    (0..).zip(exits).filter(|(_, planted)| planted.banned).for_each(|(n, _)| world.ban("shop.com", n, MINUTE));
    world.route("steam", "nonfr", Policy { pool: 2, check: Some("steam".into()), ..Policy::default() });
    world
}

/// What DESIGN-level words say, exit by exit.
fn allowed(exits: &[Planted], username: &str, port: u16) -> BTreeSet<u16> {
    let fits = |n: u16, exit: &Planted| {
        let place = match username.split('-').next().unwrap() {
            "any" => true,
            "us" => exit.code == "US",
            "nonus" => !["US", "??"].contains(&exit.code),
            "eu" => ["DE", "FR"].contains(&exit.code),
            "steam" => exit.passes && !["FR", "??"].contains(&exit.code),
            other => panic!("{other}"),
        };
        let asn = !username.contains("asn-2") || n % 5 + 1 == 2;
        let port = match exit.policy {
            "accept 80,443" => [80, 443].contains(&port),
            "accept 22" => port == 22,
            _ => true,
        };
        let one = !username.contains("strict") || !exit.several;
        place && asn && port && one && exit.running && exit.verdict == Verdict::Good && !exit.banned
    };
    (0..).zip(exits).filter(|(n, exit)| fits(*n, exit)).map(|(n, _)| n).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_decision_is_what_a_walk_allows(
        exits in prop::collection::vec(planted(), 0..40),
        port in prop::sample::select(vec![443u16, 22, 6667]),
    ) {
        let mut world = plant(&exits);
        for username in [
            "any", "us", "nonus", "eu", "steam", "us-asn-2", "steam-asn-2", "us-rotate",
            "nonus-session-a", "steam-session-a", "any-strict", "nonus-strict", "steam-strict-session-b",
        ] {
            let allowed = allowed(&exits, username, port);
            let to = format!("shop.com:{port}");
            let why = world.explain(username, &to).why;
            match world.decide_to(username, &to) {
                Ok(plan) => {
                    let chosen: Vec<u16> = plan.exits.iter().map(|exit| number(exit.id())).collect();
                    prop_assert!(chosen.iter().all(|n| allowed.contains(n)), "{} chose {:?} of {:?}", username, chosen, allowed);
                    let unique: BTreeSet<_> = chosen.iter().collect();
                    prop_assert_eq!(unique.len(), chosen.len());
                    prop_assert!((1..=3).contains(&chosen.len()));
                    prop_assert_eq!(why, None);
                }
                Err(refusal) => {
                    prop_assert!(allowed.is_empty(), "{}: {}, and {:?} would do", username, refusal, allowed);
                    prop_assert_eq!(Some(refusal.why), why);
                }
            }
        }
    }
}
