//! Tests of the grammar: tables of examples, and properties that every selector must have.

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
fn each_selector_has_one_canonical_text() {
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
        // The name of a session may be any text.
        ("us-session=cart42", "us-session-cart42"),
        ("us-strict-session=dora-x@example.org", "us-strict-session=dora-x@example.org"),
        ("US-SESSION=Dora X-ttl-5m", "us-session=Dora X-ttl-5m"),
        (
            "us-ttl-5m-session=123e4567-e89b-12d3-a456-426614174000",
            "us-ttl-5m-session=123e4567-e89b-12d3-a456-426614174000",
        ),
        ("us-asn-5-source-any-session=é-session=b", "us-asn-5-source-any-session=é-session=b"),
        ("us-session-a-strict", "us-strict-session-a"),
        (&format!("any-exit-{relay}"), &format!("any-exit-{}", relay.to_lowercase())),
        ("any-exit-192.0.2.1", "any-exit-192.0.2.1"),
        ("any-exit-2001_db8__1", "any-exit-2001_db8__1"),
        ("any-exit-2001:DB8:0::1", "any-exit-2001_db8__1"),
        ("any-exit-__ffff_192.0.2.1", "any-exit-192.0.2.1"),
        ("us-asn-62744", "us-asn-62744"),
        ("us-asn-AS62744", "us-asn-62744"),
        ("us-nonasn-62744", "us-nonasn-62744"),
        ("us-NonAsn-AS9+5+as9-strict", "us-strict-nonasn-5+9"),
        ("us-asn-5-nonasn-6", "us-asn-5"),
        ("us-source-tor", "us"),
        ("us-source-any-rotate", "us-source-any-rotate"),
        ("us-isolate-SESSION-session-a", "us-session-a-isolate-session"),
        ("any-isolate-key", "any-isolate-key"),
        ("us-rotate-isolate-target-source-any", "us-source-any-isolate-target-rotate"),
        ("us-rotate-source-public", "us-source-public-rotate"),
        ("any-source-direct", "any-source-direct"),
        // Usernames in the style of paid gateways.
        ("country-us", "us"),
        ("cc-US-sessid-abcde12345-sesstime-5", "us-session-abcde12345-ttl-5m"),
        ("cc-nonus", "nonus"),
        ("cc-cc", "country-cc"),
        ("country-cc-strict", "country-cc-strict"),
        ("cc.cc", "country-cc"),
        ("cc.us", "cc+us"),
        ("noncc", "noncc"),
        ("sessid-x", "any-session-x"),
        ("customer-acme-session=a@b.c", "any-session=a@b.c"),
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
fn a_wrong_token_is_refused_with_its_reason() {
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
        ("usa", "usa", hint("us")),
        ("us-strcit", "strcit", hint("strict")),
        ("us-rotat", "rotat", hint("rotate")),
        ("eurpoe", "eurpoe", hint("europe")),
        ("us-session", "session", NoValue),
        ("us-session-", "", Session),
        ("us-session-a/b", "a/b", Session),
        ("us-session=", "", SessionText),
        ("us-session=a:b", "a:b", SessionText),
        ("us-session=a\nb", "a?b", SessionText),
        ("us-rotate-session=a", "session", SessionRotate),
        ("us-session-a-session=a", "session", Twice),
        ("session=a", "session", NoPlace),
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
        ("us-nonasn-5+0", "5+0", Asn),
        ("us-nonasn-5+", "5+", Asn),
        ("us-nonasn", "nonasn", NoValue),
        ("us-nonasn-5-nonasn-6", "nonasn", Twice),
        ("us-asn-5-nonasn-6+5", "nonasn", AsnBoth),
        ("us-asn-4294967296", "4294967296", Asn),
        ("us-source-vpn", "vpn", Source),
        ("us-isolate-user", "user", Isolate),
        ("us-isolate", "isolate", NoValue),
        ("us-isolate-session=a", "isolate", NoValue),
        ("us-isolate-key-isolate-session", "isolate", Twice),
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
    let long = |key: &str, count: usize| Selector::parse(&format!("us-session{key}{}", "a".repeat(count)), &words());
    assert_eq!(long("-", 65).unwrap_err().why, Session);
    assert!(long("=", 128).is_ok());
    assert_eq!(long("=", 129).unwrap_err().why, SessionText);
    assert_eq!(Selector::parse(&"a".repeat(256), &words()).unwrap_err().why, TooLong);
}

#[test]
fn a_refusal_is_readable_and_holds_visible_ascii_only() {
    let refusal = |text: &str| Selector::parse(text, &words()).unwrap_err().to_string();
    assert_eq!(
        refusal("us-strcit"),
        "token `strcit`: there is no such keyword, country or group (did you mean `strict`?)"
    );
    assert_eq!(refusal("us-a\r\nX: é`"), "token `a??X:???`: there is no such keyword, country or group");
}

#[test]
fn the_rest_of_a_session_name_is_told_from_a_typo() {
    for (text, token) in [
        ("us-session-dora-x", "x"),
        ("us-session-123e4567-e89b-12d3-a456-426614174000", "e89b"),
        ("us-sessid-dora-zz", "zz"),
        ("us-session-a-strcit", "strcit"),
    ] {
        let bad = Selector::parse(text, &words()).unwrap_err();
        let said = bad.to_string();
        assert!(said.starts_with(&format!("token `{token}`: there is no such keyword")), "{said}");
        assert!(said.contains("ends at the next `-`") && said.contains("`session=`"), "{said}");
        assert_eq!(said.contains("did you mean `strict`?"), token == "strcit", "{said}");
    }
    assert!(!Selector::parse("us-x", &words()).unwrap_err().to_string().contains("session"));
}

#[test]
fn countries_by_name_and_by_three_letters_are_suggested_by_code() {
    for (text, token, want) in [
        ("non-us", "non", "nonus"),
        ("NON-germany-strict", "NON", "nonde"),
        ("not-us+ca", "not", "nonus+ca"),
        ("germany", "germany", "de"),
        ("Germany+france-strict", "Germany+france", "de+fr"),
        ("nonusa", "nonusa", "nonus"),
        ("united-states", "united", "us"),
        ("south_korea", "south_korea", "kr"),
        ("cc-deu", "deu", "de"),
        ("us+europe+canada", "us+europe+canada", "us+europe+ca"),
    ] {
        let bad = Selector::parse(text, &words()).unwrap_err();
        assert_eq!((&*bad.token, bad.why), (token, Reason::Unknown(reason::Hint(Some(want.into())))), "{text}");
    }
    let none = Reason::Unknown(reason::Hint(None));
    assert!(
        ["non", "non-nonsense", "atlantis"].iter().all(|text| Selector::parse(text, &words()).unwrap_err().why == none)
    );
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
fn a_groups_name_means_nothing_else() {
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
fn a_routes_name_is_no_selector() {
    let name = |text: &str, own: &str| {
        let own = Selector::parse(own, &words()).unwrap();
        RouteName::parse(text, &own, &words()).map(|name| name.to_string())
    };
    let new = |text: &str| RouteName::for_new_route(text, &words()).map(|name| name.to_string());
    for ok in ["shop", "us-shop", "a", "fast-1", "session-a-b", "strict-shop"] {
        assert_eq!((new(ok), name(ok, "us")), (Ok(ok.into()), Ok(ok.into())));
    }
    for selector in ["us", "nonus", "us-strict", "europe", "any", "sessid-a", "country-us", "us-session", "session"] {
        assert_eq!(new(selector), Err(BadName::Selector), "{selector}");
    }
    // Names of routes that earlier versions allowed are still read.
    assert_eq!(name("us-strict", "us-strict"), Ok("us-strict".into()));
    assert_eq!(name("country-us", "us"), Ok("country-us".into()));
    for selector in ["us", "nonus", "us-strict", "europe", "any", "sessid-a"] {
        assert_eq!(name(selector, "de"), Err(BadName::Selector), "{selector}");
    }
    for words in ["session-a", "strict", "rotate", "asn-5"] {
        assert_eq!((new(words), name(words, "de")), (Err(BadName::Keywords), Err(BadName::Keywords)), "{words}");
    }
    for bad in ["", "1a", "Shop", "a_b", "-a", &"a".repeat(64)] {
        assert_eq!((new(bad), name(bad, "de")), (Err(BadName::Letters), Err(BadName::Letters)), "{bad}");
    }
}

#[test]
fn tokens_behind_a_name_narrow() {
    for (own, text, whole, beyond, fewer) in [
        ("any", "", "any", "", false),
        ("any", "us", "us", "-us", true),
        ("any", "strict", "any-strict", "-strict", false),
        ("nonus", "de-session-a-ttl-5m", "de-session-a-ttl-5m", "-de", true),
        ("nonus", "nonus+ca", "nonca+us", "-nonca+us", true),
        ("europe", "fr-rotate", "fr-rotate", "-fr-rotate", true),
        ("us-strict", "strict-session-a", "us-strict-session-a", "", false),
        ("us", "us-flexible", "us", "", false),
        ("us-source-any", "source-tor", "us-source-tor", "-source-tor", true),
        ("us-source-any", "source-any", "us-source-any", "", false),
        ("us-asn-5", "asn-5-exit-192.0.2.1", "us-exit-192.0.2.1-asn-5", "-exit-192.0.2.1", false),
        ("us", "nonasn-5+6", "us-nonasn-5+6", "-nonasn-5+6", true),
        ("us-nonasn-5", "nonasn-6", "us-nonasn-5+6", "-nonasn-5+6", true),
        ("us-nonasn-5", "nonasn-5", "us-nonasn-5", "", false),
        ("us-nonasn-5", "asn-6", "us-asn-6", "-asn-6", true),
        ("us-asn-5", "nonasn-6", "us-asn-5", "", false),
        ("us", "asn-5-session-a-strict", "us-strict-session-a-asn-5", "-strict-asn-5", true),
        ("us", "sessid-a-sesstime-5", "us-session-a-ttl-5m", "", false),
        ("us", "isolate-session-session-a", "us-session-a-isolate-session", "", false),
        ("us-isolate-session", "isolate-session", "us-isolate-session", "", false),
        ("us-isolate-session", "isolate-target", "us-isolate-target", "", false),
        ("us-isolate-session", "strict", "us-strict-isolate-session", "-strict", false),
        ("us", "country-us", "us", "", false),
        ("us", "session=dora-x@example.org", "us-session=dora-x@example.org", "", false),
        ("nonus", "de-strict-session=a-b", "de-strict-session=a-b", "-de-strict", true),
    ] {
        let own = Selector::parse(own, &words()).unwrap();
        let narrowed = own
            .narrowed("shop", text, own.source.sources(), &words())
            .unwrap_or_else(|bad| panic!("{own} {text}: {bad}"));
        let got = (narrowed.selector.to_string(), &*narrowed.beyond, narrowed.fewer);
        assert_eq!(got, (whole.to_owned(), beyond, fewer), "{own} {text}");
    }
}

#[test]
fn tokens_behind_a_name_never_widen() {
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
        ("us-asn-5", "nonasn-5", "nonasn", AsnBoth),
        ("us-nonasn-5", "asn-5", "asn", AsnBoth),
        ("us-isolate-target", "isolate-session", "isolate", widens()),
        ("us-isolate-session", "isolate-key", "isolate", widens()),
        ("us-exit-192.0.2.1", "exit-192.0.2.2", "exit", widens()),
        ("us-source-public", "exit-0008d9640fe4947f73e355f67e20c2d290bbc72c", "exit", ExitSource),
        ("us", "session-a-us", "us", LatePlace),
        ("us", "ttl-5m", "ttl", TimeAlone),
    ] {
        let own = Selector::parse(own, &words()).unwrap();
        let bad = own.narrowed("shop", text, own.source.sources(), &words()).expect_err(text);
        assert_eq!((&*bad.token, bad.why), (token, why), "{own} {text}");
    }
}

#[test]
fn a_source_token_is_found_also_if_it_names_the_default() {
    for (text, want) in [
        ("us-source-tor", true),
        ("customer-acme-cc-us-SOURCE-public", true),
        ("us", false),
        ("us-session-source", false),
        ("us-session=a-source-tor", false),
    ] {
        assert_eq!(Selector::has_source(text, &words()), Ok(want), "{text}");
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
        "-nonasn-[1-9][0-9]{0,3}(\\+[1-9][0-9]{0,3}){0,2}",
        "-isolate-(key|session|target)",
        Just("-source-any".to_owned()),
        Just("-source-tor".to_owned())
    ];
    let named = prop_oneof![
        (session, exit.clone()).prop_map(|(session, exit)| format!("{session}{exit}")),
        (exit, "[A-Za-z0-9@ +=é_.-]{1,40}").prop_map(|(exit, name)| format!("{exit}-session={name}")),
    ];
    (geo, mode, rest, named).prop_map(|(geo, mode, rest, named)| format!("{geo}{rest}{mode}{named}"))
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
    fn no_text_panics_or_is_read_in_part(text in "[a-z0-9+.: -]{0,40}|.{0,300}") {
        match Selector::parse(&text, &words()) {
            Ok(selector) => prop_assert_eq!(Selector::parse(&selector.to_string(), &words()), Ok(selector)),
            Err(bad) => prop_assert!(bad.to_string().bytes().all(|b| b.is_ascii_graphic() || b == b' ')),
        }
    }

    #[test]
    fn narrowing_never_lets_a_country_in(own in selectors(), text in selectors()) {
        let own = Selector::parse(&own, &words()).unwrap().pooled();
        if let Ok(narrowed) = own.narrowed("shop", &text, own.source.sources(), &words()) {
            let (wide, narrow) = (own.geo.countries(), narrowed.selector.geo.countries());
            prop_assert!(narrow.iter().all(|country| wide.contains(country)));
        }
    }
}
