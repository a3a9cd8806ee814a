//! What is done to routes while they carry traffic: changed, rotated, reported, watched, cut.

use std::process::Stdio;

use exitgate_testnet::Testbed;
use serde_json::Value;

use crate::gateway::{Gateway, Got, curl, until};

fn json(got: &Got) -> Value {
    serde_json::from_str(&got.body).unwrap_or_else(|_| panic!("no JSON: {} {} {}", got.status, got.body, got.errors))
}

async fn patch(gateway: &Gateway, path: &str, body: &str) -> Got {
    gateway.ask(&["-X", "PATCH", "-H", "Content-Type: application/json", "-d", body], path).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_changed_rotated_and_reported_while_it_is_used() {
    let bed = Testbed::start().await.unwrap();
    let gateway = Gateway::start(&bed, "").await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let page = bed.web.http("echo.test", "/ip");
    let made = gateway.post("/proxies", r#"{"selector": "us", "mode": "strict", "name": "shop", "port": 20005}"#).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let via = |port: u16| format!("http://{}", gateway.port(port));
    let first = curl(&["-x", &via(20005), &page]).await.body;

    // Rotate: the answer names both, and it is in force.
    let turned = json(&gateway.post("/proxies/shop/rotate", "{}").await);
    assert_eq!(
        (&turned["before"], turned["exit"]["country"].as_str()),
        (&first.as_str().into(), Some("US")),
        "{turned}"
    );
    let second = curl(&["-x", &via(20005), &page]).await.body;
    assert!(second != first && turned["after"] == second.as_str(), "{first} {second} {turned}");
    let last = json(&gateway.api("/proxies/20005/last").await);
    assert_eq!((&last["by"], &last["ip"]), (&"pin".into(), &second.as_str().into()), "{last}");

    // A session of a username that is no route: used, found, rotated, found elsewhere.
    let session = gateway.get("nonus-session-cart42", &page).await.body;
    let last = json(&gateway.api("/proxies/nonus/last?session=cart42").await);
    assert_eq!((&last["by"], &last["ip"]), (&"session".into(), &session.as_str().into()), "{last}");
    let turned = json(&gateway.post("/proxies/nonus-session-cart42/rotate", "").await);
    assert_eq!(turned["before"], session.as_str(), "{turned}");
    assert_eq!(turned["after"], gateway.get("nonus-session-cart42", &page).await.body.as_str());
    assert_eq!(gateway.api("/proxies/nonus/last?session=nobody").await.status, 404);

    // A report bans the exit for that site, and nothing else.
    let body = r#"{"site": "echo.test", "session": "cart42", "outcome": "captcha"}"#;
    let ban = json(&gateway.post("/proxies/nonus/report", body).await);
    assert_eq!((&ban["site"], &ban["exit"]), (&"echo.test".into(), &turned["exit"]["id"]), "{ban}");
    let shown = json(&gateway.api(&format!("/exits/{}", ban["exit"].as_str().unwrap())).await);
    assert_eq!(shown["bans"][0]["site"], "echo.test", "{shown}");
    assert_ne!(gateway.get("nonus-session-cart42", &page).await.body, turned["after"].as_str().unwrap());
    let unsaid = gateway.post("/proxies/us/report", r#"{"site": "echo.test"}"#).await;
    assert_eq!((unsaid.status, &json(&unsaid)["error"]["details"]["field"]), (422, &"exit".into()), "{}", unsaid.body);

    // There is one exit in France: nothing to rotate to. It may be the one that was reported just now, at that site.
    let page = bed.web.http("ip.test", "/ip");
    assert_eq!(gateway.get("fr-strict", &page).await.status, 200);
    let stuck = gateway.post("/proxies/fr-strict/rotate", "{}").await;
    assert_eq!((stuck.status, &json(&stuck)["error"]["code"]), (409, &"no_other_exit".into()), "{}", stuck.body);

    // Another selector and port: the pin of the old one is gone, the old port is free.
    let changed = json(&patch(&gateway, "/proxies/shop", r#"{"selector": "fr", "port": 20006, "ttl": "1h"}"#).await);
    assert_eq!((&changed["selector"], &changed["port"]), (&"fr-strict".into(), &20006.into()), "{changed}");
    assert!(changed["expires"].is_string() && changed["exit"].is_null(), "{changed}");
    assert_eq!(curl(&["-x", &via(20006), &page]).await.body, bed.network.relay("fr1").outbound.to_string());
    assert_eq!(curl(&["-x", &via(20005), &page]).await.code, 7, "the old port is closed");
    let refused = patch(&gateway, "/proxies/shop", r#"{"selector": "jp"}"#).await;
    assert_eq!((refused.status, &json(&refused)["error"]["code"]), (409, &"no_exit".into()), "{}", refused.body);

    let shown = json(&gateway.api("/proxies/shop").await);
    assert!(shown["live"]["requests"].as_u64() >= Some(3) && shown["live"]["bytes_down"].as_u64() > Some(0), "{shown}");
    let env = gateway.api("/proxies/shop?format=env").await;
    assert!(env.body.contains(&format!("ALL_PROXY=socks5h://{}", gateway.port(20006))), "{}", env.body);
    let pac = gateway.api("/proxy.pac?route=shop").await;
    assert!(pac.body.contains(&format!("SOCKS5 {}", gateway.port(20006))), "{}", pac.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn open_tunnels_outlive_a_patch_are_listed_and_can_be_cut() {
    let bed = Testbed::start().await.unwrap();
    let gateway = Gateway::start(&bed, "").await;
    gateway.wait_tested(bed.network.exits().len()).await;
    assert_eq!(gateway.post("/proxies", r#"{"selector": "us", "name": "long", "port": 20007}"#).await.status, 201);
    let slow = bed.web.http("echo.test", "/slow/600");
    let long = tokio::process::Command::new("curl")
        .args(["-sS", "--max-time", "60", "-x", &format!("socks5h://{}", gateway.port(20007)), &slow])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let streams = |got: &Got| {
        json(got)["connections"].as_array().is_some_and(|all| all.iter().any(|one| one["streaming"] == true))
    };
    let list = json(&until(|| gateway.api("/connections?route=long"), streams).await);
    let one = &list["connections"][0];
    assert_eq!(
        (&one["protocol"], &one["listener"], &one["target"]),
        (&"socks5".into(), &"long".into(), &one["target"])
    );
    assert!(one["exit_ip"].is_string() && one["target"].as_str().unwrap().starts_with("echo.test:"), "{list}");

    let moved = patch(&gateway, "/proxies/long", r#"{"selector": "nonus", "port": 20008, "pool": 2}"#).await;
    assert_eq!(moved.status, 200, "{}", moved.body);
    let after = json(&gateway.api("/connections").await);
    assert_eq!(
        (&after["connections"][0]["id"], &after["connections"][0]["streaming"]),
        (&one["id"], &true.into()),
        "{after}"
    );

    let path = format!("/connections/{}", one["id"]);
    assert_eq!(gateway.ask(&["-X", "DELETE"], &path).await.status, 202);
    let none = until(|| gateway.api("/connections"), |got: &Got| json(got)["total"] == 0).await;
    assert_eq!(json(&none)["total"], 0, "{}", none.body);
    assert_eq!(gateway.ask(&["-X", "DELETE"], &path).await.status, 404);
    drop(long);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_says_how_many_addresses_it_has_and_lists_have_tags() {
    let bed = Testbed::start().await.unwrap();
    let gateway = Gateway::start(&bed, "").await;
    let exits = bed.network.exits().len();
    gateway.wait_tested(exits).await;
    let got = gateway.post("/proxies", r#"{"geo_category": "ANY", "count": 40, "name": "w"}"#).await;
    let batch = json(&got);
    assert_eq!((got.status, &batch["total"], &batch["wanted"]), (201, &40.into(), &40.into()), "{}", got.errors);
    let have = batch["have"].as_u64().unwrap() as usize;
    assert!(have > 3 && have <= exits, "{have} of {exits}");

    let list = gateway.api("/proxies?limit=3&after=w-10&name=w-&origin=api").await;
    let names: Vec<_> = json(&list)["proxies"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!((names, &json(&list)["next"]), (vec!["w-11".into(), "w-12".into(), "w-13".into()], &"w-13".into()));
    let tag = &list.headers["etag"];
    let again =
        gateway.ask(&["-H", &format!("If-None-Match: {tag}")], "/proxies?limit=3&after=w-10&name=w-&origin=api").await;
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    let numbered = gateway.ask(&["-H", "X-Request-Id: job-7"], "/health").await;
    assert_eq!(numbered.headers["x-request-id"], "job-7");
}
