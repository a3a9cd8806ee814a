//! Tests of SOCKS, from the greeting to an open tunnel.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use crate::dial::TargetFault;
use crate::gateway::failure::{Failure, NoExit};
use crate::gateway::listener::ListenerConfig;
use crate::gateway::testing::{Open, Script, expect, listener, observed, rest, talk};

/// A SOCKS5 CONNECT request to a.test:80.
const TO_A_TEST: &[u8] = b"\x05\x01\x00\x03\x06a.test\x00\x50";
/// The SOCKS5 success reply, which contains the exit's address 192.0.2.7.
const OPEN: &[u8] = b"\x05\x00\x00\x01\xC0\x00\x02\x07\x00\x00";

#[test]
fn a_tunnel_opens_step_by_step_and_carries_both_directions() {
    let ((), seen) = observed(async || {
        let (gate, [mut target]) = Script::targets();
        let gate = Arc::new(gate);
        talk(listener(), &gate, async |mut client| {
            client.write_all(b"\x05\x01\x00").await.unwrap();
            expect(&mut client, b"\x05\x00").await;
            client.write_all(TO_A_TEST).await.unwrap();
            expect(&mut client, OPEN).await;
            client.write_all(b"hello").await.unwrap();
            expect(&mut target, b"hello").await;
            target.write_all(b"you").await.unwrap();
            drop(target);
            expect(&mut client, b"you").await;
            client.shutdown().await.unwrap();
            assert_eq!(rest(&mut client).await, "");
        })
        .await;
        assert_eq!(gate.log(), ["socks5 @a.test:80", "given back"]);
    });
    let line = ["socks5", "us", "direct", "finished", "1", "5", "3"];
    assert_eq!(seen.access(&["protocol", "route", "exit", "outcome", "requests", "up", "down"]), [line]);
}

#[tokio::test(start_paused = true)]
async fn an_opening_in_one_packet_with_the_first_bytes_of_the_tunnel() {
    let (gate, [mut target]) = Script::targets();
    let gate = Arc::new(gate.with_key(b"k"));
    talk(ListenerConfig { demands_key: true, ..listener() }, &gate, async |mut client| {
        let opening = [&b"\x05\x02\x00\x02\x01\x02us\x01k"[..], TO_A_TEST, b"GET /"].concat();
        client.write_all(&opening).await.unwrap();
        expect(&mut client, [b"\x05\x02\x01\x00", OPEN].concat()).await;
        expect(&mut target, b"GET /").await;
        drop((client, target));
    })
    .await;
    assert_eq!(gate.log(), ["socks5 us@a.test:80", "given back"]);
}

#[tokio::test(start_paused = true)]
async fn an_opening_byte_by_byte() {
    let (gate, [mut target]) = Script::targets();
    talk(listener(), &Arc::new(gate), async |mut client| {
        for byte in [&b"\x05\x01\x02\x01\x02us\x01k"[..], TO_A_TEST].concat() {
            client.write_all(&[byte]).await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
        expect(&mut client, [b"\x05\x02\x01\x00", OPEN].concat()).await;
        target.write_all(b"x").await.unwrap();
        expect(&mut client, b"x").await;
        drop((client, target));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn socks4_and_4a() {
    for (opening, asked) in [
        (&b"\x04\x01\x00\x50\xC6\x33\x64\x01us\0"[..], "socks4 us@198.51.100.1:80"),
        (b"\x04\x01\x00\x50\0\0\0\x01us:k\0a.test\0", "socks4 us@a.test:80"),
    ] {
        let (gate, [target]) = Script::targets();
        let gate = Arc::new(gate);
        talk(listener(), &gate, async |mut client| {
            client.write_all(opening).await.unwrap();
            expect(&mut client, b"\x00\x5A\x00\x00\xC0\x00\x02\x07").await;
            drop((client, target));
        })
        .await;
        assert_eq!(gate.log(), [asked, "given back"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_has_its_code_and_no_success_reply_before_it() {
    for (failure, code) in [
        (Failure::Target(TargetFault::Refused), 5),
        (Failure::Target(TargetFault::NoSuchName), 4),
        (Failure::NoExit(NoExit::NoneMatch), 3),
        (Failure::Deadline, 6),
    ] {
        let gate = Arc::new(Script::new([Open::Refused(failure.into()), Open::Refused(failure.into())]));
        talk(listener(), &gate, async |mut client| {
            client.write_all(&[b"\x05\x01\x00", TO_A_TEST].concat()).await.unwrap();
            expect(&mut client, [5, 0, 5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await;
            assert_eq!(rest(&mut client).await, "");
        })
        .await;
        talk(listener(), &gate, async |mut client| {
            client.write_all(b"\x04\x01\x00\x50\xC6\x33\x64\x01us\0").await.unwrap();
            expect(&mut client, [0, 0x5B, 0, 0, 0, 0, 0, 0]).await;
            assert_eq!(rest(&mut client).await, "");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_key_is_refused_in_each_version() {
    let keyed = || ListenerConfig { demands_key: true, ..listener() };
    let named = || ListenerConfig { demands_name: true, ..listener() };
    for (listener, opening, answer) in [
        (named(), &b"\x05\x01\x00"[..], &b"\x05\xFF"[..]),
        (named(), b"\x05\x01\x02\x01\x00\x01k\x05\x01\x00", b"\x05\x02\x01\x01"),
        (named(), b"\x04\x01\x00\x50\xC6\x33\x64\x01\0", b"\x00\x5D\0\0\0\0\0\0"),
        (keyed(), b"\x05\x01\x00", b"\x05\xFF"),
        (keyed(), b"\x05\x01\x02\x01\x02us\x05wrong\x05\x01\x00", b"\x05\x02\x01\x01"),
        (keyed(), b"\x05\x01\x02\x01\x00\x00", b"\x05\x02\x01\x01"),
        (keyed(), b"\x05\x01\x02\x01\x01\xFF\x01k", b"\x05\x02\x01\x01"),
        (keyed(), b"\x04\x01\x00\x50\xC6\x33\x64\x01us\0", b"\x00\x5D\0\0\0\0\0\0"),
        (keyed(), b"\x04\x01\x00\x50\xC6\x33\x64\x01us:wrong\0", b"\x00\x5D\0\0\0\0\0\0"),
    ] {
        let gate = Arc::new(Script::targets::<1>().0.with_key(b"k"));
        talk(listener, &gate, async |mut client| {
            client.write_all(opening).await.unwrap();
            expect(&mut client, answer).await;
            assert_eq!(rest(&mut client).await, "", "{}", opening.escape_ascii());
        })
        .await;
        assert!(!gate.log().iter().any(|line| line.contains('@')), "the way out was never asked for");
    }
}

#[tokio::test(start_paused = true)]
async fn names_and_addresses_are_looked_up_as_tor_does() {
    let opening = |request: &[u8]| [b"\x05\x01\x00", request].concat();
    for (opening, answer, asked) in [
        (
            opening(b"\x05\xF0\x00\x03\x06a.test\x00\x00"),
            &b"\x05\x00\x05\x00\x00\x01\xCB\x00\x71\x09\x00\x00"[..],
            Some(" Address(Name(\"a.test\"))"),
        ),
        (
            opening(b"\x05\xF1\x00\x01\xC6\x33\x64\x01\x00\x00"),
            b"\x05\x00\x05\x00\x00\x03\x06a.test\x00\x00",
            Some(" Pointer(198.51.100.1)"),
        ),
        (
            opening(b"\x05\xF0\x00\x01\xC6\x33\x64\x01\x00\x00"),
            b"\x05\x00\x05\x00\x00\x01\xC6\x33\x64\x01\x00\x00",
            None,
        ),
        (
            b"\x04\xF0\x00\x00\0\0\0\x01\0a.test\0".to_vec(),
            b"\x00\x5A\x00\x00\xCB\x00\x71\x09",
            Some(" Address(Name(\"a.test\"))"),
        ),
    ] {
        let gate = Arc::new(Script::new([]));
        talk(listener(), &gate, async |mut client| {
            client.write_all(&opening).await.unwrap();
            expect(&mut client, answer).await;
            assert_eq!(rest(&mut client).await, "");
        })
        .await;
        assert_eq!(gate.log(), asked.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_client_that_leaves_while_its_tunnel_opens_releases_it() {
    let ((), seen) = observed(async || {
        let gate = Arc::new(Script::new([Open::Hangs]));
        talk(listener(), &gate, async |mut client| {
            client.write_all(&[b"\x05\x01\x00", TO_A_TEST, b"early"].concat()).await.unwrap();
            expect(&mut client, b"\x05\x00").await;
            sleep(Duration::from_secs(3)).await;
            client.write_all(b"more").await.unwrap();
            sleep(Duration::from_secs(3)).await;
        })
        .await;
        assert_eq!(gate.log(), ["socks5 @a.test:80", "given back"]);
    });
    assert_eq!(seen.access(&["outcome"]), [["client_left"]]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_opening_gets_no_more_time_than_silence() {
    let gate = Arc::new(Script::new([]));
    talk(listener(), &gate, async |mut client| {
        let begun = Instant::now();
        client.write_all(b"\x04\x01\x00\x50\xC6\x33\x64\x01").await.unwrap();
        while client.write_all(b"u").await.is_ok() && begun.elapsed() < Duration::from_secs(60) {
            sleep(Duration::from_secs(1)).await;
        }
        assert!((9..15).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn unknown_commands_are_refused_with_their_code() {
    for (request, code) in [
        (&b"\x05\x02\x00\x01\xC6\x33\x64\x01\x00\x50"[..], 7),
        (b"\x05\x03\x00\x01\xC6\x33\x64\x01\x00\x50", 7),
        (b"\x05\x01\x00\x05", 8),
        (b"\x05\x01\x00\x03\x06a.test\x00\x00", 1),
    ] {
        let gate = Arc::new(Script::new([]));
        talk(listener(), &gate, async |mut client| {
            client.write_all(&[b"\x05\x01\x00", request].concat()).await.unwrap();
            expect(&mut client, [5, 0, 5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await;
            assert_eq!(rest(&mut client).await, "");
        })
        .await;
    }
}

#[test]
fn a_truncated_opening_counts_as_a_client_that_left() {
    let whole = [&b"\x05\x01\x02\x01\x02us\x01k"[..], TO_A_TEST].concat();
    for length in 1..whole.len() {
        let ((), seen) = observed(async || {
            let gate = Arc::new(Script::new([]));
            talk(listener(), &gate, async |mut client| {
                client.write_all(&whole[..length]).await.unwrap();
                client.shutdown().await.unwrap();
                rest(&mut client).await;
            })
            .await;
            assert!(gate.log().is_empty());
        });
        assert_eq!(seen.access(&["protocol", "outcome"]), [["socks5", "client_left"]], "{length}");
    }
}
