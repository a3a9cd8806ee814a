//! Tests of pools against a slow reference, and of what leaves pools unchanged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::super::fixture::*;
use super::*;
use crate::exit::Verdict;

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
            known.saw(ip(100 + n % 3).into(), country("US"), START);
        });
    }
    world.route("shop", "us", policy(8));
    let pool = &world.routes.get("shop").unwrap().pool;
    assert_eq!((pool.wanted(), pool.have(), pool.unique_ips()), (8, 3, 3));
}

#[test]
fn an_exit_with_several_ips_fills_a_place_only_if_no_other_can() {
    let mut world = World::new(&["US"; 3]);
    world.learn(1, |known| known.saw(ip(50).into(), country("US"), START));
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
            known.saw(ip(n).into(), country("US"), START);
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
                known.saw(ip(200 + at).into(), country(if n % 3 == 0 { "DE" } else { "US" }), START);
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
        Change::Several(n) => world.learn(n, |known| known.saw(ip(300 + n).into(), country("US"), START)),
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
                // A member may leave for only one other reason: it has the same IP as another member.
                let shared = old.exit(&world.catalog).is_some_and(|exit| members.iter().any(|m| m.ip() == exit.ip() && m.id() != exit.id()));
                prop_assert!(!still || shared || pool.has(old.id()), "{:?} moved {}", change, old.id());
            }
        }
    }
}
