//! Tests with hostile and with correct proxies at the other end of an in-memory pipe.

use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::net::Secret;

const OPEN: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

/// Plays a proxy: for each step of `script`, reads the given number of bytes, then writes the given bytes. At the end
/// the proxy closes the connection, or keeps it open if `stays` is true.
async fn act(mut peer: DuplexStream, script: Vec<(usize, &'static [u8])>, stays: bool) {
    for (wanted, said) in script {
        let mut read = vec![0; wanted];
        if peer.read_exact(&mut read).await.is_err() || peer.write_all(said).await.is_err() {
            return;
        }
    }
    if stays {
        std::future::pending().await
    }
}

async fn asked(
    protocol: Protocol,
    login: bool,
    script: &[(usize, &'static [u8])],
) -> (Result<Vec<u8>, DialError>, Vec<u8>) {
    let id = PublicId { protocol, addr: "192.0.2.1:80".parse().unwrap() };
    let login = login.then(|| Login { user: "user".into(), password: Secret::new("pass") });
    let times = Times { connect: Duration::from_secs(1), reply: Duration::from_secs(1) };
    let rules = Rules::default();
    let way = Way { id: &id, login: login.as_ref(), reach: Reach::Direct, times, rules: &rules, check_names: false };
    let target: Target = "web.test:80".parse().unwrap();
    let (mut stream, peer) = duplex(64 * 1024);
    let stays = script.last().is_none_or(|(_, said)| !said.is_empty());
    let acted = act(peer, script.to_vec(), stays);
    let outcome = tokio::select! {
        outcome = ask(&mut stream, way, &target) => outcome,
        () = async { acted.await; std::future::pending().await } => unreachable!("pending"),
        () = tokio::time::sleep(Duration::from_secs(5)) => Err(DialError::Deadline),
    };
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_millis(1), stream.read_buf(&mut rest)).await;
    (outcome, rest)
}

#[tokio::test]
async fn with_only_tor_no_proxy_is_reached_from_here_and_no_name_is_looked_up() {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let id = PublicId { protocol: Protocol::Http, addr: server.local_addr().unwrap() };
    let only_tor = crate::limit::target::OnlyTor::default();
    only_tor.set(true);
    let (ports, own) = (Default::default(), Default::default());
    let rules = Rules::new(ports, true, own).with_only_tor(only_tor.clone());
    let times = Times { connect: Duration::from_secs(5), reply: Duration::from_secs(5) };
    let way = Way { id: &id, login: None, reach: Reach::Direct, times, rules: &rules, check_names: true };
    let target: Target = "web.test:80".parse().unwrap();
    let by = || Instant::now() + Duration::from_secs(5);
    let closed = DialError::from(EngineFault::NotReady);
    assert_eq!(forward(way, &target, by()).await.map(drop), Err(closed));
    assert_eq!(tunnel(way, &target, by()).await.map(drop), Err(closed));
    only_tor.set(false);
    let stream = forward(way, &target, by()).await.unwrap();
    let (_, first) = server.accept().await.unwrap();
    let Stream::Tcp(stream) = stream else { panic!("a proxy is reached over TCP") };
    assert_eq!(first, stream.local_addr().unwrap(), "the closed way opened no connection before");
}

#[tokio::test(start_paused = true)]
async fn each_protocol_opens_and_keeps_the_targets_bytes() {
    let connect = 47; // the length of the request in bytes
    for (protocol, login, script, first, rest) in [
        (Protocol::Http, false, vec![(connect, OPEN)], &b""[..], &b""[..]),
        (Protocol::Http, false, vec![(connect, b"HTTP/1.1 200 OK\r\n\r\n220 hello")], b"220 hello", b""),
        (Protocol::Socks4, false, vec![(18, b"\x00\x5a\0\0\0\0\0\0SSH")], b"", b"SSH"),
        (Protocol::Socks5, false, vec![(3, b"\x05\x00"), (15, b"\x05\x00\x00\x01\0\0\0\0\0\0SSH")], b"", b"SSH"),
        (
            Protocol::Socks5,
            true,
            vec![(4, b"\x05\x02"), (11, b"\x01\x00"), (15, b"\x05\x00\x00\x03\x03a.b\0\0")],
            b"",
            b"",
        ),
    ] {
        let (outcome, left) = asked(protocol, login, &script).await;
        assert_eq!(outcome, Ok(first.to_vec()), "{protocol:?}");
        assert_eq!(left, rest, "{protocol:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn hostile_answers_are_refused() {
    let exit = |fault: ExitFault| Err(DialError::Exit(fault));
    const BANNER: &[u8] = &[b'x'; 32 * 1024];
    for (protocol, login, script, want) in [
        (Protocol::Http, false, vec![(47, BANNER)], exit(ExitFault::Refused)),
        (Protocol::Http, false, vec![(47, &b"HTTP/1.1 403 No\r\n\r\n"[..])], exit(ExitFault::Refused)),
        (Protocol::Http, false, vec![(47, b"HTTP/1.1 502 Bad\r\n\r\n")], exit(ExitFault::Unclear)),
        (Protocol::Http, false, vec![(47, b"HTTP/1.1 2"), (0, b"")], exit(ExitFault::Died)),
        (Protocol::Http, false, vec![(47, b"HTTP/1.1 2")], Err(DialError::Deadline)),
        (Protocol::Socks4, false, vec![(18, BANNER)], exit(ExitFault::Refused)),
        (Protocol::Socks5, false, vec![(3, b"HT")], exit(ExitFault::Refused)),
        (Protocol::Socks5, false, vec![(3, b"\x05\xff")], exit(ExitFault::Refused)),
        (Protocol::Socks5, false, vec![(3, b"\x05\x02")], exit(ExitFault::Refused)),
        (Protocol::Socks5, true, vec![(4, b"\x05\x02"), (11, b"\x01\x01")], exit(ExitFault::Refused)),
        (Protocol::Socks5, false, vec![(3, b"\x05\x00"), (15, b"\x05\x05\x00\x01")], exit(ExitFault::Unclear)),
        (Protocol::Socks5, false, vec![(3, b"\x05\x00"), (15, b"\x05\x00\x00\x09")], exit(ExitFault::Refused)),
        (Protocol::Socks5, false, vec![(3, b"\x05\x00"), (15, b"\x05\x00\x00\x01"), (0, b"")], exit(ExitFault::Died)),
    ] {
        let (outcome, _) = asked(protocol, login, &script).await;
        assert_eq!(outcome, want, "{protocol:?} {:?}", script.last().map(|(_, said)| &said[..said.len().min(20)]));
    }
}

#[tokio::test]
async fn a_proxy_in_an_inner_network_is_not_connected_to() {
    let id = PublicId { protocol: Protocol::Http, addr: "127.0.0.1:9".parse().unwrap() };
    let times = Times { connect: Duration::from_secs(1), reply: Duration::from_secs(1) };
    let rules = Rules::default();
    let way = Way { id: &id, login: None, reach: Reach::Direct, times, rules: &rules, check_names: true };
    let by = Instant::now() + Duration::from_secs(1);
    let refused = connect(way, by).await.unwrap_err();
    assert_eq!(refused, DialError::Exit(ExitFault::Refused));
    let inner: Target = "localhost:80".parse().unwrap();
    assert_eq!(check_name(way, &inner, by).await, Err(DialError::Target(TargetFault::Forbidden)));
    assert_eq!(check_name(Way { check_names: false, ..way }, &inner, by).await, Ok(()));
}
