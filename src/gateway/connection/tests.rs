//! Tests of whole connections, compared byte for byte. A gate with prepared results replaces the exits.

mod ahead;
mod exit_gate;
mod hostile;
mod http;
mod limits;
mod listeners;
mod plain;
mod socks;

use std::sync::Arc;

use super::{open, serve};
use crate::gateway::outbound::Outbound;
use crate::gateway::testing::{Script, listener, observed, sockets, talk};
use crate::lifecycle::Cut;

/// Checks the size of two futures. Every idle tunnel holds the future of `serve`, and this future is also copied when
/// its task begins and ends. The future of `open` is allocated for every connection. The sizes were measured with the
/// real gate in 2026-11. If a change makes one of these futures larger, box the parts that are rarely used.
#[test]
fn a_connection_and_its_opening_stay_small() {
    fn of5<A, B, C, D, E, F>(_: impl Fn(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }
    fn of3<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }
    let (serving, opening) = (of5(serve::<Outbound>), of3(open::<Outbound>));
    assert!(serving <= 1150 && opening <= 3200, "serving: {serving} bytes, opening: {opening} bytes");
}

#[test]
fn a_connection_that_is_cut_while_it_opens_has_an_access_line() {
    let ((), seen) = observed(async || {
        let (_client, ours, peer) = sockets();
        let cut = Cut::new();
        cut.cut();
        serve(ours, peer, cut, Arc::new(listener()), Arc::new(Script::new([]))).await;
    });
    assert_eq!(seen.access(&["outcome"]), [["none"]]);
}

#[test]
fn a_silent_client_is_closed_at_the_deadline() {
    let ((), seen) = observed(async || {
        let gate = Arc::new(Script::new([]));
        talk(listener(), &gate, async |mut client| {
            let begun = tokio::time::Instant::now();
            assert_eq!(crate::gateway::testing::rest(&mut client).await, "");
            assert!((9..=12).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
        })
        .await;
    });
    assert_eq!(seen.access(&["protocol", "outcome"]), [["null", "client_slow"]]);
}
