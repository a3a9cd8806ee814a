//! Tests of requests to `http://exit.gate/`, over each protocol.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;

use crate::gateway::testing::{Script, expect, head, listener, rest, talk};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10\r\nCache-Control: no-store\r\n\
    X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{\"exit\":1}";

#[tokio::test(start_paused = true)]
async fn every_protocol_reaches_exit_gate() {
    let inside = "GET / HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\n\r\n";
    for (opening, before) in [
        ("GET http://exit.gate/ HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\nProxy-Authorization: Basic dXM6aw==\r\n\r\n".to_owned(), &b""[..]),
        (
            format!("CONNECT exit.gate:80 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic dXM6aw==\r\n\r\n{inside}"),
            b"HTTP/1.1 200 Connection established\r\n\r\n",
        ),
        (
            format!("\x05\x01\x02\x01\x02us\x01k\x05\x01\0\x03\x09exit.gate\0\x50{inside}"),
            b"\x05\x02\x01\x00\x05\x00\x00\x01\0\0\0\0\0\0",
        ),
        (format!("\x04\x01\0\x50\0\0\0\x01us:k\0exit.gate\0{inside}"), b"\x00\x5A\0\0\0\0\0\0"),
    ] {
        let gate = Arc::new(Script::new([]).with_key(b"k"));
        talk(listener(), &gate, async |mut client| {
            client.write_all(opening.as_bytes()).await.unwrap();
            expect(&mut client, before).await;
            assert_eq!(rest(&mut client).await, ANSWER, "{opening}");
        })
        .await;
        assert_eq!(gate.log(), ["us WhoAmI"]);
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_change_something_need_the_header() {
    let gate = Arc::new(Script::new([]));
    talk(listener(), &gate, async |mut client| {
        for (request, status) in [
            ("POST http://exit.gate/rotate HTTP/1.1\r\nHost: x\r\n\r\n", "403"),
            ("POST http://exit.gate/rotate HTTP/1.1\r\nHost: x\r\nX-Exitgate: 1\r\n\r\n", "200"),
            (
                "POST http://exit.gate/report HTTP/1.1\r\nHost: x\r\nX-Exitgate: 1\r\nContent-Length: 4\r\n\r\nbody",
                "200",
            ),
            ("GET http://exit.gate/nothing HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ] {
            client.write_all(request.as_bytes()).await.unwrap();
            let said = head(&mut client).await;
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{request}{said}");
            assert!(said.contains("nosniff") && !said.to_lowercase().contains("access-control"), "{said}");
            let length: usize =
                said.split("Content-Length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
            tokio::io::AsyncReadExt::read_exact(&mut client, &mut vec![0; length]).await.unwrap();
        }
        let long = "POST http://exit.gate/report HTTP/1.1\r\nHost: x\r\nX-Exitgate: 1\r\nContent-Length: 99999\r\n\r\n";
        client.write_all(long.as_bytes()).await.unwrap();
        assert!(rest(&mut client).await.starts_with("HTTP/1.1 413 "));
    })
    .await;
    assert_eq!(gate.log(), [" Rotate", " Report([98, 111, 100, 121])"]);
}

#[tokio::test(start_paused = true)]
async fn exit_gate_is_recognised_by_the_target_and_not_by_host() {
    let (gate, [target]) = Script::targets();
    let gate = Arc::new(gate);
    talk(listener(), &gate, async |mut client| {
        client
            .write_all(b"POST http://a.test/rotate HTTP/1.1\r\nHost: exit.gate\r\nX-Exitgate: 1\r\n\r\n")
            .await
            .unwrap();
        drop(target);
        assert!(head(&mut client).await.starts_with("HTTP/1.1 502 "));
        drop(client);
    })
    .await;
    assert_eq!(gate.log()[0], "http @a.test:80");
}

#[tokio::test(start_paused = true)]
async fn exit_gate_is_refused_on_other_ports() {
    let gate = Arc::new(Script::new([]));
    for request in
        ["CONNECT exit.gate:443 HTTP/1.1\r\nHost: x\r\n\r\n", "GET http://exit.gate:81/ HTTP/1.1\r\nHost: x\r\n\r\n"]
    {
        talk(listener(), &gate, async |mut client| {
            client.write_all(request.as_bytes()).await.unwrap();
            let said = head(&mut client).await;
            assert!(said.starts_with("HTTP/1.1 403 ") && said.contains("port 80"), "{said}");
            drop(client);
        })
        .await;
    }
    talk(listener(), &gate, async |mut client| {
        client.write_all(b"\x05\x01\x00\x05\x01\0\x03\x09exit.gate\x01\xBB").await.unwrap();
        expect(&mut client, [5, 0, 5, 2, 0, 1, 0, 0, 0, 0, 0, 0]).await;
    })
    .await;
    assert!(gate.log().is_empty(), "the way out was never asked for");
}

#[tokio::test(start_paused = true)]
async fn a_report_that_waits_for_a_100_gets_it() {
    let report = "POST http://exit.gate/report HTTP/1.1\r\nHost: x\r\nX-Exitgate: 1\r\nExpect: 100-continue\r\n";
    let gate = Arc::new(Script::new([]));
    talk(listener(), &gate, async |mut client| {
        client.write_all(format!("{report}Content-Length: 2\r\n\r\n").as_bytes()).await.unwrap();
        expect(&mut client, "HTTP/1.1 100 Continue\r\n\r\n").await;
        client.write_all(b"ok").await.unwrap();
        assert!(head(&mut client).await.starts_with("HTTP/1.1 200 "));
        expect(&mut client, "{\"exit\":1}").await;
        // The gateway sends no `100 Continue` if the body has already arrived, or if the body is too long.
        client.write_all(format!("{report}Content-Length: 2\r\n\r\nok").as_bytes()).await.unwrap();
        assert!(head(&mut client).await.starts_with("HTTP/1.1 200 "));
        expect(&mut client, "{\"exit\":1}").await;
        client.write_all(format!("{report}Content-Length: 99999\r\n\r\n").as_bytes()).await.unwrap();
        assert!(rest(&mut client).await.starts_with("HTTP/1.1 413 "));
    })
    .await;
    assert_eq!(gate.log(), [" Report([111, 107])", " Report([111, 107])"]);
}

#[tokio::test(start_paused = true)]
async fn a_report_whose_body_never_comes_is_refused_at_the_deadline() {
    let gate = Arc::new(Script::new([]));
    talk(listener(), &gate, async |mut client| {
        let begun = tokio::time::Instant::now();
        client
            .write_all(
                b"POST http://exit.gate/report HTTP/1.1\r\nHost: x\r\nX-Exitgate: 1\r\nContent-Length: 9\r\n\r\nhalf",
            )
            .await
            .unwrap();
        assert!(rest(&mut client).await.starts_with("HTTP/1.1 408 "));
        assert!(begun.elapsed().as_secs() < 12, "{:?}", begun.elapsed());
    })
    .await;
    assert!(gate.log().is_empty());
}
