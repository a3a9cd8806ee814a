//! What a route promises, held to it by hundreds of connections.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use exitgate_testnet::layout::ExitSpec;
use exitgate_testnet::{Options, Testbed};
use serde_json::Value;

use crate::gateway::{Gateway, until};
use crate::parallel_requests::{Ask, WAYS, Way, send_many, tally};

/// Where every request of a test goes.
fn ask(bed: &Testbed, gateway: &Gateway, port: u16) -> Ask {
    Ask { at: gateway.port(port), user: None, host: "echo.test".into(), port: bed.web.http_port() }
}

fn as_user(bed: &Testbed, gateway: &Gateway, user: &str) -> Ask {
    Ask { user: Some(user.into()), ..ask(bed, gateway, 1080) }
}

fn addresses(bed: &Testbed, country: &str) -> BTreeSet<String> {
    let exits = bed.network.exits().into_iter().filter(|exit| exit.outbound_country == country);
    exits.map(|exit| exit.outbound.to_string()).collect()
}

/// The events of one kind so far.
async fn events(gateway: &Gateway, kind: &str) -> Vec<Value> {
    let told = gateway.ask(&["-m", "1", "-H", "Last-Event-ID: 0"], "/events").await.body;
    let wanted = format!("event: {kind}");
    let mut lines = told.lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if line == wanted {
            found.push(serde_json::from_str(lines.next().unwrap().strip_prefix("data: ").unwrap()).unwrap());
        }
    }
    found
}

/// How long a pin waits for its exit in the test of it.
const REPIN_AFTER: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_route_has_one_address_and_says_when_it_moves() {
    let bed = Testbed::start().await.unwrap();
    let route = "[[routes]]\nname = \"us-one\"\nselector = \"us-strict\"\nport = 20001\nrepin_after = \"4s\"\n";
    let gateway = Gateway::start(&bed, route).await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let ask = ask(&bed, &gateway, 20001);
    let answers = send_many(&ask, 1000, 50, |n| WAYS[n % 3]).await;
    let seen = tally(&answers);
    assert_eq!((seen.len(), answers.len()), (1, 1000), "{seen:?}");
    let first = seen.into_keys().next().unwrap();

    let exit = bed.network.exit_at(first.parse().unwrap()).unwrap().name.clone();
    bed.network.kill(&exit).await.unwrap();
    let killed = Instant::now();
    let (mut refused, mut moved) = (0, None);
    while moved.is_none() {
        assert!(killed.elapsed() < Duration::from_secs(60), "the pin does not move: {}", gateway.log());
        for way in WAYS {
            match ask.by(way).await.seen {
                Ok(ip) => {
                    assert_ne!(ip, first, "the exit is dead");
                    assert!(killed.elapsed() >= REPIN_AFTER, "moved to {ip} after {:?}", killed.elapsed());
                    moved = Some(ip);
                }
                Err(why) => {
                    refused += 1;
                    let clear = ["50", "socks 1", "socks 3", "socks 4"].iter().any(|begins| why.starts_with(begins));
                    assert!(clear && !why.contains("no reason given"), "{way:?}: {why}");
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(refused >= 3, "{refused}");
    let moved = moved.unwrap();
    assert!(addresses(&bed, "US").contains(&moved), "{moved}");
    let told = until(|| events(&gateway, "pin.moved"), |told| !told.is_empty()).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["from"]["ip"], &told[0]["to"]["ip"]), (&first.into(), &moved.clone().into()), "{told:?}");
    let seen = tally(&send_many(&ask, 60, 20, |n| WAYS[n % 3]).await);
    assert_eq!(seen.into_keys().collect::<Vec<_>>(), [moved]);
}

/// Six exits in the US and two elsewhere.
fn six_in_the_us() -> Options {
    let mut exits: Vec<_> = (1..=6).map(|n| ExitSpec::new(&format!("us{n}"), "US")).collect();
    exits.extend([ExitSpec::new("de1", "DE"), ExitSpec::new("split", "US").leaving_from("CA")]);
    Options { exits, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_of_three_is_three_addresses_used_evenly_and_nonus_is_not_us() {
    let bed = Testbed::start_with(six_in_the_us()).await.unwrap();
    let routes = "[[routes]]\nname = \"shop\"\nselector = \"us\"\nport = 20001\npool = 3\n\
                  [[routes]]\nname = \"away\"\nselector = \"nonus\"\nport = 20002\n";
    let gateway = Gateway::start(&bed, routes).await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let us = addresses(&bed, "US");
    let seen = tally(&send_many(&ask(&bed, &gateway, 20001), 2000, 24, |n| WAYS[n % 3]).await);
    assert!(seen.len() == 3 && seen.keys().all(|ip| us.contains(ip)), "{seen:?}");
    let even = 2000.0 / 3.0;
    for (ip, count) in &seen {
        let off = (*count as f64 - even).abs() / even;
        assert!(off <= 0.15, "{ip} is {:.0} % off: {seen:?}", off * 100.0);
    }
    let away = tally(&send_many(&ask(&bed, &gateway, 20002), 300, 24, |n| WAYS[n % 3]).await);
    let elsewhere: BTreeSet<_> = addresses(&bed, "DE").union(&addresses(&bed, "CA")).cloned().collect();
    assert_eq!(away.keys().cloned().collect::<BTreeSet<_>>(), elsewhere, "{away:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_stays_whoever_comes_or_goes() {
    let bed = Testbed::start_with(six_in_the_us()).await.unwrap();
    bed.network.kill("us6").await.unwrap();
    let more = "gateway.repin_after = \"never\"";
    let mut gateway = Gateway::start(&bed, more).await;
    gateway.wait_tested(bed.network.exits().len() - 1).await;
    let session = as_user(&bed, &gateway, "us-session-x");
    let mut seen = tally(&send_many(&session, 50, 10, |_| Way::Socks5).await);
    let home = seen.keys().next().unwrap().clone();

    bed.network.respawn("us6").await.unwrap();
    let joined = format!("/exits/{}/check", bed.network.relay("us6").fingerprint);
    let good = |got: &crate::gateway::Got| got.body.contains("\"verdict\":\"good\"");
    let got = until(|| gateway.post(&joined, ""), good).await;
    assert!(good(&got), "us6 does not join: {}", got.body);
    seen.extend(tally(&send_many(&session, 50, 10, |_| Way::Socks5).await));

    let exits = bed.network.exits();
    let other = exits.iter().find(|exit| exit.name.starts_with("us") && exit.outbound.to_string() != home).unwrap();
    bed.network.kill(&other.name).await.unwrap();
    tally(&send_many(&as_user(&bed, &gateway, "us"), 60, 10, |_| Way::Socks5).await);
    seen.extend(tally(&send_many(&session, 50, 10, |_| Way::Socks5).await));

    gateway.signal("TERM");
    assert_eq!(gateway.ended().await.code(), Some(0));
    let gateway = Gateway::start(&bed, more).await;
    let session = as_user(&bed, &gateway, "us-session-x");
    until(|| session.by(Way::Socks5), |answer| answer.seen.is_ok()).await;
    seen.extend(tally(&send_many(&session, 50, 10, |_| Way::Socks5).await));
    assert_eq!(seen.into_keys().collect::<Vec<_>>(), [home]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_with_two_families_shows_no_address_that_nobody_checked() {
    let options = Options { exit_lines: vec!["IPv6Exit 1".into()], ..Options::default() };
    let bed = Testbed::start_with(options).await.unwrap();
    let gateway = Gateway::start(&bed, "[[routes]]\nname = \"all\"\nselector = \"any\"\nport = 20001\n").await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let dual = Ask { host: "dual.test".into(), port: bed.web.dual_port(), ..ask(&bed, &gateway, 20001) };
    let seen = tally(&send_many(&dual, 90, 10, |n| WAYS[n % 3]).await);
    for ip in seen.keys() {
        let checked = ip.parse::<Ipv4Addr>().is_ok_and(|ip| bed.network.exit_at(ip).is_some());
        assert!(checked, "seen from {ip}");
    }
    assert!(seen.len() > 3, "{seen:?}");
    let literal = Ask { host: "[::1]".into(), ..dual };
    for way in [Way::Connect, Way::Plain] {
        assert!(literal.by(way).await.seen.is_err(), "{way:?}");
    }
    assert!(bed.web.seen().iter().all(|seen| matches!(seen.source.ip(), IpAddr::V4(_))));
}

/// A route with one rule of each kind, and the route to which one of them leads.
const RULES: &str = r#"
gateway.allow_direct = true
gateway.allow_private_targets = true
[[routes]]
name = "shop"
selector = "us"
port = 20001
[[routes.rules]]
host = ["*.DE.test.", "10.0.0.0/8"]
use = "de"
[[routes.rules]]
host = "one.test"
use = "us-strict"
[[routes.rules]]
host = ".dear.test"
route = "dear"
[[routes.rules]]
host = "bad.test"
refuse = true
[[routes.rules]]
host = "HOME"
direct = true
[[routes]]
name = "dear"
selector = "ca"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn rules_send_each_site_through_its_own_exits() {
    let bed = Testbed::start_with(six_in_the_us()).await.unwrap();
    // This machine resolves no name of the test network, so the rule for direct connections names an address.
    let home = bed.web.ip().to_string();
    let gateway = Gateway::start(&bed, &RULES.replace("HOME", &home)).await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let to = |host: &str| Ask { host: host.into(), ..ask(&bed, &gateway, 20001) };
    let seen = async |host: &str| -> BTreeSet<String> {
        tally(&send_many(&to(host), 30, 10, |n| WAYS[n % 3]).await).into_keys().collect()
    };
    let (us, de, ca) = (addresses(&bed, "US"), addresses(&bed, "DE"), addresses(&bed, "CA"));
    let (other, one) = (seen("echo.test").await, seen("one.test").await);
    assert!(other.is_subset(&us) && other.len() > 1, "{other:?}");
    assert!(one.is_subset(&us) && one.len() == 1, "a rule can be strict: {one:?}");
    assert_eq!(
        [seen("www.de.test").await, seen("x.dear.test").await, seen("dear.test").await],
        [de.clone(), ca.clone(), ca]
    );
    let home = seen(&home).await;
    assert!(
        home.len() == 1 && bed.network.exits().iter().all(|exit| !home.contains(&exit.outbound.to_string())),
        "{home:?}"
    );
    for way in WAYS {
        let why = to("bad.test").by(way).await.seen.unwrap_err();
        assert!(
            why.contains("rule 4 of the route `shop` refuses this target") || why.starts_with("socks"),
            "{way:?}: {why}"
        );
    }

    let why = gateway.ask(&[], "/explain?username=shop&host=www.de.test").await.body;
    let why: Value = serde_json::from_str(&why).unwrap();
    assert_eq!(why["rules"][0]["rule"], "*.de.test,10.0.0.0/8 use de", "{why}");
    assert_eq!((&why["selector"], &why["route"]), (&"de".into(), &"shop".into()), "{why}");
    let shown: Value = serde_json::from_str(&gateway.ask(&[], "/proxies/shop").await.body).unwrap();
    assert_eq!((&shown["rule_count"], &shown["rules"][2]["route"]), (&5.into(), &"dear".into()), "{shown}");
    let log = gateway.log();
    assert!(
        log.contains("rule=\"shop#1\"") || log.contains("\"rule\":\"shop#1\""),
        "no access line names the rule: {log}"
    );

    // A route of the API may lead to a route of the configuration. Its rules are changed while it is used.
    let made = gateway
        .post(
            "/proxies",
            r#"{"name": "mine", "selector": "us", "port": 20005, "rules": [{"host": "a.test", "route": "dear"}]}"#,
        )
        .await;
    assert_eq!(made.status, 201, "{}", made.body);
    let mine = Ask { host: "a.test".into(), ..ask(&bed, &gateway, 20005) };
    let before = mine.by(Way::Socks5).await.seen.unwrap();
    assert!(addresses(&bed, "CA").contains(&before), "{before}");
    let circle = gateway
        .post("/proxies", r#"{"name": "loop", "selector": "us", "rules": [{"host": "*", "route": "loop"}]}"#)
        .await;
    assert_eq!((circle.status, circle.body.contains("loop -> loop")), (422, true), "{}", circle.body);
    let args = [
        "-X",
        "PATCH",
        "-H",
        "Content-Type: application/json",
        "-d",
        r#"{"rules": [{"port": "1-65535", "use": "de"}]}"#,
    ];
    let patched = gateway.ask(&args, "/proxies/mine").await;
    assert_eq!(patched.status, 200, "{}", patched.body);
    assert!(de.contains(&mine.by(Way::Socks5).await.seen.unwrap()), "the new rule does not apply");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_bans_an_exit_for_a_while_and_lifts_the_ban() {
    let bed = Testbed::start_with(six_in_the_us()).await.unwrap();
    let gateway = Gateway::start(&bed, "[[routes]]\nname = \"german\"\nselector = \"de\"\nport = 20001\n").await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let german = ask(&bed, &gateway, 20001);
    let address = german.by(Way::Socks5).await.seen.unwrap();
    let body = format!(r#"{{"site": "www.echo.test", "exit": "{address}", "for": "2h", "why": "captcha"}}"#);
    let made = gateway.post("/bans", &body).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let refused = german.by(Way::Socks5).await.seen.unwrap_err();
    assert!(refused.starts_with("socks 3"), "the only German exit is banned: {refused}");
    let other = Ask { host: "other-site.test".into(), ..ask(&bed, &gateway, 20001) };
    assert_eq!(other.by(Way::Socks5).await.seen.unwrap(), address, "other sites are not concerned");
    let listed: Value = serde_json::from_str(&gateway.ask(&[], "/bans?site=echo.test").await.body).unwrap();
    assert_eq!((&listed["total"], &listed["bans"][0]["ip"]), (&1.into(), &address.clone().into()), "{listed}");
    let lifted = gateway.ask(&["-X", "DELETE"], &format!("/bans/echo.test/{address}")).await;
    assert_eq!((lifted.status, lifted.body.contains("\"lifted\":1")), (200, true), "{}", lifted.body);
    assert_eq!(german.by(Way::Socks5).await.seen.unwrap(), address);
    assert_eq!(gateway.ask(&["-X", "DELETE"], "/bans/echo.test").await.status, 404);
}
