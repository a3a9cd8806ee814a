//! Circuits that are there before anybody asks.

use exitgate::route::{CircuitDemand, OwnEngine, Rank, SpareCircuits};
use exitgate::tor::EngineId;

use super::rig::fingerprint;
use super::*;

on_both!(
    spares_lie_on_both_engines_and_are_rebuilt_only_when_used,
    a_route_with_an_engine_of_its_own_shares_nothing_and_takes_nobody_along
);

async fn spares_lie_on_both_engines_and_are_rebuilt_only_when_used(backend: Backend) {
    let bed = bed(backend).await;
    let rig = Rig::start(&bed).await;
    let us1 = bed.network.relay("us1");
    let want = SpareCircuits { spares: 2, rank: Rank::Used, hops: 3 };
    rig.wanted.send_replace(CircuitDemand { exits: [(fingerprint(us1), want)].into(), ..CircuitDemand::default() });
    let spares = |tor: &exitgate::tor::Tor| tor.status().iter().map(|engine| engine.spares).collect::<Vec<_>>();
    rig.until("one spare on each engine", |tor| spares(tor) == [1, 1]).await;
    let first = rig.tor.circuits();

    let (_, facts) = rig.seen_from(way(us1, 1)).await.unwrap();
    assert!(facts.circuit.is_some_and(|id| first.iter().any(|spare| spare.id == id && spare.engine == facts.engine)));
    rig.until("the used one is replaced", |tor| spares(tor) == [1, 1] && tor.circuits().len() == 3).await;

    // The same key again: on its own circuit, so that no spare is touched.
    rig.seen_from(way(us1, 1)).await.unwrap();
    assert_eq!(rig.tor.circuits().len(), 3);
    let kept = |spare: &&exitgate::tor::CircuitStatus| {
        rig.tor.circuits().iter().any(|now| now.id == spare.id && now.engine == spare.engine)
    };
    assert_eq!(first.iter().filter(kept).count(), 2, "nothing that was there was built again");

    // Told to keep more, it does so at once.
    let settings = exitgate::tor::Settings { spare_circuits: 4, ..rig.settings.clone() };
    assert_eq!(rig.tor.reload(settings).await.unwrap(), [""; 0]);
    rig.until("two spares on each engine", |tor| spares(tor) == [2, 2]).await;
    rig.stop().await;
}

async fn a_route_with_an_engine_of_its_own_shares_nothing_and_takes_nobody_along(backend: Backend) {
    let bed = bed(backend).await;
    let rig = Rig::start(&bed).await;
    let (us1, us2) = (bed.network.relay("us1"), bed.network.relay("us2"));
    let (alone, other) = (OwnEngine(7), OwnEngine(8));
    let want = SpareCircuits { spares: 2, rank: Rank::Used, hops: 3 };
    let wants = |own: &[OwnEngine]| CircuitDemand {
        own: own.iter().map(|own| (*own, [(fingerprint(us1), want)].into())).collect(),
        ..CircuitDemand::default()
    };
    rig.wanted.send_replace(wants(&[alone, other]));
    rig.until("an engine for each, and its spares", |tor| {
        let status = tor.status();
        status.len() == 4 && status[2..].iter().all(|engine| engine.state.usable() && engine.spares == 2)
    })
    .await;
    let status = rig.tor.status();
    let guards: std::collections::BTreeSet<_> = status.iter().map(|engine| engine.guard.unwrap()).collect();
    assert_eq!(guards.len(), 4, "each enters by a guard of its own");

    let mine = |isolation| exitgate::tor::Way { own: Some(alone), ..way(us1, isolation) };
    let (mut stream, facts) = rig.echo(mine(1)).await.unwrap();
    assert_eq!((facts.engine, facts.path[0]), (EngineId(2), status[2].guard.unwrap()));
    for isolation in 0..8 {
        assert!(rig.echo(way(us2, isolation)).await.unwrap().1.engine < EngineId(2), "nobody else is on it");
    }
    // Its route is gone: who is on it stays until the end, and then its tor goes.
    let pid = status[2].pid.unwrap();
    rig.wanted.send_replace(wants(&[other]));
    rig.until("it is no longer listed", |tor| tor.status().len() == 3).await;
    assert!(stream.lives().await && super::rig::is_alive(pid));
    drop(stream);
    super::rig::until("its tor ends", async || !super::rig::is_alive(pid), String::new).await;
    // The route is back: with the guard that it had.
    rig.wanted.send_replace(wants(&[alone, other]));
    let (_, facts) = rig.echo(mine(2)).await.unwrap();
    assert_eq!(Some(facts.path[0]), status[2].guard);
    rig.stop().await;
}
