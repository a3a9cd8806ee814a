use std::time::Duration;

use super::*;
use crate::exit::facts::Flags;
use crate::tor::netdir::synth::{Fake, WEIGHTS, network, texts};

const NOW: Moment = Moment(1_795_262_400_000_000);

const UP: Flags = Flags { running: true, stable: true, fast: true, bad_exit: false };

fn directory(relays: &[Fake]) -> Word {
    let (consensus, microdescs) = texts(relays, "", WEIGHTS);
    Word::Directory(Arc::new(Netdir::parse(&consensus, &microdescs).unwrap()))
}

fn id(relay: &Fake) -> Fingerprint {
    relay.hex().parse().unwrap()
}

/// The relay as Onionoo would have it: in DE, in AS 7, and for the rest as unlike the directory as can be.
fn described(relay: &Fake, exits: &[&str]) -> Listing {
    let exits = exits.iter().map(|ip| ip.parse().unwrap());
    Listing {
        id: ExitId::Tor(id(relay)),
        nickname: "onionoo".into(),
        announced: exits.chain([relay.v4.into()]).collect(),
        country: "DE".parse().unwrap(),
        asn: Some(7),
        as_name: Some("Seven".into()),
        policy: "accept 443".parse().unwrap(),
        policy_v6: "accept 443".parse().unwrap(),
        flags: Flags { running: true, ..Flags::default() },
        weight: 5,
        public: None,
    }
}

fn seen(relay: &Fake, ip: &str, ago: Duration) -> Sighting {
    Sighting { relay: id(relay), ip: ip.parse().unwrap(), at: Moment(NOW.0 - ago.as_micros() as u64) }
}

fn merge(words: impl IntoIterator<Item = Word>) -> Merge {
    let geoip = GeoIp::parse("198.51.100.0,198.51.100.255,CA\n", "");
    let mut merge = Merge::new(Arc::new(geoip), Vec::new());
    words.into_iter().for_each(|word| merge.hear(word));
    merge
}

fn exits(words: impl IntoIterator<Item = Word>) -> Vec<Listing> {
    merge(words).news(NOW).unwrap_or_default()
}

#[test]
fn each_field_is_the_word_of_the_witness_that_knows_best() {
    let relay = Fake::new(1);
    let (ours, theirs) = (directory(std::slice::from_ref(&relay)), described(&relay, &["192.0.2.7"]));
    for words in [[ours.clone(), Word::Onionoo(vec![theirs.clone()])], [Word::Onionoo(vec![theirs]), ours]] {
        let [exit] = &exits(words)[..] else { panic!("one exit") };
        assert_eq!((&*exit.nickname, exit.flags, exit.weight), ("relay1", UP, 1000));
        assert_eq!((exit.policy.to_string(), exit.policy_v6.is_reject_all()), ("accept 80,443".to_owned(), true));
        assert_eq!(exit.announced, ["192.0.2.7".parse::<IpAddr>().unwrap(), relay.v4.into()]);
        assert_eq!((exit.country.as_str(), exit.asn, exit.as_name.as_deref()), ("DE", Some(7), Some("Seven")));
    }
}

#[test]
fn addresses_come_in_the_order_of_their_likelihood() {
    let relay = Fake { v6: Some("2001:db8::1".parse().unwrap()), ..Fake::new(1) };
    let (hour, or) = (Duration::from_secs(3600), relay.v4.to_string());
    let moved = Fake { v4: [192, 0, 2, 99].into(), ..relay.clone() };
    let ours = directory(std::slice::from_ref(&relay));
    let onionoo = |relay: &Fake, exits: &[&str]| Word::Onionoo(vec![described(relay, exits)]);
    let list = |seen: &[Sighting]| Word::Sightings(seen.to_vec());
    for (words, addresses, country, asn) in [
        (vec![], vec![&*or, "2001:db8::1"], "??", None),
        (vec![onionoo(&relay, &[])], vec![&or, "2001:db8::1"], "DE", Some(7)),
        (vec![onionoo(&relay, &["198.51.100.1"])], vec!["198.51.100.1", &or, "2001:db8::1"], "CA", Some(7)),
        (
            vec![list(&[seen(&relay, "192.0.2.1", hour * 2), seen(&relay, "192.0.2.2", hour)])],
            vec!["192.0.2.2", "192.0.2.1", &or, "2001:db8::1"],
            "??",
            None,
        ),
        (
            vec![onionoo(&relay, &["192.0.2.7"]), list(&[seen(&relay, "198.51.100.9", hour)])],
            vec!["198.51.100.9", "192.0.2.7", &or, "2001:db8::1"],
            "CA",
            None,
        ),
        (
            vec![onionoo(&relay, &["192.0.2.7"]), list(&[seen(&relay, "192.0.2.7", hour)])],
            vec!["192.0.2.7", &or, "2001:db8::1"],
            "DE",
            Some(7),
        ),
        (vec![list(&[seen(&relay, "192.0.2.1", hour * 25)])], vec![&or, "2001:db8::1"], "??", None),
        (vec![list(&[seen(&Fake::new(2), "192.0.2.1", hour)])], vec![&or, "2001:db8::1"], "??", None),
        (vec![onionoo(&moved, &["192.0.2.7"])], vec![&or, "2001:db8::1"], "??", None),
    ] {
        let what = format!("{words:?}");
        let [exit] = &exits(words.into_iter().chain([ours.clone()]))[..] else { panic!("one exit") };
        let announced: Vec<_> = exit.announced.iter().map(ToString::to_string).collect();
        assert_eq!(
            (announced, exit.country.as_str(), exit.asn),
            (addresses.iter().map(|ip| (*ip).to_owned()).collect(), country, asn),
            "{what}"
        );
    }
}

#[test]
fn the_directory_says_who_is_there() {
    let (here, elsewhere) = (Fake::new(1), Fake::new(2));
    let closed = Fake { policy: String::new(), ..Fake::new(3) };
    let onionoo = Word::Onionoo([&elsewhere, &here, &closed].map(|relay| described(relay, &[])).into());
    assert_eq!(exits([onionoo.clone()]).len(), 3, "without a directory Onionoo's word is all there is");
    let exits = exits([onionoo, directory(&[here.clone(), closed])]);
    assert_eq!(exits.iter().map(|exit| exit.id.clone()).collect::<Vec<_>>(), [ExitId::Tor(id(&here))]);
}

#[test]
fn either_may_call_an_exit_bad() {
    let relay = Fake::new(1);
    let bad = Fake { flags: format!("BadExit {}", relay.flags), ..relay.clone() };
    let good = described(&relay, &[]);
    let worse = Listing { flags: Flags { bad_exit: true, ..good.flags }, ..good.clone() };
    for (ours, theirs, want) in [(&relay, &good, false), (&bad, &good, true), (&relay, &worse, true)] {
        let mut merge = merge([directory(std::slice::from_ref(ours)), Word::Onionoo(vec![theirs.clone()])]);
        let exits = merge.news(NOW).unwrap();
        assert_eq!(exits[0].flags.bad_exit, want);
        merge.stands(exits);
        merge.hear(Word::Onionoo(vec![good.clone()]));
        merge.hear(directory(std::slice::from_ref(&relay)));
        let after = merge.news(NOW).map(|exits| exits[0].flags.bad_exit);
        assert_eq!(after, want.then_some(false), "what was bad is so no longer than somebody says it");
    }
}

#[test]
fn a_directory_that_arrives_in_pieces_drains_nobody() {
    let (here, waiting) = (Fake::new(1), Fake { known: false, ..Fake::new(2) });
    let stood = described(&waiting, &["192.0.2.7"]);
    let mut merge = Merge::new(Arc::default(), vec![stood.clone()]);
    merge.hear(directory(&[here.clone(), waiting.clone()]));
    let exits = merge.news(NOW).unwrap();
    assert_eq!(exits.len(), 2);
    let kept = exits.iter().find(|exit| exit.id == stood.id).unwrap();
    assert_eq!(*kept, Listing { flags: UP, ..stood.clone() }, "only the flags are not a microdescriptor's business");
    merge.stands(exits);
    merge.hear(directory(&[here, Fake { known: true, ..waiting }]));
    let exits = merge.news(NOW).unwrap();
    let known = exits.iter().find(|exit| exit.id == stood.id).unwrap();
    assert_eq!((&*known.nickname, known.asn), ("relay2", Some(7)), "what was known of its place is still known");
    merge.stands(exits);
    merge.hear(directory(&[Fake::new(1)]));
    assert_eq!(merge.news(NOW).unwrap().len(), 1, "who has left the directory has left");
}

#[test]
fn what_stands_already_is_no_news() {
    let relays = [Fake::new(1), Fake::new(2)];
    let mut merge = merge([]);
    assert_eq!(merge.news(NOW), None, "nobody has said anything");
    merge.hear(Word::Onionoo(vec![]));
    assert_eq!(merge.news(NOW), None, "an empty list empties nothing");
    merge.hear(directory(&relays));
    let exits = merge.news(NOW).unwrap();
    assert_eq!(merge.news(NOW).as_ref(), Some(&exits), "it is news until it stands");
    merge.stands(exits);
    assert_eq!(merge.news(NOW), None);
    merge.hear(directory(&relays));
    assert_eq!(merge.news(NOW), None, "the same directory again");
    merge.hear(Word::Sightings(vec![seen(&relays[0], "192.0.2.1", Duration::ZERO)]));
    assert!(merge.news(NOW).is_some());
}

#[test]
fn a_whole_network_is_merged_by_fingerprint() {
    let relays = network(1500, 1);
    let theirs: Vec<_> = relays.iter().rev().map(|relay| described(relay, &[])).collect();
    let exits = exits([directory(&relays), Word::Onionoo(theirs)]);
    let letting_out = relays.iter().filter(|relay| !relay.policy.is_empty()).count();
    assert_eq!(exits.len(), letting_out);
    assert!(exits.is_sorted_by(|a, b| a.id < b.id) && exits.iter().all(|exit| exit.asn == Some(7)));
}
