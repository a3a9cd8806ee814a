//! How many sessions a gateway source must keep, and in which countries. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::Place;
use crate::exit::country::CountrySet;
use crate::exit::{Moment, Source};
use crate::route::memory::Memory;
use crate::route::selector::Mode;
use crate::state::Snapshot;

/// A route counts as used if its last use was within this time. The tester (`check/demand.rs`) has the same value.
const IN_USE: Duration = Duration::from_secs(600);

/// A selector with more countries than this gets sessions that may leave in any country, because a session for each
/// country would be too many. Not tuned.
const FEW: usize = 8;

/// Returns how many sessions each place needs. `asked` are the countries of requests that found no exit lately.
pub(super) fn wanted(
    source: Source,
    snapshot: &Snapshot,
    memory: &Memory,
    asked: &[CountrySet],
    now: Moment,
) -> BTreeMap<Place, usize> {
    let mut wanted = BTreeMap::new();
    let lately = |at: Moment| now.since(at) < IN_USE;
    for entry in snapshot.routes.iter() {
        let (selector, policy) = (&entry.route.selector, &entry.route.policy);
        if policy.sources(selector).contains(&source) {
            let is_used = entry.used().is_some_and(lately);
            // A session costs nothing before it is checked or used. But checks cost paid bytes, so a route that nobody
            // uses has one session for its next request.
            let places = if is_used && selector.mode != Mode::Strict { usize::from(policy.pool.max(1)) } else { 1 };
            add(&mut wanted, selector.geo.countries(), places);
        }
    }
    for implicit in memory.implicit().list().iter().filter(|implicit| lately(implicit.used())) {
        if implicit.policy().sources(implicit.selector()).contains(&source) {
            add(&mut wanted, implicit.selector().geo.countries(), usize::from(implicit.policy().pool.max(1)));
        }
    }
    let mut least = BTreeMap::new();
    asked.iter().for_each(|countries| add(&mut least, countries, 1));
    for (place, _) in least {
        wanted.entry(place).or_insert(1);
    }
    wanted
}

/// Adds the places of one route. The places are spread over its countries.
fn add(wanted: &mut BTreeMap<Place, usize>, countries: &CountrySet, places: usize) {
    let count = countries.iter().filter(|country| country.is_known()).count();
    if *countries == CountrySet::ALL || count > FEW {
        *wanted.entry(None).or_default() += places;
        return;
    }
    for country in countries.iter().filter(|country| country.is_known()) {
        *wanted.entry(Some(country)).or_default() += places.div_ceil(count.max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::UpstreamName;
    use crate::exit::country::Country;
    use crate::route::memory::Bounds;
    use crate::route::selector::{RouteName, Selector};
    use crate::route::table::{Origin, Route};
    use crate::route::{Ask, Policy, Words, decide};

    /// Uses a route for a request, which no exit can serve.
    fn use_route(snapshot: &Snapshot, memory: &Memory, name: &str, now: Moment) {
        let (wish, target) = (snapshot.routes.resolve(name, None).unwrap(), "web.test:80".parse().unwrap());
        let ask = Ask { wish: &wish, key: "", target: &target, now, avoid: &[], plain: true };
        assert!(decide(snapshot.view(), memory, &ask, &mut rand::rng()).is_err());
    }

    #[test]
    fn places_follow_the_countries_of_routes_and_of_requests() {
        let source = Source::Upstream(UpstreamName::configured("acme").unwrap());
        let words = Words::default();
        let mut snapshot = Snapshot::new(words.clone(), Policy::default());
        let (memory, now) = (Memory::new(Bounds::default()), Moment(1_000_000_000));
        for (name, selector) in [("a", "de+fr-source-acme"), ("b", "us-strict-source-acme"), ("c", "us-source-tor")] {
            let selector = Selector::parse(selector, &words).unwrap();
            let name = RouteName::parse(name, &selector, &words).unwrap();
            let (policy, origin) = (std::sync::Arc::new(Policy::default()), Origin::Config);
            let route = Route { name, selector, port: None, policy, origin, created: now, expires: None };
            snapshot.routes.put(route).unwrap();
        }
        let place = |code: &str| Country::parse(code).filter(|country| country.is_known());
        let of = |asked: &[CountrySet]| wanted(source, &snapshot, &memory, asked, now);
        let want =
            |places: &[(&str, usize)]| places.iter().map(|(code, n)| (place(code), *n)).collect::<BTreeMap<_, _>>();
        assert_eq!(of(&[]), want(&[("DE", 1), ("FR", 1), ("US", 1)]), "nobody uses the routes yet");
        use_route(&snapshot, &memory, "a", now);
        let of = |asked: &[CountrySet]| wanted(source, &snapshot, &memory, asked, now);
        assert_eq!(of(&[]), want(&[("DE", 4), ("FR", 4), ("US", 1)]), "a pool of 8 is spread over two countries");
        let mut jp = CountrySet::default();
        jp.insert(Country::parse("JP").unwrap());
        let many = of(&[jp, CountrySet::ALL, CountrySet::default()]);
        assert_eq!(many, want(&[("DE", 4), ("FR", 4), ("US", 1), ("JP", 1), ("??", 1)]));
    }
}
