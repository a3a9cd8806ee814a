//! Tests of the meaning of usernames, and of which routes the table accepts.

use super::super::fixture::*;
use super::super::policy::Policy;
use super::super::selector::Mode;
use super::*;

fn route(name: &str, selector: &str, port: Option<u16>, origin: Origin) -> Route {
    let selector = Selector::parse(selector, &words()).unwrap();
    let name = RouteName::parse(name, &selector, &words()).unwrap();
    Route { name, selector, port, policy: Arc::default(), origin, created: START, expires: None }
}

fn table() -> RouteTable {
    let routes =
        [("us", "us"), ("us-strict", "us-strict"), ("shop", "nonus"), ("shop-two", "eu-rotate"), ("shop-two-b", "de")];
    routes.into_iter().zip(20_001..).fold(
        RouteTable::new(words(), Policy::default()),
        |mut table, ((name, selector), port)| {
            table.put(route(name, selector, Some(port), Origin::Config)).unwrap();
            table
        },
    )
}

#[test]
fn the_longest_name_wins_and_the_rest_narrows() {
    let table = table();
    for (username, label, selector, scope) in [
        ("us", "us", "us", "us"),
        ("US", "us", "us", "us"),
        ("us-strict", "us-strict", "us-strict", "us-strict"),
        ("us-strict-session-a", "us-strict", "us-strict-session-a", "us-strict"),
        ("us-session-A", "us", "us-session-A", "us"),
        ("us-asn-5-strict", "us", "us-strict-asn-5", "us-strict-asn-5"),
        ("shop", "shop", "nonus", "shop"),
        ("shop-session=dora-x@example.org", "shop", "nonus-session=dora-x@example.org", "shop"),
        ("us-session=shop-two-b", "us", "us-session=shop-two-b", "us"),
        ("shop-de-session-a-ttl-5m", "shop", "de-session-a-ttl-5m", "shop-de"),
        ("shop-two-fr", "shop-two", "fr-rotate", "shop-two-fr"),
        ("shop-two-b-strict", "shop-two-b", "de-strict", "shop-two-b-strict"),
        ("customer-acme-shop-strict", "shop", "nonus-strict", "shop-strict"),
        ("de", "implicit", "de", "de"),
        ("de-session-a-ttl-5m", "implicit", "de-session-a-ttl-5m", "de"),
        ("fr+de-strict-session-a", "implicit", "de+fr-strict-session-a", "de+fr-strict"),
        ("customer-acme-cc-de-sessid-a", "implicit", "de-session-a", "de"),
    ] {
        let wish = table.resolve(username, None).unwrap_or_else(|bad| panic!("{username}: {bad}"));
        let got = (wish.label(), wish.selector.to_string(), &*wish.scope);
        assert_eq!(got, (label, selector.to_owned(), scope), "{username}");
    }
}

#[test]
fn a_refusal_names_the_token() {
    let table = table();
    for (username, own, want) in [
        ("", None, "the username is empty"),
        ("us-", None, "a token is missing"),
        ("us-strict-", None, "a token is missing"),
        ("shop-us", None, "`us`: it asks for more than the route `shop` allows"),
        ("us-strict-rotate", None, "`rotate`: `strict` keeps one IP"),
        ("shopp", None, "no such keyword"),
        ("us-session-a-ttl-48h", None, "`ttl`: the longest time allowed here is 24h"),
        ("us", Some("shop"), "`us`: this port belongs to the route `shop`"),
        ("shop-two", Some("shop"), "`shop-two`: this port belongs to the route `shop`"),
        ("any", Some("shop"), "`any`: it asks for more than the route `shop` allows"),
        ("session", Some("shop"), "`session`: a value must follow it"),
    ] {
        let bad = table.resolve(username, own).expect_err(username).to_string();
        assert!(bad.contains(want), "{username}: {bad}");
    }
}

#[test]
fn a_username_can_keep_streams_further_apart_and_nothing_else() {
    use crate::route::{IsolateBy, Tenant};
    let host = target("shop.com:443").host;
    let other = target("other.com:443").host;
    let tenant = Tenant { key: "team", address: "10.0.0.1".parse().unwrap() };
    let mut table = table();
    let mut apart = route("apart", "us", None, Origin::Config);
    apart.policy = Arc::new(Policy { isolation: IsolateBy::Session, ..Policy::default() });
    table.put(apart).unwrap();
    let of = |username: &str, host| table.resolve(username, None).unwrap().isolation(tenant, host);
    let base = of("de", &host);
    for same in ["de-session-a", "de-session-b", "shop", "us-strict", "any-isolate-key"] {
        assert_eq!(of(same, &other), base, "{same}: one key");
    }
    for pair in [
        ["de-session-a-isolate-session", "de-session-b-isolate-session"],
        ["de-isolate-session", "fr-isolate-session"],
        ["apart-session-a", "apart-session-b"],
    ] {
        assert_ne!(of(pair[0], &host), of(pair[1], &host), "{pair:?}");
        assert_eq!(of(pair[0], &host), of(pair[0], &other), "{pair:?}");
        assert_ne!(of(pair[0], &host), base, "{pair:?}");
    }
    assert_eq!(of("apart-isolate-session", &host), of("apart", &host));
    assert_ne!(of("apart-isolate-target", &host), of("apart-isolate-target", &other));
    let refused = table.resolve("apart-isolate-key", None).unwrap_err().to_string();
    assert!(refused.contains("`key`: streams are kept apart by `session` here"), "{refused}");
    // The token `isolate` changes neither the exit nor the pin, so the scope stays the same.
    let scope = |username: &str| table.resolve(username, None).unwrap().scope;
    assert_eq!(scope("de-strict-isolate-target"), scope("de-strict"));
    assert_eq!(scope("shop-isolate-target"), scope("shop"));
}

#[test]
fn a_routes_own_selector_may_ask_for_less_than_the_default() {
    use crate::route::{IsolateBy, Tenant};
    let mut table = RouteTable::new(words(), Policy { isolation: IsolateBy::Session, ..Policy::default() });
    let mut shop = route("shop", "us-isolate-key", None, Origin::Config);
    shop.policy = Arc::new(Policy { isolation: IsolateBy::Session, ..Policy::default() });
    table.put(shop).unwrap();
    let tenant = Tenant { key: "team", address: "10.0.0.1".parse().unwrap() };
    let host = target("shop.com:443").host;
    let of = |username: &str| table.resolve(username, None).unwrap().isolation(tenant, &host);
    assert_ne!(of("shop-session-a"), of("shop-session-b"), "the policy counts");
    assert!(table.resolve("us-isolate-key", None).is_err(), "the default policy counts");
}

#[test]
fn at_its_own_port_a_route_needs_no_name() {
    let table = table();
    for (username, selector, scope) in [
        ("", "nonus", "shop"),
        ("session-a1", "nonus-session-a1", "shop"),
        ("session=dora-x", "nonus-session=dora-x", "shop"),
        ("sessid-a1-sesstime-5", "nonus-session-a1-ttl-5m", "shop"),
        ("de-strict", "de-strict", "shop-de-strict"),
        ("shop", "nonus", "shop"),
        ("shop-rotate", "nonus-rotate", "shop-rotate"),
        ("customer-acme-session-a", "nonus-session-a", "shop"),
    ] {
        let wish = table.resolve(username, Some("shop")).unwrap_or_else(|bad| panic!("{username}: {bad}"));
        assert_eq!(
            (wish.label(), wish.selector.to_string(), &*wish.scope),
            ("shop", selector.to_owned(), scope),
            "{username}"
        );
    }
}

#[test]
fn scopes_and_pools_are_shared_by_the_right_usernames() {
    let table = table();
    let of = |username: &str| table.resolve(username, None).unwrap();
    assert_eq!(of("de").scope, of("DE-session-x").scope);
    assert_ne!(of("de").scope, of("de-strict").scope);
    assert_eq!(of("de").pool, of("de-rotate").pool);
    assert_eq!(of("de-session-a").pool, of("de").pool);
    assert_ne!(of("de-asn-5").pool, of("de").pool);
    assert_eq!(of("shop-session-a").pool, None, "its own");
    assert_eq!(of("shop-strict").pool, None);
    assert_eq!(of("shop-de").pool, of("shop-de-session-a").pool);
    assert_ne!(of("shop-de").pool, of("de").pool, "another policy");
    assert_eq!(of("shop-two-session-a".trim_end_matches("-session-a")).selector.mode, Mode::Rotate);
}

#[test]
fn names_and_ports_are_given_once() {
    let table = table();
    let name = |text: &str| table.get(text).unwrap().route.name.clone();
    let mut next = table.clone();
    let mut put = |name: &str, port, origin| next.put(route(name, "de", Some(port), origin));
    assert_eq!(put("shop", 20_009, Origin::Api).unwrap_err(), Clash::Name(name("shop")));
    assert_eq!(put("new", 20_003, Origin::Api).unwrap_err(), Clash::Port { port: 20_003, route: name("shop") });
    put("new", 20_009, Origin::Api).unwrap();
    assert_eq!(next.by_port(20_009).unwrap().route.name.as_str(), "new");
    // The route is replaced. So its old port is free, and its new port is taken.
    next.put(route("shop", "de", Some(20_050), Origin::Config)).unwrap();
    assert!(next.by_port(20_003).is_none());
    assert_eq!(next.by_port(20_050).unwrap().route.selector.to_string(), "de");
    next.put(route("newer", "de", Some(20_003), Origin::Api)).unwrap();
    assert!(next.remove("newer") && !next.remove("newer"));
    assert!(next.by_port(20_003).is_none() && next.get("newer").is_none());
    assert_eq!((table.len(), next.len()), (5, 6), "the table before is as it was");
}

#[test]
fn a_session_time_is_bounded_by_the_routes_policy() {
    let mut world = World::new(&["US"]);
    let short = Policy { max_session_ttl: MINUTE, ..Policy::default() };
    world.route("brief", "us", short);
    assert!(world.routes.resolve("brief-session-a-ttl-60s", None).is_ok());
    assert!(world.routes.resolve("brief-session-a-ttl-61s", None).is_err());
}

/// Asserts that the counts of a refreshed table are equal to a new count of all its pools.
fn assert_counted(world: &World) {
    let mut counted = Uses::default();
    world.routes.iter().for_each(|entry| counted.count(&entry.pool));
    let of = |uses: &Uses| world.catalog.iter().map(|exit| uses.of(exit)).collect::<Vec<_>>();
    assert_eq!(of(world.routes.uses()), of(&counted));
}

#[test]
fn a_change_of_one_route_leaves_the_others_and_the_counts_right() {
    let mut world = World::new(&["US", "US", "US", "US", "US", "US", "DE", "DE"]);
    let two = || Policy { pool: 2, ..Policy::default() };
    world.route("one", "us", two());
    world.route("two", "us", two());
    let pool = |world: &World, name: &str| world.routes.get(name).unwrap().pool.clone();
    let one = pool(&world, "one");
    world.route("three", "us", two());
    assert!(Arc::ptr_eq(&one, &pool(&world, "one")));
    assert_eq!(pool(&world, "three").have(), 2, "the new one is filled though the catalog is the same");
    assert_counted(&world);
    assert!(world.catalog.iter().all(|exit| world.routes.uses().of(exit) <= 1), "with exits that no other pool used");
    world.route("two", "de", two());
    assert!(pool(&world, "two").members().iter().all(|member| [6, 7].contains(&number(member.id()))));
    assert_counted(&world);
    world.routes = world.routes.rotated("three", &world.catalog, world.now).unwrap();
    assert_counted(&world);
    assert!(world.routes.remove("one"));
    assert_counted(&world);
    world.kill(6);
    world.refresh();
    assert_eq!(pool(&world, "two").have(), 1, "every pool follows another catalog");
    assert_counted(&world);
}

#[test]
fn rotate_every_works_while_the_catalog_stays_the_same() {
    let mut world = World::new(&["US"; 8]);
    let every = Policy { pool: 2, rotate_every: Some(MINUTE), ..Policy::default() };
    world.route("rotating", "us", every.clone());
    world.route("still", "us", Policy { pool: 2, ..Policy::default() });
    let pools = |world: &World| ["rotating", "still"].map(|name| world.routes.get(name).unwrap().pool.clone());
    let before = pools(&world);
    world.pass(MINUTE);
    world.refresh();
    let after = pools(&world);
    assert!(before[0].members().iter().all(|member| !after[0].has(member.id())));
    assert!(Arc::ptr_eq(&before[1], &after[1]));
    assert_counted(&world);
    world.route("rotating", "us", Policy { rotate_every: None, ..every });
    let settled = pools(&world);
    world.pass(MINUTE * 3);
    world.refresh();
    assert!(Arc::ptr_eq(&settled[0], &pools(&world)[0]), "`rotate_every` was removed");
}
