//! Tests which lines of the user are refused, for which reason, and what an engine's torrc contains.

use proptest::prelude::*;

use super::*;

fn extra(lines: &[&str]) -> Result<UserLines, TorrcError> {
    UserLines::parse(None, &lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>())
}

fn place(engine: (usize, usize)) -> EnginePaths<'static> {
    EnginePaths {
        folder: Path::new("/data dir/engine-0"),
        sockets: Path::new("/run/e0"),
        owner: 42,
        guard: None,
        engine,
        geoip_file: Some(Path::new("/usr/share/tor/geoip")),
        circuit_timeout: Duration::from_secs(45),
    }
}

#[test]
fn takes_what_does_not_concern_us() {
    for line in [
        "UseBridges 1",
        "Bridge obfs4 192.0.2.1:443 FINGERPRINT cert=x iat-mode=0",
        "BandwidthRate 1 MB",
        "Sandbox 1",
        "TestingTorNetwork 1",
        "DirAuthority auth orport=9001 no-v2 v3ident=AB 127.0.0.1:9030 CD",
        "Log info file /tmp/tor.log",
        "Socks5Proxy 127.0.0.1:9999",
        "ReducedConnectionPadding 1",
        "# DataDirectory /tmp",
        "",
    ] {
        assert!(extra(&[line]).is_ok(), "{line}: {:?}", extra(&[line]));
    }
}

#[test]
fn refuses_what_would_break_an_engine_with_the_place_and_the_reason() {
    for line in [
        "DataDirectory /tmp",
        "socksport 9050",
        "SocksPor 9050",
        "+SocksPort 9050",
        "/ControlSocket",
        "__LeaveStreamsUnattached 0",
        "__leavestreams 0",
        "MaxCircuitDirtiness 10",
        "EXITNODES {us}",
        "%include /etc/tor/more",
        "HiddenServiceDir /var/x",
        "EntryNodes $ABCD",
        "S 1",
        "ConfluxEnabled\t1",
    ] {
        let Err(TorrcError::Conflicts(found)) = extra(&["Sandbox 0", line]) else { panic!("{line} is taken") };
        assert_eq!((found.len(), &found[0].origin), (1, &Origin::Extra(1)), "{line}");
    }
    let text = "# ours\n\nSandbox 1\nData\\\n# in between\nDirectory /x\nRunAsDaemon 1 # why not\n";
    let Err(error) = UserLines::parse(Some((Path::new("/etc/my.torrc"), text)), &["DNSPort 53".into()]) else {
        panic!()
    };
    let message = error.to_string();
    for part in [
        "/etc/my.torrc:4: `Data Directory /x` is refused",
        "/etc/my.torrc:7: `RunAsDaemon 1` is refused: exitgate watches its engines",
        "tor.extra[0]: `DNSPort 53` is refused: exitgate would not attach its streams",
    ] {
        assert!(message.contains(part), "{part} is not in:\n{message}");
    }
}

#[test]
fn lines_are_joined_and_comments_dropped_as_tor_does() {
    for (text, want) in [
        ("A 1\nB 2", vec![(1, "A 1"), (2, "B 2")]),
        ("A 1 \\\n  2\\\n3\nB 4", vec![(1, "A 1 2 3"), (4, "B 4")]),
        ("A \"x # y\" # z", vec![(1, "A \"x # y\"")]),
        ("A \"x \\\" # y\" # z", vec![(1, "A \"x \\\" # y\"")]),
        ("\\\nA 1", vec![(2, "A 1")]),
        ("A 1\\", vec![(1, "A 1")]),
    ] {
        let got = joined(text);
        assert_eq!(got.iter().map(|(at, line)| (*at, line.as_str())).collect::<Vec<_>>(), want, "{text:?}");
    }
}

#[test]
fn writes_our_lines_then_the_users() {
    let user = extra(&["BandwidthRate 1 MB"]).unwrap();
    let text = render(&place((0, 1)), &user);
    for line in [
        "DataDirectory \"/data dir/engine-0\"",
        "ControlSocket \"/run/e0/control\"",
        "SocksPort unix:\"/run/e0/socks\" IPv4Traffic NoIPv6Traffic NoIsolateClientAddr NoIsolateSOCKSAuth NoIsolateClientProtocol SessionGroup=1 NoOnionTraffic ExtendedErrors",
        "__OwningControllerProcess 42",
        "__LeaveStreamsUnattached 1",
        "ConfluxEnabled 0",
        "MaxCircuitDirtiness 30 days",
        "CircuitBuildTimeout 45",
        "GeoIPFile /dev/null",
        "NumEntryGuards 1",
    ] {
        assert!(text.lines().any(|got| got == line), "{line} is not in:\n{text}");
    }
    assert_eq!(text.lines().last(), Some("BandwidthRate 1 MB"));
}

#[test]
fn lines_for_bridges_and_their_transports_are_allowed() {
    let lines = [
        "UseBridges 1",
        "ClientTransportPlugin obfs4,meek_lite exec /usr/bin/obfs4proxy -enableLogging",
        "ClientTransportPlugin snowflake socks5 127.0.0.1:1080",
        "Bridge obfs4 192.0.2.1:443 0123456789ABCDEF0123456789ABCDEF01234567 cert=x iat-mode=0",
        "UpdateBridgesFromAuthority 0",
    ];
    let text = render(&place((0, 1)), &extra(&lines).unwrap());
    assert!(lines.iter().all(|line| text.lines().any(|found| found == *line)), "{text}");
}

#[test]
fn the_guard_is_ours_unless_bridges_are_used() {
    let guard = Some("F5C688BE508553C516E3A1AE96955F380AC31EDF".parse().unwrap());
    let here = EnginePaths { guard, ..place((0, 2)) };
    assert!(render(&here, &UserLines::default()).contains("EntryNodes $F5C688BE508553C516E3A1AE96955F380AC31EDF"));
    let bridges = extra(&["UseBridges 1", "Bridge a", "Bridge b", "Bridge c"]).unwrap();
    assert!(bridges.use_bridges());
    let dealt = |engine| {
        let text = render(&place(engine), &bridges);
        assert!(!text.contains("EntryNodes"));
        text.lines().filter_map(|line| line.strip_prefix("Bridge ")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!((dealt((0, 2)), dealt((1, 2))), (vec!["a".into(), "c".into()], vec!["b".to_owned()]));
    assert_eq!(dealt((3, 4)).len(), 3, "too few to deal out: shared");
}

#[test]
fn geoip_is_loaded_only_for_countries() {
    let text = |lines: &[&str]| render(&place((0, 1)), &extra(lines).unwrap());
    assert!(text(&["HSLayer2Nodes {ch}"]).contains("GeoIPFile \"/usr/share/tor/geoip\""));
    assert!(!text(&["GeoIPFile /mine"]).contains("GeoIPFile /dev/null"));
}

#[test]
fn a_testing_network_allows_paths_within_a_subnet() {
    for (lines, distinct) in [
        (&[][..], true),
        (&["TestingTorNetwork 1"][..], false),
        (&["TestingTorNetwork 1", "EnforceDistinctSubnets 1"][..], true),
        (&["enforcedistinctsubnets 0"][..], false),
    ] {
        assert_eq!(extra(lines).unwrap().distinct_subnets(), distinct, "{lines:?}");
    }
}

proptest! {
    #[test]
    fn no_text_panics_or_smuggles_one_of_our_options_in(text in "\\PC{0,80}|([A-Za-z_ #\\\\\"\n]{0,20}(SocksPort|control){0,1} ?\n?){0,4}") {
        if let Ok(user) = UserLines::parse(Some((Path::new("f"), &text)), &[]) {
            let written = render(&place((0, 1)), &user);
            let (_, theirs) = written.split_once("# the user's own lines").unwrap();
            for line in theirs.lines() {
                let key = line.split(' ').next().unwrap_or_default().to_ascii_lowercase();
                prop_assert!(key != "socksport" && key != "controlsocket" && key != "controlport", "{}", line);
            }
        }
    }
}

#[test]
fn a_list_is_joined_and_a_way_around_is_known() {
    let lines = |extra: &[&str]| {
        UserLines::parse(None, &extra.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()).unwrap()
    };
    let user = lines(&["ReachableAddresses *:80", "reachableaddresses *:443"]);
    assert_eq!(user.list("ReachableAddresses").as_deref(), Some("*:80,*:443"));
    assert_eq!(user.list("FirewallPorts"), None);
    assert!(user.connects_directly());
    for line in ["UseBridges 1", "Socks5Proxy 127.0.0.1:1", "httpsproxy proxy:3128", "OutboundBindAddress 1.2.3.4"] {
        assert!(!lines(&[line]).connects_directly(), "{line}");
    }
}
