//! Tests of pipelined requests (sent before the answers to earlier requests). The requests mix all methods and framings
//! and arrive in pieces of any size. The result is compared with a simple reference implementation.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::task::yield_now;

use crate::gateway::testing::{FACTS, Script, expect, listener, observed, talk};

/// The kind of body that an HTTP message has.
#[derive(Clone, Debug)]
enum Payload {
    None,
    Length(Vec<u8>),
    Chunks(Vec<Vec<u8>>, bool),
}

impl Payload {
    fn fields(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Length(bytes) => format!("Content-Length: {}\r\n", bytes.len()),
            Self::Chunks(..) => "Transfer-Encoding: chunked\r\n".to_owned(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::None => Vec::new(),
            Self::Length(bytes) => bytes.clone(),
            Self::Chunks(chunks, trailer) => {
                let mut out = Vec::new();
                for chunk in chunks {
                    out.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                    out.extend(chunk);
                    out.extend(b"\r\n");
                }
                out.extend(if *trailer { &b"0\r\nDigest: x\r\n\r\n"[..] } else { b"0\r\n\r\n" });
                out
            }
        }
    }
}

/// One request and its answer.
#[derive(Clone, Debug)]
struct Trip {
    method: &'static str,
    up: Payload,
    interim: bool,
    down: Payload,
}

impl Trip {
    /// Returns four messages: the client's request, the request as the target gets it, the target's answer, and the
    /// answer as the client gets it.
    fn parts(&self, at: usize) -> [Vec<u8>; 4] {
        let Self { method, up, interim, down } = self;
        let request = format!("{method} http://a.test/{at} HTTP/1.1\r\nHost: a.test\r\n{}\r\n", up.fields());
        let sent = format!("{method} /{at} HTTP/1.1\r\nHost: a.test\r\n{}\r\n", up.fields());
        let interim = if *interim { "HTTP/1.1 103 Hints\r\nLink: <x>\r\n\r\n" } else { "" };
        let (status, body) = match (down, *method) {
            (Payload::None, _) => ("204 None", Vec::new()),
            (_, "HEAD") => ("200 OK", Vec::new()),
            (down, _) => ("200 OK", down.bytes()),
        };
        let answer = format!("{interim}HTTP/1.1 {status}\r\n{}\r\n", down.fields());
        let told = format!("{interim}HTTP/1.1 {status}\r\n{}{FACTS}\r\n", down.fields());
        [
            [request.into_bytes(), up.bytes()].concat(),
            [sent.into_bytes(), up.bytes()].concat(),
            [answer.into_bytes(), body.clone()].concat(),
            [told.into_bytes(), body].concat(),
        ]
    }

    /// Returns true if the request is sent on a kept stream. Only a request that is safe to send twice is sent on a
    /// kept stream.
    fn rides(&self) -> bool {
        self.method != "POST" && matches!(self.up, Payload::None)
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 1..60),
        Just(b"GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n".to_vec()),
        Just(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil".to_vec()),
        Just(b"\r\n0\r\n\r\n".to_vec()),
        (500usize..3000).prop_map(|length| vec![b'x'; length]),
    ]
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        Just(Payload::None),
        bytes().prop_map(Payload::Length),
        (vec(bytes(), 0..4), any::<bool>()).prop_map(|(chunks, trailer)| Payload::Chunks(chunks, trailer)),
    ]
}

fn trip() -> impl Strategy<Value = Trip> {
    let bodiless = (prop_oneof![Just("GET"), Just("HEAD"), Just("DELETE")], Just(Payload::None));
    let with_body = (prop_oneof![Just("POST"), Just("PUT"), Just("PATCH")], payload());
    let with_body = with_body.prop_map(|(method, up)| match up {
        // POST represents all methods that are not idempotent.
        Payload::None => ("POST", up),
        up => (method, up),
    });
    (prop_oneof![bodiless, with_body], any::<bool>(), payload()).prop_map(|((method, up), interim, down)| Trip {
        method,
        up,
        interim,
        down,
    })
}

async fn write_in_pieces(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8], piece: usize) {
    for piece in bytes.chunks(piece) {
        stream.write_all(piece).await.unwrap();
        yield_now().await;
    }
}

const TRIPS: usize = 6;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn every_request_gets_its_own_answer(trips in vec(trip(), 1..TRIPS), up in 1usize..400, down in 1usize..400) {
        let parts: Vec<_> = trips.iter().enumerate().map(|(at, trip)| trip.parts(at)).collect();
        let asked: Vec<u8> = parts.iter().flat_map(|[asked, ..]| asked).copied().collect();
        let told: Vec<u8> = parts.iter().flat_map(|[.., told]| told).copied().collect();
        let ((), seen) = observed(async || {
            let (gate, targets) = Script::targets::<TRIPS>();
            talk(listener(), &Arc::new(gate), async |mut client| {
                let (mut from_gate, mut to_gate) = client.split();
                let answers = async {
                    let mut targets = targets.into_iter();
                    let mut target = targets.next().unwrap();
                    for (at, (trip, [_, sent, answer, _])) in trips.iter().zip(&parts).enumerate() {
                        if at > 0 && !trip.rides() {
                            target = targets.next().unwrap();
                        }
                        expect(&mut target, sent).await;
                        write_in_pieces(&mut target, answer, down).await;
                    }
                    target
                };
                tokio::join!(answers, write_in_pieces(&mut to_gate, &asked, up), expect(&mut from_gate, &told));
            })
            .await;
        });
        let count = trips.len().to_string();
        prop_assert_eq!(seen.access(&["outcome", "requests"]), [["answered", count.as_str()]]);
    }
}
