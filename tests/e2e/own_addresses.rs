//! Own addresses as exits: tested, pinned, and used by sessions; IPv4 on loopback, and an IPv6 prefix in a network
//! namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use exitgate_testnet::Sandbox;
use exitgate_testnet::web::Web;
use serde_json::Value;

use crate::gateway::{Gateway, curl, run, until};

/// Set in the process that runs inside the network namespace.
const INSIDE: &str = "EXITGATE_TEST_IN_NAMESPACE";

/// A gateway without Tor whose exits are own addresses, and the web that it reaches.
struct Bench {
    gateway: Gateway,
    web: Web,
    sandbox: Arc<Sandbox>,
}

/// The configuration. `echo` has the URLs of the echo servers.
fn config(sandbox: &Sandbox, bind: &[String], echo: &[String], more: &str) -> String {
    let ip = sandbox.ip(200, 1);
    format!(
        "data_dir = {data:?}\ngateway.listen = \"{ip}:1080\"\ngateway.route_bind = \"{ip}\"\napi.listen = \"{ip}:8080\"\n\
         gateway.allow_direct = true\ngateway.allow_private_targets = true\ntor.enabled = false\n\
         sources.direct.bind = {bind:?}\ncheck.echo = {echo:?}\ncheck.canary = [{canary:?}]\ncheck.per_second = 100.0\n\
         log.level = \"info,exitgate=debug\"\n{more}\n",
        data = sandbox.folder().join("data"),
        canary = echo[0].replace("/ip", "/bytes/64"),
    )
}

impl Bench {
    async fn start(sandbox: &Arc<Sandbox>, bind: &[String], echo: impl Fn(&Web) -> Vec<String>, more: &str) -> Self {
        let web = Web::start(sandbox).await.unwrap();
        let text = config(sandbox, bind, &echo(&web), more);
        let gateway = Gateway::launch_on(sandbox, sandbox.ip(200, 1), &text);
        Self { gateway, web, sandbox: sandbox.clone() }
    }

    /// The exits, by their address.
    async fn exits(&self) -> BTreeMap<String, Value> {
        let got = self.gateway.api("/exits?source=direct&limit=1000").await;
        let answer: Value = serde_json::from_str(&got.body).unwrap_or_default();
        let all = answer["exits"].as_array().into_iter().flatten().cloned();
        all.map(|exit| (exit["announced"][0].as_str().unwrap_or_default().to_owned(), exit)).collect()
    }

    /// Waits until this many exits are good.
    async fn wait_good(&self, wanted: usize) -> BTreeMap<String, Value> {
        let good = |all: &BTreeMap<String, Value>| all.values().filter(|exit| exit["verdict"] == "good").count();
        let all = until(|| self.exits(), |all| good(all) >= wanted).await;
        assert!(good(&all) >= wanted, "{all:#?}\n{}", self.gateway.log());
        all
    }

    /// The address that a page saw of a request with this username.
    async fn seen(&self, username: &str, url: &str) -> Result<String, String> {
        let got = self.gateway.get(username, url).await;
        if got.status == 200 { Ok(got.body.trim().to_owned()) } else { Err(format!("{} {}", got.status, got.body)) }
    }
}

/// The two addresses of the web count as two servers, so each of them confirms what the other saw.
fn echoes(web: &Web) -> Vec<String> {
    [web.ip(), web.other_ip()].iter().map(|ip| format!("http://{ip}:{}/ip", web.http_port())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_own_address_is_an_exit_that_is_tested_and_pinned() {
    let sandbox = Sandbox::claim().unwrap();
    let single = sandbox.ip(201, 7).to_string();
    let network = format!("{}/28", sandbox.ip(202, 0));
    // An address that this machine does not have: a TEST-NET address, to which nothing is sent.
    let foreign = "192.0.2.254".to_owned();
    let bind = [single.clone(), network, foreign.clone()];
    let bench = Bench::start(&sandbox, &bind, echoes, "sources.direct.per_network = 6").await;
    let url = format!("http://{}:{}/ip", bench.web.ip(), bench.web.http_port());

    let all = bench.wait_good(7).await;
    assert_eq!(all.len(), 8, "one address, six of the network, and the foreign one: {all:#?}");
    for (ip, exit) in all.iter().filter(|(ip, _)| **ip != foreign) {
        assert_eq!((exit["ip"].as_str(), exit["usable"].as_bool()), (Some(&**ip), Some(true)), "{exit}");
        assert_eq!(exit["id"], format!("direct://{ip}"));
        assert_eq!(bench.seen(exit["username"].as_str().unwrap(), &url).await.as_ref(), Ok(ip));
    }
    let log = bench.gateway.log();
    assert!(log.contains("from which no connection can leave") && log.contains(&foreign), "{log}");
    let bad = until(|| bench.exits(), |all| all[&foreign]["verdict"] == "bad").await;
    assert_eq!((&bad[&foreign]["verdict"], &bad[&foreign]["usable"]), (&"bad".into(), &false.into()), "{bad:#?}");

    // Sessions keep their address, and different sessions have different ones. So do pins, also after a restart.
    let mut sessions = BTreeSet::new();
    for n in 0..12 {
        let username = format!("any-source-direct-session-s{n}");
        let first = bench.seen(&username, &url).await.unwrap();
        assert_eq!(bench.seen(&username, &url).await.as_ref(), Ok(&first), "session {n}");
        sessions.insert(first);
    }
    assert!(sessions.len() >= 3, "{sessions:?}");
    let strict = |n: usize| format!("any-source-direct-strict-session-p{n}");
    let mut pins = Vec::new();
    for n in 0..7 {
        pins.push(bench.seen(&strict(n), &url).await.unwrap());
    }
    assert_eq!(pins.iter().collect::<BTreeSet<_>>().len(), 7, "each pin has an address of its own: {pins:?}");
    let mut rotated = BTreeSet::new();
    for _ in 0..6 {
        rotated.insert(bench.seen("any-source-direct-rotate", &url).await.unwrap());
    }
    assert!(rotated.len() >= 3, "{rotated:?}");

    let Bench { mut gateway, web, sandbox } = bench;
    gateway.signal("TERM");
    gateway.ended().await;
    let text = config(&sandbox, &bind, &echoes(&web), "sources.direct.per_network = 6");
    let gateway = Gateway::launch_on(&sandbox, sandbox.ip(200, 1), &text);
    let bench = Bench { gateway, web, sandbox: sandbox.clone() };
    bench.gateway.wait_ready().await;
    for (n, ip) in pins.iter().enumerate() {
        assert_eq!(bench.seen(&strict(n), &url).await.as_ref(), Ok(ip), "pin {n} after a restart");
    }

    // A check by the API, and a rotation of a pin, use the same tester.
    let id = format!("direct:%2F%2F{single}");
    let checked = bench.gateway.post(&format!("/exits/{id}/check"), "").await;
    assert_eq!(serde_json::from_str::<Value>(&checked.body).unwrap()["verdict"], "good", "{}", checked.body);
    let proxy = format!("http://{}@{}", strict(0), bench.gateway.addr());
    let rotated = curl(&["-x", &proxy, "-X", "POST", "-H", "X-Exitgate: 1", "http://exit.gate/rotate"]).await;
    assert_eq!(rotated.status, 200, "{}", rotated.body);
    assert_ne!(bench.seen(&strict(0), &url).await.as_ref(), Ok(&pins[0]));
}

/// Runs this test again inside a network namespace that has the prefix, because a prefix cannot be made on the machine
/// itself without changing its network.
#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_prefix_serves_sessions_with_addresses_of_their_own() {
    if std::env::var_os(INSIDE).is_none() {
        let test = std::env::current_exe().unwrap();
        let name = "own_addresses::an_ipv6_prefix_serves_sessions_with_addresses_of_their_own";
        let script = format!(
            "ip link set lo up && ip -6 route add local 2001:db8:77::/48 dev lo && {INSIDE}=1 exec {test:?} --exact {name} --nocapture"
        );
        let ran = run("unshare", &["-rn", "sh", "-c", &script]).await;
        let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let sandbox = Sandbox::claim().unwrap();
    let bind = ["2001:db8:77::/48".to_owned()];
    let echo = |web: &Web| vec![format!("http://[::1]:{}/ip", web.dual_port())];
    let more =
        "sources.direct.per_network = 10\n[[routes]]\nname = \"six\"\nselector = \"any-source-direct\"\nipv6 = true\n";
    let bench = Bench::start(&sandbox, &bind, echo, more).await;
    let all = bench.wait_good(8).await;
    assert_eq!(all.len(), 10, "{all:#?}");
    let prefix = |ip: &str| ip.starts_with("2001:db8:77:");
    assert!(all.iter().all(|(ip, exit)| prefix(ip) && (exit["ip"].is_null() || exit["ip"] == **ip)), "{all:#?}");

    let url = format!("http://[::1]:{}/ip", bench.web.dual_port());
    let mut seen = BTreeSet::new();
    for n in 0..6 {
        let username = format!("six-strict-session-s{n}");
        let first = bench.seen(&username, &url).await.unwrap();
        assert!(prefix(&first) && all.contains_key(&first), "{first}");
        assert_eq!(bench.seen(&username, &url).await.as_ref(), Ok(&first), "session {n}");
        seen.insert(first);
    }
    assert_eq!(seen.len(), 6, "{seen:?}");

    // An IPv4 target cannot be reached from an IPv6 address, and the error says so.
    let four = format!("http://{}:{}/ip", bench.web.ip(), bench.web.http_port());
    let refused = bench.seen("six-strict-session-s0", &four).await.unwrap_err();
    assert!(refused.starts_with("502 ") && refused.contains("the exit does not allow the target"), "{refused}");
}
