//! Tests with random worlds and usernames: only exits that the username allows are chosen.

use super::*;

#[derive(Clone, Debug)]
struct Planted {
    code: &'static str,
    ip: u16,
    several: bool,
    verdict: Verdict,
    running: bool,
    policy: &'static str,
    banned: bool,
    passes: bool,
}

fn planted() -> impl Strategy<Value = Planted> {
    let code = prop::sample::select(vec!["US", "US", "DE", "FR", "??"]);
    let policy = prop::sample::select(vec!["accept 1-65535", "accept 80,443", "accept 22"]);
    let verdict =
        prop::sample::select(vec![Verdict::Good, Verdict::Good, Verdict::Good, Verdict::Bad, Verdict::Untested]);
    let odds = (prop::bool::weighted(0.1), prop::bool::weighted(0.9), prop::bool::weighted(0.2), any::<bool>());
    (code, 0u16..12, policy, verdict, odds).prop_map(
        |(code, ip, policy, verdict, (several, running, banned, passes))| Planted {
            code,
            ip,
            several,
            verdict,
            running,
            policy,
            banned,
            passes,
        },
    )
}

fn plant(exits: &[Planted]) -> World {
    let mut world = World::new(&[]);
    let mut edit = world.catalog.edit();
    for (n, planted) in (0..).zip(exits) {
        let mut listing = listing(n, planted.code);
        listing.policy = planted.policy.parse().unwrap();
        listing.flags.running = planted.running;
        edit.list(listing);
        edit.learn(&id(n), |known| {
            known.saw(ip(500 + planted.ip), country(planted.code), START);
            if planted.several {
                known.saw(ip(600 + n), country(planted.code), START);
            }
            known.verdict = planted.verdict;
            known.passed.extend(planted.passes.then(|| "steam".into()));
        });
    }
    world.catalog = edit.finish();
    (0..).zip(exits).filter(|(_, planted)| planted.banned).for_each(|(n, _)| world.ban("shop.com", n, MINUTE));
    world.route("steam", "nonfr", Policy { pool: 2, check: Some("steam".into()), ..Policy::default() });
    world
}

/// Returns the exits that the username allows. The function looks at each exit, so it is slow but simple.
fn allowed(exits: &[Planted], username: &str, port: u16) -> BTreeSet<u16> {
    let fits = |n: u16, exit: &Planted| {
        let place = match username.split('-').next().unwrap() {
            "any" => true,
            "us" => exit.code == "US",
            "nonus" => !["US", "??"].contains(&exit.code),
            "eu" => ["DE", "FR"].contains(&exit.code),
            "steam" => exit.passes && !["FR", "??"].contains(&exit.code),
            other => panic!("{other}"),
        };
        let asn = match username {
            _ if username.contains("nonasn-2+4") => ![2, 4].contains(&(n % 5 + 1)),
            _ => !username.contains("asn-2") || n % 5 + 1 == 2,
        };
        let port = match exit.policy {
            "accept 80,443" => [80, 443].contains(&port),
            "accept 22" => port == 22,
            _ => true,
        };
        let one = !username.contains("strict") || !exit.several;
        place && asn && port && one && exit.running && exit.verdict == Verdict::Good && !exit.banned
    };
    (0..).zip(exits).filter(|(n, exit)| fits(*n, exit)).map(|(n, _)| n).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_decision_is_what_a_walk_allows(
        exits in prop::collection::vec(planted(), 0..40),
        port in prop::sample::select(vec![443u16, 22, 6667]),
    ) {
        let mut world = plant(&exits);
        for username in [
            "any", "us", "nonus", "eu", "steam", "us-asn-2", "steam-asn-2", "us-nonasn-2+4", "any-nonasn-2+4-strict", "us-rotate",
            "nonus-session-a", "steam-session-a", "any-strict", "nonus-strict", "steam-strict-session-b",
        ] {
            let allowed = allowed(&exits, username, port);
            let to = format!("shop.com:{port}");
            let why = world.explain(username, &to).why;
            match world.decide_to(username, &to) {
                Ok(plan) => {
                    let chosen: Vec<u16> = plan.exits.iter().map(|exit| number(exit.id())).collect();
                    prop_assert!(chosen.iter().all(|n| allowed.contains(n)), "{} chose {:?} of {:?}", username, chosen, allowed);
                    let unique: BTreeSet<_> = chosen.iter().collect();
                    prop_assert_eq!(unique.len(), chosen.len());
                    prop_assert!((1..=3).contains(&chosen.len()));
                    prop_assert_eq!(why, None);
                }
                Err(refusal) => {
                    prop_assert!(allowed.is_empty(), "{}: {}, but {:?} are allowed", username, refusal, allowed);
                    prop_assert_eq!(Some(refusal.why), why);
                }
            }
        }
    }
}
