use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::source::utc;

/// The record of a real relay in Onionoo, without the fields that no test needs.
const QUINTEX: &str = r#"{"nickname":"Quintex152","fingerprint":"0008D9640FE4947F73E355F67E20C2D290BBC72C",
 "or_addresses":["204.8.96.141:444","[2620:7:6003::141]:81"],"exit_addresses":["204.8.96.142"],
 "last_seen":"2026-09-04 03:00:00","running":true,"flags":["Exit","Fast","Guard","Running","Stable","V2Dir","Valid"],
 "country":"us","country_name":"United States of America","as":"AS62744","as_name":"Quintex \"Alliance\" Consulting",
 "consensus_weight":3600,"overload_general_timestamp":1788314400000,
 "exit_policy":["reject 0.0.0.0/8:*","accept *:80"],
 "exit_policy_summary":{"accept":["53","80","443","1194-1293"]},"exit_policy_v6_summary":{"reject":["25"]},
 "contact":"} ] \\\" { [","effective_family":[],"measured":true}"#;

fn document(relays: &[&str]) -> String {
    format!(
        "{{\"version\":\"8.0\",\n\"build_revision\":\"89598ea\",\n\"relays_published\":\"2026-09-04 03:00:00\",\n\"relays\":[\n{}\n],\n\
         \"bridges_published\":\"2026-09-04 02:41:11\",\n\"bridges\":[\n]}}\n",
        relays.join(",\n")
    )
}

fn parse_in(text: &[u8], chunk: usize) -> Result<Parsed<Vec<Listing>>, Garbage> {
    let mut details = Details::default();
    text.chunks(chunk).try_for_each(|chunk| details.feed(chunk))?;
    details.finish()
}

fn parse(text: &str) -> Result<Parsed<Vec<Listing>>, Garbage> {
    parse_in(text.as_bytes(), 4096)
}

/// Returns the record of relay number `n`. `more` contains additional fields, or is empty.
fn relay(n: u16, more: &str) -> String {
    format!(r#"{{"fingerprint":"{n:040X}","exit_policy_summary":{{"accept":["443"]}}{more}}}"#)
}

#[test]
fn a_relay_is_read_with_all_that_choosing_needs() {
    let parsed = parse(&document(&[QUINTEX])).unwrap();
    let wanted = Listing {
        id: ExitId::Tor("0008D9640FE4947F73E355F67E20C2D290BBC72C".parse().unwrap()),
        nickname: "Quintex152".into(),
        announced: ["204.8.96.142", "204.8.96.141", "2620:7:6003::141"].map(|ip| ip.parse().unwrap()).into(),
        country: "US".parse().unwrap(),
        asn: Some(62744),
        as_name: Some("Quintex \"Alliance\" Consulting".into()),
        policy: "accept 53,80,443,1194-1293".parse().unwrap(),
        policy_v6: "reject 25".parse().unwrap(),
        flags: Flags { running: true, stable: true, fast: true, bad_exit: false },
        weight: 3600,
        unlisted: None,
        public: None,
        upstream: None,
    };
    assert_eq!(parsed, Parsed { value: vec![wanted], records: 1, skipped: 0, published: utc("2026-09-04 03:00:00") });
}

#[test]
fn every_field_but_the_fingerprint_and_the_policy_may_be_missing() {
    let listing = parse(&document(&[&relay(1, "")])).unwrap().value.remove(0);
    assert_eq!((listing.country, listing.asn, &*listing.nickname), (Country::UNKNOWN, None, ""));
    assert_eq!((listing.announced, listing.flags, listing.weight), (vec![], Flags::default(), 0));
    let nulls =
        relay(1, r#","nickname":null,"flags":null,"country":null,"as":null,"or_addresses":null,"running":null"#);
    assert_eq!(parse(&document(&[&nulls])).unwrap().skipped, 0);
}

#[test]
fn country_and_as_are_used_only_for_the_network_that_they_describe() {
    for (routers, exits, want) in [
        (r#""192.0.2.1:9001""#, r#""#, Some(7)),
        (r#""192.0.2.1:9001""#, r#""192.0.2.1""#, Some(7)),
        (r#""192.0.2.1:9001""#, r#""192.0.2.254""#, Some(7)),
        (r#""192.0.2.1:9001""#, r#""192.0.3.1""#, None),
        (r#""192.0.2.1:9001""#, r#""192.0.3.1","192.0.2.1""#, None),
        (r#""192.0.2.1:9001","[2001:db8::1]:9001""#, r#""2001:db8::2""#, None),
        (r#""[2001:db8::1]:9001""#, r#""2001:db8:0:ff::2""#, Some(7)),
        (r#""[2001:db8::1]:9001""#, r#""2001:db8:1::2""#, None),
        ("", "", Some(7)),
    ] {
        let place = format!(r#","country":"us","as":"AS7","or_addresses":[{routers}],"exit_addresses":[{exits}]"#);
        let listing = parse(&document(&[&relay(1, &place)])).unwrap().value.remove(0);
        assert_eq!((listing.asn, listing.country.is_known()), (want, want.is_some()), "{routers} seen as {exits}");
    }
}

#[test]
fn a_bad_record_costs_itself() {
    let good = relay(7, "");
    let line = |more: &str| relay(8, more);
    let long = line(&format!(r#","contact":"{}""#, "x".repeat(1 << 20)));
    for (bad, what) in [
        (r#"{"nickname":"NoName"}"#.to_owned(), "no fingerprint"),
        (r#"{"fingerprint":"0008D9"}"#.to_owned(), "short fingerprint"),
        (r#"{"fingerprint":12}"#.to_owned(), "fingerprint is a number"),
        (r#"{"fingerprint":}"#.to_owned(), "no JSON"),
        (line(r#","consensus_weight":"many""#), "weight is a text"),
        (line(r#","consensus_weight":-1"#), "negative weight"),
        (line(r#","running":"yes""#), "running is a text"),
        (line(r#","flags":"Exit""#), "flags are a text"),
        (line(r#","or_addresses":[1,2]"#), "addresses are numbers"),
        (line(r#","exit_policy_v6_summary":{"accept":["0-99999"]}"#), "policy out of range"),
        (line(r#","country":["us"]"#), "country is a list"),
        (long, "1 MB line"),
    ] {
        for chunk in [333, 1 << 22] {
            let parsed = parse_in(document(&[&bad, &good, &bad]).as_bytes(), chunk).unwrap();
            assert_eq!((parsed.value.len(), parsed.skipped), (1, 2), "{what}");
        }
    }
}

#[test]
fn what_is_odd_but_harmless_is_taken() {
    for (more, what) in [
        (r#","as":"62744","country":"xx1","or_addresses":["nonsense","204.8.96.141"]"#, "unreadable details"),
        (r#","new_field":{"deep":[[[{"x":1}]]]},"flags":["Exit","Sybil2027"]"#, "unknown fields and flags"),
        (r#","last_seen":"yesterday""#, "unreadable time"),
        (r#","consensus_weight":99999999999"#, "weight beyond 32 bits"),
        (r#","nickname":"\u00fcber\ud83d\ude00""#, "escapes"),
    ] {
        let parsed = parse(&document(&[&relay(1, more)])).unwrap();
        assert_eq!((parsed.value.len(), parsed.skipped), (1, 0), "{what}");
    }
}

#[test]
fn only_what_lets_something_out_is_an_exit() {
    let closed = r#"{"fingerprint":"00000000000000000000000000000000000000A1","exit_policy_summary":{"reject":["1-65535"]},"flags":["Exit"]}"#;
    let silent = r#"{"fingerprint":"00000000000000000000000000000000000000A2","flags":["Guard"]}"#;
    let bad = relay(1, r#","flags":["BadExit","Exit"]"#);
    let parsed = parse(&document(&[closed, silent, &bad])).unwrap();
    assert_eq!((parsed.records, parsed.skipped), (1, 0));
    assert!(parsed.value[0].flags.bad_exit, "it is listed, so that the catalog hears that it is bad");
}

#[test]
fn of_two_records_of_one_relay_the_later_counts() {
    let old = relay(1, r#","nickname":"old","last_seen":"2026-09-04 02:00:00""#);
    let new = relay(1, r#","nickname":"new","last_seen":"2026-09-04 03:00:00""#);
    for order in [[&old, &new], [&new, &old]] {
        let parsed = parse(&document(&order.map(String::as_str))).unwrap();
        assert_eq!(parsed.value.iter().map(|l| &*l.nickname).collect::<Vec<_>>(), ["new"]);
    }
}

#[test]
fn an_incomplete_or_wrong_document_is_an_error() {
    let whole = document(&[QUINTEX]);
    for (text, why) in [
        ("", "the answer is empty"),
        ("  \n", "the answer is empty"),
        ("<html>maintenance</html>", "the answer is not a JSON object"),
        ("[]", "the answer is not a JSON object"),
        ("null", "the answer is not a JSON object"),
        ("{}", "the document has no `relays`"),
        (r#"{"version":"8.0"}"#, "the document has no `relays`"),
        (r#"{"relays":{}}"#, "`relays` is not an array"),
        (r#"{"relays":null}"#, "`relays` is not an array"),
        (r#"{"relays":[1]}"#, "an element of `relays` is not an object"),
        (r#"{"relays":["x"]}"#, "an element of `relays` is not an object"),
        (r#"{"relays":[]"#, "the document is incomplete"),
        (r#"{"relays":[]}}"#, "the document is followed by other bytes"),
        (r#"{"relays" []}"#, "a key of the document has no value"),
        (r#"{relays:[]}"#, "the document is not JSON"),
        (&format!("{{\"{}", "k".repeat(1 << 20)), "a key of the document is too long"),
        (&format!("{{\"relays\":[{{\"a\":{}", "[".repeat(1 << 20)), "the document is nested too deeply"),
    ] {
        assert_eq!(parse(text).unwrap_err(), Garbage(why), "{text:.60}");
    }
    for cut in 1..whole.trim_end().len() {
        let short = parse(&whole[..cut]).unwrap_err();
        assert_eq!(short, Garbage("the document is incomplete"), "cut at {cut}");
    }
    assert_eq!(
        parse(r#"{"relays":[]}"#).unwrap().records,
        0,
        "whether an empty list is used is not decided by the parser"
    );
    assert_eq!(parse(r#" {"relays_published":"soon","x":{"y":["]"]},"relays" : [ ] } "#).unwrap().published, None);
}

#[test]
fn memory_is_one_record_not_the_document() {
    let mut details = Details::default();
    details.feed(b"{\"relays\":[").unwrap();
    let filler = relay(1, &format!(r#","contact":"{}""#, "x".repeat(100_000)));
    for _ in 0..200 {
        filler.as_bytes().chunks(1000).for_each(|chunk| details.feed(chunk).unwrap());
        details.feed(b",").unwrap();
        assert!(details.splitter.held() < 400_000, "{} bytes held", details.splitter.held());
    }
    details.feed(b"{\"contact\":\"").unwrap();
    (0..100).for_each(|_| details.feed(&[b'x'; 100_000]).unwrap());
    assert!(details.splitter.held() < 400_000, "a record without end is not held");
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        ".{0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::btree_map("[a-z_\"\\\\]{1,8}", inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_upset_it_however_they_are_cut(bytes in proptest::collection::vec(any::<u8>(), 0..400), chunk in 1usize..50) {
        let _ = parse_in(&bytes, chunk);
    }

    #[test]
    fn a_cut_changes_nothing(relays in proptest::collection::vec(any_json(), 0..6), pretty: bool, chunk in 1usize..200) {
        let relays: Vec<_> = relays.into_iter().map(|extra| {
            serde_json::json!({"fingerprint": format!("{:040X}", 5), "exit_policy_summary": {"accept": ["443"]}, "extra": extra})
        }).collect();
        let document = serde_json::json!({"a": relays.first(), "relays": relays, "z": relays.last()});
        let text = if pretty { serde_json::to_vec_pretty(&document) } else { serde_json::to_vec(&document) }.unwrap();
        let whole = parse_in(&text, text.len()).unwrap();
        prop_assert_eq!(whole.records as usize, relays.len().min(1));
        prop_assert_eq!(whole.skipped, 0);
        prop_assert_eq!(parse_in(&text, chunk).unwrap(), whole);
    }
}

#[test]
fn a_document_of_the_networks_size_is_read() {
    let mut relays = Vec::new();
    for n in 0..9500_u32 {
        let mut one = String::new();
        let policy = if n % 5 == 0 { r#"{"accept":["80","443"]}"# } else { r#"{"reject":["1-65535"]}"# };
        write!(one, r#"{{"fingerprint":"{n:040X}","exit_policy_summary":{policy},"as_name":"AS number {}"}}"#, n % 100)
            .unwrap();
        relays.push(one);
    }
    let relays: Vec<_> = relays.iter().map(String::as_str).collect();
    let parsed = parse(&document(&relays)).unwrap();
    assert_eq!((parsed.records, parsed.skipped), (1900, 0));
}
