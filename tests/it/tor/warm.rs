//! Circuits that are there before anybody asks.

use exitgate::route::{Wanted, WantedExit};

use super::rig::fingerprint;
use super::*;

#[tokio::test]
async fn spares_lie_on_both_engines_and_are_rebuilt_only_when_used() {
    let bed = Testbed::start().await.unwrap();
    let rig = Rig::start(&bed).await;
    let us1 = bed.network.relay("us1");
    let want = WantedExit { spares: 2, hops: 3 };
    rig.wanted.send_replace(Wanted { exits: [(fingerprint(us1), want)].into() });
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
    rig.stop().await;
}
