//! Tests of the indexes against a slow reference: a plain map of facts that is searched from end to end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;

use super::super::facts::{Flags, Known, Listing};
use super::super::policy::PortPolicy;
use super::super::{Fingerprint, Moment, Protocol, PublicId, Verdict};
use super::*;

const CODES: [&str; 5] = ["US", "DE", "FR", "NO", "??"];

const POLICIES: [&str; 4] = ["accept 80,443", "reject 25", "accept 1-65535", "reject 1-65535"];

fn country(at: u8) -> Country {
    Country::parse(CODES[at as usize % CODES.len()]).unwrap()
}

fn id(n: u8) -> ExitId {
    match n % 4 {
        3 => ExitId::Public(Arc::new(PublicId { protocol: Protocol::Http, addr: ([127, 0, 0, n], 8080).into() })),
        _ => ExitId::Tor(Fingerprint([n; 20])),
    }
}

fn listing(n: u8, fact: u8) -> Listing {
    let (running, stable) = (fact & 1 == 0, fact & 16 == 0);
    let flags = Flags { running, stable, bad_exit: fact & 14 == 14, ..Flags::default() };
    Listing {
        nickname: format!("x{n}").into(),
        announced: vec![Ipv4Addr::new(192, 0, 2, n % 8).into()],
        country: country(fact),
        asn: (fact & 3 > 0).then_some(u32::from(fact & 3)),
        policy: POLICIES[fact as usize % 4].parse().unwrap(),
        policy_v6: if fact & 4 == 0 { PortPolicy::reject_all() } else { PortPolicy::accept_all() },
        flags,
        weight: u32::from(fact) * 500,
        unlisted: (fact & 96 == 96).then_some(Moment(1)),
        ..Listing::new(id(n))
    }
}

fn learn(known: &mut Known, fact: u8) {
    match fact % 6 {
        0 => known.verdict = Verdict::Good,
        1 => known.verdict = Verdict::Bad,
        2 => known.saw(Ipv4Addr::new(198, 51, 100, fact % 16).into(), country(fact / 6), Moment(u64::from(fact))),
        3 if fact > 128 => {
            let anonymity = super::super::Anonymity::Elite;
            let (tunnels, took) = (fact & 1 == 0, Duration::ZERO);
            known.public = Some(super::super::Abilities { anonymity, tunnels, tls: true, took, passed: 0, asked: 0 });
        }
        3 => known.marks.draining = true,
        4 => drop(known.passed.insert(if fact & 64 == 0 { "steam" } else { "maps" }.into())),
        _ => known.passed.clear(),
    }
}

#[derive(Clone, Debug)]
enum Change {
    List(u8, u8),
    Learn(u8, u8),
    Remove(u8),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0u8..60, any::<u8>()).prop_map(|(n, fact)| Change::List(n, fact)),
        6 => (0u8..60, any::<u8>()).prop_map(|(n, fact)| Change::Learn(n, fact)),
        1 => (0u8..60).prop_map(Change::Remove),
    ]
}

/// The slow reference: a map from the id of each exit to its facts.
type Facts = BTreeMap<ExitId, (Listing, Known)>;

fn apply(facts: &mut Facts, edit: &mut Editor, change: &Change) {
    match *change {
        Change::List(n, fact) => {
            let listing = listing(n, fact);
            edit.list(listing.clone());
            let known = facts.remove(&listing.id).map(|(_, known)| known).unwrap_or_default();
            let known = Known { marks: super::super::facts::Marks { draining: false, ..known.marks }, ..known };
            facts.insert(listing.id.clone(), (listing, known));
        }
        Change::Learn(n, fact) => {
            let there = edit.learn(&id(n), |known| learn(known, fact));
            assert_eq!(there, facts.contains_key(&id(n)));
            facts.entry(id(n)).and_modify(|(_, known)| learn(known, fact));
        }
        Change::Remove(n) => assert_eq!(edit.remove(&id(n)), facts.remove(&id(n)).is_some()),
    }
}

fn names(catalog: &Catalog, bits: &Bits) -> BTreeSet<ExitId> {
    bits.iter().map(|slot| catalog.at(slot).expect("an index names no empty slot").id().clone()).collect()
}

fn naive(facts: &Facts, wanted: impl Fn(&Exit) -> bool) -> BTreeSet<ExitId> {
    let exit = |(listing, known): &(Listing, Known)| {
        Exit::new(Slot(0), Arc::new(listing.clone()), known.clone(), Arc::default())
    };
    facts.iter().filter(|(_, fact)| wanted(&exit(fact))).map(|(id, _)| id.clone()).collect()
}

fn agree(catalog: &Catalog, facts: &Facts) {
    assert_eq!(catalog.len(), facts.len());
    for (id, (listing, known)) in facts {
        let exit = catalog.get(id).unwrap();
        assert_eq!((&**exit.listing(), exit.known()), (listing, known));
    }
    assert_eq!(names(catalog, catalog.alive()), naive(facts, Exit::alive));
    assert_eq!(names(catalog, catalog.usable()), naive(facts, Exit::usable));
    assert_eq!(names(catalog, catalog.distinct()), naive(facts, Exit::distinct));
    assert_eq!(names(catalog, catalog.tunnels()), naive(facts, Exit::tunnels));
    assert_eq!(names(catalog, catalog.stable()), naive(facts, Exit::is_stable));
    assert_eq!(names(catalog, catalog.untested()), naive(facts, |exit| exit.known().verdict == Verdict::Untested));
    for (port, v6) in [(25, false), (80, false), (443, true), (6667, false), (6667, true)] {
        assert_eq!(names(catalog, &catalog.allowing(port, v6)), naive(facts, |exit| exit.allows(port, v6)), "{port}");
    }
    let could: Vec<_> = catalog.iter().filter(|exit| exit.usable() && exit.distinct()).collect();
    assert!(catalog.leading().iter().all(|slot| could.iter().any(|exit| exit.slot() == slot)));
    let leads = |exit: &Exit| catalog.leading().has(exit.slot());
    let behind = |ip| could.iter().filter(|exit| exit.ip() == ip && leads(exit)).count();
    assert!(could.iter().all(|exit| behind(exit.ip()) == 1), "one exit leads each address");
    let us: CountrySet = [country(0)].into_iter().collect();
    for countries in [CountrySet::ALL, us, us.not(), CountrySet::EMPTY, [country(1), country(4)].into_iter().collect()]
    {
        for asn in [None, Some(1), Some(9)] {
            for check in [None, Some("steam"), Some("none")] {
                for sources in [&[Source::Tor][..], &[Source::Public], &[Source::Tor, Source::Public], &[]] {
                    for not_asn in [&[] as &[u32], &[1], &[2, 9, 77]] {
                        let filter = Filter { sources, countries: &countries, asn, not_asn, check };
                        let want = naive(facts, |exit| filter.wants(exit));
                        assert_eq!(names(catalog, &catalog.matching(&filter)), want, "{filter:?}");
                    }
                }
            }
        }
    }
    let known: usize = catalog.countries().map(|(_, count)| count.known).sum();
    assert_eq!(known, facts.len());
    assert_eq!(catalog.by_ip.values().map(Vec::len).sum::<usize>(), facts.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_history_of_edits_gives_the_same_answers_as_a_walk(
        batches in prop::collection::vec(prop::collection::vec(change(), 0..30), 1..8),
    ) {
        let mut catalog = Catalog::default();
        let mut facts = Facts::new();
        let mut editions = Vec::new();
        for batch in &batches {
            let mut edit = catalog.edit();
            batch.iter().for_each(|change| apply(&mut facts, &mut edit, change));
            catalog = edit.finish();
            agree(&catalog, &facts);
            editions.push((catalog.clone(), facts.clone()));
        }
        // Every edition of the catalog must still agree with the facts that it was made from, because later edits must
        // not change an earlier edition.
        editions.iter().for_each(|(catalog, facts)| agree(catalog, facts));
    }
}

fn filled(count: u8) -> Catalog {
    let mut edit = Catalog::default().edit();
    for n in 0..count {
        edit.list(listing(n, 0));
    }
    edit.finish()
}

#[test]
fn unchanged_tables_are_shared() {
    let before = filled(100);
    let mut edit = before.edit();
    edit.learn(&id(5), |known| known.verdict = Verdict::Good);
    edit.list(listing(7, 0));
    let after = edit.finish();
    assert!(Arc::ptr_eq(&before.by_id, &after.by_id) && Arc::ptr_eq(&before.by_country, &after.by_country));
    assert!(Arc::ptr_eq(&before.by_ip, &after.by_ip) && Arc::ptr_eq(&before.by_asn, &after.by_asn));
    assert!(Arc::ptr_eq(&before.alive, &after.alive) && !Arc::ptr_eq(&before.usable, &after.usable));
    assert!(Arc::ptr_eq(before.get(&id(7)).unwrap(), after.get(&id(7)).unwrap()), "the same facts make no new object");
    assert_eq!((before.usable().count(), after.usable().count()), (0, 1));
}

#[test]
fn an_exit_keeps_its_slot_and_its_load() {
    let first = filled(10);
    let load = first.get(&id(4)).unwrap().load().clone();
    let tunnel = load.begin();
    let mut edit = first.edit();
    edit.remove(&id(3));
    edit.learn(&id(4), |known| known.latency = Some(Duration::from_millis(7)));
    let slot = edit.list(listing(50, 0));
    let second = edit.finish();
    assert_eq!(slot, first.get(&id(3)).unwrap().slot(), "slots are used again");
    let (old, new) = (first.get(&id(4)).unwrap(), second.get(&id(4)).unwrap());
    assert_eq!(old.slot(), new.slot());
    assert_eq!(new.load().in_flight(), 1);
    assert_eq!(new.load().latency(Moment(0)), Duration::from_millis(7));
    assert_eq!(second.get(&id(50)).unwrap().load().in_flight(), 0, "the new exit in the slot has a load of its own");
    assert!(second.still(slot, &id(3)).is_none() && second.still(slot, &id(50)).is_some());
    drop(tunnel);
    assert_eq!(new.load().in_flight(), 0);
}
