//! The API of the shipped binary, asked by curl.

use exitgate_testnet::Testbed;
use serde_json::Value;

use crate::gateway::{Gateway, Got, until};

fn json(got: &Got) -> Value {
    serde_json::from_str(&got.body).unwrap_or_else(|_| panic!("no JSON: {} {} {}", got.status, got.body, got.errors))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_knows_can_be_read() {
    let bed = Testbed::start().await.unwrap();
    let gateway = Gateway::start(&bed, "").await;
    gateway.wait_tested(bed.network.exits().len()).await;

    let all = json(&gateway.api("/exits").await);
    assert_eq!(all["total"], bed.network.exits().len(), "{all}");
    let us = json(&gateway.api("/exits?country=us&usable=true&source=tor&limit=1").await);
    assert_eq!(us["exits"].as_array().unwrap().len(), 1);
    assert_eq!(us["exits"][0]["country"], "US");
    let fr = bed.network.relay("fr1");
    let one = json(&gateway.api(&format!("/exits/{}", fr.fingerprint)).await);
    assert_eq!((one["ip"].as_str(), one["usable"].as_bool()), (Some(&*fr.outbound.to_string()), Some(true)), "{one}");
    let checked = json(&gateway.post(&format!("/exits/{}/check", fr.fingerprint), "").await);
    assert_eq!((&checked["verdict"], &checked["ips"][0]), (&"good".into(), &fr.outbound.to_string().into()));

    let countries = json(&gateway.api("/countries").await);
    assert!(countries["countries"].as_array().unwrap().iter().any(|country| country["country"] == "FR"));
    let engines = json(&gateway.api("/engines").await);
    assert!(engines["engines"].as_array().unwrap().iter().any(|engine| engine["state"] == "ready"), "{engines}");
    let why = json(&gateway.api("/explain?username=us-strict&port=443").await);
    assert!(why["refused"].is_null() && why["text"].as_str().unwrap().contains("in us"), "{why}");
    let why = json(&gateway.api("/explain?username=jp").await);
    assert_eq!(why["refused"], "no exit is what was asked for");

    for (path, status, code) in [
        ("/exits?country=usa", 400, "bad_query"),
        ("/exits?limit=0", 400, "bad_query"),
        ("/exits/nobody", 404, "not_found"),
        ("/explain?username=us-strcit", 400, "bad_query"),
        ("/explain", 400, "bad_query"),
        ("/nowhere", 404, "no_such_url"),
    ] {
        let got = gateway.api(path).await;
        assert_eq!((got.status, &json(&got)["error"]["code"]), (status, &code.into()), "{path}");
    }
    let got = gateway.post("/sources/nobody/refresh", "").await;
    assert_eq!((got.status, &json(&got)["error"]["code"]), (404, &"not_found".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_told_as_they_happen_and_again_from_where_a_reader_left() {
    let bed = Testbed::start().await.unwrap();
    let gateway = Gateway::start(&bed, "").await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let page = bed.web.http("echo.test", "/ip");
    assert_eq!(gateway.get("us-strict", &page).await.status, 200);
    let pin = |got: &Got| got.body.contains("event: pin.made");
    let ask = || gateway.ask(&["-m", "1", "-H", "Last-Event-ID: 0"], "/events");
    let got = until(ask, pin).await;
    assert!(pin(&got) && got.headers["content-type"] == "text/event-stream", "{}", got.body);
    let id = got.body.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().unwrap().to_owned();
    let rest = gateway.ask(&["-m", "1", "-H", &format!("Last-Event-ID: {id}")], "/events").await;
    assert!(!pin(&rest), "{}", rest.body);
}
