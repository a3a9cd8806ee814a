//! Tests that a request is sent again through another exit when this is safe, and not sent again when it is not.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::{GET, OK, SENT, exchange, ok};
use crate::gateway::testing::{Open, Script, expect, head, listener, observed, talk};

#[tokio::test(start_paused = true)]
async fn a_request_is_sent_again_when_its_stream_dies_before_an_answer() {
    let (gate, [first, second, mut third]) = Script::targets();
    let gate = Arc::new(gate);
    talk(listener(), &gate, async |mut client| {
        client.write_all(GET.as_bytes()).await.unwrap();
        for mut dying in [first, second] {
            expect(&mut dying, SENT).await;
        }
        expect(&mut third, SENT).await;
        third.write_all(OK.as_bytes()).await.unwrap();
        expect(&mut client, ok()).await;
        drop(client);
    })
    .await;
    let log = gate.log();
    let asked: Vec<_> = log.iter().filter(|line| !line.starts_with("given")).collect();
    let want = [
        "http @a.test:80",
        "a.test:80 Died",
        "http @a.test:80 but not [direct]",
        "a.test:80 Died",
        "http @a.test:80 but not [direct, direct]",
        "a.test:80 Status(200)",
    ];
    assert_eq!(asked, want);
}

#[tokio::test(start_paused = true)]
async fn a_session_is_not_moved_by_a_stream_that_broke_off() {
    let (gate, [mut first, mut second]) = Script::targets();
    let gate = Arc::new(gate.with_a_session());
    talk(listener(), &gate, async |mut client| {
        client.write_all(GET.as_bytes()).await.unwrap();
        expect(&mut first, SENT).await;
        drop(first);
        expect(&mut second, SENT).await;
        second.write_all(OK.as_bytes()).await.unwrap();
        expect(&mut client, ok()).await;
        drop(client);
    })
    .await;
    let log = gate.log();
    let asked: Vec<_> = log.iter().filter(|line| !line.starts_with("given")).collect();
    assert_eq!(asked, ["http @a.test:80", "a.test:80 Died", "http @a.test:80", "a.test:80 Status(200)"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_not_sent_through_more_exits_than_are_allowed() {
    let (gate, [mut dying, never]) = Script::targets();
    let gate = Arc::new(gate.with_attempts(1));
    talk(listener(), &gate, async |mut client| {
        client.write_all(GET.as_bytes()).await.unwrap();
        expect(&mut dying, SENT).await;
        drop(dying);
        assert!(head(&mut client).await.starts_with("HTTP/1.1 502 "));
        drop(client);
    })
    .await;
    drop(never);
    let opens = gate.log().iter().filter(|line| line.starts_with("http ")).count();
    assert_eq!(opens, 1);
}

#[test]
fn a_request_without_an_answer_is_sent_again_where_answers_have_a_limit() {
    let ((), seen) = observed(async || {
        let (gate, [silent, mut target]) = Script::targets();
        let gate = Arc::new(gate.with_answers_within(Duration::from_secs(5)));
        talk(listener(), &gate, async |mut client| {
            let begun = tokio::time::Instant::now();
            client.write_all(b"GET http://a.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
            head(&mut target).await;
            // The bytes of the request were sent within the first five seconds, and silence is measured in
            // steps of five seconds.
            assert!((5..=10).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
            target.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            assert!(head(&mut client).await.starts_with("HTTP/1.1 204 "));
            drop((client, target, silent));
        })
        .await;
        let log = gate.log();
        assert!(log.iter().any(|line| line.starts_with("http @a.test:80 but not")), "{log:?}");
    });
    assert_eq!(seen.access(&["outcome"]), [["answered"]]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_idempotent_is_not_sent_twice() {
    for request in [
        "POST http://a.test/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST http://a.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
        "PUT http://a.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
    ] {
        let (gate, [mut first, _second]) = Script::targets();
        let gate = Arc::new(gate);
        talk(listener(), &gate, async |mut client| {
            client.write_all(request.as_bytes()).await.unwrap();
            head(&mut first).await;
            if request.ends_with("body") {
                expect(&mut first, "body").await;
            }
            drop(first);
            assert!(head(&mut client).await.starts_with("HTTP/1.1 502 "), "{request}");
            drop(client);
        })
        .await;
        assert_eq!(gate.log(), ["http @a.test:80", "a.test:80 Died", "given back"], "{request}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_body_was_not_sent_may_be_sent_again() {
    let (gate, [mut first, mut second]) = Script::targets();
    let gate = Arc::new(gate);
    talk(listener(), &gate, async |mut client| {
        client
            .write_all(b"POST http://a.test/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
            .await
            .unwrap();
        head(&mut first).await;
        drop(first);
        head(&mut second).await;
        second.write_all(b"HTTP/1.1 100 Go\r\n\r\n").await.unwrap();
        expect(&mut client, "HTTP/1.1 100 Go\r\n\r\n").await;
        client.write_all(b"body").await.unwrap();
        expect(&mut second, "body").await;
        second.write_all(OK.as_bytes()).await.unwrap();
        expect(&mut client, ok()).await;
        drop(client);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_kept_stream_that_has_closed_is_not_reported() {
    let (gate, [mut first, mut second]) = Script::targets();
    let gate = Arc::new(gate);
    talk(listener(), &gate, async |mut client| {
        exchange(&mut client, &mut first, [GET, SENT, OK, &ok()]).await;
        drop(first);
        exchange(&mut client, &mut second, [GET, SENT, OK, &ok()]).await;
        drop(client);
    })
    .await;
    assert!(!gate.log().iter().any(|line| line.contains("Died") || line.contains("but not")));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_was_sent_with_the_dial_is_not_sent_again() {
    let (near, mut target) = UnixStream::pair().unwrap();
    let gate = Arc::new(Script::new([Open::Early(near)]));
    talk(listener(), &gate, async |mut client| {
        exchange(&mut client, &mut target, [GET, SENT, OK, &ok()]).await;
        exchange(&mut client, &mut target, [GET, SENT, OK, &ok()]).await;
        drop((client, target));
    })
    .await;
}
