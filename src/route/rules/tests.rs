//! Tests of which rule matches a target.

use std::time::Instant;

use proptest::prelude::*;

use super::super::fixture::words;
use super::*;
use crate::net::Target;

fn rule(hosts: &[&str], ports: &[RangeInclusive<u16>]) -> Rule {
    let hosts = hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect();
    Rule { hosts, ports: ports.to_vec(), action: Action::Refuse }
}

fn found(rules: &Rules, target: &str) -> usize {
    let Target { host, port } = target.parse().unwrap();
    rules.find(&host, Some(port)).map_or(0, |(number, _)| number)
}

#[test]
fn the_first_rule_that_matches_counts() {
    let rules = Rules::new(vec![
        rule(&["*.shop.example", "example.org"], &[]),
        rule(&["shop.example"], &[443..=443]),
        rule(&[".example"], &[8000..=8099]),
        rule(&["192.0.2.7", "10.0.0.0/8", "2001:db8::/32"], &[]),
        rule(&["xn--bcher-kva.example"], &[]),
        rule(&[], &[25..=25]),
        rule(&["*.example.org"], &[]),
        rule(&["api.shop.example"], &[]),
    ]);
    for (target, want) in [
        ("www.shop.example:443", 1),
        ("a.b.shop.example:80", 1),
        ("api.shop.example:443", 1),
        ("WWW.Shop.Example.:443", 1),
        ("example.org:1", 1),
        ("shop.example:443", 2),
        ("shop.example:80", 0),
        ("shop.example:8000", 3),
        ("shop.example:8099", 3),
        ("shop.example:8100", 0),
        ("other.example:8050", 3),
        ("example:8050", 3),
        ("myshop.example:443", 0),
        ("192.0.2.7:443", 4),
        ("[::ffff:192.0.2.7]:443", 4),
        ("192.0.2.8:443", 0),
        ("10.200.0.1:80", 4),
        ("[2001:db8::9]:80", 4),
        ("[2001:db9::9]:80", 0),
        ("xn--bcher-kva.example:443", 5),
        ("mail.test:25", 6),
        ("192.0.2.8:25", 6),
        ("www.example.org:25", 6),
        ("www.example.org:443", 7),
        ("org:443", 0),
    ] {
        assert_eq!(found(&rules, target), want, "{target}");
    }
    let look_up = |host: &str| rules.find(&Host::parse(host).unwrap(), None).map(|(number, _)| number);
    assert_eq!(look_up("www.shop.example"), Some(1));
    assert_eq!(look_up("shop.example"), None, "a look-up has no port, and the rule has one");
}

#[test]
fn a_star_matches_names_and_addresses_and_no_rules_match_nothing() {
    let rules = Rules::new(vec![rule(&["*"], &[80..=80]), rule(&["a.test"], &[])]);
    assert_eq!(["a.test:80", "a.test:81", "192.0.2.1:80"].map(|target| found(&rules, target)), [1, 2, 1]);
    assert_eq!(found(&Rules::default(), "a.test:80"), 0);
    assert!(Rules::new(Vec::new()).is_empty() && !rules.is_empty());
}

#[test]
fn a_rule_is_written_as_it_is_read() {
    let selector = |text: &str, has_source| RuleSelector::new(Selector::parse(text, &words()).unwrap(), has_source);
    let direct = selector("any-source-direct", true);
    for (action, want) in [
        (Action::Use(selector("us-strict", false)), "*.a.test,b.test port 443,8000-8099 use us-strict"),
        (Action::Use(selector("us-source-tor", true)), "*.a.test,b.test port 443,8000-8099 use us-source-tor"),
        (Action::Refuse, "*.a.test,b.test port 443,8000-8099 refuse"),
        (Action::Direct(direct), "*.a.test,b.test port 443,8000-8099 direct"),
    ] {
        assert_eq!(Rule { action, ..rule(&["*.a.test", "b.test"], &[443..=443, 8000..=8099]) }.to_string(), want);
    }
    assert_eq!(rule(&[], &[25..=25]).to_string(), "port 25 refuse");
}

/// The slow reference: compares the target with every rule, one after the other.
fn walk(rules: &[Rule], host: &Host, port: u16) -> Option<usize> {
    let below = |name: &str, top: &str| name.strip_suffix(top).is_some_and(|rest| rest.ends_with('.'));
    let matches = |pattern: &HostPattern| match (pattern, host) {
        (HostPattern::Any, _) => true,
        (HostPattern::Name(own), Host::Name(name)) => own == name,
        (HostPattern::Below(own), Host::Name(name)) => below(name, own),
        (HostPattern::Within(own), Host::Name(name)) => own == name || below(name, own),
        (HostPattern::Net(net), Host::Ip(ip)) => net.contains(ip),
        _ => false,
    };
    let takes = |rule: &Rule| {
        (rule.hosts.is_empty() || rule.hosts.iter().any(matches))
            && (rule.ports.is_empty() || rule.ports.iter().any(|ports| ports.contains(&port)))
    };
    rules.iter().position(takes).map(|at| at + 1)
}

fn host() -> impl Strategy<Value = String> {
    let name = prop::collection::vec("[ab]", 1..5).prop_map(|labels| labels.join("."));
    prop_oneof![4 => name, 1 => (0u8..4).prop_map(|n| format!("10.0.0.{n}")), 1 => Just("2001:db8::1".to_owned())]
}

fn pattern() -> impl Strategy<Value = String> {
    let name = || prop::collection::vec("[ab]", 1..4).prop_map(|labels| labels.join("."));
    prop_oneof![
        2 => name(),
        2 => name().prop_map(|name| format!("*.{name}")),
        2 => name().prop_map(|name| format!(".{name}")),
        1 => (0u8..4).prop_map(|n| format!("10.0.0.{n}")),
        1 => (24u8..=32).prop_map(|prefix| format!("10.0.0.0/{prefix}")),
        1 => Just("2001:db8::/32".to_owned()),
        1 => Just("*".to_owned()),
    ]
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let ports = prop::option::of((78u16..82).prop_map(|first| first..=first + 1));
    let one = (prop::collection::vec(pattern(), 0..3), ports).prop_map(|(hosts, ports)| {
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        rule(&hosts, ports.as_slice())
    });
    prop::collection::vec(one, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn the_maps_find_what_a_walk_over_the_rules_finds(rules in rules(), host in host(), port in 78u16..84) {
        let host = Host::parse(&host).unwrap();
        let want = walk(&rules, &host, port);
        let rules = Rules::new(rules);
        prop_assert_eq!(rules.find(&host, Some(port)).map(|(number, _)| number), want);
    }
}

/// The test compares two measured times with a large margin: a walk over all rules takes a thousand times as long.
#[test]
fn a_look_up_does_not_take_longer_with_more_rules() {
    let rules = |count: usize| Rules::new((0..count).map(|n| rule(&[&format!("*.shop{n}.example")], &[])).collect());
    let fastest = |rules: &Rules| {
        let host = Host::parse("www.none.example").unwrap();
        let time = || {
            let began = Instant::now();
            (0..1_000).for_each(|_| assert!(std::hint::black_box(rules).find(&host, Some(443)).is_none()));
            began.elapsed()
        };
        (0..20).map(|_| time()).min().unwrap()
    };
    let (few, many) = (fastest(&rules(10)), fastest(&rules(10_000)));
    assert!(many < few * 10, "10 rules: {few:?}, 10,000 rules: {many:?}");
}
