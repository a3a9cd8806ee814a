//! Tests of how many exits a request tries, and of the log lines about these exits. Every exit is a public proxy at a
//! closed port.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::super::rotate::Proof;
use super::super::{Parts, RefusalReporter, Terms, Times};
use super::*;
use crate::exit::country::Country;
use crate::exit::identity::Identities;
use crate::exit::{Listing, Offer, Protocol, PublicId, Source, Through, Verdict};
use crate::gateway::connection::serve;
use crate::gateway::gate::{Caller, Gate};
use crate::gateway::protocol;
use crate::gateway::relay::Idle;
use crate::gateway::testing::{Observed, head, listener, observed, sockets};
use crate::lifecycle::Cut;
use crate::limit::target::{Own, Ports, Rules};
use crate::limit::{Amounts, Damping, Limits};
use crate::route::memory::Bounds;
use crate::route::{HolderRef, Memory, Policy, Words};
use crate::state::{Change, Clock, ExitUpdate, Snapshot, State};

const EXITS: u8 = 8;

/// Returns a public proxy that refuses connections: on most machines nothing listens on the ports 1 to 8.
fn exit(n: u8) -> ExitId {
    ExitId::Public(PublicId { protocol: Protocol::Socks5, addr: ([127, 0, 0, 1], n.into()).into() }.into())
}

fn terms(max_attempts: u32) -> Terms {
    let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
    Terms {
        rules: Rules::new(Ports::default(), true, Own::new()),
        allow_direct: false,
        times: Times { dial: hour, attempt: minute, idle: Idle::default() },
        public: dial::public::Times { connect: minute, reply: minute },
        max_attempts: NonZeroU32::new(max_attempts).unwrap(),
        hedge: 0.0,
        ban_for: minute,
    }
}

async fn outbound() -> Outbound {
    with_exits((1..=EXITS).map(|n| (n, exit(n))).collect()).await
}

/// Makes an [`Outbound`] with these good public proxies. Each has a number, which is part of its address as sites see it.
async fn with_exits(exits: Vec<(u8, ExitId)>) -> Outbound {
    let country = Country::parse("US").unwrap();
    let offer = Offer { list: "test".into(), login: None, through: Through::Direct };
    let listing = |(n, exit): (u8, ExitId)| Listing {
        announced: vec![[192, 0, 2, n].into()],
        country,
        public: Some(Arc::new(offer.clone())),
        ..Listing::new(exit)
    };
    let update = |(n, exit): (u8, ExitId)| ExitUpdate {
        exit,
        update: Box::new(move |known| {
            known.saw([192, 0, 2, n].into(), country, Moment(1));
            known.verdict = Verdict::Good;
        }),
        ban: None,
        writes: Vec::new(),
    };
    let snapshot = Snapshot::new(Words::default(), Policy { pool: 3, ..Policy::default() });
    let (state, _wished) = State::new(snapshot, Memory::new(Bounds::default()), Clock::start(), None);
    for change in [
        Change::Listed(Source::Public, exits.iter().cloned().map(listing).collect()),
        Change::ExitUpdates(exits.into_iter().map(update).collect()),
    ] {
        state.apply(change).await.unwrap();
    }
    let damping = Damping { failures: NonZeroU32::MIN, pause: Duration::from_secs(60) };
    Outbound::new(Parts {
        state,
        limits: Limits::new(Vec::new(), Amounts::default(), damping),
        tor: None,
        terms: terms(3),
        identities: Identities::default(),
        refusals: RefusalReporter::new(mpsc::channel(1).0),
        verify: Arc::new(|_| Box::pin(async { Proof::Not("not tested".to_owned()) })),
        stopping: watch::channel(false).1,
    })
}

/// Sends one CONNECT as the user `any-source-public`, or as `any-source-public-strict` if `strict` is true. Returns the
/// head of the answer and the log.
fn connect(strict: bool, max_attempts: Option<u32>) -> (String, Observed) {
    let login = if strict { "YW55LXNvdXJjZS1wdWJsaWMtc3RyaWN0Og==" } else { "YW55LXNvdXJjZS1wdWJsaWM6" };
    observed(async || {
        let outbound = outbound().await;
        if let Some(max_attempts) = max_attempts {
            outbound.change(terms(max_attempts));
        }
        let (mut theirs, ours, peer) = sockets();
        let served = serve(ours, peer, Cut::new(), Arc::new(listener()), Arc::new(outbound));
        let client = async {
            let request = format!(
                "CONNECT 203.0.113.5:443 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic {login}\r\nConnection: close\r\n\r\n"
            );
            theirs.write_all(request.as_bytes()).await.unwrap();
            let answer = head(&mut theirs).await;
            drop(theirs);
            answer
        };
        tokio::join!(served, client).1
    })
}

/// Returns the exits that were dialed, in order.
fn dialed(seen: &Observed) -> Vec<String> {
    let lines = seen.log();
    let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["message"] == "dialing").map(|line| line["exit"].to_string()).collect()
}

#[test]
fn a_request_tries_as_many_exits_as_the_configuration_allows_and_no_exit_twice() {
    for (max_attempts, want) in [(None, 3), (Some(1), 1), (Some(5), 5), (Some(20), usize::from(EXITS))] {
        let (answer, seen) = connect(false, max_attempts);
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        let mut exits = dialed(&seen);
        assert_eq!(exits.len(), want, "{max_attempts:?}: {exits:?}");
        exits.sort();
        exits.dedup();
        assert_eq!(exits.len(), want, "one was tried twice: {exits:?}");
    }
}

#[test]
fn only_an_exits_own_fault_counts_against_it_and_moves_what_keeps_it() {
    use crate::dial::TargetFault;
    for (error, counts, others_help, moves) in [
        (DialError::Exit(ExitFault::Hung), true, true, true),
        (DialError::Exit(ExitFault::Died), true, true, true),
        (DialError::Exit(ExitFault::Unreachable), true, true, true),
        (DialError::Exit(ExitFault::Unclear), false, true, true),
        (DialError::Exit(ExitFault::Policy), false, true, true),
        (DialError::Exit(ExitFault::NoPath), false, true, true),
        (DialError::Exit(ExitFault::Unknown), false, true, true),
        (DialError::Deadline, false, true, false),
        (EngineFault::FirstHop.into(), false, false, false),
        (EngineFault::Middle.into(), false, false, false),
        (EngineFault::Busy.into(), false, false, false),
        (EngineFault::NotReady.into(), false, false, false),
        (EngineFault::Lost.into(), false, false, false),
        (TargetFault::Timeout.into(), false, false, false),
        (TargetFault::Refused.into(), false, false, false),
    ] {
        assert_eq!(counts_against_exit(&ExitId::Tor(Fingerprint([1; 20])), &error), counts, "{error:?}");
        assert_eq!(another_exit_may_help(&error, false), others_help, "{error:?}");
        assert_eq!(another_exit_may_help(&error, true), moves, "{error:?}");
    }
}

#[test]
fn a_silent_proxy_is_tested_before_it_is_ejected() {
    assert!(!counts_against_exit(&exit(1), &DialError::Exit(ExitFault::Hung)), "its target may be dead");
    assert!(counts_against_exit(&exit(1), &DialError::Exit(ExitFault::Unreachable)));
    assert!(counts_against_exit(&exit(1), &DialError::Exit(ExitFault::Refused)));
}

#[tokio::test]
async fn sessions_and_strict_usernames_keep_their_exit() {
    let outbound = outbound().await;
    let snapshot = outbound.parts.state.snapshot();
    for (username, want) in [("any", false), ("any-rotate", false), ("any-session-a", true), ("any-strict", true)] {
        assert_eq!(keeps_exit(&snapshot.routes.resolve(username, None).unwrap()), want, "{username}");
    }
}

#[test]
fn a_strict_route_tries_its_one_exit() {
    let (answer, seen) = connect(true, Some(5));
    assert!(answer.starts_with("HTTP/1.1 50"), "{answer}");
    assert_eq!(dialed(&seen).len(), 1, "{answer}");
}

/// One proxy refuses connections and the other one opens tunnels. The connection fails over from the first to the second,
/// so the second is the last exit of the rotating username.
#[tokio::test]
async fn the_exit_that_opened_the_stream_is_the_last_exit_of_a_rotating_username() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let works = ExitId::Public(PublicId { protocol: Protocol::Socks5, addr: proxy.local_addr().unwrap() }.into());
    let outbound = with_exits(vec![(1, exit(1)), (2, works.clone())]).await;
    let (listener, peer) = (listener(), ([127, 0, 0, 1], 1).into());
    let username = "any-source-public-rotate";
    let caller = Caller { listener: &listener, protocol: protocol::Protocol::Socks5, peer, client: peer, username };
    let client = outbound.admit(&caller, None).unwrap();
    let target = "203.0.113.5:443".parse().unwrap();
    // Both answers fit in one write: no method that needs a login, and a tunnel from 0.0.0.0:0.
    let serve = async || {
        let (mut stream, _) = proxy.accept().await.unwrap();
        stream.write_all(b"\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00").await.unwrap();
        stream
    };
    let mut failed = 0;
    for _ in 0..4 {
        let request = OpenRequest { target: &target, avoid: &[], early: &[] };
        let (_stream, opened) = tokio::join!(serve(), outbound.open(&caller, &client, request));
        let opened = opened.unwrap();
        failed += opened.failed.len();
        let holder = HolderRef { key: "", scope: "any-source-public-rotate", session: None };
        let last = outbound.parts.state.memory().last(holder);
        assert_eq!((&opened.exit.exit, last), (&works, opened.lease.exit().map(|exit| exit.seed())));
    }
    assert!(failed > 0, "no connection has failed over");
}

#[test]
fn the_id_of_an_error_answer_finds_all_lines_about_its_connection() {
    let (answer, seen) = connect(false, Some(2));
    let id = answer.split("X-Exitgate-Id: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap();
    let log = seen.log();
    let story: Vec<serde_json::Value> =
        log.lines().filter(|line| line.contains(id)).map(|line| serde_json::from_str(line).unwrap()).collect();
    let messages: Vec<_> = story.iter().filter_map(|line| line["message"].as_str()).collect();
    assert_eq!(messages, ["dialing", "a dial failed", "dialing", "a dial failed"], "{log}");
    assert_eq!(story.last().unwrap()["target"], "access", "{log}");
    assert_eq!(seen.access(&["id", "outcome"]), [[id, "exit_unreachable"]]);
}
