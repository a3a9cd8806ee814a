//! Tests of connections without session or pin: how the members of a pool share the connections, what failures do, and
//! what empties the pool.

use super::*;

fn share(counts: &BTreeMap<u16, usize>, n: u16) -> f64 {
    counts.get(&n).copied().unwrap_or(0) as f64 / counts.values().sum::<usize>() as f64
}

/// Makes `count` connections, of which twenty are open at a time. A dial takes `latency(exit)` ms on average. Returns
/// how many connections each exit got.
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
            world.exit(n).load().succeeded(took, DialSpeed::Unknown, world.now);
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

/// A route with a pool of three addresses uses these three while they work, even if they are slow.
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
            world.exit(*exit).load().succeeded(SECOND, DialSpeed::Late, now);
        });
        assert!(world.exit(*exit).load().is_slow());
    }
    assert!((0..100).all(|_| seen.contains(&world.first("three"))));
}

/// Makes the dials of this exit so late that the exit is ejected as slow.
fn slow_down(world: &mut World, n: u16) {
    while !(world.exit(n).load().is_slow() && matches!(world.exit(n).load().state(world.now), State::Ejected(_))) {
        world.pass(SECOND / 5);
        world.exit(n).load().succeeded(SECOND, DialSpeed::Late, world.now);
    }
}

/// Ejects this exit and passes the time until its trial is due.
fn eject_until_due(world: &mut World, n: u16) {
    world.eject(n);
    while world.exit(n).load().state(world.now) != State::HalfOpen {
        world.pass(SECOND);
    }
}

/// Returns the exits of the plan of the next connection.
fn plan(world: &mut World, username: &str) -> Vec<u16> {
    world.decide(username).unwrap().exits.iter().map(|exit| number(exit.id())).collect()
}

fn members(world: &World, route: &str) -> Vec<u16> {
    world.routes.get(route).unwrap().pool.members().iter().map(|member| number(member.id())).collect()
}

#[test]
fn two_good_members_need_no_help() {
    let mut world = World::new(&["US"; 8]);
    world.route("three", "us", Policy { pool: 3, ..Policy::default() });
    let three = members(&world, "three");
    slow_down(&mut world, three[0]);
    let mut used = plan(&mut world, "three");
    used.sort_unstable();
    let mut good = three[1..].to_vec();
    good.sort_unstable();
    assert_eq!(used, good, "neither the slow member nor an exit outside the pool");
}

#[test]
fn slow_members_and_exits_outside_the_pool_leave_the_last_exit_its_place() {
    let mut world = World::new(&["US"; 12]);
    world.route("six", "us", Policy { pool: 6, ..Policy::default() });
    let six = members(&world, "six");
    let last = world.first("six-rotate");
    six.iter().filter(|n| **n != last).for_each(|n| slow_down(&mut world, *n));
    let used = plan(&mut world, "six-rotate");
    assert!(used.len() == 3 && used[2] == last && used[..2].iter().all(|n| six.contains(n)), "{used:?} after {last}");

    let mut world = World::new(&["US"; 12]);
    world.route("two", "us", Policy { pool: 2, ..Policy::default() });
    let last = world.first("two-rotate");
    members(&world, "two").iter().filter(|n| **n != last).for_each(|n| world.eject(*n));
    let used = plan(&mut world, "two-rotate");
    assert!(used.len() == 3 && used[2] == last, "{used:?} after {last}");
    let two = members(&world, "two");
    assert!(used[..2].iter().all(|n| !two.contains(n)), "a member that failed is not a slow one: {used:?} of {two:?}");
}

#[test]
fn a_slow_member_serves_only_where_it_may() {
    let mut world = World::new(&["US"; 8]);
    world.route("three", "us", Policy { pool: 3, ..Policy::default() });
    let three = members(&world, "three");
    three.iter().for_each(|n| slow_down(&mut world, *n));
    world.ban("shop.com", three[0], MINUTE);
    for _ in 0..50 {
        let used = plan(&mut world, "three");
        assert!(!used.contains(&three[0]) && used.iter().any(|n| three.contains(n)), "{used:?} of {three:?}");
    }
}

#[test]
fn slow_members_and_exits_outside_the_pool_leave_the_trial_its_place() {
    let mut world = World::new(&["US"; 12]);
    world.route("six", "us", Policy { pool: 6, ..Policy::default() });
    let six = members(&world, "six");
    eject_until_due(&mut world, six[0]);
    six[2..].iter().for_each(|n| slow_down(&mut world, *n));
    let used = plan(&mut world, "six");
    assert!(used.len() == 3 && used[..2] == six[..2], "the trial, the good member, a slow one: {used:?} of {six:?}");
    assert!(six.contains(&used[2]));

    let mut world = World::new(&["US"; 12]);
    world.route("two", "us", Policy { pool: 2, ..Policy::default() });
    let two = members(&world, "two");
    eject_until_due(&mut world, two[0]);
    let used = plan(&mut world, "two");
    assert!(used.len() == 3 && used[..2] == two[..], "{used:?} of {two:?}");
}

#[test]
fn of_a_large_pool_each_plan_has_three_good_exits_and_not_the_last() {
    let mut world = World::new(&["US"; 60]);
    world.route("forty", "us", Policy { pool: 40, ..Policy::default() });
    let forty = members(&world, "forty");
    forty[..12].iter().for_each(|n| world.eject(*n));
    let mut last = world.first("forty-rotate");
    for _ in 0..300 {
        let used = plan(&mut world, "forty-rotate");
        assert_eq!(used.iter().collect::<BTreeSet<_>>().len(), 3, "{used:?}");
        assert!(used.iter().all(|n| forty[12..].contains(n)), "an ejected exit, or none of the pool: {used:?}");
        assert!(!used.contains(&last), "{used:?} after {last}");
        last = used[0];
    }
}

/// An exit whose dials are late is ejected. After each ejection it gets only one trial.
#[test]
fn an_exit_that_is_late_each_time_gets_next_to_nothing() {
    let mut world = World::new(&["US"; 6]);
    world.route("six", "us", Policy { pool: 6, ..Policy::default() });
    let (mut slow, mut trials) = (0, Vec::new());
    for n in 0..10_000 {
        world.pass(Duration::from_millis(30));
        let exit = world.first("six");
        let (took, speed) = if exit == 2 { (90, DialSpeed::Late) } else { (30, DialSpeed::Kept) };
        world.exit(exit).load().succeeded(Duration::from_millis(took), speed, world.now);
        if exit == 2 {
            slow += 1;
            trials.push(n);
        }
    }
    assert!((6..=20).contains(&slow), "of 10,000 in five minutes: {trials:?}");
    world.pass(2 * MINUTE);
    assert_eq!(world.first("six"), 2, "its trial is due");
    world.exit(2).load().succeeded(Duration::from_millis(30), DialSpeed::Kept, world.now);
    assert!((0..100).any(|_| world.first("six") == 2), "it was fast, and takes part again");
}

#[test]
fn a_refusal_lists_a_few_unchecked_exits_and_the_same_ones_within_a_minute() {
    let mut world = World::new(&["US"; 40]);
    (0..40).for_each(|n| world.learn(n, |known| *known = crate::exit::Known::default()));
    let listed = |world: &mut World| world.decide("us").unwrap_err().untested;
    let first = listed(&mut world);
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 4, "{first:?}");
    world.pass(59 * SECOND);
    assert_eq!(listed(&mut world), first, "a request that is repeated waits for the same checks");
    world.pass(SECOND);
    assert_ne!(listed(&mut world), first);
    let often: usize = (0..100)
        .map(|_| {
            world.pass(MINUTE);
            listed(&mut world).iter().filter(|id| number(id) >= 36).count()
        })
        .sum();
    // Four of the forty exits are 10 % of them. The expected number is 40, with a standard deviation of 6.
    assert!((16..=64).contains(&often), "the listed exits are drawn at random: {often}");
    // Ten exits share each of four addresses.
    (0..40).for_each(|n| world.relist(n, |listing| listing.announced = vec![ip(n / 10)]));
    let announced: BTreeSet<_> =
        listed(&mut world).iter().map(|id| world.exit(number(id)).listing().announced[0]).collect();
    assert_eq!((announced.len(), listed(&mut world).len()), (4, 4));
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
    one.load().succeeded(Duration::from_millis(500), DialSpeed::Unknown, world.now);
    assert!((0..50).all(|_| !prefers(one, other, world.now, &mut rng)), "lower latency wins");
    let tunnels: Vec<_> = (0..9).map(|_| other.load().begin()).collect();
    assert!((0..50).all(|_| prefers(one, other, world.now, &mut rng)), "until load outweighs it");
    drop(tunnels);
}

#[test]
fn tunnels_count_by_the_capacity_that_they_take() {
    let mut world = World::new(&["US"; 2]);
    // These weights make capacities of 8,192 and 2,048. So the first exit should carry four times as many tunnels as
    // the second.
    world.weigh([7_192, 1_048]);
    let mut rng = SmallRng::seed_from_u64(1);
    let (large, small) = (world.exit(0), world.exit(1));
    let mut wins = |one: &Exit, other: &Exit| (0..400).filter(|_| prefers(one, other, world.now, &mut rng)).count();
    assert!((140..260).contains(&wins(large, small)), "without tunnels both are as good");
    let _one = small.load().begin();
    let mut tunnels: Vec<_> = (0..3).map(|_| large.load().begin()).collect();
    assert_eq!((wins(large, small), wins(small, large)), (400, 0), "three tunnels are less than a quarter of one");
    tunnels.push(large.load().begin());
    assert!((140..260).contains(&wins(large, small)), "four of four times the capacity are as many");
    tunnels.push(large.load().begin());
    assert_eq!((wins(large, small), wins(small, large)), (0, 400));
    tunnels.truncate(4);
    large.load().succeeded(Duration::from_millis(500), DialSpeed::Unknown, world.now);
    assert_eq!(wins(large, small), 0, "latency counts beside it");
}

#[test]
fn the_one_exit_of_many_that_is_not_ejected_is_found() {
    let mut world = World::new(&["US"; 60]);
    world.route("web", "us", Policy { pool: 1, ..Policy::default() });
    let member = number(world.routes.get("web").unwrap().pool.members()[0].id());
    world.relist(member, |listing| listing.policy = "accept 80,443".parse().unwrap());
    let open = (member + 1) % 60;
    (0..60).filter(|n| *n != open).for_each(|n| world.eject(n));
    assert!((0..20).all(|_| number(world.decide_to("web", "irc.net:6667").unwrap().first().id()) == open));
}

#[test]
fn exits_outside_the_pool_are_drawn_by_capacity() {
    let mut world = World::new(&["US"; 60]);
    // Of sixty exits, forty are small: together they have a tenth of the capacity.
    world.weigh((0..60).map(|n| if n % 3 == 0 { 36_768 } else { 1_048 }));
    let small = (0..1_000).filter(|_| world.first(&format!("us-exit-{}", id(1))) == 1).count();
    assert_eq!(small, 1_000, "an exit that was picked is that one");
    world.route("web", "us", Policy { pool: 2, ..Policy::default() });
    let pool: Vec<u16> = world.routes.get("web").unwrap().pool.members().iter().map(|m| number(m.id())).collect();
    for n in &pool {
        world.relist(*n, |listing| listing.policy = "accept 80,443".parse().unwrap());
    }
    let mut small = 0;
    for _ in 0..2_000 {
        let exit = number(world.decide_to("web", "irc.net:6667").unwrap().first().id());
        small += u32::from(!exit.is_multiple_of(3));
    }
    // The small exits have 11 % of the total capacity: 40 × 2,048 of 40 × 2,048 + 20 × 32,768. They get a few more than
    // 11 % of the connections, because eight exits are drawn, and a connection uses the better of two of them.
    assert!((180..560).contains(&small), "{small} of 2,000 went through small exits");
}

#[test]
fn nonus_is_never_the_us_nor_unknown() {
    let mut world = World::new(&["US", "??", "DE", "US", "FR", "??", "US", "US"]);
    world.learn(4, |known| known.saw(ip(99), country("US"), START));
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
fn an_ejected_exit_comes_back_after_one_good_trial() {
    let mut world = World::new(&["US"; 3]);
    world.eject(1);
    assert!((0..100).all(|_| world.first("us") != 1));
    let exits = world.decide("us").unwrap().exits;
    assert!(exits.iter().all(|exit| number(exit.id()) != 1));
    world.pass(11 * SECOND);
    assert_eq!(world.first("us"), 1, "the trial goes first");
    assert!((0..20).all(|_| world.first("us") != 1), "and there is one");
    let back = world.exit(1).load().succeeded(Duration::from_millis(50), DialSpeed::Unknown, world.now);
    assert_eq!(back, DialEffect::Back);
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

/// The last exit of a rotating username is the exit of its last connection, and not the exit that was tried first.
#[test]
fn rotate_repeats_no_exit_after_a_failure() {
    let mut world = World::new(&["US"; 2]);
    for _ in 0..20 {
        world.ask("us-rotate", "shop.com:443", |view, memory, ask, rng| {
            let mut plan = decide(view, memory, ask, rng).unwrap();
            let failed = plan.first().clone();
            let used = plan.fail_over(view, memory, ask).unwrap().clone();
            note_use(memory, ask.wish, ask.key, &used);
            let next = decide(view, memory, ask, rng).unwrap();
            assert_eq!(next.first().id(), failed.id());
        });
    }
}

#[test]
fn a_look_up_is_no_connection_of_a_rotating_username() {
    let mut world = World::new(&["US"; 2]);
    let mut before = world.first("us-rotate");
    for _ in 0..20 {
        world.ask("us-rotate", "exit.gate:443", |view, memory, ask, rng| {
            decide_look_up(view, memory, ask, rng).unwrap();
        });
        let next = world.first("us-rotate");
        assert_ne!(next, before);
        before = next;
    }
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
fn an_exit_that_failed_this_request_is_not_tried_again() {
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
fn hedging_follows_the_mode() {
    let mut world = World::new(&["US"; 4]);
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
