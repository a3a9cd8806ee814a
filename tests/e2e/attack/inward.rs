//! Ways into the network that the gateway stands in: by every spelling of an address, by names that lead inwards, by
//! names that turn around, by redirects.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;

use exitgate_testnet::Sandbox;
use tokio::io::AsyncWriteExt as _;

use super::{STRAIGHT, Victim, head, named, serve, socks5, status, talk};
use crate::gateway::until;

/// A port of this machine where nobody may come.
struct Trap(TcpListener);

impl Trap {
    fn set() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// Whoever asks here was answered already: a connection would be in the queue by now.
    fn is_empty(&self) -> bool {
        self.0.accept().is_err_and(|fault| fault.kind() == ErrorKind::WouldBlock)
    }
}

/// Loopback, a private network and metadata services, as people write them who hope that nobody understands.
const SPELLINGS: &[&str] = &[
    "127.0.0.1",
    "127.1",
    "127.0.0.1.",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "127.000.000.001",
    "0",
    "0.0.0.0",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[2002:7f00:1::1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[fe80::1%25lo]",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "169.254.169.254",
    "[::ffff:169.254.169.254]",
    "0xA9FEA9FE",
    "10.0.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "localhost",
    "LOCALHOST.",
    "x.localhost",
    "ip6-localhost",
    "metadata.google.internal",
    "%31%32%37.0.0.1",
    "127.0.0.1%00.example.com",
    "１２７.0.0.1",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_an_inner_address_leads_there() {
    let victim = Victim::start("").await;
    let trap = Trap::set();
    let port = trap.port();
    for host in SPELLINGS {
        for line in [format!("CONNECT {host}:{port}"), format!("GET http://{host}:{port}/")] {
            let answer = talk(victim.shared(), head(&line, STRAIGHT, "").as_bytes()).await;
            assert!(matches!(status(&answer), 400 | 403), "{line}: {}", answer.escape_ascii());
        }
        let bare = host.trim_matches(['[', ']']);
        let mut five = vec![socks5(STRAIGHT.as_bytes(), b"x", &named(bare), port)];
        five.extend(match bare.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => Some(socks5(STRAIGHT.as_bytes(), b"x", &[&[1][..], &ip.octets()].concat(), port)),
            Ok(IpAddr::V6(ip)) => Some(socks5(STRAIGHT.as_bytes(), b"x", &[&[4][..], &ip.octets()].concat(), port)),
            Err(_) => None,
        });
        for opening in five {
            let answer = talk(victim.shared(), &opening).await;
            assert!(answer.len() > 5 && answer[..5] == [5, 2, 1, 0, 5] && answer[5] != 0, "{host}: {answer:?}");
        }
        let [high, low] = port.to_be_bytes();
        let four = [&[4, 1, high, low, 0, 0, 0, 1][..], STRAIGHT.as_bytes(), &[0], bare.as_bytes(), &[0]].concat();
        let answer = talk(victim.shared(), &four).await;
        assert!(answer.len() == 8 && answer[1] != 90, "{host} by SOCKS4a: {answer:?}");
        assert!(trap.is_empty(), "{host} leads to loopback");
    }
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_is_no_way_to_itself_even_where_private_targets_are_allowed() {
    let victim = Victim::start("gateway.allow_private_targets = true").await;
    for own in [victim.api(), victim.shared()] {
        for host in
            [own.to_string(), format!("[::ffff:{}]:{}", own.ip(), own.port()), format!("0.0.0.0:{}", own.port())]
        {
            let answer = talk(victim.shared(), head(&format!("CONNECT {host}"), STRAIGHT, "").as_bytes()).await;
            assert_eq!(status(&answer), 403, "{host}: {}", answer.escape_ascii());
        }
    }
}

/// Compiles the resolver. There is a `cc`: rustc links with it.
fn resolver(sandbox: &Sandbox) -> PathBuf {
    let library = sandbox.folder().join("resolver.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/attack/resolver.c");
    let made =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-w", "-o"]).arg(&library).args([source, "-ldl"]).status();
    assert!(made.unwrap().success(), "cc cannot build {source}");
    library
}

async fn victim_of_its_resolver(public: u16, more: &str) -> Victim {
    let sandbox = Sandbox::claim().unwrap();
    let library = resolver(&sandbox);
    let port = public.to_string();
    Victim::start_in(sandbox, more, &[("LD_PRELOAD", library.as_os_str()), ("ATTACK_PORT", OsStr::new(&port))]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_inwards_or_turns_around_is_refused_each_time() {
    let good = serve(Ipv4Addr::LOCALHOST, |mut stream, _| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngood").await;
    });
    let good = good.await;
    let victim = victim_of_its_resolver(good.port(), "").await;
    let trap = Trap::set();
    let port = trap.port();
    let ask = async |line: String| talk(victim.shared(), head(&line, STRAIGHT, "").as_bytes()).await;
    // It is a resolver at work, and the way out is open.
    let answer = ask(format!("GET http://public.evil:{port}/")).await;
    assert!(status(&answer) == 200 && answer.ends_with(b"good"), "{}", answer.escape_ascii());
    for name in ["loopback", "mapped", "six", "sixtofour", "nat64", "metadata", "private", "unspecified"] {
        for line in [format!("CONNECT {name}.evil:{port}"), format!("GET http://{name}.evil:{port}/")] {
            let answer = ask(line.clone()).await;
            assert_eq!(status(&answer), 403, "{line}: {}", answer.escape_ascii());
        }
    }
    // Good the first time, and loopback from then on.
    assert_eq!(status(&ask(format!("GET http://turn.evil:{port}/")).await), 200);
    for _ in 0..3 {
        assert_eq!(status(&ask(format!("GET http://turn.evil:{port}/")).await), 403);
        assert_eq!(status(&ask(format!("CONNECT turn.evil:{port}")).await), 403);
    }
    // One address that nobody answers at, and loopback beside it.
    let answer = ask(format!("CONNECT mixed.evil:{port}")).await;
    assert!(status(&answer) >= 400, "{}", answer.escape_ascii());
    assert!(trap.is_empty(), "a name leads to loopback");
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_redirects_inwards_is_not_followed() {
    let trap = Trap::set();
    let port = trap.port();
    let hosts = ["127.0.0.1", "[::ffff:127.0.0.1]", "loopback.evil", "localhost"];
    // The path says whither.
    let lists = serve(Ipv4Addr::LOCALHOST, |mut stream, asked| async move {
        let to = asked.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
        let answer = format!("HTTP/1.1 302 Found\r\nLocation: http://{to}/\r\nContent-Length: 0\r\n\r\n");
        let _ = stream.write_all(answer.as_bytes()).await;
    });
    let lists = lists.await;
    let sources: String = hosts
        .iter()
        .enumerate()
        .map(|(at, host)| {
            format!("\n[[sources.list]]\nname = \"evil{at}\"\nurl = \"http://public.evil/{host}:{port}\"\n")
        })
        .collect();
    let victim = victim_of_its_resolver(lists.port(), &sources).await;
    let told = |body: &str| {
        let answer: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        let all = answer["sources"].as_array().cloned().unwrap_or_default();
        all.iter()
            .filter(|one| one["name"].as_str().is_some_and(|name| name.starts_with("evil")))
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let failed = |one: &String| one.contains("\"connect\"");
    let got = until(
        || victim.gateway.api("/sources"),
        |got| told(&got.body).len() == hosts.len() && told(&got.body).iter().all(failed),
    )
    .await;
    assert!(told(&got.body).iter().all(failed) && told(&got.body).len() == hosts.len(), "{}", got.body);
    assert!(trap.is_empty(), "a redirect was followed inwards");
}
