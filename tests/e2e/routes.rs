//! What a username asks for is what the target sees.

use std::collections::{BTreeMap, BTreeSet};

use exitgate_testnet::Testbed;

use crate::gateway::{Gateway, Got, until};

/// The outbound addresses of the network's exits, by country.
fn by_country(bed: &Testbed) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for exit in bed.network.exits() {
        found.entry(exit.outbound_country.clone()).or_default().insert(exit.outbound.to_string());
    }
    found
}

fn seen(got: &Got) -> String {
    assert_eq!(got.status, 200, "{} {}", got.body, got.errors);
    assert_eq!(
        got.headers.get("x-exitgate-exit-ip"),
        Some(&got.body),
        "the answer names another exit than the site saw"
    );
    got.body.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_username_says_the_way() {
    let bed = Testbed::start().await.unwrap();
    let gateway = Gateway::start(&bed, "").await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let (countries, page) = (by_country(&bed), bed.web.http("echo.test", "/ip"));

    let mut us = BTreeSet::new();
    for _ in 0..30 {
        us.insert(seen(&gateway.get("us", &page).await));
    }
    assert_eq!(us, countries["US"], "us: every US address and no other");

    for _ in 0..20 {
        let ip = seen(&gateway.get("nonus", &page).await);
        assert!(!countries["US"].contains(&ip), "nonus left from {ip}");
    }
    for (username, country) in [("de", "DE"), ("fr", "FR"), ("country-nl", "NL"), ("ca", "CA")] {
        let ip = seen(&gateway.get(username, &page).await);
        assert!(countries[country].contains(&ip), "{username} left from {ip}");
    }

    let strict = seen(&gateway.get("us-strict", &page).await);
    let session = seen(&gateway.get("any-session-cart42", &page).await);
    for _ in 0..15 {
        assert_eq!(seen(&gateway.get("us-strict", &page).await), strict);
        assert_eq!(seen(&gateway.get("any-session-cart42", &page).await), session);
    }

    let exit = bed.network.relay("fr1");
    let by_print = gateway.get(&format!("any-exit-{}", exit.fingerprint), &page).await;
    assert_eq!(seen(&by_print), exit.outbound.to_string());

    let refuser = bed.network.relay("no443");
    let plain = gateway.get("ch", &page).await;
    assert_eq!(seen(&plain), refuser.outbound.to_string());
    let secure = gateway.get("ch", &bed.web.https("echo.test", "/ip")).await;
    assert_eq!((secure.code, secure.status), (56, 503), "its policy refuses 443: {}", secure.errors);

    for (username, status, hint) in [
        ("jp", 503, "no exit"),
        ("us-strcit", 400, "strcit"),
        ("us-strict-rotate", 400, "rotate"),
        ("nowhere", 400, "nowhere"),
    ] {
        let got = gateway.get(username, &page).await;
        assert_eq!(got.status, status, "{username}: {} {}", got.body, got.errors);
        let said = got.headers.get("x-exitgate-error").cloned().unwrap_or_default().to_lowercase();
        assert!(said.contains(hint), "{username}: {said}");
        assert!(got.headers.contains_key("proxy-status"), "{username}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_has_a_port_of_its_own() {
    let bed = Testbed::start().await.unwrap();
    let more = r#"
[[routes]]
name = "shop"
selector = "us"
port = 20001
pool = 3

[[routes]]
name = "one"
selector = "us-strict"
port = 20002
"#;
    let gateway = Gateway::start(&bed, more).await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let (countries, page) = (by_country(&bed), bed.web.http("echo.test", "/ip"));
    let through = |port: u16| {
        let (via, page) = (format!("socks5h://{}", gateway.port(port)), page.clone());
        async move { crate::gateway::curl(&["-x", &via, &page]).await }
    };
    let mut spread = BTreeMap::new();
    for _ in 0..60 {
        let got = through(20001).await;
        *spread.entry(got.body).or_insert(0) += 1;
    }
    assert_eq!(spread.keys().cloned().collect::<BTreeSet<_>>(), countries["US"], "{spread:?}");
    let pinned = through(20002).await.body;
    for _ in 0..10 {
        assert_eq!(through(20002).await.body, pinned);
        assert_eq!(gateway.get("one", &page).await.body, pinned, "the route's name is a username too");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_promised_outlives_a_restart_and_a_dead_exit_is_said() {
    let bed = Testbed::start().await.unwrap();
    let page = bed.web.http("echo.test", "/ip");
    let mut gateway = Gateway::start(&bed, "gateway.repin_after = \"never\"").await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let strict = seen(&gateway.get("us-strict", &page).await);
    let session = seen(&gateway.get("nonus-session-a", &page).await);
    gateway.signal("TERM");
    assert_eq!(gateway.ended().await.code(), Some(0));

    let gateway = Gateway::start(&bed, "gateway.repin_after = \"never\"").await;
    gateway.wait_tested(3).await;
    assert_eq!(seen(&gateway.get("us-strict", &page).await), strict, "the pin did not survive");
    assert_eq!(seen(&gateway.get("nonus-session-a", &page).await), session, "the session did not survive");

    let exits = bed.network.exits();
    let pinned = exits.iter().find(|exit| exit.outbound.to_string() == strict).unwrap();
    bed.network.kill(&pinned.name).await.unwrap();
    let refused = until(|| gateway.get("us-strict", &page), |got| got.status != 200).await;
    assert!(matches!(refused.status, 502..=504), "{} {}", refused.status, refused.body);
    for _ in 0..5 {
        let got = gateway.get("us-strict", &page).await;
        assert_ne!(got.status, 200, "strict left from {} while its exit is dead", got.body);
    }
    for _ in 0..10 {
        let got = until(|| gateway.get("us", &page), |got| got.status == 200).await;
        assert_ne!(seen(&got), strict);
    }
}
