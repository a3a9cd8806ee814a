//! Tests of the time limits of plain HTTP, of clients that leave, and of byte rates.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::{GET, SENT};
use crate::gateway::connection::serve;
use crate::gateway::testing::{Script, expect, head, listener, observed, rest, sockets, talk};
use crate::lifecycle::Cut;
use crate::limit::Bucket;

#[test]
fn a_client_that_leaves_while_it_waits_releases_its_stream() {
    let ((), seen) = observed(async || {
        let (gate, [mut target]) = Script::targets();
        let gate = Arc::new(gate);
        talk(listener(), &gate, async |mut client| {
            client.write_all(GET.as_bytes()).await.unwrap();
            expect(&mut target, SENT).await;
            drop(client);
            assert_eq!(target.read(&mut [0]).await.unwrap(), 0, "hung up on");
        })
        .await;
        assert_eq!(gate.log(), ["http @a.test:80", "given back"]);
    });
    assert_eq!(seen.access(&["outcome"]), [["client_left"]]);
}

#[test]
fn a_target_that_never_answers_is_given_up_and_a_slow_upload_is_no_silence() {
    let ((), seen) = observed(async || {
        let (gate, [mut target]) = Script::targets();
        talk(listener(), &Arc::new(gate), async |mut client| {
            client.write_all(b"POST http://a.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n").await.unwrap();
            head(&mut target).await;
            for _ in 0..10 {
                sleep(Duration::from_secs(20)).await;
                client.write_all(b"x").await.unwrap();
            }
            expect(&mut target, "xxxxxxxxxx").await;
            assert!(head(&mut client).await.starts_with("HTTP/1.1 504 "));
            drop((client, target));
        })
        .await;
    });
    assert_eq!(seen.access(&["outcome"]), [["answer_timeout"]]);
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let ((), seen) = observed(async || {
        let (gate, [mut target]) = Script::targets();
        let gate = Arc::new(gate);
        talk(listener(), &gate, async |mut client| {
            client.write_all(GET.as_bytes()).await.unwrap();
            head(&mut target).await;
            target.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await.unwrap();
            while target.write_all(&[b'x'; 65536]).await.is_ok() {}
            assert!(client.read(&mut [0]).await.unwrap() > 0);
        })
        .await;
        assert_eq!(gate.log().last().unwrap(), "given back");
    });
    assert_eq!(seen.access(&["outcome"]), [["client_left"]]);
}

#[test]
fn a_target_that_takes_nothing_is_given_up() {
    let ((), seen) = observed(async || {
        let (gate, [target]) = Script::targets();
        talk(listener(), &Arc::new(gate), async |client| {
            let (mut from_gate, mut to_gate) = client.into_split();
            let flood = async {
                to_gate
                    .write_all(b"POST http://a.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
                    .await
                    .unwrap();
                while to_gate.write_all(&[b'x'; 65536]).await.is_ok() {}
            };
            let (said, ()) = tokio::join!(head(&mut from_gate), flood);
            assert!(said.starts_with("HTTP/1.1 504 "), "{said}");
            drop(target);
        })
        .await;
    });
    assert_eq!(seen.access(&["outcome"]), [["answer_timeout"]]);
}

#[test]
fn an_exchange_that_is_cut_is_logged_as_cut() {
    let ((), seen) = observed(async || {
        let (gate, [mut target]) = Script::targets();
        let gate = Arc::new(gate);
        let cut = Cut::new();
        let (mut client, ours, peer) = sockets();
        let served = serve(ours, peer, cut.clone(), Arc::new(listener()), gate.clone());
        let talk = async {
            client.write_all(GET.as_bytes()).await.unwrap();
            head(&mut target).await;
            cut.cut();
            assert_eq!(rest(&mut target).await, "");
        };
        tokio::join!(served, talk);
        assert_eq!(gate.log().last().unwrap(), "given back");
    });
    assert_eq!(seen.access(&["outcome"]), [["cut"]]);
}

#[test]
fn a_client_that_closes_after_a_complete_throttled_answer_has_not_left_early() {
    let ((), seen) = observed(async || {
        let (gate, [mut target]) = Script::targets();
        let gate = Arc::new(gate.with_rate(Bucket::new(1000, std::time::Instant::now())));
        talk(listener(), &gate, async |mut client| {
            client.write_all(GET.as_bytes()).await.unwrap();
            expect(&mut target, SENT).await;
            let body = "x".repeat(5000);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{body}");
            target.write_all(answer.as_bytes()).await.unwrap();
            head(&mut client).await;
            expect(&mut client, &body).await;
            drop((client, target));
        })
        .await;
    });
    assert_eq!(seen.access(&["outcome"]), [["answered"]]);
}
