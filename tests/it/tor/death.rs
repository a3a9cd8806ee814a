//! What dies or hangs: an exit, a guard, an engine. Who is on it hears of it soon, and nobody else at all.

use std::time::Duration;

use exitgate::dial::DialError;
use exitgate::tor::{EngineId, EngineState};
use exitgate_testnet::Relay;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use super::rig::{Echo, all, fingerprint, signal};
use super::*;

/// How long it may take until everybody on something that died knows. Without a nudge some never do.
const KNOWN: Duration = Duration::from_secs(5);

/// How long a request may take while the way that it would have gone is dead or hangs.
const AROUND: Duration = Duration::from_secs(10);

/// Streams through an exit on circuits of their own, with the engine of each.
async fn held(rig: &Rig, exit: &Relay, count: u64) -> Vec<(Echo, EngineId)> {
    let dials = all((0..count).map(|isolation| rig.echo(way(exit, 1000 + isolation)))).await;
    dials.into_iter().map(|dial| dial.map(|(echo, facts)| (echo, facts.engine)).unwrap()).collect()
}

/// All of these end by then.
async fn all_end(streams: impl IntoIterator<Item = &mut Echo>, by: Instant) {
    all(streams.into_iter().map(Echo::ended)).await;
    assert!(Instant::now() < by, "{:?} late", by.elapsed());
}

/// New requests through an exit, each for somebody else: all succeed, from the right address, in time.
async fn all_succeed(rig: &Rig, exit: &Relay, isolations: std::ops::Range<u64>) {
    let asked = Instant::now();
    for seen in all(isolations.map(|isolation| rig.seen_from(way(exit, isolation)))).await {
        assert_eq!(seen.unwrap().0, exit.outbound.to_string());
    }
    assert!(asked.elapsed() < AROUND, "{:?}", asked.elapsed());
}

fn guard_of(bed: &Testbed, rig: &Rig, engine: usize) -> String {
    let guard = rig.tor.status()[engine].guard.unwrap();
    bed.network.guards().into_iter().find(|relay| fingerprint(relay) == guard).unwrap().name.clone()
}

on_both!(
    an_exit_that_dies_is_blamed_at_once_and_no_other_suffers,
    an_exit_that_dies_is_found_out_even_a_moment_after_a_nudge,
    a_guard_that_is_killed_is_replaced_while_the_other_engine_serves,
    a_guard_that_hangs_is_found_out_by_the_first_who_waits,
    fifty_streams_and_an_engine_that_is_killed
);

async fn an_exit_that_dies_is_blamed_at_once_and_no_other_suffers(backend: Backend) {
    let bed = bed(backend).await;
    let rig = Rig::start(&bed).await;
    let (us1, us2) = (bed.network.relay("us1"), bed.network.relay("us2"));
    let mut streams = held(&rig, us1, 16).await;
    let (mut download, _) = rig.dial(way(us1, 1), "echo.test").await.unwrap();
    download.write_all(b"GET /bytes/1000000000 HTTP/1.1\r\nHost: echo.test\r\n\r\n").await.unwrap();
    let mut buffer = vec![0; 1 << 16];
    assert!(download.read(&mut buffer).await.unwrap() > 0, "it has begun");
    let mut isolation = 0;
    let mut other = loop {
        let (echo, facts) = rig.echo(way(us2, isolation)).await.unwrap();
        if !facts.path.contains(&fingerprint(us1)) {
            break echo;
        }
        isolation += 1;
    };

    let killed = Instant::now();
    bed.network.kill("us1").await.unwrap();
    let end = async { while download.read(&mut buffer).await.is_ok_and(|read| read > 0) {} };
    timeout(KNOWN, end).await.expect("a download ends with its exit");
    all_end(streams.iter_mut().map(|(echo, _)| echo), killed + KNOWN).await;
    let over_it =
        |tor: &exitgate::tor::Tor| tor.circuits().iter().any(|circuit| circuit.path.contains(&fingerprint(us1)));
    rig.until("no circuit over it is left", |tor| !over_it(tor)).await;
    assert!(killed.elapsed() < KNOWN, "{:?}", killed.elapsed());

    let asked = Instant::now();
    let failed = rig.seen_from(way(us1, 1)).await.map(drop).unwrap_err();
    assert!(matches!(failed, DialError::Exit(_)), "{failed:?}");
    assert!(asked.elapsed() < KNOWN, "{:?}", asked.elapsed());
    assert!(other.lives().await);
    all_succeed(&rig, us2, 2000..2010).await;
    rig.stop().await;
}

async fn an_exit_that_dies_is_found_out_even_a_moment_after_a_nudge(backend: Backend) {
    let bed = bed(backend).await;
    let rig = Rig::start(&bed).await;
    let us1 = bed.network.relay("us1");
    let mut streams = held(&rig, us1, 16).await;
    // A name that the name server never answers for makes a nudge over each of the circuits, before the exit dies. How
    // these requests end does not matter.
    let unanswered = (0..16).map(|isolation| rig.dial(way(us1, 1000 + isolation), "silent.test"));
    drop(timeout(Duration::from_secs(3), all(unanswered)).await);

    let killed = Instant::now();
    bed.network.kill("us1").await.unwrap();
    all_end(streams.iter_mut().map(|(echo, _)| echo), killed + KNOWN).await;
    rig.stop().await;
}

async fn a_guard_that_is_killed_is_replaced_while_the_other_engine_serves(backend: Backend) {
    let bed = bed(backend).await;
    let rig = Rig::start(&bed).await;
    let us1 = bed.network.relay("us1");
    let mut streams = held(&rig, us1, 12).await;
    let guards = [guard_of(&bed, &rig, 0), guard_of(&bed, &rig, 1)];

    let killed = Instant::now();
    bed.network.kill(&guards[0]).await.unwrap();
    let mut first: Vec<_> = streams.extract_if(.., |(_, engine)| *engine == EngineId(0)).collect();
    assert!(!first.is_empty() && !streams.is_empty(), "both engines are in use");
    all_end(first.iter_mut().map(|(echo, _)| echo), killed + KNOWN).await;
    all_succeed(&rig, us1, 2000..2012).await;
    let replaced = |tor: &exitgate::tor::Tor| {
        let [first, second] = &tor.status()[..] else { return false };
        first.state == EngineState::Ready
            && first.guard.is_some_and(|guard| guard != fingerprint(bed.network.relay(&guards[0])))
            && first.guard != second.guard
    };
    rig.until("the first engine has another guard", replaced).await;
    assert!(killed.elapsed() < Duration::from_secs(20), "{:?}", killed.elapsed());
    // Streams may go over that relay as their middle; those that do not, live.
    let mut alive = 0;
    for (echo, _) in &mut streams {
        alive += usize::from(echo.lives().await);
    }
    assert!(alive > 0);
    let engines: Vec<_> = held(&rig, us1, 12).await.into_iter().map(|(_, engine)| engine).collect();
    assert!(engines.contains(&EngineId(0)), "it serves again: {engines:?}");
    rig.stop().await;
}

async fn a_guard_that_hangs_is_found_out_by_the_first_who_waits(backend: Backend) {
    let bed = bed(backend).await;
    let rig = Rig::start(&bed).await;
    let us1 = bed.network.relay("us1");
    let mut streams = held(&rig, us1, 12).await;
    let guard = guard_of(&bed, &rig, 0);
    bed.network.pause(&guard).await.unwrap();
    // The same people again, each on a circuit of their own, half of them behind the guard that hangs.
    all_succeed(&rig, us1, 1000..1012).await;
    let moved = |tor: &exitgate::tor::Tor| {
        let first = &tor.status()[0];
        first.state == EngineState::Ready && first.guard != Some(fingerprint(bed.network.relay(&guard)))
    };
    rig.until("the first engine has another guard", moved).await;
    all_succeed(&rig, us1, 2000..2012).await;
    bed.network.resume(&guard).await.unwrap();
    streams.retain(|(_, engine)| *engine == EngineId(1));
    let alive = all(streams.iter_mut().map(|(echo, _)| echo.lives())).await;
    assert!(alive.contains(&true), "the other engine has lost nothing: {alive:?}");
    rig.stop().await;
}

async fn fifty_streams_and_an_engine_that_is_killed(backend: Backend) {
    let bed = bed(backend).await;
    let rig = Rig::start(&bed).await;
    let us1 = bed.network.relay("us1");
    let mut streams = held(&rig, us1, 50).await;
    let killed = Instant::now();
    signal("KILL", rig.tor.status()[0].pid.unwrap());
    let mut first: Vec<_> = streams.extract_if(.., |(_, engine)| *engine == EngineId(0)).collect();
    assert!(first.len() >= 10 && streams.len() >= 10, "{} and {}", first.len(), streams.len());
    all_end(first.iter_mut().map(|(echo, _)| echo), killed + KNOWN).await;
    all_succeed(&rig, us1, 2000..2020).await;
    let alive = all(streams.iter_mut().map(|(echo, _)| echo.lives())).await;
    assert!(alive.iter().all(|alive| *alive), "the other engine has lost something: {alive:?}");
    rig.all_ready().await;
    let engines: Vec<_> = held(&rig, us1, 12).await.into_iter().map(|(_, engine)| engine).collect();
    assert!(engines.contains(&EngineId(0)) && killed.elapsed() < AROUND, "it serves again: {:?}", killed.elapsed());
    rig.stop().await;
}
