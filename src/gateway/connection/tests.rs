//! Whole connections, byte for byte, with a gate that follows a script.

mod ahead;
mod doors;
mod exit_gate;
mod hostile;
mod http;
mod plain;
mod socks;

use std::sync::Arc;

use super::serve;
use crate::gateway::testing::{Script, door, observed, sockets, talk};
use crate::lifecycle::Cut;

/// The future of a connection is what every idle tunnel holds. Measured 2026-11; a change that makes it grow should
/// know that it does.
#[tokio::test(start_paused = true)]
async fn a_connection_stays_small() {
    let (_client, ours, peer) = sockets();
    let size = size_of_val(&serve(ours, peer, Cut::new(), Arc::new(door()), Arc::new(Script::new([]))));
    assert!(size <= 3 * 1024, "{size} bytes");
}

#[test]
fn a_connection_that_is_cut_while_it_opens_is_written_down_as_cut() {
    let ((), seen) = observed(async || {
        let (_client, ours, peer) = sockets();
        let cut = Cut::new();
        cut.cut();
        serve(ours, peer, cut, Arc::new(door()), Arc::new(Script::new([]))).await;
    });
    assert_eq!(seen.access(&["outcome"]), [["none"]]);
}

#[test]
fn a_client_that_says_nothing_is_let_go_at_the_deadline() {
    let ((), seen) = observed(async || {
        let gate = Arc::new(Script::new([]));
        talk(door(), &gate, async |mut client| {
            let begun = tokio::time::Instant::now();
            assert_eq!(crate::gateway::testing::rest(&mut client).await, "");
            assert!((9..=12).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
        })
        .await;
    });
    assert_eq!(seen.access(&["protocol", "outcome"]), [["null", "client_slow"]]);
}
