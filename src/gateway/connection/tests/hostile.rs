//! Tests of clients and targets that try to break or mislead the gateway.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::gateway::http::request::SMUGGLED;
use crate::gateway::testing::{
    FACTS, Script, expect, head, listener, observed, rest, skip, talk, talk_over, tcp_sockets,
};

const GET: &str = "GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn no_form_of_request_smuggling_reaches_a_target() {
    for &(bytes, fault) in SMUGGLED {
        let gate = Arc::new(Script::targets::<1>().0);
        talk(listener(), &gate, async |mut client| {
            client.write_all(bytes).await.unwrap();
            let said = rest(&mut client).await;
            let status = crate::gateway::failure::Failure::from(fault).status();
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{}: {said}", bytes.escape_ascii());
            assert!(said.contains("Connection: close\r\n"), "{said}");
            assert_eq!(said.matches("\r\nContent-Length: ").count(), 1, "one answer and no second one: {said}");
        })
        .await;
        assert!(gate.log().is_empty(), "{}: the way out was asked for", bytes.escape_ascii());
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_with_two_ends_is_cut_off_where_it_is_ambiguous() {
    for chunk in ["5\nhello\r\n", "+5\r\nhello\r\n", "5\r\nhello0\r\n", "0x5\r\nhello\r\n"] {
        let (gate, [mut target]) = Script::targets();
        talk(listener(), &Arc::new(gate), async |mut client| {
            let request =
                format!("POST http://a.test/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
            client.write_all(request.as_bytes()).await.unwrap();
            let said = rest(&mut client).await;
            assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("Connection: close"), "{said}");
            head(&mut target).await;
            assert_eq!(rest(&mut target).await, "", "nothing of a doubtful piece goes on");
        })
        .await;
    }
}

#[test]
fn a_hostile_answer_becomes_a_502_before_a_byte_of_it_is_sent() {
    let large = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(70_000));
    let endless = "HTTP/1.1 103 Hints\r\n\r\n".repeat(100);
    for (answer, label) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "answer_head"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "answer_head"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "answer_coding"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "answer_coding"),
        ("HTTP/1.1 200 OK\r\nA: b\nContent-Length: 2\r\n\r\nok", "answer_head"),
        ("HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "answer_head"),
        ("HTTP/1.1 200 OK\r\nA: b\rHTTP/1.1 200 OK\r\n\r\n", "answer_head"),
        ("HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n", "answer_head"),
        ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "answer_head"),
        ("HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 2\r\n\r\nok", "answer_head"),
        ("HTTP/1.1 101 Go\r\nUpgrade: x\r\n\r\n", "answer_upgrade"),
        ("HTTP/1.1 200 OK\r\nContent-", "answer_incomplete"),
        ("SSH-2.0-OpenSSH_9.6\r\n", "answer_head"),
        (&large, "answer_head_too_large"),
        (&endless, "answer_interim"),
    ] {
        let ((), seen) = observed(async || {
            let (gate, [mut target]) = Script::targets();
            talk(listener(), &Arc::new(gate), async |mut client| {
                client.write_all(GET.as_bytes()).await.unwrap();
                head(&mut target).await;
                // The connection may be closed before the whole answer is sent.
                let _ = target.write_all(answer.as_bytes()).await;
                let _ = target.shutdown().await;
                let mut said = head(&mut client).await;
                while said.starts_with("HTTP/1.1 103 ") {
                    said = head(&mut client).await;
                }
                assert!(said.starts_with("HTTP/1.1 502 "), "{label}: {said}");
                drop(client);
            })
            .await;
        });
        assert_eq!(seen.access(&["outcome"]), [[label]]);
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_behind_an_answer_never_reach_the_client() {
    let (gate, [mut target, mut second]) = Script::targets();
    let gate = Arc::new(gate);
    let ok = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{FACTS}\r\nok");
    talk(listener(), &gate, async |mut client| {
        client.write_all(GET.as_bytes()).await.unwrap();
        head(&mut target).await;
        target
            .write_all(
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
            )
            .await
            .unwrap();
        expect(&mut client, &ok).await;
        client.write_all(GET.as_bytes()).await.unwrap();
        head(&mut second).await;
        second.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        expect(&mut client, &ok).await;
        drop(client);
    })
    .await;
    assert_eq!(gate.log().iter().filter(|line| line.starts_with("http ")).count(), 2, "such a stream is not kept");
}

#[tokio::test(start_paused = true)]
async fn a_truncated_answer_never_looks_complete() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let (gate, [mut target]) = Script::targets();
        talk(listener(), &Arc::new(gate), async |mut client| {
            client.write_all(GET.as_bytes()).await.unwrap();
            head(&mut target).await;
            target.write_all(answer.as_bytes()).await.unwrap();
            drop(target);
            head(&mut client).await;
            let said = rest(&mut client).await;
            assert!(
                said.contains("half") && !said.contains("HTTP/1.1"),
                "the end of the connection, and no word: {said}"
            );
        })
        .await;
    }
}

#[tokio::test]
async fn an_answer_until_close_that_falls_silent_ends_with_a_reset() {
    let (gate, [mut target]) = Script::targets();
    talk_over(tcp_sockets().await, listener(), &Arc::new(gate), async |mut client| {
        client.write_all(GET.as_bytes()).await.unwrap();
        head(&mut target).await;
        target.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf").await.unwrap();
        head(&mut client).await;
        expect(&mut client, "half").await;
        skip(Duration::from_secs(31)).await;
        let end = client.read(&mut [0]).await;
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        drop(target);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_is_refused_at_its_limit() {
    let gate = Arc::new(Script::new([]));
    talk(listener(), &gate, async |mut client| {
        let many = format!("GET http://a.test/ HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(250));
        client.write_all(many.as_bytes()).await.unwrap();
        assert!(rest(&mut client).await.starts_with("HTTP/1.1 431 "));
    })
    .await;
    talk(listener(), &gate, async |client| {
        let (mut read, mut write) = client.into_split();
        let flood = async {
            write.write_all(b"GET http://a.test/ HTTP/1.1\r\nHost: x\r\nA: ").await.unwrap();
            while write.write_all(&[b'x'; 1000]).await.is_ok() {}
        };
        let said = tokio::select! { said = head(&mut read) => said, () = flood => panic!("no answer") };
        assert!(said.starts_with("HTTP/1.1 431 "), "{said}");
    })
    .await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn garbage_is_answered_or_closed_and_always_ends(
        opening in prop_oneof![
            proptest::collection::vec(any::<u8>(), 1..200),
            "(GET|CONNECT|PUT) [ -~]{0,20} HTTP/1.[01]\r\n([A-Z]:[ -~]{0,9}\r\n){0,3}\r\n".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(|tail| [&[5, 1, 0, 5][..], &tail].concat()),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(|tail| [&[4, 1][..], &tail].concat()),
        ],
        piece in 1usize..50,
    ) {
        let ((), seen) = observed(async || {
            let gate = Arc::new(Script::new([]));
            talk(listener(), &gate, async |mut client| {
                for piece in opening.chunks(piece) {
                    if client.write_all(piece).await.is_err() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                // The connection may end with a reset, which discards unread bytes.
                let _ = tokio::time::timeout(Duration::from_secs(30), client.read_to_end(&mut Vec::new())).await;
            })
            .await;
        });
        prop_assert_eq!(seen.access(&["listener"]).len(), 1);
    }
}
