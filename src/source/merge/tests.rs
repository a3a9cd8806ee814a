use std::time::Duration;

use super::*;
use crate::exit::facts::Flags;
use crate::tor::netdir::synth::{Fake, WEIGHTS, network, texts};

const NOW: Moment = Moment(1_795_262_400_000_000);

const UP: Flags = Flags { running: true, stable: true, fast: true, bad_exit: false };

fn directory(relays: &[Fake]) -> SourceData {
    let (consensus, microdescs) = texts(relays, "", WEIGHTS);
    SourceData::Directory(Arc::new(Netdir::parse(&consensus, &microdescs).unwrap()))
}

fn id(relay: &Fake) -> Fingerprint {
    relay.hex().parse().unwrap()
}

/// A relay as Onionoo describes it: in DE and AS 7, and with all other facts different from those of the directory.
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
        unlisted: None,
        public: None,
        upstream: None,
    }
}

fn seen(relay: &Fake, ip: &str, ago: Duration) -> Sighting {
    Sighting { relay: id(relay), ip: ip.parse().unwrap(), at: Moment(NOW.0 - ago.as_micros() as u64) }
}

fn merge(data: impl IntoIterator<Item = SourceData>) -> RelayMerge {
    let geoip = GeoIp::parse("198.51.100.0,198.51.100.255,CA\n", "");
    let mut merge = RelayMerge::new(Arc::new(geoip), Vec::new());
    data.into_iter().for_each(|source| merge.take(source));
    merge
}

fn exits(data: impl IntoIterator<Item = SourceData>) -> Vec<Listing> {
    merge(data).changed(NOW).unwrap_or_default()
}

#[test]
fn each_field_comes_from_its_source() {
    let relay = Fake::new(1);
    let (ours, theirs) = (directory(std::slice::from_ref(&relay)), described(&relay, &["192.0.2.7"]));
    for data in [[ours.clone(), SourceData::Onionoo(vec![theirs.clone()])], [SourceData::Onionoo(vec![theirs]), ours]] {
        let [exit] = &exits(data)[..] else { panic!("one exit") };
        assert_eq!((&*exit.nickname, exit.flags, exit.weight), ("relay1", UP, 1000));
        assert_eq!((exit.policy.to_string(), exit.policy_v6.is_reject_all()), ("accept 80,443".to_owned(), true));
        assert_eq!(exit.announced, ["192.0.2.7".parse::<IpAddr>().unwrap(), relay.v4.into()]);
        assert_eq!((exit.country.as_str(), exit.asn, exit.as_name.as_deref()), ("DE", Some(7), Some("Seven")));
    }
}

#[test]
fn seen_addresses_come_first_then_onionoos_then_the_directorys() {
    let relay = Fake { v6: Some("2001:db8::1".parse().unwrap()), ..Fake::new(1) };
    let (hour, or) = (Duration::from_secs(3600), relay.v4.to_string());
    let moved = Fake { v4: [192, 0, 2, 99].into(), ..relay.clone() };
    let ours = directory(std::slice::from_ref(&relay));
    let onionoo = |relay: &Fake, exits: &[&str]| SourceData::Onionoo(vec![described(relay, exits)]);
    let list = |seen: &[Sighting]| SourceData::Sightings(seen.to_vec());
    for (data, addresses, country, asn) in [
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
        let what = format!("{data:?}");
        let [exit] = &exits(data.into_iter().chain([ours.clone()]))[..] else { panic!("one exit") };
        let announced: Vec<_> = exit.announced.iter().map(ToString::to_string).collect();
        assert_eq!(
            (announced, exit.country.as_str(), exit.asn),
            (addresses.iter().map(|ip| (*ip).to_owned()).collect(), country, asn),
            "{what}"
        );
    }
}

#[test]
fn the_directory_decides_which_exits_are_listed() {
    let (here, elsewhere) = (Fake::new(1), Fake::new(2));
    let closed = Fake { policy: String::new(), ..Fake::new(3) };
    let onionoo = SourceData::Onionoo([&elsewhere, &here, &closed].map(|relay| described(relay, &[])).into());
    assert_eq!(exits([onionoo.clone()]).len(), 3, "without a directory Onionoo's source is all there is");
    let exits = exits([onionoo, directory(&[here.clone(), closed])]);
    assert_eq!(exits.iter().map(|exit| exit.id.clone()).collect::<Vec<_>>(), [ExitId::Tor(id(&here))]);
}

#[test]
fn either_source_may_mark_an_exit_as_bad() {
    let relay = Fake::new(1);
    let bad = Fake { flags: format!("BadExit {}", relay.flags), ..relay.clone() };
    let good = described(&relay, &[]);
    let worse = Listing { flags: Flags { bad_exit: true, ..good.flags }, ..good.clone() };
    for (ours, theirs, want) in [(&relay, &good, false), (&bad, &good, true), (&relay, &worse, true)] {
        let mut merge = merge([directory(std::slice::from_ref(ours)), SourceData::Onionoo(vec![theirs.clone()])]);
        let exits = merge.changed(NOW).unwrap();
        assert_eq!(exits[0].flags.bad_exit, want);
        merge.applied(exits);
        merge.take(SourceData::Onionoo(vec![good.clone()]));
        merge.take(directory(std::slice::from_ref(&relay)));
        let after = merge.changed(NOW).map(|exits| exits[0].flags.bad_exit);
        assert_eq!(after, want.then_some(false), "the mark goes with the last source that sets it");
    }
}

#[test]
fn no_exit_drains_while_a_directory_is_downloaded() {
    let (here, waiting) = (Fake::new(1), Fake { known: false, ..Fake::new(2) });
    let stood = described(&waiting, &["192.0.2.7"]);
    let mut merge = RelayMerge::new(Arc::default(), vec![stood.clone()]);
    merge.take(directory(&[here.clone(), waiting.clone()]));
    let exits = merge.changed(NOW).unwrap();
    assert_eq!(exits.len(), 2);
    let kept = exits.iter().find(|exit| exit.id == stood.id).unwrap();
    assert_eq!(*kept, Listing { flags: UP, ..stood.clone() }, "only the flags come without a microdescriptor");
    merge.applied(exits);
    merge.take(directory(&[here, Fake { known: true, ..waiting }]));
    let exits = merge.changed(NOW).unwrap();
    let known = exits.iter().find(|exit| exit.id == stood.id).unwrap();
    assert_eq!((&*known.nickname, known.asn), ("relay2", Some(7)), "country and AS are kept");
    merge.applied(exits);
}

/// Returns one value for each of the relays 1 and 2 that the merge still has: since when its source does not list the
/// relay, in minutes after `NOW`, or `None` if its source lists the relay. Empty if nothing has changed.
fn absences(merge: &mut RelayMerge, minutes: u64) -> Vec<Option<u64>> {
    let Some(exits) = merge.changed(after(minutes)) else { return vec![] };
    merge.applied(exits.clone());
    let there = [1, 2].into_iter().filter_map(|n| find(&exits, &ExitId::Tor(id(&Fake::new(n)))));
    there.map(|exit| exit.unlisted.map(|since| (since.0 - NOW.0) / 60_000_000)).collect()
}

fn after(minutes: u64) -> Moment {
    NOW.after(Duration::from_secs(60 * minutes))
}

#[test]
fn a_relay_that_vanished_is_not_gone_until_a_consensus_would_have_expired() {
    let both = [Fake::new(1), Fake::new(2)];
    let mut merge = merge([directory(&both)]);
    assert_eq!(absences(&mut merge, 0), [None, None]);
    merge.take(directory(&both[..1]));
    assert_eq!(absences(&mut merge, 60), [None, Some(60)]);
    assert_eq!(merge.changed(after(100)), None, "it is absent since then, not anew");
    merge.take(directory(&both));
    assert_eq!(absences(&mut merge, 120), [None, None], "it is back");
    merge.take(directory(&both[1..]));
    assert_eq!(absences(&mut merge, 180), [Some(180), None]);
    merge.take(directory(&both[1..]));
    assert_eq!(merge.changed(after(180 + 179)), None);
    assert_eq!(absences(&mut merge, 180 + 180), [None], "after three hours it is not in the list");
    assert_eq!(merge.changed(after(400)), None);
    // The listing of the relay stays the same, except for the time since which it is not listed.
    merge.take(directory(&both));
    let there = merge.changed(after(400)).unwrap();
    merge.applied(there.clone());
    merge.take(directory(&both[1..]));
    let absent = merge.changed(after(420)).unwrap();
    let [one, other] = [&both[0], &both[1]].map(|relay| ExitId::Tor(id(relay)));
    let was = find(&there, &one).unwrap().clone();
    assert_eq!(find(&absent, &one), Some(&Listing { unlisted: Some(after(420)), ..was }));
    assert_eq!(find(&absent, &other), find(&there, &other));
}

#[test]
fn a_relay_that_vanished_and_comes_back_without_a_microdescriptor_is_listed() {
    let both = [Fake::new(1), Fake::new(2)];
    let mut merge = merge([directory(&both)]);
    assert_eq!(absences(&mut merge, 0), [None, None]);
    merge.take(directory(&both[..1]));
    assert_eq!(absences(&mut merge, 60), [None, Some(60)]);
    merge.take(directory(&[Fake::new(1), Fake { known: false, ..Fake::new(2) }]));
    assert_eq!(absences(&mut merge, 61), [None, None]);
}

#[test]
fn a_relay_that_is_listed_as_something_else_has_not_vanished() {
    let both = [Fake::new(1), Fake::new(2)];
    let mut merge = merge([directory(&both)]);
    assert_eq!(absences(&mut merge, 0), [None, None]);
    merge.take(directory(&[Fake::new(1), Fake { policy: String::new(), ..Fake::new(2) }]));
    assert_eq!(absences(&mut merge, 60), [None], "a relay that is no exit any more drains at once");
}

#[test]
fn a_consensus_that_is_valid_for_a_shorter_time_gives_relays_up_sooner() {
    let both = [Fake::new(1), Fake::new(2)];
    for (until, minutes) in [("2026-11-21 12:10:00", 10), ("2026-11-29 12:00:00", 180), ("2026-11-21 11:00:00", 180)] {
        let directory = |relays: &[Fake]| {
            let (consensus, microdescs) = texts(relays, "", WEIGHTS);
            let end = consensus.lines().find(|line| line.starts_with("valid-until ")).unwrap();
            let consensus = consensus.replace(end, &format!("valid-until {until}"));
            SourceData::Directory(Arc::new(Netdir::parse(&consensus, &microdescs).unwrap()))
        };
        let mut merge = merge([directory(&both)]);
        assert_eq!(absences(&mut merge, 0), [None, None]);
        merge.take(directory(&both[..1]));
        assert_eq!(absences(&mut merge, 5), [None, Some(5)]);
        assert_eq!(merge.changed(after(5 + minutes - 1)), None, "{until}");
        assert_eq!(absences(&mut merge, 5 + minutes), [None], "{until}");
    }
}

#[test]
fn without_a_directory_onionoo_says_who_is_absent() {
    let listing = |n| described(&Fake::new(n), &[]);
    let mut merge = RelayMerge::new(Arc::default(), vec![listing(1), listing(2)]);
    merge.take(SourceData::Onionoo(vec![]));
    assert_eq!(merge.changed(NOW), None, "an empty list says nothing");
    merge.take(SourceData::Onionoo(vec![listing(2)]));
    assert_eq!(absences(&mut merge, 0), [Some(0), None]);
    assert_eq!(absences(&mut merge, 179), []);
    assert_eq!(absences(&mut merge, 180), [None]);
}

#[test]
fn a_list_that_is_applied_already_has_not_changed() {
    let relays = [Fake::new(1), Fake::new(2)];
    let mut merge = merge([]);
    assert_eq!(merge.changed(NOW), None, "no source has data");
    merge.take(SourceData::Onionoo(vec![]));
    assert_eq!(merge.changed(NOW), None, "an empty list empties nothing");
    merge.take(directory(&relays));
    let exits = merge.changed(NOW).unwrap();
    assert_eq!(merge.changed(NOW).as_ref(), Some(&exits), "it has changed until it is applied");
    merge.applied(exits);
    assert_eq!(merge.changed(NOW), None);
    merge.take(directory(&relays));
    assert_eq!(merge.changed(NOW), None, "the same directory again");
    merge.take(SourceData::Sightings(vec![seen(&relays[0], "192.0.2.1", Duration::ZERO)]));
    assert!(merge.changed(NOW).is_some());
}

#[test]
fn a_whole_network_is_merged_by_fingerprint() {
    let relays = network(1500, 1);
    let theirs: Vec<_> = relays.iter().rev().map(|relay| described(relay, &[])).collect();
    let exits = exits([directory(&relays), SourceData::Onionoo(theirs)]);
    let letting_out = relays.iter().filter(|relay| !relay.policy.is_empty()).count();
    assert_eq!(exits.len(), letting_out);
    assert!(exits.is_sorted_by(|a, b| a.id < b.id) && exits.iter().all(|exit| exit.asn == Some(7)));
}
