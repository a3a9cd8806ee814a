//! Tests of pools against a slow reference, and of what leaves pools unchanged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::super::fixture::*;
use super::*;
use crate::exit::{Listing, Verdict};

fn pool(world: &World, route: &str) -> Vec<u16> {
    world.routes.get(route).unwrap().pool.members().iter().map(|member| number(member.id())).collect()
}

fn policy(pool: u16) -> Policy {
    Policy { pool, ..Policy::default() }
}

#[test]
fn members_have_an_ip_each() {
    let mut world = World::new(&["US"; 12]);
    // The twelve exits have only three different IPs.
    for n in 0..12 {
        world.learn(n, |known| {
            known.observed.clear();
            known.saw(ip(100 + n % 3), country("US"), START);
        });
    }
    world.route("shop", "us", policy(8));
    let pool = &world.routes.get("shop").unwrap().pool;
    assert_eq!((pool.wanted(), pool.have(), pool.unique_ips()), (8, 3, 3));
}

#[test]
fn an_exit_with_several_ips_fills_a_place_only_if_no_other_can() {
    let mut world = World::new(&["US"; 3]);
    world.learn(1, |known| known.saw(ip(50), country("US"), START));
    world.route("shop", "us", policy(3));
    let found = &world.routes.get("shop").unwrap().pool;
    assert_eq!((found.have(), found.unique_ips()), (3, 2));
    world.join(8, "US");
    let found = &world.routes.get("shop").unwrap().pool;
    assert_eq!((found.have(), found.unique_ips()), (3, 3));
    assert!(!found.has(&id(1)));
}

#[test]
fn a_member_leaves_only_if_it_must_and_is_replaced() {
    let mut world = World::new(&["US"; 20]);
    world.route("shop", "us", policy(5));
    let before = pool(&world, "shop");
    let kept = world.routes.get("shop").unwrap().pool.clone();
    (20..40).for_each(|n| world.join(n, "US"));
    world.eject(before[0]);
    world.learn(before[1], |known| known.latency = Some(Duration::from_secs(4)));
    world.refresh();
    assert!(Arc::ptr_eq(&kept, &world.routes.get("shop").unwrap().pool), "the very same");
    world.kill(before[2]);
    let after = pool(&world, "shop");
    assert_eq!(after.len(), 5);
    assert_eq!(after[..4], [before[0], before[1], before[3], before[4]]);
    assert!(!before.contains(&after[4]));
}

#[test]
fn members_that_still_fit_a_changed_route_stay() {
    let mut world = World::new(&["US", "DE", "US", "DE", "US", "DE"]);
    world.route("shop", "us+de", policy(4));
    let before = pool(&world, "shop");
    world.route("shop", "us", policy(4));
    let stayed: Vec<u16> = before.iter().copied().filter(|n| n % 2 == 0).collect();
    assert_eq!(pool(&world, "shop")[..stayed.len()], stayed[..]);
    assert_eq!(pool(&world, "shop").len(), 3);
}

#[test]
fn routes_spread_over_exits() {
    let mut world = World::new(&["US"; 60]);
    (0..30).for_each(|n| world.route(&format!("shop-{n}"), "us", policy(6)));
    let mut uses = BTreeMap::new();
    (0..30).for_each(|n| pool(&world, &format!("shop-{n}")).into_iter().for_each(|n| *uses.entry(n).or_insert(0) += 1));
    assert_eq!(uses.len(), 60);
    assert!(uses.values().all(|count| (2..=4).contains(count)), "180 places on 60 exits: {uses:?}");
}

#[test]
fn fast_exits_and_exits_for_the_web_come_early() {
    let mut world = World::new(&["US"; 40]);
    for n in 0..40 {
        world.learn(n, |known| known.latency = Some(Duration::from_millis(if n < 20 { 100 } else { 4000 })));
        if n % 4 == 0 {
            world.relist(n, |listing| listing.policy = "accept 22,80".parse().unwrap());
        }
    }
    let mut slow = 0;
    for n in 0..40 {
        let mut alone = World { routes: world.routes.clone(), ..world.restart() };
        alone.route(&format!("shop-{n}"), "us", policy(5));
        let members = pool(&alone, &format!("shop-{n}"));
        assert!(members.iter().all(|n| n % 4 != 0), "thirty others take 443");
        slow += members.iter().filter(|n| **n >= 20).count();
    }
    assert!((1..40).contains(&slow), "a slow one now and then: {slow} of 200");
}

/// Returns consensus weights like those of the public Tor network: many small exits and some large ones.
fn weights(count: u32) -> Vec<u32> {
    let mut weights: Vec<u32> =
        (0..count).map(|n| (300.0 * 1.023f64.powf(f64::from(n * 300 / count))) as u32).collect();
    // Shuffles the weights, always in the same way.
    weights.sort_by_key(|weight| crate::exit::capacity::stir(1, u64::from(*weight)));
    weights
}

#[test]
fn pools_take_exits_by_capacity() {
    let weights = weights(1_500);
    let mut world = World::new(&["US"; 1_500]);
    world.weigh(weights.iter().copied());
    (0..60).for_each(|n| world.route(&format!("shop-{n}"), "us", policy(8)));
    let members: Vec<u16> = (0..60).flat_map(|n| pool(&world, &format!("shop-{n}"))).collect();
    let mut order: Vec<usize> = (0..1_500).collect();
    order.sort_by_key(|n| weights[*n]);
    let whole: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    for decile in order.chunks(150) {
        let capacity: f64 = decile.iter().map(|n| f64::from(weights[*n])).sum::<f64>() / whole;
        let share = members.iter().filter(|n| decile.contains(&usize::from(**n))).count() as f64 / 480.0;
        // The smallest tenth of the exits has only 0.1 % of the capacity, which is less than one of 480 places. So the
        // limit allows one percentage point more than twice the share of the capacity.
        assert!(share < 2.0 * capacity + 0.01, "{share:.3} of places, {capacity:.3} of the capacity");
    }
    let slower_half = members.iter().filter(|n| order[..750].contains(&usize::from(**n))).count();
    assert!(
        (1..60).contains(&slower_half),
        "exits of which little is known are used now and then: {slower_half} of 480"
    );
}

#[test]
fn an_exit_counts_as_used_by_what_its_capacity_allows() {
    // The capacities are 16,384 (three exits) and 131,072 (one exit), so the mean is 45,056.
    let mut world = World::new(&["US"; 4]);
    world.weigh([15_384, 15_384, 15_384, 130_072]);
    let uses = |world: &World, n: u16| {
        let routes = world.routes.iter();
        routes.filter(|entry| entry.pool.has(&id(n))).count()
    };
    (0..40).for_each(|n| world.route(&format!("shop-{n}"), "us", policy(1)));
    let counts = [0, 1, 2, 3].map(|n| uses(&world, n));
    // The large exit has 8 of 11 parts of the capacity: 29 of 40 places.
    assert!((26..=32).contains(&counts[3]) && counts[..3].iter().all(|count| (2..=6).contains(count)), "{counts:?}");
}

#[test]
fn many_pools_do_not_fall_back_to_small_exits() {
    // Half of the exits are small: they have a seventeenth of the capacity.
    let mut world = World::new(&["US"; 200]);
    world.weigh((0..200).map(|n| if n % 2 == 0 { 1_048 } else { 31_768 }));
    (0..300).for_each(|n| world.route(&format!("shop-{n}"), "us", policy(4)));
    let members = (0..300).flat_map(|n| pool(&world, &format!("shop-{n}")));
    let mut uses = BTreeMap::new();
    members.for_each(|n| *uses.entry(n).or_insert(0) += 1);
    let small: usize = uses.iter().filter(|(n, _)| **n % 2 == 0).map(|(_, count)| count).sum();
    // By capacity, the small exits would get 1,200 × 2,048 / (2,048 + 32,768) = 71 places, and each large exit 11.3.
    assert!((40..142).contains(&small), "{small} of 1,200 places went to small exits");
    let most = uses.values().max().copied();
    assert!(most <= Some(13), "pools spread over the large exits: {most:?}");
}

#[test]
fn a_pool_that_is_filled_anew_gets_mostly_the_same_exits() {
    let mut world = World::new(&["US"; 300]);
    world.weigh(weights(300));
    let fill = |world: &World| -> Vec<BTreeSet<u16>> {
        let pools = (0..40).map(|n| {
            let mut alone = world.restart();
            alone.route(&format!("shop-{n}"), "us", policy(8));
            pool(&alone, &format!("shop-{n}")).into_iter().collect()
        });
        pools.collect()
    };
    let before = fill(&world);
    assert_eq!(fill(&world), before, "slots do not matter");
    // Six exits vanish, six come, and all weights change by up to 3 %.
    (0..6).for_each(|n| world.kill(n * 50));
    (300..306).for_each(|n| world.join(n, "US"));
    let changed = weights(300).into_iter().enumerate().map(|(n, weight)| weight + weight * (n as u32 % 4) / 100);
    let changed: Vec<u32> = changed.collect();
    let mut edit = world.catalog.edit();
    for (n, weight) in (0..).zip(changed) {
        edit.list(Listing { weight, ..(**world.exit(n).listing()).clone() });
    }
    world.catalog = edit.finish();
    let after = fill(&world);
    let kept: usize = before.iter().zip(&after).map(|(before, after)| before.intersection(after).count()).sum();
    assert!(kept >= 320 * 85 / 100, "{kept} of 320 members are the same");
}

#[test]
fn a_member_that_the_directory_misses_keeps_its_place_until_it_is_given_up() {
    let mut world = World::new(&["US"; 20]);
    world.route("shop", "us", policy(5));
    let before = pool(&world, "shop");
    world.unlist(before[2]);
    assert_eq!(pool(&world, "shop"), before);
    world.route("other", "us", policy(19));
    assert!(!pool(&world, "other").contains(&before[2]), "no new pool takes it");
    world.learn(before[2], |known| known.marks.draining = true);
    let after = pool(&world, "shop");
    assert_eq!(after[..4], [before[0], before[1], before[3], before[4]]);
    assert_eq!(after.len(), 5);
}

#[test]
fn sources_serve_in_order() {
    let mut world = World::new(&[]);
    let mut edit = world.catalog.edit();
    for n in 0..6u16 {
        let mut listing = listing(n, "US");
        if n >= 2 {
            let addr = (ip(n), 1080).into();
            listing.id =
                ExitId::Public(Arc::new(crate::exit::PublicId { protocol: crate::exit::Protocol::Socks5, addr }));
        }
        edit.list(listing.clone());
        edit.learn(&listing.id, |known| {
            known.saw(ip(n), country("US"), START);
            known.verdict = Verdict::Good;
        });
    }
    world.catalog = edit.finish();
    let count = |world: &World, route: &str| {
        let pool = &world.routes.get(route).unwrap().pool;
        let tor = pool.members().iter().filter(|member| member.id().source() == Source::Tor).count();
        (tor, pool.have() - tor)
    };
    let mixed = Policy { pool: 4, sources: vec![Source::Tor, Source::Public], ..Policy::default() };
    let fallback = Policy { fallback: true, ..mixed.clone() };
    let other = Policy { sources: vec![Source::Public, Source::Tor], ..mixed.clone() };
    world.route("tor-only", "us", policy(4));
    world.route("mixed", "us-source-any", mixed);
    world.route("fallback", "us-source-any", fallback);
    world.route("other", "us-source-any", other);
    assert_eq!(
        ["tor-only", "mixed", "fallback", "other"].map(|route| count(&world, route)),
        [(2, 0), (2, 2), (2, 0), (0, 4)]
    );
    (0..2).for_each(|n| world.kill(n));
    assert_eq!(
        ["tor-only", "mixed", "fallback", "other"].map(|route| count(&world, route)),
        [(0, 0), (0, 4), (0, 4), (0, 4)]
    );
    assert_eq!(world.decide("fallback").unwrap().first().id().source(), Source::Public);
    world.revive(0);
    assert_eq!(count(&world, "fallback"), (1, 0), "the first source serves again as soon as it can");
    assert_eq!(world.decide("fallback").unwrap().exits.len(), 1, "and nothing else does");

    // A verdict that is too old lets the next source serve. Sessions and pins stay.
    let usernames = ["fallback-session-a", "fallback-strict"];
    let exits = |world: &mut World| usernames.map(|username| world.decide(username).unwrap().first().id().clone());
    let homes = exits(&mut world);
    assert!(homes.iter().all(|home| home.source() == Source::Tor), "{homes:?}");
    world.learn(0, |known| known.verdict = Verdict::Untested);
    assert_eq!(world.decide("fallback").unwrap().first().id().source(), Source::Public);
    assert_eq!(exits(&mut world), homes);
}

#[derive(Clone, Debug)]
enum Change {
    Join(u16, u16),
    Kill(u16),
    Revive(u16),
    Verdict(u16, bool),
    Several(u16),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0u16..40, 0u16..15).prop_map(|(n, ip)| Change::Join(n, ip)),
        2 => (0u16..40).prop_map(Change::Kill),
        2 => (0u16..40).prop_map(Change::Revive),
        2 => (0u16..40, any::<bool>()).prop_map(|(n, good)| Change::Verdict(n, good)),
        1 => (0u16..40).prop_map(Change::Several),
    ]
}

fn apply(world: &mut World, change: &Change) {
    let (Change::Join(n, _) | Change::Kill(n) | Change::Revive(n) | Change::Verdict(n, _) | Change::Several(n)) =
        *change;
    if world.catalog.get(&id(n)).is_none() && !matches!(change, Change::Join(..)) {
        return;
    }
    match *change {
        Change::Join(n, at) => {
            let mut edit = world.catalog.edit();
            edit.list(listing(n, if n % 3 == 0 { "DE" } else { "US" }));
            edit.learn(&id(n), |known| {
                known.observed.clear();
                known.saw(ip(200 + at), country(if n % 3 == 0 { "DE" } else { "US" }), START);
                known.verdict = Verdict::Good;
            });
            world.catalog = edit.finish();
            world.refresh();
        }
        Change::Kill(n) => world.kill(n),
        Change::Revive(n) => world.revive(n),
        Change::Verdict(n, good) => {
            world.learn(n, |known| known.verdict = if good { Verdict::Good } else { Verdict::Bad })
        }
        Change::Several(n) => world.learn(n, |known| known.saw(ip(300 + n), country("US"), START)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn any_history_leaves_a_pool_that_is_right_and_stable(changes in prop::collection::vec(change(), 0..60), wanted in 1u16..10) {
        let mut world = World::new(&[]);
        world.route("shop", "us", policy(wanted));
        for change in &changes {
            let before = world.routes.get("shop").unwrap().pool.clone();
            apply(&mut world, change);
            let pool = world.routes.get("shop").unwrap().pool.clone();
            let good: Vec<_> = world.catalog.iter().filter(|exit| exit.usable() && exit.country() == country("US")).collect();
            let member = |exit: &&&Arc<Exit>| pool.has(exit.id());
            prop_assert_eq!(good.iter().filter(member).count(), pool.have(), "every member would do");
            let ips = |exits: &[&Arc<Exit>]| exits.iter().filter(|exit| exit.distinct()).filter_map(|exit| exit.ip()).collect::<BTreeSet<IpAddr>>();
            let members: Vec<_> = good.iter().copied().filter(|exit| pool.has(exit.id())).collect();
            let distinct = members.iter().filter(|exit| exit.distinct()).count();
            prop_assert_eq!(ips(&members).len(), distinct, "an IP each");
            prop_assert_eq!(pool.unique_ips(), distinct);
            prop_assert_eq!(distinct, ips(&good).len().min(usize::from(wanted)), "as many as there are");
            let several = good.len() - good.iter().filter(|exit| exit.distinct()).count();
            prop_assert_eq!(pool.have() - distinct, several.min(usize::from(wanted) - distinct), "others only where those end");
            for old in before.members() {
                let still = old.exit(&world.catalog).is_some_and(|exit| exit.usable() && exit.distinct() && exit.country() == country("US"));
                // A member that is still suitable may leave the pool for only one reason: it now has the same IP as
                // another member.
                let shared = old.exit(&world.catalog).is_some_and(|exit| members.iter().any(|m| m.ip() == exit.ip() && m.id() != exit.id()));
                prop_assert!(!still || shared || pool.has(old.id()), "{:?} moved {}", change, old.id());
            }
        }
    }
}
