//! The first pass over twenty thousand proxies, and whether each verdict is the planted truth.

use std::collections::BTreeMap;
use std::time::Duration;

use exitgate_testnet::public::{Kind, Protocol, Proxy};
use serde_json::Value;

use crate::bed::Bed;

/// 30 % alive (some of them dishonest), 70 % dead, of whom one in five hangs.
const MIX: [(Kind, u32); 11] = [
    (Kind::Good, 4_400),
    (Kind::Transparent, 400),
    (Kind::Anonymous, 200),
    (Kind::NoConnect, 200),
    (Kind::Lying, 200),
    (Kind::Tampering, 200),
    (Kind::BreaksTls, 200),
    (Kind::WebServer, 100),
    (Kind::Locked, 100),
    (Kind::Dead, 11_200),
    (Kind::Hanging, 2_800),
];

/// A time in which verdicts could turn.
const LATER: Duration = Duration::from_secs(90);

/// Wrong verdicts of a kind that are shown.
const SHOWN: u32 = 3;

pub async fn run() -> anyhow::Result<()> {
    let bed = Bed::start(&MIX).await?;
    println!("first pass: {} proxies", bed.proxies.proxies().len());
    let gateway = bed.launch("").await?;
    gateway.wait_stats(|stats| stats["total_proxies"].as_u64() >= Some(15_000)).await?;
    let listed = gateway.begun.elapsed();
    let done = gateway.wait_stats(|stats| stats["untested_proxies"] == 0).await?;
    let (peak, cpu) = (gateway.memory("VmHWM")?, gateway.cpu());
    println!("  listed after {:.1} s, all judged after {:.1} s", listed.as_secs_f32(), done.as_secs_f32());
    println!("  memory at its peak {} MB, processor {cpu:.1} s", peak / 1024);
    println!("  {}", gateway.json("/stats").await?);
    compare(&bed.proxies.proxies(), &gateway.json("/list?format=json").await?);
    let long = |stats: &Value| stats["working_proxies"].as_u64().is_some();
    gateway.wait_stats(long).await?;
    let all = gateway
        .wait("/list?format=json", |got| {
            let list: Value = serde_json::from_slice(&got.body).unwrap_or_default();
            list.as_array().is_some_and(|all| all.iter().all(|one| one["reliability"].is_number()))
        })
        .await?;
    println!("  long tests over after {:.1} s, memory {} MB", all.as_secs_f32(), gateway.memory("VmHWM")? / 1024);
    compare(&bed.proxies.proxies(), &gateway.json("/list?format=json").await?);
    // By then those who failed were tested thrice, and whoever changes pages is sentenced.
    tokio::time::sleep(LATER).await;
    println!("  {LATER:?} later: {}", gateway.json("/stats").await?);
    compare(&bed.proxies.proxies(), &gateway.json("/list?format=json").await?);
    Ok(())
}

/// What should be said of a proxy; nothing, if it should not be listed.
fn truth(proxy: &Proxy) -> Option<String> {
    let anonymity = match (proxy.kind, proxy.protocol) {
        (Kind::Transparent, Protocol::Http) => "transparent",
        (Kind::Anonymous, Protocol::Http) => "anonymous",
        (Kind::Good | Kind::NoConnect | Kind::Transparent | Kind::Anonymous, _) => "elite",
        _ => return None,
    };
    let tunnels = proxy.kind != Kind::NoConnect;
    let country = if proxy.country == "ZZ" { "-" } else { proxy.country };
    Some(format!("{anonymity} {tunnels} {tunnels} {country} {}", proxy.address.ip()))
}

fn said(shown: &Value) -> String {
    let text = |key: &str| shown[key].as_str().unwrap_or("-").to_owned();
    let (connect, https) = (&shown["connect"], &shown["https"]);
    format!("{} {connect} {https} {} {}", text("anonymity"), text("country"), text("exit_ip"))
}

fn compare(proxies: &[&Proxy], list: &Value) {
    let list = list.as_array().cloned().unwrap_or_default();
    let shown: BTreeMap<&str, String> = list.iter().map(|one| (one["url"].as_str().unwrap_or(""), said(one))).collect();
    let mut kinds: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for proxy in proxies {
        let (right, all) = kinds.entry(format!("{:?}", proxy.kind)).or_default();
        *all += 1;
        let (want, got) = (truth(proxy), shown.get(proxy.url().as_str()).cloned());
        if want == got {
            *right += 1;
        } else if *all - *right <= SHOWN {
            wrong.push(format!("{:?} {}: {want:?}, said {got:?}", proxy.kind, proxy.url()));
        }
    }
    let words: Vec<_> = kinds.iter().map(|(kind, (right, all))| format!("{kind} {right}/{all}")).collect();
    println!("  true verdicts: {}", words.join(", "));
    wrong.iter().for_each(|wrong| println!("    {wrong}"));
}
