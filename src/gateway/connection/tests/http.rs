//! Tests of CONNECT, the web page, keys, and the cases that end an HTTP connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use crate::dial::TargetFault;
use crate::gateway::failure::{ClientFault, Failure};
use crate::gateway::gate::Refusal;
use crate::gateway::http::head::HEAD_MAX;
use crate::gateway::listener::ListenerConfig;
use crate::gateway::testing::{FACTS, IDENTITY, Open, Script, expect, head, listener, observed, rest, talk};

const CONNECT: &str = "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n";

#[test]
fn the_answer_to_a_connect_names_the_exit() {
    let ((), seen) = observed(async || {
        let (gate, [mut target]) = Script::targets();
        let gate = Arc::new(gate);
        talk(listener(), &gate, async |mut client| {
            client.write_all(format!("{CONNECT}hello").as_bytes()).await.unwrap();
            expect(&mut client, format!("HTTP/1.1 200 Connection established\r\n{FACTS}\r\n")).await;
            expect(&mut target, b"hello").await;
            target.write_all(b"you").await.unwrap();
            expect(&mut client, b"you").await;
            drop((client, target));
        })
        .await;
        assert_eq!(gate.log(), ["connect @a.test:443", "given back"]);
    });
    assert_eq!(seen.access(&["protocol", "requests"]), [["connect", "1"]]);
    assert_eq!(
        seen.samples("exitgate_connections_total"),
        ["exitgate_connections_total{listener=\"shared\",protocol=\"http\"} 1",]
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_gets_the_identity_only_if_it_asks() {
    for (field, fields) in [("X-Exitgate-Identity: 1\r\n", IDENTITY), ("X-Exitgate-Identity: 0\r\n", "")] {
        let (gate, [_target]) = Script::targets();
        talk(listener(), &Arc::new(gate), async |mut client| {
            let connect = CONNECT.replace("\r\n\r\n", &format!("\r\n{field}\r\n"));
            client.write_all(connect.as_bytes()).await.unwrap();
            expect(&mut client, format!("HTTP/1.1 200 Connection established\r\n{FACTS}{fields}\r\n")).await;
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_refused_tunnel_the_client_may_ask_again() {
    let (gate, [mut target]) = Script::targets();
    let refused = Refusal::because(Failure::Target(TargetFault::Refused), "192.0.2.1");
    let gate = Arc::new(gate.first(Open::Refused(refused)));
    talk(listener(), &gate, async |mut client| {
        client.write_all(CONNECT.as_bytes()).await.unwrap();
        let said = head(&mut client).await;
        assert!(said.starts_with("HTTP/1.1 502 the target refused: 192.0.2.1\r\n"), "{said}");
        assert!(said.contains(
            "Proxy-Status: exitgate; error=connection_refused; details=\"the target refused: 192.0.2.1\"\r\n"
        ));
        assert!(said.contains("X-Exitgate-Error: the target refused: 192.0.2.1\r\n"), "{said}");
        assert!(said.ends_with("Connection: keep-alive\r\n\r\n"), "{said}");
        expect(&mut client, "the target refused: 192.0.2.1\n").await;
        client.write_all(CONNECT.as_bytes()).await.unwrap();
        assert!(head(&mut client).await.starts_with("HTTP/1.1 200 "));
        target.write_all(b"x").await.unwrap();
        expect(&mut client, b"x").await;
        drop((client, target));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_is_asked_for_its_key_and_may_send_it_on_the_same_connection() {
    let (gate, [mut target]) = Script::targets();
    let gate = Arc::new(gate.with_key(b"k"));
    talk(ListenerConfig { demands_key: true, ..listener() }, &gate, async |mut client| {
        for credentials in ["", "Proxy-Authorization: Basic dXM6d3Jvbmc=\r\n", "Proxy-Authorization: Bearer k\r\n"] {
            let request = format!("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n{credentials}\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let said = head(&mut client).await;
            assert!(said.starts_with("HTTP/1.1 407 "), "{said}");
            assert!(said.contains("Proxy-Authenticate: Basic realm=\"exitgate\""), "{said}");
            let length = said.split("Content-Length: ").nth(1).unwrap().split("\r\n").next().unwrap();
            expect(&mut client, if length == "16" { "a key is needed\n" } else { "the key is wrong\n" }).await;
        }
        let request = "CONNECT a.test:443 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic dXM6aw==\r\n\r\n";
        client.write_all(request.as_bytes()).await.unwrap();
        assert!(head(&mut client).await.starts_with("HTTP/1.1 200 "));
        target.write_all(b"x").await.unwrap();
        expect(&mut client, b"x").await;
        drop((client, target));
    })
    .await;
    assert_eq!(gate.log(), ["127.0.0.1 kept out", "connect us@a.test:443", "given back"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_is_asked_for_a_username_where_no_key_is_needed() {
    let (gate, [mut target]) = Script::targets();
    let gate = Arc::new(gate);
    talk(ListenerConfig { demands_name: true, ..listener() }, &gate, async |mut client| {
        for credentials in ["", "Proxy-Authorization: Basic Oms=\r\n"] {
            let request = format!("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n{credentials}\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let said = head(&mut client).await;
            assert!(said.starts_with("HTTP/1.1 407 ") && said.contains("Proxy-Authenticate: Basic"), "{said}");
            expect(&mut client, "a username is needed: it selects the exit\n").await;
        }
        let request = "CONNECT a.test:443 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic dXM6\r\n\r\n";
        client.write_all(request.as_bytes()).await.unwrap();
        assert!(head(&mut client).await.starts_with("HTTP/1.1 200 "));
        target.write_all(b"x").await.unwrap();
        expect(&mut client, b"x").await;
        drop((client, target));
    })
    .await;
    assert_eq!(gate.log(), ["connect us@a.test:443", "given back"]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_the_wrong_token() {
    let why = Refusal::because(Failure::Client(ClientFault::Username), "`stict` is no token");
    let gate = Arc::new(Script::new([Open::Refused(why)]));
    talk(listener(), &gate, async |mut client| {
        client.write_all(CONNECT.as_bytes()).await.unwrap();
        let said = head(&mut client).await;
        assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("`stict` is no token"), "{said}");
        drop(client);
    })
    .await;
}

#[test]
fn a_browser_gets_the_page() {
    let ((), seen) = observed(async || {
        let gate = Arc::new(Script::new([]));
        talk(listener(), &gate, async |mut client| {
            client.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:1080\r\nConnection: close\r\n\r\n").await.unwrap();
            let said = rest(&mut client).await;
            assert!(
                said.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/html") && said.ends_with("</html>\n"),
                "{said}"
            );
        })
        .await;
        assert!(gate.log().is_empty());
    });
    assert_eq!(seen.access(&["protocol", "outcome"]), [["http", "here"]]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_refused_at_the_deadline() {
    let gate = Arc::new(Script::new([]));
    talk(listener(), &gate, async |mut client| {
        let begun = Instant::now();
        client.write_all(b"GET http://a.test/ HTTP/1.1\r\n").await.unwrap();
        let (mut read, mut write) = client.split();
        let drip = async {
            while write.write_all(b"X").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        };
        let said = tokio::select! { said = head(&mut read) => said, () = drip => panic!("no answer") };
        assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
        assert!((9..12).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_keep_alive_or_when_the_listener_stops() {
    let page = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let gate = Arc::new(Script::new([]));
    talk(listener(), &gate, async |mut client| {
        client.write_all(page).await.unwrap();
        let begun = Instant::now();
        assert!(rest(&mut client).await.ends_with("</html>\n"));
        assert_eq!(begun.elapsed().as_secs(), 60, "keep_alive");
    })
    .await;
    talk(listener(), &gate, async |mut client| {
        client.write_all(page).await.unwrap();
        let begun = Instant::now();
        let close = async {
            sleep(Duration::from_secs(3)).await;
            gate.stopping.cancel();
        };
        assert!(tokio::join!(rest(&mut client), close).0.ends_with("</html>\n"));
        assert_eq!(begun.elapsed().as_secs(), 3);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_empty_line_before_a_request_is_skipped() {
    let gate = Arc::new(Script::new([]));
    talk(listener(), &gate, async |mut client| {
        client.write_all(b"\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        assert!(rest(&mut client).await.starts_with("HTTP/1.1 200 "));
    })
    .await;
    talk(listener(), &gate, async |mut client| {
        client.write_all(b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(rest(&mut client).await.starts_with("HTTP/1.1 400 "));
    })
    .await;
}

#[test]
fn an_empty_line_and_then_silence_is_no_request_and_gets_no_answer() {
    let ((), seen) = observed(async || {
        let (gate, [mut target]) = Script::targets();
        talk(listener(), &Arc::new(gate), async |mut client| {
            // Old clients send an extra empty line after a body.
            let request = "POST http://a.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody\r\n";
            client.write_all(request.as_bytes()).await.unwrap();
            head(&mut target).await;
            expect(&mut target, "body").await;
            target.write_all(b"HTTP/1.1 204 No\r\n\r\n").await.unwrap();
            head(&mut client).await;
            assert_eq!(rest(&mut client).await, "", "no 408 that would be read as the next answer");
        })
        .await;
    });
    assert_eq!(seen.access(&["outcome", "requests"]), [["answered", "1"]]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_turn_from_requests_to_a_tunnel_and_never_to_socks() {
    let page = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let (gate, [mut target, mut tunnel]) = Script::targets();
    let gate = Arc::new(gate);
    talk(listener(), &gate, async |mut client| {
        let get = "GET http://a.test/ HTTP/1.1\r\nHost: x\r\n\r\n";
        client.write_all(format!("{get}{CONNECT}hello").as_bytes()).await.unwrap();
        head(&mut target).await;
        target.write_all(b"HTTP/1.1 204 No\r\n\r\n").await.unwrap();
        assert!(head(&mut client).await.starts_with("HTTP/1.1 204 "));
        assert!(head(&mut client).await.starts_with("HTTP/1.1 200 Connection established\r\n"));
        expect(&mut tunnel, "hello").await;
        assert_eq!(rest(&mut target).await, "", "given back before the tunnel");
        drop((client, tunnel));
    })
    .await;
    talk(listener(), &Arc::new(Script::new([])), async |mut client| {
        client.write_all(page.as_bytes()).await.unwrap();
        let said = head(&mut client).await;
        let length: usize =
            said.split("Content-Length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
        tokio::io::AsyncReadExt::read_exact(&mut client, &mut vec![0; length]).await.unwrap();
        client.write_all(b"\x05\x01\x00").await.unwrap();
        assert!(rest(&mut client).await.starts_with("HTTP/1.1 400 "));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_refused_for_its_target_keeps_the_connection() {
    let gate = Arc::new(Script::new([]));
    talk(listener(), &gate, async |mut client| {
        for (line, status) in [
            ("OPTIONS * HTTP/1.1", "400"),
            ("GET http://exit.gate:81/ HTTP/1.1", "403"),
            ("CONNECT exit.gate:443 HTTP/1.1", "403"),
            ("GET http://a.test/ HTTP/1.1", "503"),
        ] {
            client.write_all(format!("{line}\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
            let said = head(&mut client).await;
            assert!(
                said.starts_with(&format!("HTTP/1.1 {status} ")) && said.contains("Connection: keep-alive"),
                "{line}: {said}"
            );
            let length: usize =
                said.split("Content-Length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
            tokio::io::AsyncReadExt::read_exact(&mut client, &mut vec![0; length]).await.unwrap();
        }
        // If nobody reads a body, the gateway cannot know where the next request begins.
        client.write_all(b"POST http://a.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody").await.unwrap();
        assert!(rest(&mut client).await.contains("\r\nConnection: close\r\n"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_longest_head_passes_and_a_longer_one_does_not() {
    for (length, status) in [(HEAD_MAX, "503"), (HEAD_MAX + 1, "431")] {
        let start = "GET http://a.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nA: ";
        let request = format!("{start}{}\r\n\r\n", "x".repeat(length - start.len() - 4));
        talk(listener(), &Arc::new(Script::new([])), async |mut client| {
            client.write_all(request.as_bytes()).await.unwrap();
            assert!(head(&mut client).await.starts_with(&format!("HTTP/1.1 {status} ")), "{length}");
        })
        .await;
    }
}
