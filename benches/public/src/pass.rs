//! The first pass over twenty thousand proxies, and whether each verdict agrees with what was planted.

use std::collections::BTreeMap;
use std::time::Duration;

use exitgate_testnet::public::{Kind, Protocol, Proxy};
use serde_json::Value;

use crate::fakes::{Fakes, wait_for, wait_for_stats};

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

/// A pause in which verdicts could change.
const LATER: Duration = Duration::from_secs(90);

/// How many wrong verdicts of each kind are printed.
const SHOWN: u32 = 3;

pub async fn run() -> anyhow::Result<()> {
    let fakes = Fakes::start(&MIX).await?;
    println!("first pass: {} proxies", fakes.proxies.proxies().len());
    let gateway = fakes.launch("").await?;
    wait_for_stats(&gateway, |stats| stats["total_proxies"].as_u64() >= Some(15_000)).await?;
    let listed = gateway.begun.elapsed();
    let done = wait_for_stats(&gateway, |stats| stats["untested_proxies"] == 0).await?;
    let (peak, cpu) = (gateway.status("VmHWM")?, gateway.cpu());
    println!("  listed after {:.1} s, all tested after {:.1} s", listed.as_secs_f32(), done.as_secs_f32());
    println!("  memory at its peak {} MB, processor {cpu:.1} s", peak / 1024);
    println!("  {}", gateway.json("/stats").await?);
    compare(&fakes.proxies.proxies(), &gateway.json("/list?format=json").await?);
    let long = |stats: &Value| stats["working_proxies"].as_u64().is_some();
    wait_for_stats(&gateway, long).await?;
    let all = wait_for(&gateway, "/list?format=json", |answer| {
        answer.json().as_array().is_some_and(|all| all.iter().all(|one| one["reliability"].is_number()))
    })
    .await?;
    println!("  long tests over after {:.1} s, memory {} MB", all.as_secs_f32(), gateway.status("VmHWM")? / 1024);
    compare(&fakes.proxies.proxies(), &gateway.json("/list?format=json").await?);
    // By then proxies that failed were tested three times, and those that change pages are condemned.
    tokio::time::sleep(LATER).await;
    println!("  {LATER:?} later: {}", gateway.json("/stats").await?);
    compare(&fakes.proxies.proxies(), &gateway.json("/list?format=json").await?);
    Ok(())
}

/// What the list should say of a proxy; nothing, if it should not be listed.
fn expected(proxy: &Proxy) -> Option<String> {
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

fn listed(shown: &Value) -> String {
    let text = |key: &str| shown[key].as_str().unwrap_or("-").to_owned();
    let (connect, https) = (&shown["connect"], &shown["https"]);
    format!("{} {connect} {https} {} {}", text("anonymity"), text("country"), text("exit_ip"))
}

fn compare(proxies: &[&Proxy], list: &Value) {
    let list = list.as_array().cloned().unwrap_or_default();
    let shown: BTreeMap<&str, String> =
        list.iter().map(|one| (one["url"].as_str().unwrap_or(""), listed(one))).collect();
    let mut kinds: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for proxy in proxies {
        let (right, all) = kinds.entry(format!("{:?}", proxy.kind)).or_default();
        *all += 1;
        let (want, got) = (expected(proxy), shown.get(proxy.url().as_str()).cloned());
        if want == got {
            *right += 1;
        } else if *all - *right <= SHOWN {
            wrong.push(format!("{:?} {}: expected {want:?}, listed {got:?}", proxy.kind, proxy.url()));
        }
    }
    let words: Vec<_> = kinds.iter().map(|(kind, (right, all))| format!("{kind} {right}/{all}")).collect();
    println!("  right verdicts: {}", words.join(", "));
    wrong.iter().for_each(|wrong| println!("    {wrong}"));
}
