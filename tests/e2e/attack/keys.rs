//! Access without a key: a gateway that listens on all addresses without further settings, and guessed keys. Access
//! with a key beyond its limit.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use exitgate_testnet::Sandbox;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{STRAIGHT, Victim, head, named, serve, socks5, status, talk};
use crate::gateway::{Gateway, curl, until};

/// Ports that are free at the moment.
fn free<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_listen_everywhere_it_asks_for_a_key_and_a_token_of_its_own() {
    let sandbox = Sandbox::claim().unwrap();
    let [shared, api, route] = free();
    let (ip, data) = (sandbox.ip(200, 1), sandbox.folder().join("data"));
    // The shortest configuration that is reachable from another machine.
    let config = format!(
        "data_dir = {data:?}\ntor.enabled = false\ngateway.allow_direct = true\napi.listen = \"0.0.0.0:{api}\"\n\
         gateway.listen = \"0.0.0.0:{shared}\"\ngateway.route_bind = \"0.0.0.0\"\n\
         gateway.route_ports = \"1024-65535\"\n\n[[routes]]\nname = \"out\"\n\
         selector = \"{STRAIGHT}\"\nport = {route}\n",
    );
    let gateway = Gateway::launch_on(&sandbox, ip, &config);
    let health = format!("http://{ip}:{api}/health");
    assert_eq!(
        until(|| async { curl(&["-H", "Host: localhost", &health]).await }, |got| got.status == 200).await.status,
        200,
        "{}",
        gateway.log()
    );
    let secrets: Vec<String> = fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_none_or(|ext| !ext.to_string_lossy().starts_with("db")))
        .filter_map(|path| fs::read_to_string(path).ok())
        .map(|text| text.trim().to_owned())
        .filter(|text| text.len() >= 16)
        .collect();
    assert!(secrets.len() >= 2, "a key and a token: {} found", secrets.len());

    // On a route's own port a username may only narrow the route.
    for (port, user) in [(shared, STRAIGHT), (route, "session-a1")] {
        // From loopback, as a page in a browser on this machine would: loopback needs a key too.
        for key in ["", "guess"] {
            let answer = talk((ip, port).into(), head("GET http://exit.gate/", user, key).as_bytes()).await;
            assert_eq!(status(&answer), 407, "port {port}, key {key:?}: {}", answer.escape_ascii());
            let claim =
                head("GET http://exit.gate/", user, key).replace("Host: x", "Host: x\r\nX-Forwarded-For: 127.0.0.1");
            assert_eq!(status(&talk((ip, port).into(), claim.as_bytes()).await), 407);
            let answer = talk((ip, port).into(), &socks5(user.as_bytes(), b"guess", &named("exit.gate"), 80)).await;
            assert_eq!(answer, [5, 2, 1, 1], "port {port}");
        }
        assert_eq!(talk((ip, port).into(), &[5, 1, 0]).await, [5, 0xff], "port {port} without a login");
        let answer = talk((ip, port).into(), b"\x04\x01\x00\x50\x08\x08\x08\x08any\x00").await;
        assert!(answer.first() == Some(&0) && answer[1] != 90, "port {port}: {answer:?}");
        let welcome = secrets.iter().filter(|key| !key.contains(':'));
        let mut served = 0;
        for key in welcome {
            let answer = talk((ip, port).into(), head("GET http://exit.gate/", user, key).as_bytes()).await;
            served += usize::from(status(&answer) == 200);
        }
        assert_eq!(served, 1, "port {port}: one of the two secrets is the key");
    }
    let routes = format!("http://{ip}:{api}/proxies");
    assert_eq!(curl(&["-H", "Host: localhost", &routes]).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_guesses_tokens_is_not_read_for_a_while() {
    let victim = Victim::start("api.token = \"a-token-of-sixteen\"").await;
    let ask = async |from: &str, token: &str| {
        let bearer = format!("Authorization: Bearer {token}");
        victim.gateway.ask(&["--interface", from, "-H", &bearer], "/proxies").await
    };
    let (honest, guesser) = (victim.sandbox.ip(61, 1).to_string(), victim.sandbox.ip(61, 2).to_string());
    let mut refused = None;
    for guess in 0..20 {
        let got = ask(&guesser, &format!("guess-{guess}")).await;
        if got.status == 429 {
            refused = Some((guess, got));
            break;
        }
        assert_eq!(got.status, 401);
    }
    let (guesses, got) = refused.expect("twenty different tokens were all read");
    assert!(guesses <= 10 && got.headers["retry-after"].parse::<u32>().unwrap() > 30, "{guesses}: {:?}", got.headers);
    assert_eq!(ask(&guesser, "a-token-of-sixteen").await.status, 429, "the right one would tell");
    assert_eq!(ask(&honest, "a-token-of-sixteen").await.status, 200, "somebody else suffers");
    assert_eq!(victim.gateway.ask(&["--interface", &guesser], "/health").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_no_more_open_tunnels_than_its_limit() {
    let keys = "{ name = \"a\", key = \"limited\", limits = { connections = 2 } }, { name = \"b\", key = \"free\" }";
    let victim = Victim::start(&format!("gateway.allow_private_targets = true\ngateway.keys = [{keys}]")).await;
    let target = serve(victim.sandbox.ip(60, 1), |mut stream, _| async move {
        let _ = stream.write_all(b"ok").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let target = target.await;
    let connect = head(&format!("CONNECT {target}"), STRAIGHT, "limited");
    let open = async || {
        let (mut stream, mut heard) = (TcpStream::connect(victim.shared()).await.unwrap(), Vec::new());
        stream.write_all(format!("{connect}GET / HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
        while !heard.ends_with(b"\r\n\r\nok") {
            let read = stream.read_buf(&mut heard).await.unwrap();
            assert!(read > 0, "no tunnel: {}", heard.escape_ascii());
        }
        stream
    };
    let ask =
        async |key: &str| status(&talk(victim.shared(), head("GET http://exit.gate/", STRAIGHT, key).as_bytes()).await);
    let held = [open().await, open().await];
    let third = talk(victim.shared(), connect.as_bytes()).await;
    assert_eq!(status(&third), 429, "a third CONNECT: {}", third.escape_ascii());
    let third = talk(victim.shared(), &socks5(STRAIGHT.as_bytes(), b"limited", &named("a.test"), 80)).await;
    assert_eq!(third, [5, 2, 1, 1], "a third SOCKS tunnel");
    assert_eq!((ask("limited").await, ask("free").await), (429, 200));
    drop(held);
    assert_eq!(until(|| ask("limited"), |status| *status == 200).await, 200, "the tunnels are closed");
    let _again = [open().await, open().await];
}
