//! Tests that compare whole exchanges byte for byte, and property tests.

use proptest::prelude::*;

use super::*;

/// Gives `opening` to a new parser in pieces of `piece` bytes. Returns every step except `More`.
fn play(opening: &[u8], piece: usize, demands_key: bool) -> Vec<String> {
    let Some(mut socks) = opening.first().and_then(|&first| Socks::begin(first, demands_key)) else {
        return vec!["not SOCKS".into()];
    };
    let (mut have, mut steps) = (1.min(opening.len()), Vec::new());
    loop {
        match socks.step(&opening[..have]) {
            Step::More if have == opening.len() => return steps,
            Step::More => have = (have + piece).min(opening.len()),
            Step::Send(bytes) => {
                steps.push(format!("send {bytes:?}"));
                if bytes == NO_METHOD {
                    return steps;
                }
            }
            Step::Check => steps.push(format!("check {}", shown(socks.credentials(&opening[..have])))),
            Step::Do { command, used } => {
                let who = shown(socks.credentials(&opening[..have]));
                steps.push(format!("{command:?} for {who} in {used}"));
                return steps;
            }
            Step::Refuse(failure) => {
                steps.push(format!("refuse {} told {}", failure.label(), socks.can_refuse()));
                return steps;
            }
        }
    }
}

fn shown(who: Credentials<'_>) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}:{}", text(who.username), who.password.map(text).unwrap_or_default())
}

fn name_request(command: u8, name: &str, port: u16) -> Vec<u8> {
    let mut bytes = vec![5, command, 0, 3, name.len() as u8];
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes
}

fn connect(name: &str) -> String {
    format!("Connect(Target {{ host: Name({name:?}), port: 80 }})")
}

#[test]
fn socks5_exchanges() {
    let join = |parts: &[&[u8]]| parts.concat();
    let to_a_test = name_request(1, "a.test", 80);
    let none = "send [5, 0]".to_owned();
    let ask = "send [5, 2]".to_owned();
    for (name, opening, demands_key, want) in [
        (
            "no auth",
            join(&[&[5, 1, 0], &to_a_test]),
            false,
            vec![none.clone(), format!("{} for : in 16", connect("a.test"))],
        ),
        (
            "what follows is left",
            join(&[&[5, 1, 0], &to_a_test, b"GET /"]),
            false,
            vec![none.clone(), format!("{} for : in 16", connect("a.test"))],
        ),
        (
            "user and password are preferred",
            join(&[&[5, 3, 0, 1, 2, 1, 2, b'u', b's', 1, b'k'], &to_a_test]),
            false,
            vec![ask.clone(), "check us:k".into(), format!("{} for us:k in 24", connect("a.test"))],
        ),
        (
            "empty credentials are nobody",
            join(&[&[5, 2, 0, 2, 1, 0, 0], &to_a_test]),
            true,
            vec![ask.clone(), "check :".into(), format!("{} for : in 20", connect("a.test"))],
        ),
        ("no auth is not enough", vec![5, 1, 0], true, vec!["send [5, 255]".into()]),
        ("GSSAPI alone", vec![5, 1, 1], false, vec!["send [5, 255]".into()]),
        ("no methods at all", vec![5, 0], false, vec!["send [5, 255]".into()]),
        (
            "credentials of a version that is not",
            vec![5, 1, 2, 5, 0, 0],
            false,
            vec![ask.clone(), "refuse client_garbage told false".into()],
        ),
        (
            "a request of a version that is not",
            vec![5, 1, 0, 4, 1, 0, 1],
            false,
            vec![none.clone(), "refuse client_garbage told true".into()],
        ),
        (
            "IPv4",
            vec![5, 1, 0, 5, 1, 0, 1, 192, 0, 2, 1, 1, 187],
            false,
            vec![none.clone(), "Connect(Target { host: Ip(192.0.2.1), port: 443 }) for : in 13".into()],
        ),
        (
            "IPv6",
            join(&[&[5, 1, 0, 5, 1, 0, 4, 0x20, 1, 0xd, 0xb8], &[0; 11], &[1, 0, 80]]),
            false,
            vec![none.clone(), "Connect(Target { host: Ip(2001:db8::1), port: 80 }) for : in 25".into()],
        ),
        (
            "a v4-mapped address is the v4 one",
            join(&[&[5, 1, 0, 5, 1, 0, 4], &[0; 10], &[255, 255, 127, 0, 0, 1, 0, 80]]),
            false,
            vec![none.clone(), "Connect(Target { host: Ip(127.0.0.1), port: 80 }) for : in 25".into()],
        ),
        (
            "a literal as a name",
            join(&[&[5, 1, 0], &name_request(1, "192.0.2.1", 80)]),
            false,
            vec![none.clone(), "Connect(Target { host: Ip(192.0.2.1), port: 80 }) for : in 19".into()],
        ),
        (
            "BIND",
            vec![5, 1, 0, 5, 2, 0, 1, 0, 0, 0, 0, 0, 80],
            false,
            vec![none.clone(), "refuse client_command told true".into()],
        ),
        (
            "UDP ASSOCIATE",
            vec![5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0],
            false,
            vec![none.clone(), "refuse client_command told true".into()],
        ),
        (
            "an address type that is not",
            vec![5, 1, 0, 5, 1, 0, 2],
            false,
            vec![none.clone(), "refuse client_address_type told true".into()],
        ),
        (
            "port 0",
            join(&[&[5, 1, 0], &name_request(1, "a.test", 0)]),
            false,
            vec![none.clone(), "refuse client_target told true".into()],
        ),
        (
            "an empty name",
            join(&[&[5, 1, 0], &name_request(1, "", 80)]),
            false,
            vec![none.clone(), "refuse client_target told true".into()],
        ),
        (
            "a name with a line break",
            join(&[&[5, 1, 0], &name_request(1, "a\r\nb", 80)]),
            false,
            vec![none.clone(), "refuse client_target told true".into()],
        ),
        (
            "RESOLVE",
            join(&[&[5, 1, 0], &name_request(0xF0, "a.test", 0)]),
            false,
            vec![none.clone(), "Resolve(Name(\"a.test\")) for : in 16".into()],
        ),
        (
            "RESOLVE_PTR",
            vec![5, 1, 0, 5, 0xF1, 0, 1, 192, 0, 2, 1, 0, 0],
            false,
            vec![none.clone(), "ResolvePtr(192.0.2.1) for : in 13".into()],
        ),
        (
            "RESOLVE_PTR of a name",
            join(&[&[5, 1, 0], &name_request(0xF1, "a.test", 0)]),
            false,
            vec![none.clone(), "refuse client_target told true".into()],
        ),
        ("an end half way", vec![5, 1, 0, 5, 1, 0], false, vec![none]),
    ] {
        for piece in [1, 3, usize::MAX / 2] {
            assert_eq!(play(&opening, piece, demands_key), want, "{name}, {piece} bytes at a time");
        }
    }
}

#[test]
fn socks4_exchanges() {
    let long = [&[4, 1, 0, 80, 192, 0, 2, 1][..], &[b'u'; TEXT_MAX + 1]].concat();
    for (name, opening, want) in [
        (
            "an address",
            b"\x04\x01\x00\x50\xC0\x00\x02\x01us\0".to_vec(),
            "Connect(Target { host: Ip(192.0.2.1), port: 80 }) for us: in 11".to_owned(),
        ),
        (
            "a key in the userid",
            b"\x04\x01\x00\x50\xC0\x00\x02\x01us:k:k\0".to_vec(),
            "Connect(Target { host: Ip(192.0.2.1), port: 80 }) for us:k:k in 15".into(),
        ),
        ("a name", b"\x04\x01\x00\x50\0\0\0\x01\0a.test\0GET".to_vec(), format!("{} for : in 16", connect("a.test"))),
        ("RESOLVE", b"\x04\xF0\x00\x00\0\0\0\x01\0a.test\0".to_vec(), "Resolve(Name(\"a.test\")) for : in 16".into()),
        (
            "RESOLVE_PTR is SOCKS5's",
            b"\x04\xF1\x00\x00\xC0\x00\x02\x01\0".to_vec(),
            "refuse client_command told true".into(),
        ),
        ("BIND", b"\x04\x02\x00\x50\xC0\x00\x02\x01\0".to_vec(), "refuse client_command told true".into()),
        (
            "0.0.0.0 is no name",
            b"\x04\x01\x00\x50\0\0\0\0\0".to_vec(),
            "Connect(Target { host: Ip(0.0.0.0), port: 80 }) for : in 9".into(),
        ),
        ("an empty name", b"\x04\x01\x00\x50\0\0\0\x01\0\0".to_vec(), "refuse client_target told true".into()),
        ("a userid without end", long, "refuse client_garbage told true".into()),
    ] {
        for piece in [1, 3, usize::MAX / 2] {
            assert_eq!(play(&opening, piece, true), std::slice::from_ref(&want), "{name}, {piece} bytes at a time");
        }
    }
}

#[test]
fn replies_byte_for_byte() {
    let exit = Some(IpAddr::from([192, 0, 2, 7]));
    assert_eq!(*Reply::open(Version::V5, exit), [5, 0, 0, 1, 192, 0, 2, 7, 0, 0]);
    assert_eq!(*Reply::open(Version::V5, None), [5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(*Reply::open(Version::V5, Some(IpAddr::V6(Ipv6Addr::LOCALHOST))), [5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(*Reply::open(Version::V4, exit), [0, 0x5A, 0, 0, 192, 0, 2, 7]);
    let refused = Failure::Target(crate::dial::TargetFault::Refused);
    assert_eq!(*Reply::refuse(Version::V5, refused), [5, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(*Reply::refuse(Version::V4, refused), [0, 0x5B, 0, 0, 0, 0, 0, 0]);
    let v6 = Reply::address(Version::V5, IpAddr::V6(Ipv6Addr::LOCALHOST)).unwrap();
    assert_eq!((v6.len(), v6[3], v6[19]), (22, 4, 1));
    assert_eq!(Reply::address(Version::V4, IpAddr::V6(Ipv6Addr::LOCALHOST)), None);
    assert_eq!(name_reply("a.test").unwrap(), b"\x05\0\0\x03\x06a.test\0\0");
    assert_eq!((name_reply(""), name_reply(&"a".repeat(256))), (None, None));
}

#[test]
fn the_longest_opening_fits() {
    let longest =
        [&[5, 255][..], &[2; 255], &[1, 255], &[b'u'; 255], &[255], &[b'p'; 255], &[5, 1, 0, 3, 255], &[b'a'; 257]];
    let longest = longest.concat();
    assert_eq!(longest.len(), OPENING_MAX);
    let mut socks = Socks::begin(5, false).unwrap();
    assert_eq!(socks.step(&longest[..257]), Step::Send([5, 2]));
    assert_eq!(socks.step(&longest[..770]), Step::Check);
    assert_eq!(socks.step(&longest[..OPENING_MAX - 1]), Step::More);
    assert_ne!(socks.step(&longest), Step::More, "there is always a step within OPENING_MAX bytes");
}

/// Generates openings that begin like SOCKS and continue with random bytes.
fn openings() -> impl Strategy<Value = Vec<u8>> {
    let prefix = prop_oneof![
        Just(vec![]),
        Just(vec![4]),
        Just(vec![4, 1, 0, 80, 0, 0, 0, 1]),
        Just(vec![5, 1, 0, 5, 1, 0]),
        Just(vec![5, 1, 2, 1]),
        Just(vec![5, 2, 0, 2, 1, 1, b'u', 1, b'p', 5, 0xF0, 0, 3]),
    ];
    (prefix, proptest::collection::vec(any::<u8>(), 0..1400)).prop_map(|(mut head, tail)| {
        head.extend(tail);
        head
    })
}

proptest! {
    #[test]
    fn pieces_do_not_matter(opening in openings(), piece in 1usize..40, demands_key: bool) {
        prop_assert_eq!(play(&opening, piece, demands_key), play(&opening, usize::MAX / 2, demands_key));
    }

    #[test]
    fn every_opening_comes_to_an_end_in_bounds(opening in openings()) {
        let Some(mut socks) = opening.first().and_then(|&first| Socks::begin(first, false)) else { return Ok(()) };
        loop {
            match socks.step(&opening) {
                Step::More => { prop_assert!(opening.len() < OPENING_MAX); break }
                Step::Do { used, .. } => { prop_assert!(used <= opening.len() && used <= OPENING_MAX); break }
                Step::Refuse(_) | Step::Send(NO_METHOD) => break,
                Step::Send(_) | Step::Check => {}
            }
        }
    }

    #[test]
    fn what_a_client_writes_is_read(name in "([a-z][a-z0-9-]{0,10}\\.){0,3}[a-z]{2,5}", port in 1u16.., user in "[a-z-]{1,40}", key in "[!-~]{1,40}") {
        let mut opening = vec![5, 1, 2, 1, user.len() as u8];
        opening.extend_from_slice(user.as_bytes());
        opening.push(key.len() as u8);
        opening.extend_from_slice(key.as_bytes());
        opening.extend(name_request(1, &name, port));
        let mut socks = Socks::begin(5, true).unwrap();
        prop_assert_eq!(socks.step(&opening), Step::Send([5, 2]));
        let who = Credentials { username: user.as_bytes(), password: Some(key.as_bytes()) };
        prop_assert_eq!(socks.step(&opening), Step::Check);
        prop_assert_eq!(socks.credentials(&opening), who);
        let target = Target::new(Host::parse(&name).unwrap(), port).unwrap();
        prop_assert_eq!(socks.step(&opening), Step::Do { command: Command::Connect(target), used: opening.len() });
    }
}
