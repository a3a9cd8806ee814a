use std::sync::Arc;

use super::*;
use crate::exit::{Fingerprint, Listing, Verdict};
use crate::net::{Host, Target};
use crate::route::memory::Bounds;
use crate::route::selector::RouteName;
use crate::route::table::{Origin, Route};
use crate::route::{Ask, Words, decide};

const NOW: Moment = Moment(1_788_314_400_000_000);

fn id(n: u16) -> ExitId {
    let mut bytes = [0; 20];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    ExitId::Tor(Fingerprint(bytes))
}

fn ip(n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    [198, 18, high, low].into()
}

struct World {
    snapshot: Snapshot,
    memory: Memory,
    unasked: Vec<ExitId>,
}

impl World {
    /// Exits 0, 1, … in these countries. Nobody has tested them.
    fn new(countries: &[(&str, u16)]) -> Self {
        let mut snapshot = Snapshot::new(Words::default(), Policy::default());
        let mut edit = Catalog::default().edit();
        let each = countries.iter().flat_map(|(country, count)| (0..*count).map(move |_| *country));
        for (country, n) in each.zip(0..) {
            let country = Country::parse(country).unwrap();
            edit.list(Listing { announced: vec![ip(n)], country, weight: 1000, ..Listing::new(id(n)) });
        }
        snapshot.catalog = edit.finish();
        Self { snapshot, memory: Memory::new(Bounds::default()), unasked: Vec::new() }
    }

    fn learn(&mut self, exits: impl IntoIterator<Item = u16>, verdict: Verdict) {
        let before = self.snapshot.catalog.clone();
        let mut edit = self.snapshot.catalog.edit();
        for n in exits {
            let country = before.get(&id(n)).unwrap().country();
            edit.learn(&id(n), |known| {
                (known.verdict, known.checked) = (verdict, Some(NOW));
                if verdict == Verdict::Good {
                    known.saw(ip(n), country, NOW);
                }
            });
        }
        self.snapshot.catalog = edit.finish();
        self.refresh();
    }

    fn refresh(&mut self) {
        self.snapshot.routes = self.snapshot.routes.refreshed(&self.snapshot.catalog, NOW);
    }

    fn route(&mut self, name: &str, selector: &str, policy: Policy) {
        let words = Words::default();
        let selector = Selector::parse(selector, &words).unwrap();
        let name = RouteName::parse(name, &selector, &words).unwrap();
        let (policy, origin) = (Arc::new(policy), Origin::Api);
        let route = Route { name, selector, port: None, policy, origin, created: NOW, expires: None };
        self.snapshot.routes.put(route).unwrap();
        self.refresh();
    }

    fn ask(&self, username: &str) -> bool {
        let wish = self.snapshot.routes.resolve(username, None).unwrap();
        let target = Target { host: Host::Name("shop.test".into()), port: 443 };
        let ask = Ask { wish: &wish, key: "", target: &target, now: NOW, avoid: &[], plain: false };
        decide(self.snapshot.view(), &self.memory, &ask, &mut rand::rng()).is_ok()
    }

    fn wanted_at(&self, now: Moment) -> HashMap<ExitId, Want> {
        self.wanted_by(Tested::Tor, now)
    }

    fn wanted_by(&self, tested: Tested, now: Moment) -> HashMap<ExitId, Want> {
        let order = Order::new(&self.snapshot.catalog, 7, |_| true);
        let asked_sites = |exit: &ExitId| !self.unasked.contains(exit);
        let (snapshot, memory) = (&self.snapshot, &self.memory);
        wanted(&Inputs { snapshot, memory, order: &order, tested, asked_sites: &asked_sites, now })
    }

    /// Counts the exits for which `pass` returns true: how many are wanted as used, and how many as reserves.
    fn count(&self, pass: impl Fn(&Exit) -> bool) -> (usize, usize) {
        let wanted = self.wanted_at(NOW);
        let of = |want| {
            let exits = wanted.iter().filter(|(_, held)| **held == want).map(|(id, _)| id);
            exits.filter(|id| pass(self.snapshot.catalog.get(id).unwrap())).count()
        };
        (of(Want::Used), of(Want::Reserve))
    }
}

fn pool(pool: u16) -> Policy {
    Policy { pool, ..Policy::default() }
}

fn is_in(country: &str) -> impl Fn(&Exit) -> bool {
    let country = Country::parse(country).unwrap();
    move |exit| exit.country() == country
}

fn is(verdict: Verdict) -> impl Fn(&Exit) -> bool {
    move |exit| exit.known().verdict == verdict
}

#[test]
fn if_nobody_wants_exits_a_few_are_kept_good() {
    let mut world = World::new(&[("US", 300)]);
    assert_eq!(world.count(|_| true), (0, 10), "a quarter more than lack");
    world.learn(0..300, Verdict::Good);
    assert_eq!(world.count(|_| true), (0, STANDING));
}

#[test]
fn a_route_wants_its_places_and_a_reserve() {
    let mut world = World::new(&[("US", 100), ("DE", 100)]);
    world.route("shop", "de", pool(10));
    assert_eq!(world.count(is_in("de")), (19, 0), "15 lack, and the pool has free places");
    world.learn(100..130, Verdict::Good);
    let world_de = |world: &World| world.count(is(Verdict::Good));
    assert_eq!(world_de(&world).0, 0, "nobody has used the route yet");
    assert!(world_de(&world).1 >= 15);
    assert!(world.ask("shop"));
    let (used, reserve) = world_de(&world);
    assert!(used == 10 && reserve >= 5, "{used} {reserve}");
    let later = world.wanted_at(NOW.after(IN_USE));
    assert!(later.values().all(|want| *want == Want::Reserve));
}

#[test]
fn routes_that_choose_among_the_same_exits_share_no_tested_exit() {
    let mut world = World::new(&[("US", 300)]);
    world.learn(0..4, Verdict::Good);
    (0..10).for_each(|n| world.route(&format!("shop-{n}"), "us", pool(8)));
    let (used, _) = world.count(is(Verdict::Untested));
    assert_eq!(used, 80 + 4 - 4 + 20, "of ten pools of eight and a reserve, four are good; a quarter more");
}

#[test]
fn exits_at_one_address_count_once() {
    let mut world = World::new(&[("US", 40)]);
    let mut edit = world.snapshot.catalog.edit();
    for n in 0..40 {
        edit.list(Listing { announced: vec![ip(n / 10)], weight: 1, ..Listing::new(id(n)) });
    }
    world.snapshot.catalog = edit.finish();
    assert_eq!(world.count(|_| true), (0, 4));
}

#[test]
fn usernames_want_exits_while_they_are_used() {
    let mut world = World::new(&[("US", 300), ("DE", 20)]);
    world.learn(0..300, Verdict::Good);
    assert!(!world.ask("de-session-a"), "nobody tested an exit in Germany");
    assert_eq!(world.count(is_in("de")), (15, 0), "8 places and a reserve of 4 lack");
    world.learn(300..320, Verdict::Bad);
    assert_eq!(world.count(is(Verdict::Bad)), (12, 0), "bad exits are better than none");
}

#[test]
fn a_pin_wants_its_exit_and_strict_routes_want_free_addresses() {
    let mut world = World::new(&[("US", 300)]);
    world.learn(0..40, Verdict::Good);
    world.route("shop", "us-strict", Policy::default());
    assert_eq!(world.count(is(Verdict::Good)).0, 0);
    assert!(world.ask("shop"));
    let wanted = world.wanted_at(NOW);
    assert_eq!(wanted.values().filter(|want| **want == Want::Used).count(), 1, "the pin");
    let idle = world.wanted_at(NOW.after(IN_USE));
    assert!(idle.len() > RESERVE && idle.values().all(|want| *want == Want::Reserve));
    for n in 0..60 {
        world.ask(&format!("us-strict-session-{n}"));
    }
    assert!(world.count(is(Verdict::Untested)).1 >= RESERVE, "all tested addresses have pins");
}

#[test]
fn exits_that_were_not_asked_at_the_routes_site_are_wanted() {
    let mut world = World::new(&[("US", 30)]);
    world.learn(0..30, Verdict::Good);
    world.route("shop", "us", Policy { check: Some("steam".into()), ..pool(8) });
    assert_eq!(world.count(|_| true).0, 0, "all were asked, and fail");
    world.unasked = (0..30).map(id).collect();
    assert_eq!(world.count(|_| true).0, 15);
    let mut edit = world.snapshot.catalog.edit();
    for n in 0..12 {
        edit.learn(&id(n), |known| _ = known.passed.insert("steam".into()));
    }
    world.snapshot.catalog = edit.finish();
    world.refresh();
    assert_eq!(world.count(|exit| !exit.known().passed.is_empty()).0, 0);
    assert!(world.wanted_at(NOW).len() >= 12);
}

#[test]
fn a_route_to_one_exit_wants_no_other() {
    let mut world = World::new(&[("US", 30)]);
    let wanted = |world: &World| world.count(|exit| *exit.id() == id(3)).0;
    assert_eq!(wanted(&world), 0);
    world.route("shop", &format!("any-exit-{}", id(3)), pool(8));
    assert_eq!(
        (wanted(&world), world.count(|_| true).0),
        (1, 1),
        "a place of the pool is free, and one exit may fill it"
    );
}

#[test]
fn an_exit_with_several_addresses_is_no_reserve_for_pins() {
    let mut world = World::new(&[("US", 30), ("DE", 30)]);
    world.learn(30..60, Verdict::Good);
    world.route("shop", "de-strict", Policy { check: Some("steam".into()), ..Policy::default() });
    world.unasked = (30..60).map(id).collect();
    let mut edit = world.snapshot.catalog.edit();
    for n in 30..60 {
        edit.learn(&id(n), |known| {
            known.passed.insert("steam".into());
            if n < 50 {
                known.saw(ip(n + 100), Country::parse("DE").unwrap(), NOW);
            }
        });
    }
    world.snapshot.catalog = edit.finish();
    world.refresh();
    let (one, several) = (world.count(|exit| exit.distinct()), world.count(|exit| exit.usable() && !exit.distinct()));
    assert_eq!(one.0 + one.1, 1 + RESERVE, "the place of the pin, and the reserve");
    // These exits are good for routes without pins, and good exits need no further check.
    assert!(several.0 == 0 && several.1 <= STANDING, "{several:?}");
}

#[test]
fn one_exit_of_each_country_is_kept_and_small_countries_come_first() {
    let mut world = World::new(&[("US", 300), ("IS", 2), ("DE", 20), ("FR", 5)]);
    let mut edit = world.snapshot.catalog.edit();
    edit.learn(&id(325), |known| {
        known.verdict = Verdict::Good;
        known.saw(ip(325), Country::parse("FR").unwrap(), NOW);
    });
    world.snapshot.catalog = edit.finish();
    let order = Order::new(&world.snapshot.catalog, 7, |_| true);
    let mut ranks: Vec<_> = order.representatives(&world.snapshot.catalog).into_iter().collect();
    ranks.sort_by_key(|(_, place)| *place);
    let country = |id: &ExitId| world.snapshot.catalog.get(id).unwrap().country().to_string();
    assert_eq!(ranks.iter().map(|(id, _)| country(id)).collect::<Vec<_>>(), ["IS", "DE", "US"]);
    assert_eq!(ranks.iter().map(|(_, place)| *place).collect::<Vec<_>>(), [1, 2, 3]);
    let none = Order::new(&world.snapshot.catalog, 7, |_| false);
    assert!(none.representatives(&world.snapshot.catalog).is_empty());
}

#[test]
fn exits_with_more_capacity_tend_to_come_first() {
    let mut world = World::new(&[("US", 400)]);
    let mut edit = world.snapshot.catalog.edit();
    for n in 0..400 {
        let weight = if n < 40 { 200_000 } else { 1000 };
        edit.list(Listing { announced: vec![ip(n)], weight, ..Listing::new(id(n)) });
    }
    world.snapshot.catalog = edit.finish();
    let first = |seed| {
        let order = Order::new(&world.snapshot.catalog, seed, |_| true);
        order.slots[..20].to_vec()
    };
    let large = |slots: &[Slot]| {
        let weight = |slot: &&Slot| world.snapshot.catalog.at(**slot).unwrap().listing().weight;
        slots.iter().filter(|slot| weight(slot) == 200_000).count()
    };
    let drawn: usize = (0..50).map(|seed| large(&first(seed))).sum();
    // Large exits have 91 % of the capacity at first. Each draw leaves fewer of them, so somewhat less than 91 % of the
    // drawn exits are large.
    assert!((830..=940).contains(&drawn), "{drawn} of 1000");
    assert_ne!(first(1), first(2));
    assert_eq!(first(1), first(1));
}

#[test]
fn each_tester_wants_only_its_own_exits() {
    let mut world = World::new(&[("US", 4)]);
    let mut edit = world.snapshot.catalog.edit();
    for n in 0..4 {
        let ip = IpAddr::from([192, 0, 2, n]);
        edit.list(Listing { announced: vec![ip], ..Listing::new(ExitId::Own(ip)) });
    }
    world.snapshot.catalog = edit.finish();
    let direct = |world: &World, tested| {
        let wanted = world.wanted_by(tested, NOW);
        (wanted.len(), wanted.keys().filter(|exit| exit.source() == Source::Direct).count())
    };
    assert_eq!((direct(&world, Tested::Own), direct(&world, Tested::Tor)), ((4, 4), (4, 0)), "some without any route");
    let selector = "any-source-direct";
    world.route("own", selector, pool(2));
    let used = world.wanted_by(Tested::Own, NOW).values().filter(|want| **want == Want::Used).count();
    assert!(used >= 2, "{used}");
    assert!(world.wanted_at(NOW).values().all(|want| *want == Want::Reserve), "the route needs no Tor exit");
}

/// Adds an untested exit of the upstream source `acme`. `country` is `??` if its proxy has a host name.
fn own(world: &mut World, n: u8, country: &str) -> ExitId {
    let source = crate::exit::UpstreamName::configured("acme").unwrap();
    let id = ExitId::Upstream(Arc::new(crate::exit::UpstreamId { source, key: format!("{n}").into() }));
    let mut edit = world.snapshot.catalog.edit();
    edit.list(Listing { country: Country::parse(country).unwrap(), ..Listing::new(id.clone()) });
    world.snapshot.catalog = edit.finish();
    id
}

#[test]
fn an_exit_of_ones_own_is_tested_if_its_country_is_unknown_or_if_a_route_wants_it() {
    let mut world = World::new(&[("US", 4)]);
    let (unknown, us, de) = (own(&mut world, 1, "??"), own(&mut world, 2, "US"), own(&mut world, 3, "DE"));
    let wanted = |world: &World, tested| {
        let World { snapshot, memory, .. } = world;
        let order = Order::new(&snapshot.catalog, 1, |exit| Tested::includes(tested, exit.id().source()));
        let asked_sites = |_: &ExitId| true;
        self::wanted(&Inputs { snapshot, memory, order: &order, tested, asked_sites: &asked_sites, now: NOW })
    };
    let before = wanted(&world, Tested::Upstream);
    assert_eq!(before, HashMap::from([(unknown.clone(), Want::Reserve)]), "nobody has named the source");
    world.route("shop", "us-source-acme", pool(2));
    let after = wanted(&world, Tested::Upstream);
    assert_eq!(after, HashMap::from([(unknown, Want::Reserve), (us.clone(), Want::Used)]));
    let tor = wanted(&world, Tested::Tor);
    assert!(!tor.contains_key(&us) && !tor.contains_key(&de), "the other tester tests no exit of this source");
}
