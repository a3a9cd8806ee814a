//! The SOCKS reply over the same path, alternately: an engine that exitgate drives, and a tor that is left alone.

use exitgate_testnet::{Testbed, fetch};
use tokio::time::Instant;

use crate::alternated::{self, ROUNDS};
use crate::engines::{Engines, closed, way};
use crate::plain_tor;

pub async fn print(bed: &Testbed) -> anyhow::Result<bool> {
    let engines = Engines::start(bed, 1).await?;
    let (exit, port) = (bed.network.relay("us1"), bed.web.http_port());
    let (open, facts) = engines.dial(way(exit, 1)?).await?;
    closed(open).await;
    let [guard, middle] = [0, 1].map(|hop| facts.path[hop].to_string());
    let plain = plain_tor::pinned(bed, "plain", [Some(&guard), Some(&middle)], exit).await?;
    println!("### SOCKS reply over the same three relays, alternated ({ROUNDS} each)\n");
    let ours = async |_| {
        let began = Instant::now();
        let (open, now) = engines.dial(way(exit, 1)?).await?;
        let took = began.elapsed();
        anyhow::ensure!(now.path == facts.path, "the path has changed");
        closed(open).await;
        Ok(took)
    };
    let theirs = async |_| {
        let began = Instant::now();
        let open = fetch::socks5(plain.socks(), None, "echo.test", port).await?;
        let took = began.elapsed();
        closed(open).await;
        Ok(took)
    };
    let met = alternated::print(["exitgate's dial", "plain tor"], ours, theirs).await?;
    engines.stop().await;
    Ok(met)
}
