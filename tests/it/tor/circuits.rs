//! Who shares a circuit with whom, how many are built, and how fast.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use exitgate::route::{CircuitDemand, Rank, SpareCircuits};
use exitgate::tor::LeaseFault;
use rand::RngExt as _;
use tokio::time::{Instant, timeout};

use super::rig::{all, deadline, fingerprint, target};
use super::*;

on_both!(
    no_two_keys_ever_share_a_circuit_and_no_circuit_is_overfull,
    spares_are_built_at_the_pace_that_is_set,
    a_request_that_would_only_wait_is_refused_at_once,
    dials_that_are_dropped_leave_nothing_behind
);

async fn no_two_keys_ever_share_a_circuit_and_no_circuit_is_overfull(backend: Backend) {
    let bed = bed(backend).await;
    let rig = Rig::start_with(&bed, |settings| settings.streams_per_circuit = 2).await;
    let us1 = bed.network.relay("us1");
    // Spares, so that keys compete for the same circuits.
    let want = SpareCircuits { spares: 4, rank: Rank::Used, hops: 3 };
    rig.wanted.send_replace(CircuitDemand { exits: [(fingerprint(us1), want)].into(), ..CircuitDemand::default() });
    rig.until("spares", |tor| tor.status().iter().all(|engine| engine.spares == 2)).await;

    let mut owners = HashMap::new();
    for _ in 0..2 {
        let dials = (0..24).map(|dial| rig.echo(way(us1, dial % 4)));
        let held = all(dials).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
        for (dial, (_, facts)) in held.iter().enumerate() {
            let circuit = (facts.engine, facts.circuit.unwrap());
            assert_eq!(*owners.entry(circuit).or_insert(dial % 4), dial % 4, "{circuit:?}");
        }
        let circuits = rig.tor.circuits();
        assert!(circuits.iter().all(|circuit| circuit.streams <= 2), "{circuits:#?}");
        assert_eq!(circuits.iter().map(|circuit| usize::from(circuit.streams)).sum::<usize>(), held.len());
        drop(held);
        rig.all_given_back().await;
    }
    assert!(owners.values().collect::<HashSet<_>>().len() == 4 && owners.len() >= 12, "{owners:?}");
    rig.stop().await;
}

async fn spares_are_built_at_the_pace_that_is_set(backend: Backend) {
    const RATE: f64 = 4.0;
    let bed = bed(backend).await;
    let set = |settings: &mut exitgate::tor::Settings| {
        (settings.engines, settings.circuits_per_second, settings.circuit_burst) = (1, RATE, 4);
    };
    let rig = Rig::start_with(&bed, set).await;
    let exits = bed.network.exits();
    let want = SpareCircuits { spares: 1, rank: Rank::Used, hops: 3 };
    let begun = Instant::now();
    let all = exits.iter().map(|exit| (fingerprint(exit), want)).collect();
    rig.wanted.send_replace(CircuitDemand { exits: all, ..CircuitDemand::default() });
    rig.until("all spares", |tor| tor.status()[0].spares == exits.len()).await;
    // Half of the burst is for those who wait.
    let least = Duration::from_secs_f64((exits.len() as f64 - 2.0) / RATE);
    assert!(begun.elapsed() >= least, "{:?} is faster than {least:?}", begun.elapsed());
    // Who waits gets one at once.
    let (_, facts) = rig.seen_from(way(exits[0], 1)).await.unwrap();
    assert!(facts.timings.circuit_wait() < least);
    rig.stop().await;
}

async fn a_request_that_would_only_wait_is_refused_at_once(backend: Backend) {
    let bed = bed(backend).await;
    // One circuit, and then one a minute.
    let set = |settings: &mut exitgate::tor::Settings| {
        (settings.engines, settings.circuits_per_second, settings.circuit_burst) = (1, 0.0, 1);
    };
    let rig = Rig::start_with(&bed, set).await;
    let exits = bed.network.exits();
    rig.seen_from(way(exits[0], 1)).await.unwrap();
    let in_minutes = Instant::now() + Duration::from_secs(600);
    let mut queued = Box::pin(rig.tor.lease(way(exits[1], 1), None, None, in_minutes));
    tokio::select! {
        lease = &mut queued => panic!("there is no token for it: {lease:?}"),
        () = rig.until("its build is queued", |tor| tor.status()[0].building == 1) => {}
    }
    let refused = rig.tor.lease(way(exits[2], 1), None, None, deadline()).await;
    assert_eq!(refused.unwrap_err(), LeaseFault::Busy);
    assert!(rig.tor.retry_after(None) > Duration::from_secs(60), "{:?}", rig.tor.retry_after(None));
    rig.seen_from(way(exits[0], 1)).await.unwrap(); // whoever needs no build is served
    drop(queued);
    rig.stop().await;
}

async fn dials_that_are_dropped_leave_nothing_behind(backend: Backend) {
    let bed = bed(backend).await;
    let rig = Rig::start(&bed).await;
    let exits = bed.network.exits();
    rig.seen_from(way(exits[0], 0)).await.unwrap();
    let tasks = rig.life.tasks().running();
    let hosts = ["echo.test", "nx.test", "hang.test", "closed.test"];
    let dials = (0..200_usize).map(|dial| {
        let given = Duration::from_micros(rand::rng().random_range(0..60_000));
        let (way, host) = (way(exits[dial % exits.len()], dial as u64 % 5), hosts[dial % hosts.len()]);
        timeout(given, rig.dial(way, host))
    });
    let ended = all(dials).await;
    assert!(ended.iter().any(Result::is_err), "some were dropped");
    drop(ended);
    rig.all_given_back().await;
    rig.until("no task is left", |_| rig.life.tasks().running() == tasks).await;

    // What fails by itself is given back as well.
    let fail =
        (0..100_u64).map(|dial| rig.dial(way(exits[dial as usize % 3], dial % 5), hosts[[1, 3][dial as usize % 2]]));
    assert!(all(fail).await.iter().all(Result::is_err));
    rig.all_given_back().await;
    let at = target("echo.test", bed.web.http_port());
    drop(exitgate::dial::tor::dial(&rig.tor, way(exits[0], 0), &at, Default::default(), deadline()).await.unwrap());
    rig.all_given_back().await;
    assert_eq!(rig.life.tasks().panics(), 0);
    rig.stop().await;
}
