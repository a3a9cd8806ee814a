//! The SOCKS reply over one and the same path: an engine that we drive, and a tor that is left alone, by turns.

use exitgate_testnet::{Testbed, fetch};
use tokio::time::Instant;

use crate::bare;
use crate::rig::{Rig, closed, way};
use crate::stats::{Times, mark, ratio};

const ROUNDS: usize = 300;

/// Streams that only warm things up.
const WARM: usize = 20;

/// The mark: ours beside theirs.
const MOST: f64 = 1.1;

pub async fn print(bed: &Testbed) -> anyhow::Result<bool> {
    let rig = Rig::start(bed, 1).await?;
    let (exit, port) = (bed.network.relay("us1"), bed.web.http_port());
    let (open, facts) = rig.dial(way(exit, 1)?).await?;
    closed(open).await;
    let [guard, middle] = [0, 1].map(|hop| facts.path[hop].to_string());
    let plain = bare::pinned(bed, "plain", [Some(&guard), Some(&middle)], exit).await?;
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    for round in 0..ROUNDS + WARM {
        let began = Instant::now();
        let (open, now) = rig.dial(way(exit, 1)?).await?;
        let our_time = began.elapsed();
        anyhow::ensure!(now.path == facts.path, "another path");
        closed(open).await;
        let began = Instant::now();
        let open = fetch::socks5(plain.socks(), None, "echo.test", port).await?;
        let their_time = began.elapsed();
        closed(open).await;
        if round >= WARM {
            ours.add(our_time);
            theirs.add(their_time);
        }
    }
    println!("### SOCKS reply over the same three relays, by turns ({ROUNDS} each)\n");
    println!(
        "| | p50 / p95, ms |\n| --- | --- |\n| exitgate's dial | {} |\n| plain tor | {} |",
        ours.cell(),
        theirs.cell()
    );
    let beside = ratio(ours.p50(), theirs.p50());
    let met = mark(&format!("p50 at most {MOST} times plain tor's: {beside:.2}"), beside <= MOST);
    rig.stop().await;
    Ok(met)
}
