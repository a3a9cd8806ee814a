use super::*;

fn parse(text: &str) -> Result<Torrc, String> {
    Torrc::parse(text, &[]).map(|(torrc, _)| torrc).map_err(|fault| fault.to_string())
}

#[test]
fn values_are_told_as_tor_tells_them() {
    let torrc = parse(
        "MaxCircuitDirtiness 30 days # a comment\nBandwidthRate 7 MBytes\nDataDirectory \"/a b\"\n+Log notice stdout\nlog \\\n warn \
         stdout\n__LeaveStreamsUnattached 1\n",
    )
    .unwrap();
    for (key, want) in [
        ("maxcircuitdirtiness", "2592000"),
        ("BandwidthRate", "7340032"),
        ("BandwidthBurst", "1073741824"),
        ("DataDirectory", "/a b"),
        ("__LeaveStreamsUnattached", "1"),
        ("EntryNodes", ""),
        ("CircuitBuildTimeout", "0"),
        ("SocksTimeout", "120"),
    ] {
        assert_eq!(torrc.answer(key).unwrap().1, [want], "{key}");
    }
    assert_eq!(torrc.all("Log").collect::<Vec<_>>(), ["notice stdout", "warn stdout"]);
    assert_eq!(torrc.answer("foo"), None);
}

#[test]
fn what_tor_refuses_is_refused_in_its_words() {
    for (text, want) in [
        ("Foo 1", "Unknown option 'Foo'.  Failing."),
        (
            "BandwidthRate zoo",
            "Could not parse BandwidthRate: Provided value is malformed or out of bounds: Unable to parse zoo as a number",
        ),
        ("SocksPort zoo", "Invalid SocksPort configuration"),
        ("Bridge zoo", "Bridge line did not parse. See logs for details."),
        ("UseBridges 1", "If you set UseBridges, you must specify at least one bridge."),
        ("DirAuthority zoo", "Directory authority/fallback line did not parse. See logs for details."),
        ("band 1", "BandwidthBurst must be at least equal to BandwidthRate."),
    ] {
        assert_eq!(parse(text).unwrap_err(), want, "{text}");
    }
    assert!(parse("TestingTorNetwork 1").is_err());
}

#[test]
fn options_are_set_together_or_not_at_all() {
    let mut torrc = parse("DataDirectory /x\nBandwidthRate 5 MB\n").unwrap();
    let pair = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
    let before = torrc.clone();
    let refused = torrc.set(&[pair("BandwidthRate", "6 MB"), pair("foo", "bar")]).unwrap_err();
    assert_eq!((refused, &torrc), (Fault::Unknown("foo".into()), &before));
    assert_eq!(torrc.set(&[pair("DataDirectory", "/y")]), Err(Fault::Fixed("DataDirectory")));
    torrc.set(&[pair("bandwidthrate", "6 MB"), pair("EntryNodes", "$AA")]).unwrap();
    assert_eq!((torrc.text("BandwidthRate"), torrc.text("EntryNodes")), ("6291456".into(), "$AA".into()));
    torrc.set(&[("EntryNodes".into(), None)]).unwrap();
    assert_eq!(torrc.text("EntryNodes"), "");
}

#[test]
fn ports_are_read_with_their_flags() {
    let port = |value| Port::read("SocksPort", value).unwrap();
    let onion = port("unix:\"/a b/onion\" OnionTrafficOnly ExtendedErrors");
    assert_eq!(onion.listen, Listen::Unix("/a b/onion".into()));
    assert!(onion.onion && onion.extended_errors && !onion.ipv4 && !onion.names);
    let plain = port("unix:/a/socks IPv4Traffic NoIPv6Traffic NoOnionTraffic");
    assert!(plain.ipv4 && plain.names && !plain.ipv6 && !plain.onion);
    assert_eq!(port("9050").listen, Listen::Tcp("127.0.0.1:9050".parse().unwrap()));
    assert_eq!(port("127.0.0.5:7").listen, Listen::Tcp("127.0.0.5:7".parse().unwrap()));
    assert_eq!((port("0").listen, port("auto").listen), (Listen::Off, Listen::Tcp("127.0.0.1:0".parse().unwrap())));
}

#[test]
fn quoted_strings_come_back() {
    for text in ["", "a b", "\"\\", "tab\there", "line\nbreak"] {
        assert_eq!(unquoted(&quoted(text)), Some((text.to_owned(), "")), "{text:?}");
    }
    assert_eq!(unquoted("\"open"), None);
    assert_eq!(unquoted("\"\\101\" rest"), Some(("A".to_owned(), " rest")));
}
