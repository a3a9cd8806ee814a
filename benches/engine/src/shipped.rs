//! The SOCKS reply through the shipped gateway, from one listener to the other, beside plain tor: the same guard, the same exit.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use exitgate_bench_shared::gateway::{self, Gateway};
use exitgate_testnet::{Testbed, fetch};
use tokio::time::Instant;

use crate::alternated::{self, ROUNDS};
use crate::engines::{PATIENCE, closed};
use crate::plain_tor;

pub async fn print(bed: &Testbed) -> anyhow::Result<bool> {
    let ip = bed.sandbox.ip(200, 1);
    let (port, api) = (SocketAddr::from((ip, 1080)), SocketAddr::from((ip, 8080)));
    let gateway = Gateway::start(&gateway::program()?, bed.sandbox.folder(), &config(bed, port, api), api)?;
    let exits = bed.network.exits().len() as u64;
    let usable = |answer: &exitgate_bench_shared::http::Response| answer.json()["sources"]["tor"]["usable"].as_u64();
    gateway.wait("/ready", PATIENCE, |answer| usable(answer) >= Some(exits)).await?;
    let engines = gateway.ask("GET", "/engines", None).await?.text();
    let guard = engines.split("\"guard\":\"").nth(1).and_then(|rest| rest.split('"').next()).context("no guard")?;
    let exit = bed.network.relay("us1");
    let plain = plain_tor::pinned(bed, "beside", [Some(guard), None], exit).await?;
    let username = format!("any-exit-{}", exit.fingerprint);
    let web = bed.web.http_port();
    println!(
        "### SOCKS reply through the shipped gateway, alternated with plain tor ({ROUNDS} each; same guard, same exit)\n"
    );
    let ours = async |round| {
        let began = Instant::now();
        let stream = fetch::socks5(port, Some((&username, "x")), "echo.test", web).await?;
        let took = began.elapsed();
        if round == 0 {
            let seen = fetch::get(stream, "echo.test", "/ip").await?.text();
            ensure!(seen == exit.outbound.to_string(), "the request left from {seen}");
        } else {
            closed(stream).await;
        }
        Ok(took)
    };
    let theirs = async |_| {
        let began = Instant::now();
        let stream = fetch::socks5(plain.socks(), None, "echo.test", web).await?;
        let took = began.elapsed();
        closed(stream).await;
        Ok(took)
    };
    alternated::print(["exitgate", "plain tor"], ours, theirs).await
}

fn config(bed: &Testbed, port: SocketAddr, api: SocketAddr) -> String {
    format!(
        r#"data_dir = {data:?}
gateway.listen = "{port}"
api.listen = "{api}"
tor.binary = {binary:?}
tor.engines = 1
{lines}
tor.circuits_per_second = 500.0
sources.onionoo.enabled = false
sources.exit_addresses.enabled = false
check.per_second = 100.0
log.level = "error"
"#,
        data = bed.sandbox.folder().join("gateway"),
        binary = bed.network.tor_binary(),
        lines = bed.gateway_lines(),
    )
}
