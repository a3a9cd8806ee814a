//! Faults on the way, and who is blamed for them.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use exitgate::dial::tor::{Options, Way, dial, resolve};
use exitgate::dial::{DialError, ExitFault, TargetFault};
use exitgate::exit::Fingerprint;
use exitgate_testnet::web::{HANG_PORT, REFUSED_PORT};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use super::rig::{deadline, fingerprint, target};
use super::*;

on_both!(
    every_refusal_has_its_cause,
    a_relay_that_hangs_is_gone_around,
    a_silent_target_is_at_fault_and_costs_no_circuit,
    an_exit_that_hangs_is_at_fault,
);

async fn every_refusal_has_its_cause(backend: Backend) {
    let bed = bed(backend).await;
    let rig = Rig::start(&bed).await;
    let (us1, us2, port) = (bed.network.relay("us1"), bed.network.relay("us2"), bed.web.http_port());
    bed.network.set_policy("us2", &[&format!("reject *:{port}"), "accept *:*"]).await.unwrap();
    let nobody = Way { exit: Fingerprint([7; 20]), ..way(us1, 1) };
    let guard = Way { exit: fingerprint(bed.network.relay("guard1")), ..way(us1, 1) };
    for (way, host, port, want) in [
        (way(us2, 1), "echo.test", port, DialError::Exit(ExitFault::Policy)), // the directory still says that it may
        (way(bed.network.relay("no443"), 1), "echo.test", 443, DialError::Exit(ExitFault::Policy)),
        (guard, "echo.test", port, DialError::Exit(ExitFault::Policy)),
        (nobody, "echo.test", port, DialError::Exit(ExitFault::Unknown)),
        (way(us1, 1), "echo.test", REFUSED_PORT, DialError::Target(TargetFault::Refused)),
        (way(us1, 1), "nx.test", port, DialError::Target(TargetFault::NoSuchName)),
        (way(us1, 1), "[2001:db8::1]", port, DialError::Target(TargetFault::Unreachable)),
    ] {
        let failed = dial(&rig.tor, way, &target(host, port), Options::default(), deadline()).await;
        assert_eq!(failed.map(drop), Err(want), "{host}:{port}");
    }
    // One that listens and never answers is a stream like any other.
    dial(&rig.tor, way(us1, 1), &target("echo.test", HANG_PORT), Options::default(), deadline()).await.unwrap();
    let name = target("nx.test", 1).host;
    let unknown = resolve(&rig.tor, way(us1, 1), &name, deadline()).await;
    assert_eq!(unknown, Err(DialError::Target(TargetFault::NoSuchName)));
    // A deadline that has come already: any later one may be met by a fast machine.
    let late = dial(&rig.tor, way(us1, 9), &target("echo.test", port), Options::default(), Instant::now()).await;
    assert_eq!(late.map(drop), Err(DialError::Deadline));
    assert_eq!(bed.web.sources("/ip"), [] as [IpAddr; 0]);
    rig.all_given_back().await;
    rig.stop().await;
}

/// tor before 0.4.9.13 answers such a request with success, and tells that the stream is open.
#[tokio::test]
async fn an_end_without_a_reason_is_no_success() {
    let bed = bed(Backend::Simtor).await;
    let rig = Rig::start(&bed).await;
    let (us1, port) = (bed.network.relay("us1"), bed.web.http_port());
    bed.network.end_streams("us1", 0).unwrap();
    for _ in 0..20 {
        let ended = dial(&rig.tor, way(us1, 1), &target("echo.test", port), Options::default(), deadline()).await;
        assert_eq!(ended.map(drop), Err(DialError::Exit(ExitFault::Refused)));
    }
    rig.all_given_back().await;
    rig.stop().await;
}

async fn a_relay_that_hangs_is_gone_around(backend: Backend) {
    let bed = bed(backend).await;
    let rig = Rig::start(&bed).await;
    let us1 = bed.network.relay("us1");
    // A middle that is nobody's guard: what becomes of those is a test of its own.
    let guards: Vec<_> = rig.tor.status().iter().filter_map(|engine| engine.guard).collect();
    let mut isolation = 0;
    let facts = loop {
        let (_, facts) = rig.seen_from(way(us1, isolation)).await.unwrap();
        if !guards.contains(&facts.path[1]) {
            break facts;
        }
        isolation += 1;
    };
    let middle = bed.network.relays().iter().find(|relay| fingerprint(relay) == facts.path[1]).unwrap();
    bed.network.pause(&middle.name).await.unwrap();
    // The circuit is there and looks well. What hangs is found out by the first stream that gets no answer.
    let asked = Instant::now();
    let (seen, around) = rig.seen_from(way(us1, isolation)).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(9), "tor alone takes 10.5 s: {:?}", asked.elapsed());
    assert_eq!(seen, us1.outbound.to_string());
    assert!(!around.path.contains(&fingerprint(middle)), "{:?}", around.path);
    bed.network.resume(&middle.name).await.unwrap();
    let gone = |tor: &exitgate::tor::Tor| {
        !tor.circuits().iter().any(|circuit| Some(circuit.id) == facts.circuit && circuit.engine == facts.engine)
    };
    rig.until("the circuit that hung is closed", gone).await;
    rig.stop().await;
}

/// How long exit and target may take. The shipped limit is four times as long.
const ANSWER: Duration = Duration::from_secs(3);

/// A port whose machine answers nothing: its queue of connections is full, so Linux drops each further attempt.
#[expect(clippy::disallowed_methods, reason = "the test itself fills the queue")]
async fn silent_port(ip: Ipv4Addr) -> (u16, impl Sized) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((ip, 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let (address, mut waiting) = (listener.local_addr().unwrap(), Vec::new());
    while let Ok(connected) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        waiting.push(connected.unwrap());
    }
    (address.port(), (listener, waiting))
}

async fn a_silent_target_is_at_fault_and_costs_no_circuit(backend: Backend) {
    let bed = bed(backend).await;
    let rig = Rig::start(&bed).await;
    let us1 = bed.network.relay("us1");
    let (_, before) = rig.seen_from(way(us1, 1)).await.unwrap();
    let (port, _kept) = silent_port(bed.web.ip()).await;
    let silent = target("echo.test", port);
    let options = Options { answer: Some(ANSWER), ..Options::default() };
    for early in [&b""[..], b"GET / HTTP/1.1\r\nHost: echo.test\r\n\r\n"] {
        let asked = Instant::now();
        let failed = dial(&rig.tor, way(us1, 1), &silent, Options { early, ..options }, deadline()).await;
        assert_eq!(failed.map(drop), Err(DialError::Target(TargetFault::Timeout)));
        assert!(asked.elapsed() < ANSWER, "{:?}", asked.elapsed());
    }
    let (_, after) = rig.seen_from(way(us1, 1)).await.unwrap();
    assert_eq!(after.circuit, before.circuit, "the circuit works, so it is used again");
    rig.all_given_back().await;
    rig.stop().await;
}

async fn an_exit_that_hangs_is_at_fault(backend: Backend) {
    let bed = bed(backend).await;
    let rig = Rig::start(&bed).await;
    let us1 = bed.network.relay("us1");
    rig.seen_from(way(us1, 1)).await.unwrap();
    bed.network.pause(&us1.name).await.unwrap();
    let options = Options { answer: Some(ANSWER), ..Options::default() };
    let echo = target("echo.test", bed.web.http_port());
    let failed = dial(&rig.tor, way(us1, 1), &echo, options, deadline()).await;
    bed.network.resume(&us1.name).await.unwrap();
    assert_eq!(failed.map(drop), Err(DialError::Exit(ExitFault::Hung)));
    rig.stop().await;
}
