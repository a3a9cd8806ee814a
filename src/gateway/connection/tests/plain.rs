//! Plain HTTP: requests to targets and answers to clients.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::sleep;

use crate::gateway::connection::serve;
use crate::gateway::testing::{FACTS, Open, Script, door, expect, head, observed, rest, sockets, talk};
use crate::lifecycle::Cut;

const GET: &str = "GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n";
const SENT: &str = "GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn ok() -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{FACTS}\r\nok")
}

/// One request and its answer, both exact.
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
        talk(door(), &gate, async |mut client| {
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
async fn a_stream_is_not_kept_for_another_user_nor_where_the_gate_says_no() {
    let ours = "Proxy-Authorization: Basic dXM6aw==\r\n\r\n";
    let theirs = "Proxy-Authorization: Basic ZGU6aw==\r\n\r\n";
    for (reuse, credentials, asked) in
        [(true, [ours, theirs], "http de@a.test:80"), (false, [ours, ours], "http us@a.test:80")]
    {
        let (gate, targets) = Script::targets::<2>();
        let gate = Arc::new(if reuse { gate } else { gate.without_reuse() });
        talk(door(), &gate, async |mut client| {
            for (mut target, credentials) in targets.into_iter().zip(credentials) {
                let request = GET.replace("\r\n\r\n", &format!("\r\n{credentials}"));
                exchange(&mut client, &mut target, [&request, SENT, OK, &ok()]).await;
            }
            drop(client);
        })
        .await;
        assert!(gate.log().contains(&asked.to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn requests_sent_ahead_are_answered_in_their_order() {
    let (gate, [mut target]) = Script::targets();
    talk(door(), &Arc::new(gate), async |mut client| {
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

#[tokio::test(start_paused = true)]
async fn bodies_go_through_as_they_came_both_ways_with_chunks_and_trailers() {
    let (gate, [mut target, mut second]) = Script::targets();
    talk(door(), &Arc::new(gate), async |mut client| {
        let body = "5;ext=1\r\nhello\r\n0\r\nDigest: x\r\n\r\n";
        let request = format!(
            "POST http://a.test/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: Digest\r\n\r\n{body}"
        );
        let sent =
            format!("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTrailer: Digest\r\n\r\n{body}");
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\nT: y\r\n\r\n";
        let told = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{FACTS}\r\n3\r\nyes\r\n0\r\nT: y\r\n\r\n");
        exchange(&mut client, &mut target, [&request, &sent, answer, &told]).await;
        // A body is not sent twice, so it gets a stream of its own.
        let request = "PUT http://a.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody";
        let sent = "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody";
        exchange(&mut client, &mut second, [request, sent, OK, &ok()]).await;
        drop((client, target, second));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_large_body_arrives_whole_both_ways() {
    let (gate, [target]) = Script::targets();
    talk(door(), &Arc::new(gate), async |client| {
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
    talk(door(), &Arc::new(gate), async |mut client| {
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
async fn an_answer_before_the_whole_request_ends_the_connection_after_it() {
    let (gate, [mut target]) = Script::targets();
    talk(door(), &Arc::new(gate), async |mut client| {
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
    talk(door(), &Arc::new(gate), async |mut client| {
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
    talk(door(), &gate, async |mut client| {
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
async fn an_old_client_is_served_in_its_version() {
    let (gate, [mut target, mut second]) = Script::targets();
    let gate = Arc::new(gate);
    talk(door(), &gate, async |mut client| {
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

#[tokio::test(start_paused = true)]
async fn a_request_goes_elsewhere_when_its_stream_dies_without_a_word() {
    let (gate, [first, second, mut third]) = Script::targets();
    let gate = Arc::new(gate);
    talk(door(), &gate, async |mut client| {
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
async fn what_may_not_be_sent_twice_is_not() {
    for request in [
        "POST http://a.test/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST http://a.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
        "PUT http://a.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
    ] {
        let (gate, [mut first, _second]) = Script::targets();
        let gate = Arc::new(gate);
        talk(door(), &gate, async |mut client| {
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
async fn a_body_that_was_never_sent_may_go_elsewhere() {
    let (gate, [mut first, mut second]) = Script::targets();
    let gate = Arc::new(gate);
    talk(door(), &gate, async |mut client| {
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
async fn a_kept_stream_that_has_closed_is_nobodys_fault() {
    let (gate, [mut first, mut second]) = Script::targets();
    let gate = Arc::new(gate);
    talk(door(), &gate, async |mut client| {
        exchange(&mut client, &mut first, [GET, SENT, OK, &ok()]).await;
        drop(first);
        exchange(&mut client, &mut second, [GET, SENT, OK, &ok()]).await;
        drop(client);
    })
    .await;
    assert!(!gate.log().iter().any(|line| line.contains("Died") || line.contains("but not")));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_went_out_with_the_dial_is_not_sent_again() {
    let (near, mut target) = UnixStream::pair().unwrap();
    let gate = Arc::new(Script::new([Open::Early(near)]));
    talk(door(), &gate, async |mut client| {
        exchange(&mut client, &mut target, [GET, SENT, OK, &ok()]).await;
        exchange(&mut client, &mut target, [GET, SENT, OK, &ok()]).await;
        drop((client, target));
    })
    .await;
}

#[test]
fn a_client_that_leaves_while_it_waits_holds_nothing() {
    let ((), seen) = observed(async || {
        let (gate, [mut target]) = Script::targets();
        let gate = Arc::new(gate);
        talk(door(), &gate, async |mut client| {
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
fn a_request_that_is_not_answered_goes_elsewhere_where_that_is_set() {
    let ((), seen) = observed(async || {
        let (gate, [silent, mut target]) = Script::targets();
        let gate = Arc::new(gate.with_answers_within(Duration::from_secs(5)));
        talk(door(), &gate, async |mut client| {
            let begun = tokio::time::Instant::now();
            client.write_all(b"GET http://a.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
            head(&mut target).await;
            // The request itself moved within the first five seconds: silence is counted from one look to the next.
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

#[test]
fn a_target_that_never_answers_is_given_up_and_a_slow_upload_is_no_silence() {
    let ((), seen) = observed(async || {
        let (gate, [mut target]) = Script::targets();
        talk(door(), &Arc::new(gate), async |mut client| {
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

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_there_already_costs_no_connection() {
    let (near, mut target) = UnixStream::pair().unwrap();
    target.write_all(OK.as_bytes()).await.unwrap();
    let gate = Arc::new(Script::new([Open::Early(near)]));
    talk(door(), &gate, async |mut client| {
        client.write_all(GET.as_bytes()).await.unwrap();
        expect(&mut client, ok()).await;
        expect(&mut target, SENT).await;
        exchange(&mut client, &mut target, [GET, SENT, OK, &ok()]).await;
        drop((client, target));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_final_answer_instead_of_a_100_ends_the_connection_and_says_so() {
    let (gate, [mut target]) = Script::targets();
    talk(door(), &Arc::new(gate), async |mut client| {
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
async fn an_upgrade_that_is_declined_is_an_answer_like_any_other() {
    let (gate, [mut target]) = Script::targets();
    let gate = Arc::new(gate);
    talk(door(), &gate, async |mut client| {
        let request = "GET http://a.test/x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let sent = "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        // What an origin could use in its stead is not for the client to try on us.
        let answer = OK.replace("\r\n\r\n", "\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n");
        exchange(&mut client, &mut target, [request, sent, &answer, &ok()]).await;
        exchange(&mut client, &mut target, [GET, SENT, OK, &ok()]).await;
        drop((client, target));
    })
    .await;
}

#[test]
fn a_client_that_takes_nothing_is_let_go() {
    let ((), seen) = observed(async || {
        let (gate, [mut target]) = Script::targets();
        let gate = Arc::new(gate);
        talk(door(), &gate, async |mut client| {
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
        talk(door(), &Arc::new(gate), async |client| {
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
fn an_exchange_that_is_cut_is_written_down_as_cut() {
    let ((), seen) = observed(async || {
        let (gate, [mut target]) = Script::targets();
        let gate = Arc::new(gate);
        let cut = Cut::new();
        let (mut client, ours, peer) = sockets();
        let served = serve(ours, peer, cut.clone(), Arc::new(door()), gate.clone());
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
