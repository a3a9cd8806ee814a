use proptest::prelude::*;

use super::synth::{Fake, texts};
use super::*;

const CONSENSUS: &str = include_str!("testdata/consensus-microdesc.txt");
const NS_ALL: &str = include_str!("testdata/ns-all.txt");
const MICRODESCS: &str = include_str!("testdata/md-all.txt");

fn by_name<'a>(dir: &'a Netdir, name: &str) -> Relay<'a> {
    dir.relays().find(|relay| relay.nickname() == name).unwrap()
}

fn neighbours_allowed() -> Rules {
    Rules { distinct_subnets: false }
}

/// Returns true if two directories are equal for the choice of paths.
fn same(a: &Netdir, b: &Netdir) -> bool {
    let facts =
        |relay: Relay<'_>| (relay.fingerprint(), relay.flags(), relay.is_known(), relay.policy().clone(), relay.v4());
    a.relays().map(facts).eq(b.relays().map(facts))
}

#[test]
fn reads_what_a_real_tor_says() {
    let dir = Netdir::parse(CONSENSUS, MICRODESCS).unwrap();
    assert_eq!(dir.skipped(), Skipped::default());
    assert_eq!((dir.len(), dir.missing_microdescs()), (9, 0));
    let lifetime = [dir.valid_after(), dir.fresh_until(), dir.valid_until()].map(Option::unwrap);
    assert_eq!(lifetime[1], lifetime[0] + Duration::from_secs(20));
    assert_eq!(lifetime[2], lifetime[0] + Duration::from_secs(600));
    assert_eq!(dir.param("cc_alg"), Some(2));
    assert_eq!(
        (dir.param("nothing"), dir.param_or("cc_alg", 9, 3..=8), dir.param_or("nothing", 9, 3..=8)),
        (None, 3, 9)
    );

    let exit2 = by_name(&dir, "exit2");
    assert_eq!(exit2.fingerprint().to_string(), "529ADEDCDB28DCC3AA4CD02B2A63B5AE19BC4EC2");
    assert_eq!((exit2.v4().to_string(), exit2.v6()), ("127.82.1.2".to_owned(), None));
    assert_eq!(
        (exit2.policy().to_string(), exit2.policy_v6().is_reject_all()),
        ("accept 80,443,8000-9000".to_owned(), true)
    );
    assert_eq!(by_name(&dir, "exit3").policy().to_string(), "reject 25,119");
    assert_eq!(exit2.bandwidth(), 1);
    assert!(exit2.flags().has(Flags::EXIT.and(Flags::RUNNING)) && !exit2.flags().has(Flags::GUARD));
    assert!(by_name(&dir, "auth1").flags().has(Flags::AUTHORITY) && by_name(&dir, "auth1").policy().is_reject_all());
    assert!(dir.relays().all(|relay| relay.is_known()));
    assert!(dir.relays().all(|relay| dir.relay(&relay.fingerprint()).unwrap().nickname() == relay.nickname()));
    assert!(dir.relay(&Fingerprint([0; 20])).is_none());
}

#[test]
fn a_real_family_is_mutual_or_proven() {
    let dir = Netdir::parse(CONSENSUS, MICRODESCS).unwrap();
    for (a, b, want) in [
        ("exit1", "exit2", Some(Relation::Family)), // each of the two declares the other
        ("exit3", "exit1", None),                   // exit3 declares exit1, but exit1 does not declare exit3
        ("exit1", "guard4", None),
        ("guard1", "guard3", Some(Relation::Family)), // both have the same family key
        ("guard1", "auth1", None),
        ("exit1", "exit1", Some(Relation::Same)),
    ] {
        let (a, b) = (by_name(&dir, a), by_name(&dir, b));
        assert_eq!(a.relation(b, neighbours_allowed()), want, "{a:?} {b:?}");
        assert_eq!(b.relation(a, neighbours_allowed()), want);
    }
    assert_eq!(by_name(&dir, "exit4").relation(by_name(&dir, "auth1"), Rules::default()), Some(Relation::Subnet));
}

#[test]
fn all_that_an_engine_can_tell_comes_to_the_same() {
    let dir = Netdir::parse(CONSENSUS, MICRODESCS).unwrap();
    let from_ns = Netdir::parse(NS_ALL, MICRODESCS).unwrap();
    assert!(same(&dir, &from_ns));
    assert_eq!((from_ns.valid_until(), from_ns.skipped()), (None, Skipped::default()));

    let cached = MICRODESCS.replace("onion-key\n-----", "@last-listed 2026-11-21 12:14:23\nonion-key\n-----");
    assert_eq!(cached.matches("@last-listed").count(), 9);
    for microdescs in [cached, MICRODESCS.replace('\n', "\r\n"), MICRODESCS.trim_end().to_owned()] {
        let dir_too = Netdir::parse(&CONSENSUS.replace('\n', "\r\n"), &microdescs).unwrap();
        assert!(same(&dir, &dir_too));
        assert_eq!(dir_too.skipped(), Skipped::default());
    }
}

#[test]
fn a_relay_without_its_microdescriptor_is_listed_and_not_known() {
    let half = MICRODESCS.match_indices("onion-key\n-----").nth(4).unwrap().0;
    let dir = Netdir::parse(CONSENSUS, &MICRODESCS[half..]).unwrap();
    assert_eq!((dir.len(), dir.missing_microdescs()), (9, 4));
    let changed = MICRODESCS.replace("p accept 80,443,8000-9000", "p accept 80,443,8000-9001");
    let dir = Netdir::parse(CONSENSUS, &changed).unwrap();
    assert!(!by_name(&dir, "exit2").is_known() && by_name(&dir, "exit2").policy().is_reject_all());
    assert_eq!((dir.missing_microdescs(), dir.skipped().microdescs), (1, 1));
}

#[test]
fn skips_and_counts_what_it_cannot_read() {
    assert_eq!(Netdir::parse("", MICRODESCS).unwrap_err(), BadNetdir::NoRelays);
    let good = "r a AAAAAAAAAAAAAAAAAAAAAAAAAAA 2038-01-01 00:00:00 1.2.3.4 9001 0";
    let other = "r b BAAAAAAAAAAAAAAAAAAAAAAAAAA 2038-01-01 00:00:00 1.2.3.5 9001 0";
    for (text, relays, skipped) in [
        (good.to_owned(), 1, Skipped::default()),
        (
            format!("{good}\ns\nw Bandwidth=x\nm short\na [::1\nvalid-after never"),
            1,
            Skipped { malformed: 4, ..Skipped::default() },
        ),
        (format!("{good}\nnew-thing 1 2\nnewer\n\n"), 1, Skipped { unknown: 2, ..Skipped::default() }),
        (format!("{good}\n{other}\n{good}"), 2, Skipped { relays: 1, ..Skipped::default() }),
        // Lines after an unreadable `r` line belong to no relay, and must not be added to the relay before.
        (format!("{good}\nr x y\ns Running Valid\nr\n"), 1, Skipped { relays: 2, ..Skipped::default() }),
        (format!("{good}\ns Running\ndirectory-signature\n{other}"), 1, Skipped::default()),
    ] {
        let dir = Netdir::parse(&text, "").unwrap();
        assert_eq!(
            (dir.len(), dir.skipped()),
            (relays, Skipped { malformed: dir.skipped().malformed.min(4), ..skipped }),
            "{text}"
        );
        assert_eq!(dir.skipped().malformed > 0, skipped.malformed > 0);
        assert!(dir.relays().all(|relay| relay.flags() == Flags::default() || text.contains("s Running\n")));
        assert!(dir.relays().all(|relay| relay.bandwidth() == 30), "what tor takes when nothing is told");
    }
}

#[test]
fn subnets_and_switched_off_families() {
    let mut relays: Vec<Fake> = (1..=4).map(Fake::new).collect();
    relays[1].v4 = "10.1.200.7".parse().unwrap(); // in the same /16 network as the first relay
    relays[2].v6 = "2001:db8:1::1".parse().ok();
    relays[3].v6 = "2001:db8:2::1".parse().ok();
    relays[0].family = "relay3 $0000000000000000000000000000000000000000".into();
    relays[2].family = format!("{}=relay1", relays[0].hex());
    for relay in [0, 3] {
        relays[relay].family_ids = "ed25519:x unknown-kind:y".into();
    }
    let dir = |params: &str| {
        let (consensus, microdescs) = texts(&relays, params, "");
        Netdir::parse(&consensus, &microdescs).unwrap()
    };
    for (params, a, b, want) in [
        ("", "relay1", "relay2", Some(Relation::Subnet)),
        ("", "relay3", "relay4", Some(Relation::Subnet)),
        ("", "relay2", "relay3", None),
        ("", "relay1", "relay3", Some(Relation::Family)), // one relay declares by nickname, the other by fingerprint
        ("use-family-lists=0", "relay1", "relay3", None),
        ("", "relay1", "relay4", Some(Relation::Family)),
        ("use-family-ids=0", "relay1", "relay4", None),
    ] {
        let dir = dir(params);
        assert_eq!(by_name(&dir, a).relation(by_name(&dir, b), Rules::default()), want, "{a} {b} {params}");
    }
    assert_eq!(by_name(&dir(""), "relay1").relation(by_name(&dir(""), "relay2"), neighbours_allowed()), None);
}

#[test]
fn a_directory_is_small() {
    let (consensus, microdescs) = texts(&super::synth::network(2000, 1), "", super::synth::WEIGHTS);
    let dir = Netdir::parse(&consensus, &microdescs).unwrap();
    assert_eq!((dir.len(), dir.missing_microdescs(), dir.skipped()), (2000, 0, Skipped::default()));
    assert!(dir.bytes() < 2000 * 200, "{} bytes", dir.bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_text_panics(consensus in ".{0,200}", microdescs in ".{0,200}") {
        let _ = Netdir::parse(&consensus, &microdescs);
    }

    #[test]
    fn no_line_that_looks_right_panics(
        lines in prop::collection::vec("(r|m|s|w|a|p|params|valid-after|bandwidth-weights)( [A-Za-z0-9+/=:.\\[\\]-]{0,44}){0,9}", 0..40),
        more in prop::collection::vec("(onion-key|ntor-onion-key|family|family-ids|p|p6|id ed25519|a|@x|-----BEGIN)( [A-Za-z0-9$=~,:-]{0,44}){0,4}", 0..40),
    ) {
        let _ = Netdir::parse(&lines.join("\n"), &more.join("\n"));
    }

    #[test]
    fn a_damaged_directory_is_read_or_refused(at in 0usize..9000, cut in 0usize..40, put in "[ -~\n]{0,20}") {
        for (consensus, microdescs) in [(true, false), (false, true), (true, true)] {
            let damage = |text: &str, wanted: bool| {
                let from = at.min(text.len());
                let to = (from + cut).min(text.len());
                if wanted { format!("{}{put}{}", &text[..from], &text[to..]) } else { text.to_owned() }
            };
            if let Ok(dir) = Netdir::parse(&damage(CONSENSUS, consensus), &damage(MICRODESCS, microdescs)) {
                prop_assert!(dir.len() <= 40);
                for (a, b) in dir.relays().zip(dir.relays().skip(1)) {
                    prop_assert!(a.fingerprint() < b.fingerprint());
                    prop_assert_eq!(a.relation(b, Rules::default()), b.relation(a, Rules::default()));
                }
            }
        }
    }
}
