//! Tests of what the rules of a route do to usernames, sessions, pins and pools.

use super::super::super::fixture::*;
use super::super::super::policy::Policy;
use super::super::super::rules::{HostPattern, Rule, RuleSelector, Rules};
use super::super::super::{Ask, NoPlan, Plan, View, decide};
use super::*;
use crate::exit::Source;
use crate::route::selector::Words;

fn using(text: &str) -> Action {
    let selector = Selector::parse(text, &words()).unwrap();
    Action::Use(RuleSelector::new(selector, Selector::has_source(text, &Words::default()).unwrap_or(false)))
}

fn leading(name: &str) -> Action {
    Action::Route(RouteName::of_rule(name).unwrap())
}

fn policy(rules: Vec<(&str, Action)>) -> Policy {
    let rule = |(host, action)| Rule { hosts: vec![HostPattern::parse(host).unwrap()], ports: Vec::new(), action };
    Policy { pool: 3, rules: Rules::new(rules.into_iter().map(rule).collect()), ..Policy::default() }
}

/// Makes exits in the US (0 to 5) and in Germany (6 to 11), and the route `shop` with rules.
fn world() -> World {
    let codes: Vec<_> = (0..12).map(|n| if n < 6 { "US" } else { "DE" }).collect();
    let mut world = World::new(&codes);
    let rules = vec![
        ("*.de.example", using("de")),
        ("one.example", using("us-strict")),
        ("turn.example", using("any-rotate")),
        ("bad.example", Action::Refuse),
        ("home.example", Action::Direct(RuleSelector::direct())),
        ("dear.example", leading("dear")),
        ("gone.example", leading("gone")),
    ];
    world.route("shop", "any", policy(rules));
    world.route("dear", "us", policy(vec![("dear.example", using("us-strict"))]));
    world
}

fn means(world: &World, username: &str, to: &str) -> Result<Wish, String> {
    let target = target(to);
    let wish = world.routes.resolve(username, None).unwrap();
    world.routes.for_target(wish, &target.host, Some(target.port)).map_err(|refused| refused.to_string())
}

fn scope(world: &World, username: &str, to: &str) -> String {
    means(world, username, to).map_or_else(|why| why, |wish| wish.scope.to_string())
}

fn choose(world: &mut World, username: &str, to: &str) -> Result<Plan, Box<NoPlan>> {
    let (wish, target) = (means(world, username, to).unwrap(), target(to));
    let ask = Ask { wish: &wish, key: "", target: &target, now: world.now, avoid: &[], plain: false };
    let view = View { catalog: &world.catalog, routes: &world.routes, bans: &world.bans };
    decide(view, &world.memory, &ask, &mut world.rng)
}

fn first(world: &mut World, username: &str, to: &str) -> u16 {
    number(choose(world, username, to).unwrap().first().id())
}

#[test]
fn a_rule_sets_the_selector_and_tokens_narrow_it() {
    let world = world();
    for (username, to, want) in [
        ("shop", "other.example:443", "shop"),
        ("shop-us", "other.example:443", "shop-us"),
        ("shop", "www.de.example:443", "shop:de"),
        ("shop-session-a-ttl-5m", "www.de.example:443", "shop:de"),
        ("shop-de-strict", "www.de.example:443", "shop:de-strict"),
        ("shop-asn-3", "www.de.example:443", "shop:de-asn-3"),
        ("shop", "one.example:443", "shop:us-strict"),
        ("us", "one.example:443", "us"),
        ("dear", "dear.example:443", "dear:us-strict"),
        ("shop", "home.example:443", "shop:any-source-direct"),
        ("shop-session-a", "home.example:443", "shop:any-source-direct"),
    ] {
        assert_eq!(scope(&world, username, to), want, "{username} to {to}");
    }
    let wish = means(&world, "shop-session-a-ttl-5m", "www.de.example:443").unwrap();
    assert_eq!((wish.label(), wish.selector.to_string().as_str()), ("shop", "de-session-a-ttl-5m"));
    assert_eq!(wish.rule_text().as_deref(), Some("shop#1"));
    assert_eq!(means(&world, "shop", "other.example:443").unwrap().rule_text(), None);
}

#[test]
fn a_rule_that_leads_to_a_route_uses_its_selector_its_policy_and_its_rules() {
    let world = world();
    let wish = means(&world, "shop-session-a", "dear.example:443").unwrap();
    assert_eq!((wish.label(), &*wish.scope), ("dear", "dear:us-strict"));
    assert_eq!(wish.selector.to_string(), "us-strict-session-a", "the session of the username is kept");
    assert_eq!(wish.rule_text().as_deref(), Some("shop#6>dear#1"));
}

#[test]
fn a_rule_refuses_with_its_number() {
    let world = world();
    for (username, to, want) in [
        ("shop", "bad.example:443", "rule 4 of the route `shop` refuses this target"),
        ("shop", "gone.example:443", "rule 7 of the route `shop` leads to the route `gone`, which does not exist"),
        (
            "shop-us",
            "www.de.example:443",
            "rule 1 of the route `shop` does not allow this username: token `us`: it asks for more than the route \
             `shop` allows; tokens behind a route's name can only narrow it",
        ),
    ] {
        assert_eq!(means(&world, username, to).unwrap_err(), want, "{username} to {to}");
    }
    let widens = means(&world, "shop-de", "dear.example:443").unwrap_err();
    assert!(widens.contains("token `de`: it asks for more than the route `dear` allows"), "{widens}");
    let rotate = means(&world, "shop-rotate", "one.example:443").unwrap_err();
    assert!(rotate.contains("token `rotate`"), "{rotate}");
}

#[test]
fn the_policy_of_the_other_route_limits_a_session_too() {
    let mut world = world();
    let short = Policy { max_session_ttl: std::time::Duration::from_secs(60), ..policy(vec![]) };
    world.route("dear", "us", short);
    assert_eq!(scope(&world, "shop-session-a-ttl-30s", "dear.example:443"), "dear");
    let why = means(&world, "shop-session-a-ttl-5m", "dear.example:443").unwrap_err();
    assert!(why.contains("the longest time allowed here is 1m"), "{why}");
}

#[test]
fn a_rule_that_isolates_less_than_its_route_is_no_error_and_a_username_that_does_is() {
    let mut world = world();
    let apart = Policy { isolation: crate::route::IsolateBy::Session, ..policy(vec![("*", using("us-isolate-key"))]) };
    world.route("apart", "any", apart);
    assert_eq!(scope(&world, "apart", "a.example:443"), "apart:us");
    let refused = world.routes.resolve("apart-isolate-key", None).unwrap_err().to_string();
    assert!(refused.contains("token `key`"), "{refused}");
    world.route("target", "any", policy(vec![("*", using("us-isolate-target"))]));
    let why = means(&world, "target-isolate-session", "a.example:443").unwrap_err();
    assert!(why.contains("token `isolate`"), "{why}");
}

#[test]
fn rules_that_lead_in_a_circle_end_in_a_refusal() {
    let mut world = world();
    world.route("left", "any", policy(vec![("*", leading("right"))]));
    world.route("right", "any", policy(vec![("*", leading("left"))]));
    let why = means(&world, "left", "a.example:443").unwrap_err();
    assert!(why.ends_with("leads back to a route before it"), "{why}");
}

#[test]
fn exits_come_from_the_selector_of_the_rule() {
    let mut world = world();
    for n in 0..20 {
        assert!((6..12).contains(&first(&mut world, "shop", "www.de.example:443")), "{n}");
        assert!(first(&mut world, "shop-us", "other.example:443") < 6, "{n}");
    }
    let pinned = first(&mut world, "shop", "one.example:443");
    assert!(pinned < 6);
    assert!((0..20).all(|_| first(&mut world, "shop", "one.example:443") == pinned), "the rule is strict");
    let turns: Vec<_> = (0..10).map(|_| first(&mut world, "shop", "turn.example:443")).collect();
    assert!(turns.windows(2).all(|two| two[0] != two[1]), "the rule rotates: {turns:?}");
    world.kill(pinned);
    let refused = choose(&mut world, "shop", "one.example:443").unwrap_err();
    assert!(refused.to_string().contains("the pinned exit"), "{refused}");
    assert!(first(&mut world, "shop", "www.de.example:443") >= 6, "and other targets are not concerned");
}

#[test]
fn a_session_under_two_selectors_is_two_sessions() {
    let mut world = world();
    let german = first(&mut world, "shop-session-a", "www.de.example:443");
    let own = first(&mut world, "shop-session-a", "other.example:443");
    assert!(german >= 6);
    world.kill(own);
    let moved = first(&mut world, "shop-session-a", "other.example:443");
    assert_ne!(moved, own);
    assert_eq!(first(&mut world, "shop-session-a", "www.de.example:443"), german, "this session did not move");
    let sessions = world.memory.sessions().list(world.now);
    let scopes: std::collections::BTreeSet<_> = sessions.iter().map(|session| &*session.holder.scope).collect();
    assert_eq!(scopes, ["shop", "shop:de"].into());
}

#[test]
fn a_rule_that_differs_only_in_the_mode_shares_the_pool_of_its_route() {
    let mut world = world();
    let wish = means(&world, "shop", "turn.example:443").unwrap();
    assert!(wish.is_whole(), "`any-rotate` chooses among the same exits as `any`");
    assert!(!means(&world, "shop", "www.de.example:443").unwrap().is_whole());
    first(&mut world, "shop", "turn.example:443");
    assert_eq!(world.memory.implicit().len(), 0);
    first(&mut world, "shop", "www.de.example:443");
    first(&mut world, "shop-de", "www.de.example:443");
    assert_eq!(world.memory.implicit().len(), 1, "both use the pool `shop:de`");
}

#[test]
fn a_source_in_a_rule_counts_even_if_the_route_lists_sources() {
    let mut world = world();
    (20..24).for_each(|n| world.join_public(n, "US"));
    let rules = policy(vec![("p.example", using("us-source-public")), ("u.example", using("us"))]);
    world.route("mixed", "any", Policy { sources: vec![Source::Tor], ..rules });
    let sources = |to: &str| {
        let wish = means(&world, "mixed", to).unwrap();
        wish.policy.sources(&wish.selector).to_vec()
    };
    assert_eq!(sources("p.example:443"), [Source::Public]);
    assert_eq!(sources("u.example:443"), [Source::Tor], "a rule without a source keeps the list of the route");
    assert_eq!(scope(&world, "mixed-asn-3", "p.example:443"), "mixed:us-source-public-asn-3");
    assert!(world.routes.resolve("mixed-source-public", None).is_err(), "a client cannot name the source of the rule");
    assert!(matches!(
        choose(&mut world, "mixed", "p.example:443").unwrap().first().id(),
        crate::exit::ExitId::Public(_)
    ));
}

#[test]
fn the_scope_of_a_rule_resolves_to_its_meaning_and_belongs_to_its_route() {
    let world = world();
    for (username, to) in [
        ("shop", "www.de.example:443"),
        ("shop-strict", "www.de.example:443"),
        ("shop-asn-3", "www.de.example:443"),
        ("shop", "one.example:443"),
        ("shop", "home.example:443"),
        ("shop", "other.example:443"),
        ("dear", "dear.example:443"),
    ] {
        let wish = means(&world, username, to).unwrap();
        let again = world.routes.resolve_scope(&wish.scope).unwrap_or_else(|| panic!("{}", wish.scope));
        assert_eq!((again.scope, again.selector), (wish.scope.clone(), wish.selector.clone()), "{username} to {to}");
        assert_eq!(world.routes.owner(&wish.scope).map(RouteName::as_str), Some(wish.label()));
    }
    for scope in ["shop:fr", "shop:de-", "shop:dee", "gone:de", "shop:"] {
        assert!(world.routes.resolve_scope(scope).is_none(), "{scope}");
    }
    assert!(world.routes.resolve("shop:de", None).is_err(), "no client can name the selector of a rule");
}

#[test]
fn a_look_up_of_a_name_follows_rules_without_ports() {
    let mut world = world();
    let rule =
        |host: &str, ports: Vec<_>, action| Rule { hosts: vec![HostPattern::parse(host).unwrap()], ports, action };
    let rules = vec![rule("a.example", vec![443..=443], Action::Refuse), rule("a.example", Vec::new(), using("de"))];
    world.route("shop", "any", Policy { rules: Rules::new(rules), ..Policy::default() });
    let host = target("a.example:1").host;
    let wish = world.routes.for_target(world.wish("shop"), &host, None).unwrap();
    assert_eq!(&*wish.scope, "shop:de");
    assert!(means(&world, "shop", "a.example:443").is_err());
}
