//! Tests of plain HTTP: requests to targets and answers to clients.

mod bodies;
mod elsewhere;
mod patience;

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::gateway::testing::{FACTS, Open, Script, expect, listener, observed, talk};

const GET: &str = "GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n";
const SENT: &str = "GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn ok() -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{FACTS}\r\nok")
}

/// Sends one request and its answer, and compares both byte for byte. `parts` are the client's request, the request at
/// the target, the target's answer, and the answer at the client.
async fn exchange(client: &mut TcpStream, target: &mut UnixStream, parts: [&str; 4]) {
    let [request, sent, answer, told] = parts;
    client.write_all(request.as_bytes()).await.unwrap();
    expect(target, sent).await;
    target.write_all(answer.as_bytes()).await.unwrap();
    expect(client, told).await;
}

#[test]
fn a_stream_is_kept_for_the_next_request_to_the_same_target() {
    let ((), seen) = observed(async || {
        let (gate, [mut a, mut b]) = Script::targets();
        let gate = Arc::new(gate);
        talk(listener(), &gate, async |mut client| {
            for _ in 0..3 {
                exchange(&mut client, &mut a, [GET, SENT, OK, &ok()]).await;
            }
            let other = GET.replace("a.test/", "b.test/");
            exchange(&mut client, &mut b, [&other, &SENT.replace("a.test", "b.test"), OK, &ok()]).await;
            assert_eq!(a.read(&mut [0]).await.unwrap(), 0, "the other stream was given back");
            drop(client);
        })
        .await;
        let answered = "a.test:80 Status(200)";
        let want = [
            "http @a.test:80",
            answered,
            answered,
            answered,
            "given back",
            "http @b.test:80",
            "b.test:80 Status(200)",
            "given back",
        ];
        assert_eq!(gate.log(), want);
    });
    assert_eq!(seen.access(&["protocol", "outcome", "requests", "route"]), [["http", "answered", "4", "us"]]);
    assert_eq!(
        seen.samples("exitgate_requests_total"),
        ["exitgate_requests_total{route=\"us\",protocol=\"http\",outcome=\"answered\"} 4"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_not_kept_for_another_user_or_where_the_gate_forbids_it() {
    let ours = "Proxy-Authorization: Basic dXM6aw==\r\n\r\n";
    let theirs = "Proxy-Authorization: Basic ZGU6aw==\r\n\r\n";
    type Change = fn(Script) -> Script;
    let cases: [(Change, _, _); 3] = [
        (|gate| gate, [ours, theirs], ["http us@a.test:80", "http de@a.test:80"]),
        (Script::without_reuse, [ours, ours], ["http us@a.test:80"; 2]),
        (Script::with_moving_exit, [ours, ours], ["http us@a.test:80"; 2]),
    ];
    for (change, credentials, asked) in cases {
        let (gate, targets) = Script::targets::<2>();
        let gate = Arc::new(change(gate));
        talk(listener(), &gate, async |mut client| {
            for (mut target, credentials) in targets.into_iter().zip(credentials) {
                let request = GET.replace("\r\n\r\n", &format!("\r\n{credentials}"));
                exchange(&mut client, &mut target, [&request, SENT, OK, &ok()]).await;
            }
            drop(client);
        })
        .await;
        let opened: Vec<_> = gate.log().into_iter().filter(|line| line.starts_with("http ")).collect();
        assert_eq!(opened, asked);
    }
}

#[tokio::test(start_paused = true)]
async fn requests_sent_ahead_are_answered_in_their_order() {
    let (gate, [mut target]) = Script::targets();
    talk(listener(), &Arc::new(gate), async |mut client| {
        let two = format!("{GET}{}", GET.replace("/x", "/y"));
        client.write_all(two.as_bytes()).await.unwrap();
        expect(&mut target, SENT).await;
        target.write_all(OK.as_bytes()).await.unwrap();
        expect(&mut client, ok()).await;
        expect(&mut target, SENT.replace("/x", "/y")).await;
        target.write_all(OK.replace("ok", "OK").as_bytes()).await.unwrap();
        expect(&mut client, ok().replace("ok", "OK")).await;
        drop((client, target));
    })
    .await;
}

#[test]
fn a_head_that_was_sent_with_the_dial_is_counted() {
    let ((), seen) = observed(async || {
        let (near, mut target) = UnixStream::pair().unwrap();
        talk(listener(), &Arc::new(Script::new([Open::Early(near)])), async |mut client| {
            exchange(&mut client, &mut target, [GET, SENT, OK, &ok()]).await;
            drop((client, target));
        })
        .await;
    });
    assert_eq!(seen.access(&["up", "outcome"]), [[&*SENT.len().to_string(), "answered"]]);
    let up = format!("exitgate_relayed_bytes_total{{route=\"us\",way=\"up\"}} {}", SENT.len());
    assert!(seen.samples("exitgate_relayed_bytes_total").contains(&up), "{:?}", seen.samples("exitgate_relayed"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_there_already_costs_no_connection() {
    let (near, mut target) = UnixStream::pair().unwrap();
    target.write_all(OK.as_bytes()).await.unwrap();
    let gate = Arc::new(Script::new([Open::Early(near)]));
    talk(listener(), &gate, async |mut client| {
        client.write_all(GET.as_bytes()).await.unwrap();
        expect(&mut client, ok()).await;
        expect(&mut target, SENT).await;
        exchange(&mut client, &mut target, [GET, SENT, OK, &ok()]).await;
        drop((client, target));
    })
    .await;
}
