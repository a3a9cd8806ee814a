//! The grammar as tables, and its laws as properties.

use proptest::prelude::*;

use super::*;
use crate::exit::country::Country;

fn words() -> Words {
    let groups = [("eu", vec!["de", "fr"]), ("europe", vec!["de", "fr"]), ("north", vec!["no", "SE"])]
        .map(|(name, members)| (name.to_owned(), members.into_iter().map(str::to_owned).collect()));
    Words::new(groups, ["customer-acme".to_owned(), "customer-acme-zone-".to_owned()]).unwrap()
}

fn canonical(text: &str) -> String {
    Selector::parse(text, &words()).unwrap_or_else(|bad| panic!("{text}: {bad}")).to_string()
}

#[test]
fn what_can_be_said_has_one_canonical_text() {
    let relay = "0008D9640FE4947F73E355F67E20C2D290BBC72C";
    for (text, want) in [
        ("any", "any"),
        ("us", "us"),
        ("US-Strict", "us-strict"),
        ("us-flexible", "us"),
        ("nonus", "nonus"),
        ("nonno", "nonno"),
        ("no", "no"),
        ("nonfr+de", "nonde+fr"),
        ("us.ca", "ca+us"),
        ("us ca+us", "ca+us"),
        ("europe+us", "europe+us"),
        ("noneurope", "noneurope"),
        ("eu-strict", "eu-strict"),
        ("us-session-strict", "us-session-strict"),
        ("us-session-Cart_4.2", "us-session-Cart_4.2"),
        ("us-ttl-90s-session-a", "us-session-a-ttl-90s"),
        ("us-session-a-ttl-600s", "us-session-a-ttl-10m"),
        ("us-session-a-ttl-120m", "us-session-a-ttl-2h"),
        ("us-strict-session-a", "us-strict-session-a"),
        ("us-session-a-strict", "us-strict-session-a"),
        (&format!("any-exit-{relay}"), &format!("any-exit-{}", relay.to_lowercase())),
        ("any-exit-192.0.2.1", "any-exit-192.0.2.1"),
        ("any-exit-2001_db8__1", "any-exit-2001_db8__1"),
        ("any-exit-2001:DB8:0::1", "any-exit-2001_db8__1"),
        ("any-exit-__ffff_192.0.2.1", "any-exit-192.0.2.1"),
        ("us-asn-62744", "us-asn-62744"),
        ("us-asn-AS62744", "us-asn-62744"),
        ("us-source-tor", "us"),
        ("us-source-any-rotate", "us-source-any-rotate"),
        ("us-rotate-source-public", "us-source-public-rotate"),
        ("any-source-direct", "any-source-direct"),
        // Paid gateways.
        ("country-us", "us"),
        ("cc-US-sessid-abcde12345-sesstime-5", "us-session-abcde12345-ttl-5m"),
        ("cc-nonus", "nonus"),
        ("cc-cc", "country-cc"),
        ("country-cc-strict", "country-cc-strict"),
        ("cc.cc", "country-cc"),
        ("cc.us", "cc+us"),
        ("noncc", "noncc"),
        ("sessid-x", "any-session-x"),
        ("country-us-session-abc", "us-session-abc"),
        ("country-us-sessionduration-30-session-abc123", "us-session-abc123-ttl-30m"),
        ("country-us-sessionid-a-sessionlength-180", "us-session-a-ttl-3m"),
        ("country-br-session-sgn34f3e-lifetime-10m", "br-session-sgn34f3e-ttl-10m"),
        ("country-br-session-sgn34f3e-lifetime-7d", "br-session-sgn34f3e-ttl-168h"),
        ("customer-ACME-cc-US", "us"),
        ("customer-acme-zone-country-us-session-a", "us-session-a"),
        ("customer-acme-session-a", "any-session-a"),
        ("customer-acme", "any"),
    ] {
        assert_eq!(canonical(text), want, "{text}");
        assert_eq!(canonical(want), want, "{want}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_by_the_word() {
    use Reason::*;
    let hint = |word: &str| Unknown(reason::Hint(Some(word.into())));
    let unknown = || Unknown(reason::Hint(None));
    for (text, token, why) in [
        ("", "", Nothing),
        ("strict", "strict", NoPlace),
        ("session-a", "session", NoPlace),
        ("us-", "", Gap),
        ("us--strict", "", Gap),
        ("us+", "us+", Gap),
        ("non", "non", unknown()),
        ("us-fr", "fr", SecondPlace),
        ("us-country-us", "country", Twice),
        ("sessid-a-us", "us", LatePlace),
        ("usa", "usa", unknown()),
        ("us-strcit", "strcit", hint("strict")),
        ("us-rotat", "rotat", hint("rotate")),
        ("eurpoe", "eurpoe", hint("europe")),
        ("us-session", "session", NoValue),
        ("us-session-", "", Session),
        ("us-session-a/b", "a/b", Session),
        ("us-session-a-session-b", "session", Twice),
        ("us-session-a-sessid-a", "sessid", Twice),
        ("us-strict-strict", "strict", Twice),
        ("us-strict-flexible", "flexible", Twice),
        ("us-strict-rotate", "rotate", StrictRotate),
        ("us-rotate-strict", "strict", StrictRotate),
        ("us-session-a-rotate", "session", SessionRotate),
        ("us-exit-192.0.2.1-rotate", "exit", ExitRotate),
        ("us-ttl-10m", "ttl", TimeAlone),
        ("us-strict-ttl-10m", "ttl", TimeAlone),
        ("us-session-a-ttl-0s", "0s", Time),
        ("us-session-a-ttl-10", "10", Time),
        ("us-session-a-ttl-10w", "10w", Time),
        ("us-session-a-ttl-+5m", "+5m", Time),
        ("us-session-a-ttl-99999999999999999999h", "99999999999999999999h", Time),
        ("us-session-a-ttl-9000h", "9000h", Time),
        ("us-exit-nowhere", "nowhere", Exit),
        ("us-asn-0", "0", Asn),
        ("us-asn-4294967296", "4294967296", Asn),
        ("us-source-vpn", "vpn", Source),
        ("any+us", "any+us", AnyAmong),
        ("nonany", "nonany", NotAny),
        ("nonus+any", "nonus+any", AnyAmong),
        ("zz", "zz", NoCountry),
        ("us+xy", "us+xy", NoCountry),
        ("uk", "uk", Uk),
        ("customer-other-country-us", "customer", Prefix("country")),
        ("customer-acmes-cc-us", "customer", Prefix("cc")),
        ("any-exit-0008d9640fe4947f73e355f67e20c2d290bbc72c-source-public", "exit", ExitSource),
    ] {
        let bad = Selector::parse(text, &words()).expect_err(text);
        assert_eq!((&*bad.token, bad.why), (token, why), "{text}");
    }
    let long = format!("us-session-{}", "a".repeat(65));
    assert_eq!(Selector::parse(&long, &words()).unwrap_err().why, Session);
    assert_eq!(Selector::parse(&"a".repeat(256), &words()).unwrap_err().why, TooLong);
}

#[test]
fn a_refusal_reads_as_a_sentence_and_carries_no_dangerous_byte() {
    let refusal = |text: &str| Selector::parse(text, &words()).unwrap_err().to_string();
    assert_eq!(
        refusal("us-strcit"),
        "token `strcit`: there is no such word, country or group (did you mean `strict`?)"
    );
    assert_eq!(refusal("us-a\r\nX: é`"), "token `a??X:???`: there is no such word, country or group");
}

#[test]
fn places_are_sets_and_unknown_is_only_in_any() {
    let inside = |text: &str, code: &str| {
        let selector = Selector::parse(text, &words()).unwrap();
        selector.geo.countries().contains(Country::parse(code).unwrap())
    };
    for (text, code, want) in [
        ("any", "US", true),
        ("any", "??", true),
        ("us", "US", true),
        ("us", "??", false),
        ("nonus", "US", false),
        ("nonus", "DE", true),
        ("nonus", "??", false),
        ("nonde+fr", "DE", false),
        ("nonde+fr", "FR", false),
        ("nonde+fr", "US", true),
        ("europe", "FR", true),
        ("noneurope", "FR", false),
        ("noneurope", "??", false),
        ("north+us", "SE", true),
    ] {
        assert_eq!(inside(text, code), want, "{text} {code}");
    }
}

#[test]
fn groups_are_words_that_nothing_else_is() {
    let group = |name: &str, members: &[&str]| {
        let members = members.iter().map(|&code| code.to_owned()).collect();
        Words::new([(name.to_owned(), members)], []).map(drop)
    };
    assert_eq!(group("europe", &["de"]), Ok(()));
    assert_eq!(group("eu", &["de"]), Ok(()), "two letters that are no country's are a name");
    for taken in ["us", "any", "nonsense", "strict", "session", "country"] {
        assert_eq!(group(taken, &["de"]), Err(BadGroup::Taken(taken.into())));
    }
    for bad in ["", "a-b", "Europe", "1a"] {
        assert_eq!(group(bad, &["de"]), Err(BadGroup::Name(bad.into())));
    }
    assert_eq!(group("europe", &[]), Err(BadGroup::Empty("europe".into())));
    for bad in ["zz", "eu", "deu"] {
        assert_eq!(group("europe", &["de", bad]), Err(BadGroup::Member { group: "europe".into(), member: bad.into() }));
    }
}

#[test]
fn a_route_is_called_what_nothing_else_is() {
    let name = |text: &str, own: &str| {
        let own = Selector::parse(own, &words()).unwrap();
        RouteName::parse(text, &own, &words()).map(|name| name.to_string())
    };
    for ok in ["shop", "us-shop", "a", "fast-1", "session-a-b", "strict-shop"] {
        assert_eq!(name(ok, "us"), Ok(ok.into()));
    }
    assert_eq!(name("us-strict", "us-strict"), Ok("us-strict".into()));
    assert_eq!(name("country-us", "us"), Ok("country-us".into()));
    for selector in ["us", "nonus", "us-strict", "europe", "any", "sessid-a"] {
        assert_eq!(name(selector, "de"), Err(BadName::Selector), "{selector}");
    }
    for words in ["session-a", "strict", "rotate", "asn-5"] {
        assert_eq!(name(words, "de"), Err(BadName::Words), "{words}");
    }
    for bad in ["", "1a", "Shop", "a_b", "-a", &"a".repeat(64)] {
        assert_eq!(name(bad, "de"), Err(BadName::Letters), "{bad}");
    }
}

#[test]
fn words_behind_a_name_narrow() {
    for (own, text, whole, beyond, fewer) in [
        ("any", "", "any", "", false),
        ("any", "us", "us", "-us", true),
        ("any", "strict", "any-strict", "-strict", false),
        ("nonus", "de-session-a-ttl-5m", "de-session-a-ttl-5m", "-de", true),
        ("nonus", "nonus+ca", "nonca+us", "-nonca+us", true),
        ("europe", "fr-rotate", "fr-rotate", "-fr-rotate", true),
        ("us-strict", "strict-session-a", "us-strict-session-a", "", false),
        ("us", "us-flexible", "us", "", false),
        ("us-source-any", "source-tor", "us", "-source-tor", true),
        ("us-source-any", "source-any", "us-source-any", "", false),
        ("us-asn-5", "asn-5-exit-192.0.2.1", "us-exit-192.0.2.1-asn-5", "-exit-192.0.2.1", false),
        ("us", "asn-5-session-a-strict", "us-strict-session-a-asn-5", "-strict-asn-5", true),
        ("us", "sessid-a-sesstime-5", "us-session-a-ttl-5m", "", false),
        ("us", "country-us", "us", "", false),
    ] {
        let own = Selector::parse(own, &words()).unwrap();
        let narrowed = own.narrowed("shop", text, &words()).unwrap_or_else(|bad| panic!("{own} {text}: {bad}"));
        let got = (narrowed.selector.to_string(), &*narrowed.beyond, narrowed.fewer);
        assert_eq!(got, (whole.to_owned(), beyond, fewer), "{own} {text}");
    }
}

#[test]
fn words_behind_a_name_never_widen() {
    use Reason::*;
    let widens = || Widens("shop".into());
    for (own, text, token, why) in [
        ("us", "any", "any", widens()),
        ("us", "us+ca", "us+ca", widens()),
        ("us", "nonde", "nonde", widens()),
        ("nonus", "us", "us", widens()),
        ("nonus+ca", "nonus", "nonus", widens()),
        ("europe", "europe+us", "europe+us", widens()),
        ("us-strict", "flexible", "flexible", widens()),
        ("us-rotate", "flexible", "flexible", widens()),
        ("us-strict", "rotate", "rotate", StrictRotate),
        ("us-rotate", "strict", "strict", StrictRotate),
        ("us-rotate", "session-a", "session", SessionRotate),
        ("us", "source-any", "source", widens()),
        ("us", "source-public", "source", widens()),
        ("us-source-any", "source-direct", "source", widens()),
        ("us-asn-5", "asn-6", "asn", widens()),
        ("us-exit-192.0.2.1", "exit-192.0.2.2", "exit", widens()),
        ("us-source-public", "exit-0008d9640fe4947f73e355f67e20c2d290bbc72c", "exit", ExitSource),
        ("us", "session-a-us", "us", LatePlace),
        ("us", "ttl-5m", "ttl", TimeAlone),
    ] {
        let own = Selector::parse(own, &words()).unwrap();
        let bad = own.narrowed("shop", text, &words()).expect_err(text);
        assert_eq!((&*bad.token, bad.why), (token, why), "{own} {text}");
    }
}

fn selectors() -> impl Strategy<Value = String> {
    let geo = prop_oneof![
        Just("any".to_owned()),
        ("(non)?", prop::collection::vec("(us|de|fr|no|se|europe|north)", 1..4))
            .prop_map(|(non, list)| non + &list.join("+")),
    ];
    let mode = prop_oneof![Just(""), Just("-strict"), Just("-flexible")];
    let session =
        prop_oneof![Just(String::new()), "-session-[A-Za-z0-9_.]{1,64}", "-session-[a-z]{3}-ttl-[1-9][0-9]{0,2}[smh]"];
    let exit = prop_oneof![
        Just(String::new()),
        any::<[u8; 20]>().prop_map(|id| format!("-exit-{}", Fingerprint(id))),
        any::<std::net::Ipv6Addr>().prop_map(|ip| format!("-exit-{}", ip.to_string().replace(':', "_"))),
        any::<std::net::Ipv4Addr>().prop_map(|ip| format!("-exit-{ip}")),
    ];
    let rest = prop_oneof![
        Just(String::new()),
        "-asn-[1-9][0-9]{0,8}",
        Just("-source-any".to_owned()),
        Just("-source-tor".to_owned())
    ];
    (geo, mode, session, exit, rest)
        .prop_map(|(geo, mode, session, exit, rest)| format!("{geo}{rest}{session}{mode}{exit}"))
}

proptest! {
    #[test]
    fn the_canonical_text_reads_back_as_the_same_selector(text in selectors()) {
        let selector = Selector::parse(&text, &words()).unwrap();
        let canonical = selector.to_string();
        let again = Selector::parse(&canonical, &words()).unwrap();
        prop_assert_eq!(again.to_string(), canonical);
        prop_assert_eq!(again, selector);
    }

    #[test]
    fn equal_selectors_have_equal_texts(one in selectors(), other in selectors()) {
        let parse = |text: &str| Selector::parse(text, &words()).unwrap();
        let (one, other) = (parse(&one), parse(&other));
        prop_assert_eq!(one == other, one.to_string() == other.to_string());
    }

    #[test]
    fn no_text_panics_or_is_half_understood(text in "[a-z0-9+.: -]{0,40}|.{0,300}") {
        match Selector::parse(&text, &words()) {
            Ok(selector) => prop_assert_eq!(Selector::parse(&selector.to_string(), &words()), Ok(selector)),
            Err(bad) => prop_assert!(bad.to_string().bytes().all(|b| b.is_ascii_graphic() || b == b' ')),
        }
    }

    #[test]
    fn narrowing_never_lets_a_country_in(own in selectors(), text in selectors()) {
        let own = Selector::parse(&own, &words()).unwrap().pooled();
        if let Ok(narrowed) = own.narrowed("shop", &text, &words()) {
            let (wide, narrow) = (own.geo.countries(), narrowed.selector.geo.countries());
            prop_assert!(narrow.iter().all(|country| wide.contains(country)));
        }
    }
}
