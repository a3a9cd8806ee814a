//! The API of the shipped binary, asked by curl.

use exitgate_testnet::Testbed;
use serde_json::Value;

use crate::gateway::{Gateway, Got, config, curl, until};

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
    assert_eq!(why["refused"], "none of the known exits has the source, country, AS or address asked for");

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
    let all = gateway.ask(&["-m", "1"], "/events?since=0").await;
    assert!(pin(&all), "the query does the same as the header: {}", all.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_has_the_requests_and_the_usable_exits_of_each_minute() {
    let bed = Testbed::start().await.unwrap();
    let gateway = Gateway::start(&bed, "").await;
    let exits = bed.network.exits().len();
    gateway.wait_tested(exits).await;
    assert_eq!(gateway.get("us-strict", &bed.web.http("echo.test", "/ip")).await.status, 200);
    assert_eq!(gateway.get("jp", &bed.web.http("echo.test", "/ip")).await.status, 503);
    let sum = |list: &Value| list.as_array().unwrap().iter().filter_map(|one| one.as_u64()).sum::<u64>();
    // The gateway takes a reading every ten seconds.
    let counted = |history: &Value| sum(&history["requests"]) == 2;
    let history = until(|| async { json(&gateway.api("/history").await) }, counted).await;
    assert_eq!((sum(&history["requests"]), sum(&history["failed"]["no_exit"])), (2, 1), "{history}");
    let lengths = ["requests", "usable_exits", "open_p95_ms"].map(|name| history[name].as_array().unwrap().len());
    assert!(lengths[0] > 0 && lengths == [lengths[0]; 3], "{history}");
    assert!(sum(&history["open_p50_ms"]) > 0, "{history}");
    let refused = gateway.api("/history?minutes=1441").await;
    assert_eq!((refused.status, &json(&refused)["error"]["details"]["field"]), (400, &"minutes".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_a_post_away_and_outlives_a_restart() {
    let bed = Testbed::start().await.unwrap();
    let mut gateway = Gateway::start(&bed, "[[routes]]\nname = \"fixed\"\nselector = \"any\"\nport = 20000\n").await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let page = bed.web.http("echo.test", "/ip");
    let us: Vec<_> = bed
        .network
        .exits()
        .iter()
        .filter(|exit| exit.outbound_country == "US")
        .map(|exit| exit.outbound.to_string())
        .collect();

    let body = r#"{"geo_category": "US", "name": "shop", "mode": "strict"}"#;
    let made = gateway.post("/proxies", body).await;
    assert_eq!((made.status, made.headers["location"].as_str()), (201, "/proxies/shop"), "{}", made.body);
    let port = json(&made)["port"].as_u64().unwrap() as u16;
    let again = gateway.post("/proxies", body).await;
    assert_eq!((again.status, &json(&again)["port"]), (200, &port.into()), "{}", again.body);
    let via = format!("socks5h://{}", gateway.port(port));
    let first = curl(&["-x", &via, &page]).await;
    assert!(us.contains(&first.body), "{} {}", first.body, first.errors);
    let pinned = json(&gateway.api(&format!("/proxies/{port}")).await);
    assert_eq!(pinned["exit"]["ip"], first.body, "{pinned}");

    for (body, status, code) in [
        (r#"{"geo_category": "ANY", "name": "shop"}"#, 409, "name_taken"),
        (r#"{"geo_category": "ANY", "name": "fixed"}"#, 409, "read_only"),
        (r#"{"geo_category": "ANY", "port": 20000}"#, 409, "port_taken"),
        (r#"{"selector": "jp"}"#, 409, "no_exit"),
        (r#"{"selector": "us", "pol": 3}"#, 422, "bad_field"),
        ("[]", 400, "bad_body"),
    ] {
        let got = gateway.post("/proxies", body).await;
        assert_eq!((got.status, &json(&got)["error"]["code"]), (status, &code.into()), "{body}: {}", got.body);
    }
    let several =
        json(&gateway.post("/proxies", r#"{"geo_category": "US", "count": 2, "name": "w", "mode": "strict"}"#).await);
    let mut ips = Vec::new();
    for proxy in several["proxies"].as_array().unwrap() {
        let via = format!("http://{}", gateway.port(proxy["port"].as_u64().unwrap() as u16));
        ips.push(curl(&["-x", &via, &page]).await.body);
    }
    assert!(ips.len() == 2 && ips[0] != ips[1] && !ips.contains(&first.body), "{ips:?}");
    let short = json(&gateway.post("/proxies", r#"{"selector": "any", "ttl": "1s", "name": "brief"}"#).await);
    assert!(short["expires"].is_string(), "{short}");
    let gone = until(|| gateway.api("/proxies/brief"), |got| got.status == 404).await;
    assert_eq!(gone.status, 404);

    gateway.signal("TERM");
    gateway.ended().await;
    let gateway = Gateway::launch(&bed, &std::fs::read_to_string(bed.sandbox.folder().join("exitgate.toml")).unwrap());
    gateway.wait_ready().await;
    let list = json(&gateway.api("/proxies").await);
    assert_eq!(list["total"], 4, "{list}");
    let through = ["-x", via.as_str(), page.as_str()];
    let after = until(|| curl(&through), |got| got.status == 200).await;
    assert_eq!(after.body, first.body, "the pin outlives a restart");

    let refused = gateway.ask(&["-X", "DELETE"], "/proxies/fixed").await;
    assert_eq!((refused.status, &json(&refused)["error"]["code"]), (409, &"read_only".into()));
    assert_eq!(gateway.ask(&["-X", "DELETE"], "/proxies/shop").await.status, 202);
    assert_eq!(curl(&through).await.code, 7, "the port is closed");
    assert_eq!(gateway.api("/proxies/shop").await.status, 404);
    assert_eq!(gateway.post("/proxies", body).await.status, 201, "name and port are free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_go_when_told_and_stay_when_not() {
    let bed = Testbed::start().await.unwrap();
    let gateway = Gateway::start(&bed, "").await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let (page, slow) = (bed.web.http("echo.test", "/ip"), bed.web.http("echo.test", "/slow/3"));
    let other = std::net::TcpListener::bind(gateway.port(20_050)).unwrap();
    let taken = gateway.post("/proxies", r#"{"geo_category": "ANY", "port": 20050}"#).await;
    assert_eq!((taken.status, &json(&taken)["error"]["code"]), (409, &"port_taken".into()), "{}", taken.body);
    assert!(taken.body.contains("another program"), "{}", taken.body);
    drop(other);

    let mut downloads = Vec::new();
    for (name, port) in [("gentle", 20_050), ("force", 20_051)] {
        let body = format!(r#"{{"selector": "any", "name": "{name}", "port": {port}}}"#);
        assert_eq!(gateway.post("/proxies", &body).await.status, 201);
        let (via, slow) = (format!("socks5h://{}", gateway.port(port)), slow.clone());
        downloads.push(tokio::spawn(async move { curl(&["-x", &via, &slow]).await }));
    }
    until(|| async { bed.web.sources("/slow").len() }, |seen| *seen == 2).await;
    let began = std::time::Instant::now();
    for (path, port) in [("/proxies/gentle", 20_050), ("/proxies/force?force=true", 20_051)] {
        assert_eq!(gateway.ask(&["-X", "DELETE"], path).await.status, 202, "{path}");
        assert_eq!(
            curl(&["-x", &format!("http://{}", gateway.port(port)), &page]).await.code,
            7,
            "{port} still listens"
        );
    }
    let cut = downloads.pop().unwrap().await.unwrap();
    assert!(cut.body.len() < 3 && began.elapsed().as_secs() < 3, "{} after {:?}", cut.body, began.elapsed());
    let whole = downloads.pop().unwrap().await.unwrap();
    assert_eq!((whole.code, whole.body.len()), (0, 3), "a tunnel was cut that nobody told to cut: {}", whole.errors);

    // More of one kind than there are addresses: all or nothing, and why.
    let many = gateway.post("/proxies", r#"{"geo_category": "US", "mode": "strict", "count": 5, "name": "w"}"#).await;
    assert_eq!((many.status, &json(&many)["error"]["code"]), (409, &"no_exit".into()), "{}", many.body);
    assert_eq!(json(&gateway.api("/proxies").await)["total"], 0);
    let three = gateway.post("/proxies", r#"{"geo_category": "US", "mode": "strict", "count": 3, "name": "w"}"#).await;
    assert_eq!((three.status, &json(&three)["total"]), (201, &3.into()), "{}", three.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_of_the_api_and_of_the_file_live_side_by_side() {
    let bed = Testbed::start().await.unwrap();
    let later = "[[routes]]\nname = \"later\"\nselector = \"fr\"\n";
    let mut gateway = Gateway::start(&bed, later).await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let page = bed.web.http("echo.test", "/ip");
    let ip = |name: &str| bed.network.relay(name).outbound.to_string();
    let port = async |gateway: &Gateway, name: &str| {
        json(&gateway.api(&format!("/proxies/{name}")).await)["port"].as_u64().unwrap() as u16
    };
    let through = |at: std::net::SocketAddr| {
        let page = page.clone();
        async move { curl(&["-x", &format!("http://{at}"), &page]).await.body }
    };
    let had = port(&gateway, "later").await;
    let made = gateway.post("/proxies", r#"{"selector": "nl", "name": "made"}"#).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let made = json(&made)["port"].as_u64().unwrap() as u16;

    let path = bed.sandbox.folder().join("exitgate.toml");
    let earlier = format!("[[routes]]\nname = \"earlier\"\nselector = \"de\"\n{later}");
    for (routes, status, why) in [
        ("[[routes]]\nname = \"made\"\nselector = \"de\"\n".to_owned(), 422, "made"),
        (format!("[[routes]]\nname = \"x\"\nselector = \"de\"\nport = {made}\n"), 422, "made"),
        (earlier.clone(), 200, "routes"),
    ] {
        std::fs::write(&path, config(&bed, "gateway", &routes)).unwrap();
        let got = gateway.post("/reload", "").await;
        assert!(got.status == status && got.body.contains(why), "{routes}: {} {}", got.status, got.body);
        assert_eq!(through(gateway.port(made)).await, ip("nl1"), "a reload took a route of the API");
    }
    let new = port(&gateway, "earlier").await;
    assert_eq!(port(&gateway, "later").await, had);
    assert_eq!((through(gateway.port(new)).await, through(gateway.port(had)).await), (ip("de1"), ip("fr1")));

    gateway.signal("TERM");
    gateway.ended().await;
    let first = "[[routes]]\nname = \"first\"\nselector = \"ca\"\n";
    let gateway = Gateway::start(&bed, &format!("{first}{earlier}")).await;
    let ports = [port(&gateway, "earlier").await, port(&gateway, "later").await, port(&gateway, "made").await];
    assert_eq!(ports, [new, had, made], "a route that was added moved the others");
    assert!(!ports.contains(&port(&gateway, "first").await));
    let got = until(|| through(gateway.port(had)), |body| *body == ip("fr1")).await;
    assert_eq!(got, ip("fr1"));
}
