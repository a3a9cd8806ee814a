//! The SOCKS reply through the shipped gateway, listener to listener, beside plain tor: the same guard, the same exit.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use exitgate_testnet::{Testbed, fetch};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, sleep};

use crate::bare;
use crate::rig::{PATIENCE, closed};
use crate::stats::{Times, mark, ratio};

const ROUNDS: usize = 300;

/// Streams that only warm things up.
const WARM: usize = 20;

/// The mark: ours beside theirs.
const MOST: f64 = 1.1;

/// The gateway's process, ended with this value.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub async fn print(bed: &Testbed) -> anyhow::Result<bool> {
    let ip = bed.ground.ip(200, 1);
    let (port, api) = (SocketAddr::from((ip, 1080)), SocketAddr::from((ip, 8080)));
    let _gateway = start(bed, port, api)?;
    let exits = bed.network.exits().len();
    wait_for(api, "/ready", |answer| number_behind(answer, "\"usable\":") >= Some(exits)).await?;
    let engines = ask(api, "/engines").await?;
    let guard = engines.split("\"guard\":\"").nth(1).and_then(|rest| rest.split('"').next()).context("a guard")?;
    let exit = bed.network.relay("us1");
    let plain = bare::pinned(bed, "beside", [Some(guard), None], exit).await?;
    let user = format!("any-exit-{}", exit.fingerprint);
    let web = bed.web.http_port();
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    for round in 0..ROUNDS + WARM {
        let began = Instant::now();
        let stream = fetch::socks5(port, Some((&user, "x")), "echo.test", web).await?;
        let our_time = began.elapsed();
        if round == 0 {
            let seen = fetch::get(stream, "echo.test", "/ip").await?.text();
            ensure!(seen == exit.outbound.to_string(), "it left from {seen}");
        } else {
            closed(stream).await;
        }
        let began = Instant::now();
        let stream = fetch::socks5(plain.socks(), None, "echo.test", web).await?;
        let their_time = began.elapsed();
        closed(stream).await;
        if round >= WARM {
            ours.add(our_time);
            theirs.add(their_time);
        }
    }
    println!(
        "### SOCKS reply through the shipped gateway, by turns with plain tor ({ROUNDS} each; same guard, same exit)\n"
    );
    println!("| | p50 / p95, ms |\n| --- | --- |\n| exitgate | {} |\n| plain tor | {} |", ours.cell(), theirs.cell());
    let beside = ratio(ours.p50(), theirs.p50());
    Ok(mark(&format!("p50 at most {MOST} times plain tor's: {beside:.2}"), beside <= MOST))
}

fn start(bed: &Testbed, port: SocketAddr, api: SocketAddr) -> anyhow::Result<Gateway> {
    let config = format!(
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
        data = bed.ground.folder().join("gateway"),
        binary = bed.network.tor_binary(),
        lines = bed.gateway_lines(),
    );
    let path = bed.ground.folder().join("exitgate.toml");
    std::fs::write(&path, config)?;
    let binary = std::env::current_exe()?.with_file_name("exitgate");
    let mut command = Command::new(&binary);
    command.args(["serve", "--config"]).arg(&path).stdin(Stdio::null());
    let child = command.spawn().with_context(|| format!("{} (cargo build --release)", binary.display()))?;
    Ok(Gateway(child))
}

async fn ask(api: SocketAddr, path: &str) -> anyhow::Result<String> {
    Ok(fetch::get(TcpStream::connect(api).await?, "127.0.0.1", path).await?.text())
}

async fn wait_for(api: SocketAddr, path: &str, is: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = ask(api, path).await.unwrap_or_default(); // it does not listen yet
        if is(&answer) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "the gateway is not ready: {answer}");
        sleep(Duration::from_millis(100)).await;
    }
}

fn number_behind(text: &str, key: &str) -> Option<usize> {
    let rest = text.split(key).nth(1)?.trim_start();
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
