//! Tests of the token `source-…` after the name of a route, and of look-ups of names.

use super::*;

/// Relays 0 to 3 and the public proxies 4 to 7, all in the US.
fn world() -> World {
    let mut world = World::new(&["US"; 4]);
    (4..8).for_each(|n| world.join_public(n, "US"));
    world
}

fn listed(sources: &[Source]) -> Policy {
    Policy { pool: 4, sources: sources.to_vec(), ..Policy::default() }
}

fn sources(world: &mut World, username: &str) -> BTreeSet<&'static str> {
    let plans: Vec<_> =
        (0..50).map(|_| world.decide(username).unwrap_or_else(|why| panic!("{username}: {why}"))).collect();
    plans.iter().flat_map(|plan| &plan.exits).map(|exit| exit.id().source().as_str()).collect()
}

#[test]
fn a_source_token_chooses_among_the_sources_that_the_route_lists() {
    let mut world = world();
    world.route("shop", "us", listed(&[Source::Tor, Source::Public]));
    for tail in ["", "-rotate", "-strict", "-session-a"] {
        assert_eq!(sources(&mut world, &format!("shop-source-public{tail}")), ["public"].into(), "{tail}");
        assert_eq!(sources(&mut world, &format!("shop-source-tor{tail}")), ["tor"].into(), "{tail}");
    }
    let refused = world.routes.resolve("shop-source-direct", None).unwrap_err().to_string();
    assert!(refused.contains("`source`: it asks for more than the route `shop` allows"), "{refused}");
    world.route("proxies", "us", listed(&[Source::Public]));
    assert!(world.routes.resolve("proxies-source-tor", None).is_err());
    assert!(world.routes.resolve("proxies-source-any", None).is_err());
    assert_eq!(sources(&mut world, "proxies-source-public"), ["public"].into());
}

#[test]
fn usernames_with_other_sources_share_neither_pool_nor_pin() {
    let mut world = world();
    world.route("shop", "any", listed(&[Source::Tor, Source::Public]));
    let of = |username: &str| world.wish(username);
    let names = ["shop-us", "shop-us-source-tor", "shop-us-source-public", "shop-source-tor", "shop-source-public"];
    let pools: BTreeSet<_> = names.iter().map(|name| of(name).pool.expect(name)).collect();
    assert_eq!(pools.len(), names.len(), "{pools:?}");
    let scopes: BTreeSet<_> = names.iter().map(|name| of(name).scope).collect();
    assert_eq!(scopes.into_iter().collect::<Vec<_>>().len(), names.len());
    for name in names {
        assert_eq!(*of(name).scope, *name, "the scope is a username with the same meaning");
    }
    let whole = of("shop-source-any");
    assert_eq!((&*whole.scope, whole.pool, whole.selector), ("shop", None, of("shop").selector), "nothing is narrowed");
}

#[test]
fn a_token_for_two_of_three_sources_keeps_their_order() {
    let mut world = world();
    let policy = Policy { fallback: true, ..listed(&[Source::Direct, Source::Public, Source::Tor]) };
    world.route("shop", "us", policy);
    let wish = world.wish("shop-source-any");
    assert_eq!(wish.policy.sources(&wish.selector), [Source::Public, Source::Tor]);
    assert_eq!(sources(&mut world, "shop-source-any"), ["public"].into());
    let direct = world.wish("shop-source-direct");
    assert_eq!(direct.policy.sources(&direct.selector), [Source::Direct]);
}

#[test]
fn a_look_up_uses_relays_if_the_username_allows_them() {
    let mut world = world();
    let first = |world: &mut World, username: &str| {
        let plan = world.ask(username, "exit.gate:443", decide_look_up);
        plan.map(|plan| plan.exits.iter().map(|exit| exit.id().source()).collect::<Vec<_>>())
    };
    // This route prefers public proxies, so its pool has proxies only. A look-up of a name needs a relay, so it uses a
    // relay outside the pool.
    world.route("proxies-first", "us", listed(&[Source::Public, Source::Tor]));
    let fallback = Policy { fallback: true, ..listed(&[Source::Public, Source::Tor]) };
    world.route("proxies-only", "us", fallback);
    for _ in 0..20 {
        for username in ["us-source-any", "us-source-any-rotate", "proxies-first", "proxies-first-rotate"] {
            let sources = first(&mut world, username).unwrap();
            assert!(sources.iter().all(|source| *source == Source::Tor), "{username}: {sources:?}");
        }
        // `fallback` allows relays only while there is no proxy.
        for username in ["us-source-public", "proxies-only"] {
            let sources = first(&mut world, username).unwrap();
            assert!(sources.iter().all(|source| *source == Source::Public), "{username}: {sources:?}");
        }
    }
    // A route without Tor has no relay for a look-up.
    world.route("no-tor", "us", listed(&[Source::Direct, Source::Public]));
    // The exit of a session is the same, whether its first use is a look-up or a connection.
    for n in 0..20 {
        assert_eq!(first(&mut world, "no-tor").unwrap()[0], Source::Public);
        let session = format!("proxies-first-session-s{n}");
        let before = world.ask(&session, "exit.gate:443", decide_look_up).unwrap().first().id().clone();
        assert_eq!(before.source(), Source::Public, "the pool has proxies only");
        assert_eq!(*world.decide(&session).unwrap().first().id(), before);
    }
    // If no relay can serve, the choice is that of a connection.
    (0..4).for_each(|n| world.kill(n));
    assert_eq!(first(&mut world, "us-source-any").unwrap()[0], Source::Public);
    assert_eq!(first(&mut world, "us").unwrap_err().why, Why::NoneRunning);
}

#[test]
fn an_upstream_source_serves_under_its_name_and_in_its_place_of_the_list() {
    let mut world = world();
    let acme = crate::exit::UpstreamName::configured("acme").unwrap();
    world.join_upstream(8, acme, "US");
    assert_eq!(sources(&mut world, "us-source-acme"), ["acme"].into());
    assert!(!sources(&mut world, "us-source-any").contains("acme"), "`any` never spends money");
    assert!(world.decide("de-source-acme").is_err());
    assert!(world.routes.resolve("us-source-acne", None).is_err());
    let relay = format!("us-exit-{}-source-acme", "0".repeat(40));
    assert!(world.routes.resolve(&relay, None).is_err(), "a fingerprint names a relay");
    world.route("dear-last", "us", Policy { fallback: true, ..listed(&[Source::Tor, Source::Upstream(acme)]) });
    world.route("dear-first", "us", Policy { fallback: true, ..listed(&[Source::Upstream(acme), Source::Tor]) });
    assert_eq!(sources(&mut world, "dear-last"), ["tor"].into());
    assert_eq!(sources(&mut world, "dear-first"), ["acme"].into());
    assert_eq!(sources(&mut world, "dear-last-source-acme"), ["acme"].into());
    assert!(world.routes.resolve("dear-last-source-public", None).is_err());
    let wish = world.wish("us-source-acme");
    assert_eq!(wish.selector.to_string(), "us-source-acme", "the canonical text names the source");
    (0..4).for_each(|n| world.learn(n, |known| known.verdict = Verdict::Bad));
    assert_eq!(sources(&mut world, "dear-last"), ["acme"].into(), "the later source serves");
}

#[test]
fn a_later_source_serves_while_the_site_bans_every_exit_of_the_earlier_one() {
    let mut world = world();
    let policy = Policy { fallback: true, ..listed(&[Source::Tor, Source::Public]) };
    world.route("shop", "us", policy);
    (0..3).for_each(|n| world.ban("shop.com", n, MINUTE));
    let of = |world: &mut World, username: &str, to: &str| {
        world.decide_to(username, to).map(|plan| plan.first().id().source()).map_err(|refusal| refusal.to_string())
    };
    for username in ["shop", "shop-rotate", "shop-session-a"] {
        assert_eq!(of(&mut world, username, "shop.com:443"), Ok(Source::Tor), "one relay is left for {username}");
    }
    world.ban("shop.com", 3, MINUTE);
    for username in ["shop", "shop-rotate", "shop-session-b"] {
        assert_eq!(of(&mut world, username, "shop.com:443"), Ok(Source::Public), "{username}");
        let other = username.replace("session-b", "session-c");
        assert_eq!(of(&mut world, &other, "other.com:443"), Ok(Source::Tor), "{username}");
    }
    world.pass(MINUTE);
    assert_eq!(of(&mut world, "shop", "shop.com:443"), Ok(Source::Tor));
}

#[test]
fn the_order_of_a_request_replaces_that_of_the_policy() {
    let mut world = world();
    let policy = Policy { fallback: true, ..listed(&[Source::Tor, Source::Public]) };
    world.route("shop", "us", policy);
    let wish = world.wish("shop").with_order([Source::Public].into());
    let target = target("shop.com:443");
    let ask = Ask { wish: &wish, key: "", target: &target, now: world.now, avoid: &[], plain: false };
    let view = View { catalog: &world.catalog, routes: &world.routes, bans: &world.bans };
    let plan = decide(view, &world.memory, &ask, &mut world.rng).unwrap();
    assert!(plan.exits.iter().all(|exit| exit.id().source() == Source::Public), "{plan:?}");
    let may = |exit: &ExitId| may_serve_again(view, &world.memory, &ask, exit);
    assert!(may(plan.first().id()) && !may(world.exit(0).id()));
}
