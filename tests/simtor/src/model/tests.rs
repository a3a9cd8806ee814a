//! That the model has the figures of `README.md`, within the tolerances that each test states.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn at() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_262_400)
}

/// Networks of the real size, for all tests: making one takes half a second without optimisation.
fn publics() -> &'static [Model; 3] {
    static MODELS: OnceLock<[Model; 3]> = OnceLock::new();
    MODELS.get_or_init(|| [1, 2, 3].map(|seed| Model::new(seed, PUBLIC_SIZE)))
}

fn public() -> &'static Model {
    &publics()[0]
}

fn exits_of(model: &Model) -> Vec<&Relay> {
    model.relays().iter().filter(|relay| relay.flags.exit).collect()
}

fn exits() -> Vec<&'static Relay> {
    exits_of(public())
}

fn part(of: usize, all: usize) -> f64 {
    of as f64 / all as f64
}

fn quantile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part).round() as usize]
}

#[track_caller]
fn near(what: &str, found: f64, wanted: f64, tolerance: f64) {
    assert!((found / wanted - 1.0).abs() <= tolerance, "{what}: {found:.4}, wanted {wanted} within {tolerance}");
}

fn sum<'a>(relays: impl IntoIterator<Item = &'a &'a Relay>) -> f64 {
    relays.into_iter().map(|relay| f64::from(relay.weight)).sum()
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let texts = |model: &Model| (model.consensus(3, at(), HOUR), model.microdescs(3, at()), model.geoip());
    let (one, again, other) = (Model::new(5, 400), Model::new(5, 400), Model::new(6, 400));
    assert_eq!(texts(&one), texts(&again));
    assert_ne!(texts(&one).0, texts(&other).0);
}

#[test]
fn every_address_is_loopback_and_outside_the_test_networks() {
    for seed in 0..4 {
        for relay in Model::new(seed, 2000).relays() {
            for ip in [relay.address, relay.exit_address] {
                let second = ip.octets()[1];
                assert!(ip.is_loopback() && second != 0 && !(100..200).contains(&second), "{ip}");
                assert!(!matches!(ip.octets()[3], 0 | 255), "{ip}");
            }
            assert!(relay.ipv6.is_none_or(|ip| ip.segments()[0] == 0xfd00), "{:?}", relay.ipv6);
        }
    }
}

#[test]
fn fingerprints_nicknames_and_or_ports_are_unique() {
    let relays = public().relays();
    assert_eq!(relays.iter().map(|relay| relay.fingerprint).collect::<HashSet<_>>().len(), PUBLIC_SIZE);
    assert_eq!(relays.iter().map(|relay| &relay.nickname).collect::<HashSet<_>>().len(), PUBLIC_SIZE);
    let places: HashSet<_> = relays.iter().map(|relay| (relay.address, relay.or_port)).collect();
    assert_eq!(places.len(), PUBLIC_SIZE);
}

#[test]
fn parts_of_the_network() {
    let relays = public().relays();
    let count = |wanted: fn(&Relay) -> bool| relays.iter().filter(|relay| wanted(relay)).count();
    assert_eq!(relays.len(), PUBLIC_SIZE);
    near("exits", part(count(|r| r.flags.exit), PUBLIC_SIZE), 0.357, 0.01);
    near("guards that are no exits", part(count(|r| r.flags.guard && !r.flags.exit), PUBLIC_SIZE), 0.40, 0.01);
    near("exits that are guards", part(count(|r| r.flags.guard && r.flags.exit), exits().len()), 0.5, 0.06);
    near("stable", part(count(|r| r.flags.stable), PUBLIC_SIZE), 0.89, 0.02);
    near("stable exits", part(count(|r| r.flags.exit && r.flags.stable), exits().len()), 0.98, 0.01);
    near("bad exits", part(count(|r| r.flags.bad_exit), exits().len()), 1.0 / 238.0, 0.1);
    near("with IPv6", part(count(|r| r.ipv6.is_some()), PUBLIC_SIZE), 0.57, 0.04);
    near("exits with IPv6", part(exits().iter().filter(|r| r.ipv6.is_some()).count(), exits().len()), 0.85, 0.03);
    near("version", part(count(|r| r.version == "0.4.9.11"), PUBLIC_SIZE), 0.75, 0.1);
    assert!(relays.iter().all(|relay| !relay.flags.exit || (relay.lets_out(80) && relay.lets_out(443))));
    assert!(relays.iter().all(|relay| relay.is_exit() == relay.flags.exit));
}

#[test]
fn weights_of_the_parts_and_of_exits() {
    publics().iter().for_each(check_weights);
}

fn check_weights(model: &Model) {
    let all: Vec<&Relay> = model.relays().iter().collect();
    let of = |wanted: fn(&Relay) -> bool| all.iter().filter(|r| wanted(r)).map(|r| f64::from(r.weight)).sum::<f64>();
    near("exits", of(|r| r.flags.exit), 65.3e6, 0.01);
    near("guards", of(|r| r.flags.guard && !r.flags.exit), 107.9e6, 0.01);
    near("rest", of(|r| !r.flags.guard && !r.flags.exit), 22.3e6, 0.01);
    let weights: Vec<f64> = exits_of(model).iter().map(|relay| f64::from(relay.weight)).collect();
    // The sample has 85 exits: its percentiles are themselves known to a fifth only, the first and the last to a half.
    for (at, wanted, tolerance) in [
        (0.01, 317.0, 0.6),
        (0.10, 2_660.0, 0.2),
        (0.25, 4_500.0, 0.15),
        (0.50, 14_000.0, 0.2),
        (0.75, 32_000.0, 0.15),
        (0.90, 42_000.0, 0.1),
        (0.99, 168_000.0, 0.35),
        (1.00, 260_000.0, 0.25),
    ] {
        near(&format!("weight at {at}"), quantile(weights.clone(), at), wanted, tolerance);
    }
    let mut sorted = weights;
    sorted.sort_by(|a, b| b.total_cmp(a));
    let top = |part: f64| sorted[..(sorted.len() as f64 * part) as usize].iter().sum::<f64>() / 65.3e6;
    near("the top tenth", top(0.1), 0.37, 0.12);
    near("the top half", top(0.5), 0.89, 0.03);
}

#[test]
fn capacities_of_exits() {
    let capacities: Vec<f64> = exits().iter().map(|relay| relay.capacity as f64 / 1e6).collect();
    for (at, wanted, tolerance) in [(0.1, 4.3, 0.2), (0.5, 13.9, 0.2), (0.9, 27.0, 0.25)] {
        near(&format!("capacity at {at}"), quantile(capacities.clone(), at), wanted, tolerance);
    }
    let ratios =
        exits().iter().map(|relay| f64::from(relay.weight) * 1000.0 / relay.capacity as f64).collect::<Vec<_>>();
    near("ratio at 0.1", quantile(ratios.clone(), 0.1), 0.57, 0.2);
    near("ratio at 0.9", quantile(ratios, 0.9), 1.66, 0.2);
}

#[test]
fn countries_and_operators_of_exits() {
    publics().iter().for_each(check_operators);
}

fn check_operators(model: &Model) {
    let exits = exits_of(model);
    let total = sum(&exits);
    let check = |what: &str, of: &[&Relay], relays: f64, weight: f64| {
        let found = (part(of.len(), exits.len()) * 100.0, sum(of) / total * 100.0);
        assert!((found.0 - relays).abs() < 2.5 && (found.1 - weight).abs() < 2.5, "{what}: {found:.1?}");
    };
    for (country, relays, weight) in [
        ("US", 45.0, 11.5),
        ("NL", 20.0, 31.0),
        ("DE", 12.0, 30.0),
        ("SE", 6.0, 8.0),
        ("AT", 5.0, 9.0),
        ("LU", 3.5, 4.0),
    ] {
        let of: Vec<_> = exits.iter().copied().filter(|relay| relay.country == country).collect();
        check(country, &of, relays, weight);
    }
    for (asn, relays, weight) in [(62_744, 23.5, 4.5), (215_125, 19.0, 31.0), (60_729, 8.0, 17.0), (208_323, 5.0, 9.0)]
    {
        let of: Vec<_> = exits.iter().copied().filter(|relay| relay.asn == asn).collect();
        check(&format!("AS{asn}"), &of, relays, weight);
    }
}

#[test]
fn exits_share_machines_and_networks_as_in_the_data() {
    let exits = exits();
    let addresses: HashSet<_> = exits.iter().map(|relay| relay.exit_address).collect();
    near("addresses", addresses.len() as f64 / exits.len() as f64, 1400.0 / 3300.0, 0.08);
    let mut networks: HashMap<[u8; 2], f64> = HashMap::new();
    for relay in &exits {
        let [a, b, ..] = relay.exit_address.octets();
        *networks.entry([a, b]).or_default() += f64::from(relay.weight);
    }
    let total = sum(&exits);
    let same: f64 = networks.values().map(|weight| (weight / total).powi(2)).sum();
    assert!((0.13..0.20).contains(&same), "two exits share a /16 with {same:.3}, wanted one in six");
    let elsewhere = exits.iter().filter(|relay| relay.exit_address != relay.address).count();
    assert!((1..exits.len() / 28).contains(&elsewhere), "{elsewhere} leave from another address");
    let beside = |relay: &&Relay| !relay.flags.exit && exits.iter().any(|exit| exit.address == relay.address);
    assert!(public().relays().iter().filter(beside).count() > 100, "guards on machines of exits");
}

#[test]
fn times_of_life() {
    let day = 86_400.0;
    let up = |exit: bool| {
        let relays = public().relays().iter().filter(move |relay| relay.flags.exit == exit);
        relays.map(|relay| relay.uptime as f64 / day).collect::<Vec<_>>()
    };
    for (exit, days, wanted) in [(true, 1.0, 0.15), (true, 7.0, 0.65), (false, 1.0, 0.06), (false, 7.0, 0.38)] {
        let found = up(exit).iter().filter(|uptime| **uptime <= days).count();
        near(&format!("restarted within {days} d"), part(found, up(exit).len()), wanted, 0.15);
    }
    let ages: Vec<f64> = exits().iter().map(|relay| relay.age as f64 / day).collect();
    near("age p10", quantile(ages.clone(), 0.1), 63.0, 0.1);
    near("age p50", quantile(ages, 0.5), 164.0, 0.1);
}

#[test]
fn relays_vanish_and_half_of_them_return_in_the_next_hour() {
    let model = public();
    let listed = |hour| (0..PUBLIC_SIZE).filter(|place| model.is_listed(*place, hour)).collect::<HashSet<_>>();
    assert_eq!(listed(0).len(), PUBLIC_SIZE, "hour 0 lists all");
    let hours: Vec<HashSet<usize>> = (30..40).map(listed).collect();
    let (mut vanished, mut returned, mut all) = (0, 0, 0);
    for three in hours.windows(3) {
        let gone: Vec<_> = three[0].difference(&three[1]).collect();
        returned += gone.iter().filter(|place| three[2].contains(**place)).count();
        (vanished, all) = (vanished + gone.len(), all + three[0].len());
    }
    near("vanish in an hour", part(vanished, all), PUBLIC_CHURN, 0.15);
    near("return in the next", part(returned, vanished), 0.5, 0.2);
    assert!(hours[0].len() > PUBLIC_SIZE * 95 / 100, "{}", hours[0].len());
    let doubled = Model { churn: 0.02, ..model.clone() };
    let gone = (0..PUBLIC_SIZE).filter(|place| doubled.is_listed(*place, 30) && !doubled.is_listed(*place, 31)).count();
    near("vanish in an hour of 2 %", part(gone, PUBLIC_SIZE), 0.02, 0.2);
    let more = Model { churn: 0.0, ..model.clone() };
    assert!((0..PUBLIC_SIZE).all(|place| more.is_listed(place, 7)), "without churn nobody vanishes");
}

#[test]
fn restarts_have_the_rate_of_the_data() {
    let model = public();
    let exits_a_day: usize =
        (0..240).map(|hour| model.restarts(hour).iter().filter(|at| model.relays()[**at].flags.exit).count()).sum();
    near("exits that restart in a day", part(exits_a_day, exits().len() * 10), 0.15, 0.35);
}

#[test]
fn the_consensus_lists_who_is_listed_with_the_digest_of_their_microdescriptor() {
    let model = Model::new(9, 300);
    let consensus = model.consensus(40, at(), HOUR);
    let listed: Vec<usize> = (0..300).filter(|place| model.is_listed(*place, 40)).collect();
    let names: Vec<&str> = consensus.lines().filter_map(|line| line.strip_prefix("r ")?.split(' ').next()).collect();
    assert_eq!(names, listed.iter().map(|place| model.relays()[*place].nickname.as_str()).collect::<Vec<_>>());
    let digests: Vec<&str> = consensus.lines().filter_map(|line| line.strip_prefix("m ")).collect();
    assert_eq!(digests, listed.iter().map(|place| text::base64(&model.microdesc_digest(*place))).collect::<Vec<_>>());
    for line in
        ["valid-after 2026-11-21 12:00:00", "fresh-until 2026-11-21 13:00:00", "valid-until 2026-11-21 15:00:00"]
    {
        assert!(consensus.contains(line), "{line}");
    }
    let edition = Edition {
        client_versions: Some("0.4.9.14".into()),
        params: vec![("DoSCircuitCreationRate".into(), 7)],
        without: vec![listed[0]],
    };
    let changed = model.consensus_of(40, at(), HOUR, &edition);
    assert!(changed.contains("\nclient-versions 0.4.9.14\n") && changed.contains(" DoSCircuitCreationRate=7 "));
    assert!(!changed.contains(&format!("r {} ", names[0])), "left out");
    assert_eq!(consensus.matches("directory-signature").count(), 9);
}

#[test]
fn lists_of_others_agree_with_the_relays() {
    let model = public();
    let geoip = model.geoip();
    let ranges: Vec<(u32, u32, &str)> = geoip
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let [low, high, country] = line.split(',').collect::<Vec<_>>().try_into().unwrap();
            (low.parse().unwrap(), high.parse().unwrap(), country)
        })
        .collect();
    for relay in model.relays() {
        let bits = relay.exit_address.to_bits();
        let range = ranges.iter().find(|(low, high, _)| (*low..=*high).contains(&bits));
        assert_eq!(range.map(|range| range.2), Some(relay.country), "{}", relay.exit_address);
    }
    let place = model.relays().iter().position(|relay| relay.flags.exit).unwrap();
    let (relay, details) = (&model.relays()[place], model.details(place, at()));
    assert_eq!(details["exit_addresses"][0], relay.exit_address.to_string());
    assert_eq!(details["country"], relay.country.to_ascii_lowercase());
    assert_eq!(model.exit_list(0, at()).matches("ExitNode ").count(), exits().len());
}
