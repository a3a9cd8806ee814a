//! Snapshots with a few exits, which the tests of this room use.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use crate::exit::country::{Country, GeoIp};
use crate::exit::{Abilities, Anonymity, Catalog, ExitId, Fingerprint, Listing, Login, Moment, Offer};
use crate::exit::{Protocol, PublicId, Through, Verdict};
use crate::net::Secret;
use crate::route::rules::{Action, HostPattern, Rule, RuleSelector, Rules};
use crate::route::selector::{RouteName, Selector};
use crate::route::table::{Origin, Route};
use crate::route::{Policy, Words};
use crate::state::Snapshot;

/// Returns a snapshot with one relay for each country. All relays except the last have passed a check.
pub(super) fn snapshot(countries: &[&str]) -> Snapshot {
    let mut edit = Catalog::default().edit();
    for (at, country) in countries.iter().enumerate() {
        let at = u8::try_from(at).unwrap();
        let (id, ip) = (ExitId::Tor(Fingerprint([at + 1; 20])), Ipv4Addr::new(192, 0, 2, at + 1).into());
        let country = Country::parse(country).unwrap();
        edit.list(Listing {
            nickname: format!("relay{at}").into(),
            announced: vec![ip],
            country,
            asn: Some(64_500),
            ..Listing::new(id.clone())
        });
        if usize::from(at) + 1 < countries.len() {
            edit.learn(&id, |known| {
                known.saw(ip, country, Moment(1));
                known.verdict = Verdict::Good;
            });
        }
    }
    let mut snapshot = Snapshot::new(Words::default(), Policy::default());
    snapshot.catalog = edit.finish();
    snapshot
}

/// Returns a snapshot with one public proxy for each pair of a country and a response time in milliseconds. A proxy
/// with an empty country does not work. The fourth proxy needs a login.
pub(super) fn public(proxies: &[(&str, u64)]) -> Snapshot {
    let mut edit = Catalog::default().edit();
    for (at, (country, millis)) in (0u8..).zip(proxies) {
        let id = PublicId { protocol: Protocol::Http, addr: ([192, 0, 2, at + 1], 80).into() };
        let login = (at == 3).then(|| Login { user: "user".into(), password: Secret::new("secret") });
        let offer = Offer { list: "test".into(), login, through: Through::Direct };
        let listing = offer.listing(id, &GeoIp::default());
        let id = listing.id.clone();
        edit.list(listing);
        edit.learn(&id, |known| {
            known.checked = Some(Moment(1));
            known.verdict = if country.is_empty() { Verdict::Bad } else { Verdict::Good };
            if let Some(country) = Country::parse(country) {
                known.saw(Ipv4Addr::new(198, 51, 100, at + 1).into(), country, Moment(1));
                let (anonymity, took) = (Anonymity::Elite, Duration::from_millis(*millis));
                known.public = Some(Abilities { anonymity, tunnels: true, tls: true, took, passed: 0, asked: 0 });
            }
        });
    }
    let mut snapshot = Snapshot::new(Words::default(), Policy::default());
    snapshot.catalog = edit.finish();
    snapshot
}

/// Adds the route `shop`, which has two rules.
pub(super) fn add_route_with_rules(snapshot: &mut Snapshot) {
    let words = Words::default();
    let rule = |host: &str, action| Rule { hosts: vec![HostPattern::parse(host).unwrap()], ports: Vec::new(), action };
    let us = Action::Use(RuleSelector::new(Selector::parse("us", &words).unwrap(), false));
    let rules = Rules::new(vec![rule("*.shop.example", us), rule("bad.example", Action::Refuse)]);
    let selector = Selector::parse("any", &words).unwrap();
    let name = RouteName::parse("shop", &selector, &words).unwrap();
    let policy = Arc::new(Policy { rules, ..Policy::default() });
    let route = Route { name, selector, port: None, policy, origin: Origin::Api, created: Moment(1), expires: None };
    snapshot.routes.put(route).unwrap();
}
