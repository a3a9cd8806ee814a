//! Tests of HTTP framing: body lengths, chunked bodies, `100 Continue`, protocol upgrades and HTTP versions.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::{GET, OK, SENT, exchange, ok};
use crate::gateway::testing::{FACTS, Script, expect, head, listener, rest, talk};

#[tokio::test(start_paused = true)]
async fn bodies_pass_unchanged_in_both_directions_with_chunks_and_trailers() {
    let (gate, [mut target, mut second]) = Script::targets();
    talk(listener(), &Arc::new(gate), async |mut client| {
        let body = "5;ext=1\r\nhello\r\n0\r\nDigest: x\r\n\r\n";
        let request = format!(
            "POST http://a.test/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: Digest\r\n\r\n{body}"
        );
        let sent =
            format!("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTrailer: Digest\r\n\r\n{body}");
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\nT: y\r\n\r\n";
        let told = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{FACTS}\r\n3\r\nyes\r\n0\r\nT: y\r\n\r\n");
        exchange(&mut client, &mut target, [&request, &sent, answer, &told]).await;
        // A request with a body is never sent twice. Therefore it is sent on a new stream and not on a kept stream.
        let request = "PUT http://a.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody";
        let sent = "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody";
        exchange(&mut client, &mut second, [request, sent, OK, &ok()]).await;
        drop((client, target, second));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_large_body_arrives_complete_in_both_directions() {
    let (gate, [target]) = Script::targets();
    talk(listener(), &Arc::new(gate), async |client| {
        const SIZE: usize = 3 << 20;
        let bytes: Vec<u8> = (0..SIZE).map(|i| (i / 7 % 251) as u8).collect();
        let (mut from_gate, mut to_gate) = client.into_split();
        let (mut from_near, mut to_near) = target.into_split();
        let request =
            format!("POST http://a.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {SIZE}\r\n\r\n");
        let up = async {
            to_gate.write_all(request.as_bytes()).await.unwrap();
            to_gate.write_all(&bytes).await.unwrap();
        };
        let echo = async {
            head(&mut from_near).await;
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
            to_near.write_all(answer.as_bytes()).await.unwrap();
            tokio::io::copy(&mut (&mut from_near).take(SIZE as u64), &mut to_near).await.unwrap();
        };
        let down = async {
            head(&mut from_gate).await;
            let mut back = Vec::new();
            from_gate.read_to_end(&mut back).await.unwrap();
            assert!(back == bytes, "{} bytes came back", back.len());
        };
        tokio::join!(up, echo, down);
        drop(to_gate);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_a_100_gets_the_targets() {
    let (gate, [mut target]) = Script::targets();
    talk(listener(), &Arc::new(gate), async |mut client| {
        let request = "POST http://a.test/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
        client.write_all(request.as_bytes()).await.unwrap();
        expect(&mut target, "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
            .await;
        target.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        expect(&mut client, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").await;
        sleep(Duration::from_secs(20)).await;
        client.write_all(b"body").await.unwrap();
        expect(&mut target, "body").await;
        target.write_all(OK.as_bytes()).await.unwrap();
        expect(&mut client, ok()).await;
        drop((client, target));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_final_answer_instead_of_a_100_ends_the_connection_and_says_so() {
    let (gate, [mut target]) = Script::targets();
    talk(listener(), &Arc::new(gate), async |mut client| {
        client
            .write_all(b"PUT http://a.test/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
            .await
            .unwrap();
        head(&mut target).await;
        target.write_all(b"HTTP/1.1 401 Who\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        let said = rest(&mut client).await;
        assert!(said.starts_with("HTTP/1.1 401 Who\r\n") && said.contains("\r\nConnection: close\r\n"), "{said}");
        assert_eq!(rest(&mut target).await, "");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_the_whole_request_ends_the_connection_after_it() {
    let (gate, [mut target]) = Script::targets();
    talk(listener(), &Arc::new(gate), async |mut client| {
        client
            .write_all(b"POST http://a.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nbegun")
            .await
            .unwrap();
        head(&mut target).await;
        target.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        let said = rest(&mut client).await;
        assert!(said.starts_with("HTTP/1.1 413 Too Large\r\n") && said.contains("Connection: close\r\n"), "{said}");
        drop((client, target));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn answers_without_a_body_end_at_their_head() {
    let (gate, [mut target]) = Script::targets();
    talk(listener(), &Arc::new(gate), async |mut client| {
        let request = GET.replace("GET", "HEAD");
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n";
        let told = format!("{answer}{FACTS}\r\n");
        exchange(&mut client, &mut target, [&request, &SENT.replace("GET", "HEAD"), &format!("{answer}\r\n"), &told])
            .await;
        for status in ["204 No Content", "304 Not Modified"] {
            let answer = format!("HTTP/1.1 {status}\r\n");
            let told = format!("{answer}{FACTS}\r\n");
            exchange(&mut client, &mut target, [GET, SENT, &format!("{answer}\r\n"), &told]).await;
        }
        exchange(&mut client, &mut target, [GET, SENT, OK, &ok()]).await;
        drop((client, target));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn another_protocol_is_relayed_from_its_first_byte() {
    let (gate, [mut target]) = Script::targets();
    let gate = Arc::new(gate);
    talk(listener(), &gate, async |mut client| {
        let request =
            "GET http://a.test/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly";
        client.write_all(request.as_bytes()).await.unwrap();
        expect(&mut target, "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await;
        target.write_all(b"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nframe").await.unwrap();
        expect(
            &mut client,
            format!("HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{FACTS}\r\nframe"),
        )
        .await;
        expect(&mut target, "early").await;
        client.write_all(b"up").await.unwrap();
        expect(&mut target, "up").await;
        target.write_all(b"down").await.unwrap();
        expect(&mut client, "down").await;
        drop((client, target));
    })
    .await;
    assert_eq!(gate.log(), ["http @a.test:80", "a.test:80 Status(101)", "given back"]);
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_is_declined_is_an_answer_like_any_other() {
    let (gate, [mut target]) = Script::targets();
    let gate = Arc::new(gate);
    talk(listener(), &gate, async |mut client| {
        let request = "GET http://a.test/x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let sent = "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        // The target's answer offers another protocol. The client must not receive this offer.
        let answer = OK.replace("\r\n\r\n", "\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n");
        exchange(&mut client, &mut target, [request, sent, &answer, &ok()]).await;
        exchange(&mut client, &mut target, [GET, SENT, OK, &ok()]).await;
        drop((client, target));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_old_client_is_served_in_its_version() {
    let (gate, [mut target, mut second]) = Script::targets();
    let gate = Arc::new(gate);
    talk(listener(), &gate, async |mut client| {
        let request = "GET http://a.test/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
        let sent = "GET / HTTP/1.0\r\nHost: a.test\r\nConnection: close\r\n\r\n";
        let told = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{FACTS}Connection: keep-alive\r\n\r\nok");
        exchange(&mut client, &mut target, [request, sent, &OK.replace("1.1", "1.0"), &told]).await;
        let request = "GET http://a.test/ HTTP/1.0\r\n\r\n";
        let told = format!("HTTP/1.1 200 OK\r\n{FACTS}Connection: close\r\n\r\nto the end");
        exchange(&mut client, &mut second, [request, sent, "HTTP/1.0 200 OK\r\n\r\nto the", &told[..told.len() - 4]])
            .await;
        second.write_all(b" end").await.unwrap();
        drop(second);
        assert_eq!(rest(&mut client).await, " end");
        drop(target);
    })
    .await;
}
