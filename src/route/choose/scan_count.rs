//! Tests that no choice looks at every exit of the catalog. The tests count the exits that each choice looks at.

use std::sync::Arc;

use super::super::fixture::*;
use super::super::policy::Policy;
use crate::exit::catalog::scan_count;
use crate::exit::policy::PortPolicy;
use crate::exit::{Abilities, Anonymity, ExitId, Protocol, PublicId, Verdict};

const EXITS: u16 = 5_000;

/// The largest number of exits that one choice may look at. A choice may draw exits at random two times, and each time
/// it may look at a small sample and then at a large one. The other 100 exits are the members of a pool and the exits
/// from which these members were taken. A loop over all exits of the test world would look at hundreds or thousands.
const BOUND: usize = 2 * (super::FEW + super::MANY) + 100;

/// Makes a world of exits. Every third exit is a public proxy, every tenth is untested, and every seventh is bad. A
/// thousand exits share one address, and a thousand more share ten addresses. Nine exits in ten allow only the ports of
/// the web. No exit allows the ports of mail.
fn world() -> World {
    let mut world = World::new(&[]);
    let mut edit = world.catalog.edit();
    for n in 0..EXITS {
        let code = ["US", "DE", "FR", "NL", "SE"][usize::from(n % 5)];
        let mut listing = listing(n, code);
        if n % 3 == 0 {
            let addr = (ip(n), 1080).into();
            listing.id = ExitId::Public(Arc::new(PublicId { protocol: Protocol::Socks5, addr }));
        }
        let policy = if n % 10 == 9 { "reject 25" } else { "accept 80,443" };
        listing.policy = policy.parse().unwrap();
        listing.policy_v6 = PortPolicy::reject_all();
        let seen = match n {
            0..1000 => ip(10_000),
            1000..2000 => ip(10_001 + n % 10),
            _ => ip(n),
        };
        let (id, public) = (listing.id.clone(), n % 3 == 0);
        edit.list(listing);
        edit.learn(&id, |known| {
            known.saw(seen, country(code), START);
            known.verdict = match n {
                _ if n % 7 == 0 => Verdict::Bad,
                _ if n % 10 == 0 => Verdict::Untested,
                _ => Verdict::Good,
            };
            known.passed.extend((n % 4 > 0).then(|| "steam".into()));
            known.public = public.then_some(Abilities {
                anonymity: Anonymity::Elite,
                tls: true,
                tunnels: n % 2 == 0,
                took: SECOND,
                passed: 0,
                asked: 0,
            });
        });
    }
    world.catalog = edit.finish();
    for (name, selector, policy) in [
        ("steam", "any", Policy { check: Some("steam".into()), ..Policy::default() }),
        ("wide", "any-source-any", Policy { pool: 40, ..Policy::default() }),
        ("alone", "us-strict", Policy { exclusive: true, ..Policy::default() }),
    ] {
        world.route(name, selector, policy);
    }
    let banned: Vec<_> = (0..EXITS).filter(|n| n % 3 > 0).collect();
    let until = world.now.after(MINUTE);
    let ban = |site: &str, n: u16| (super::super::Site::of(&target(site).host), id(n), until);
    let all = banned.iter().map(|n| ban("closed.com:443", *n));
    let most = banned.iter().filter(|n| *n % 100 > 1).map(|n| ban("picky.com:443", *n));
    world.bans = world.bans.with(all.chain(most).collect::<Vec<_>>());
    world
}

#[test]
fn no_username_walks_over_the_catalog() {
    let mut world = world();
    let shared = ip(10_000);
    let places = ["any", "us", "nonus", "eu", "de+fr", "nonde+fr+nl", "jp", "nonjp"];
    let narrowed =
        ["-asn-2", "-asn-9", "-nonasn-2+3", "-nonasn-9", "-source-public", "-source-any", "-asn-3-source-public"];
    let tails = ["", "-rotate", "-session-s#", "-session-same", "-session-t#-ttl-10m", "-strict", "-strict-session-p#"];
    let mut names: Vec<String> = Vec::new();
    for place in places {
        for narrow in [""].into_iter().chain(narrowed) {
            names.extend(tails.iter().map(|tail| format!("{place}{narrow}{tail}")));
        }
    }
    let picks = [format!("any-exit-{shared}"), format!("any-exit-{}", ip(4001)), format!("any-exit-{}", id(4001))];
    names.extend(picks.iter().flat_map(|pick| tails.iter().map(move |tail| format!("{pick}{tail}"))));
    names.extend(["steam", "wide", "alone-session-a#"].map(str::to_owned));
    names.extend(["steam-session-s#", "wide-rotate", "wide-us", "steam-strict-session-p#"].map(str::to_owned));
    let mut worst = (0, String::new());
    for to in ["open.com:443", "open.com:25", "open.com:6667", "closed.com:443", "picky.com:443", "[2001:db8::1]:443"] {
        for name in &names {
            for round in 0..3 {
                let name = name.replace('#', &round.to_string());
                let Ok(wish) = world.routes.resolve(&name, None) else { continue };
                drop(wish);
                let (_, looked) = scan_count::during(|| _ = world.decide_to(&name, to));
                worst = worst.max((looked, format!("{name} to {to}")));
                let (_, looked) = scan_count::during(|| _ = world.explain(&name, to));
                worst = worst.max((looked, format!("why {name} to {to}")));
            }
        }
    }
    assert!(worst.0 <= BOUND, "{} exits looked at by {}", worst.0, worst.1);
    assert!(worst.0 >= super::FEW, "nothing was counted");
}

#[test]
fn an_exit_of_a_small_set_is_looked_at_once_if_none_of_them_is_good_enough() {
    let mut world = World::new(&["US"; 5]);
    world.route("shop", "us", Policy { pool: 1, ..Policy::default() });
    (0..5).for_each(|n| world.eject(n));
    let (_, looked) = scan_count::during(|| world.decide("shop").unwrap());
    // Four steps of the choice look at the member of the pool. One step looks at each of the other four exits. A second
    // draw from the same few exits could find nothing new.
    assert!(looked <= 4 + 4, "{looked}");
}

#[test]
fn many_pins_and_a_lost_exit_do_not_walk_either() {
    let mut world = world();
    let mut worst = 0;
    // There are more pins than addresses, so at the end several pins share each address.
    for n in 0..4000 {
        let (_, looked) = scan_count::during(|| _ = world.first(&format!("us-strict-session-p{n}")));
        worst = worst.max(looked);
    }
    assert!(worst <= BOUND, "{worst}");
    let uses = |n: u16| world.memory.pins().uses(ip(n));
    let us = (2000..EXITS).filter(|n| n % 5 == 0 && n % 3 > 0 && n % 7 > 0 && n % 10 > 0);
    let uses: Vec<_> = us.map(uses).collect();
    assert!(uses.iter().all(|uses| *uses > 0), "every address is used before one is used twice");
    let home = world.decide("us-strict-session-p7").unwrap().exits[0].clone();
    let mut edit = world.catalog.edit();
    edit.learn(home.id(), |known| known.verdict = Verdict::Bad);
    world.catalog = edit.finish();
    let (again, looked) = scan_count::during(|| world.decide("us-strict-session-p7"));
    assert!(again.is_err() && looked <= BOUND, "{looked}");
}
