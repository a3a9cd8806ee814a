//! The identity of an exit: at exit.gate, in the API and in answer headers, by country and by city.

use exitgate_testnet::mmdb::{Mmdb, Place};
use exitgate_testnet::{ExitSpec, Options, Testbed};
use serde_json::Value;

use crate::gateway::{Gateway, config, curl, run, until};

fn network() -> Options {
    let exits = vec![ExitSpec::new("american", "US"), ExitSpec::new("german", "DE")];
    Options { exits, ..Options::default() }
}

async fn identity(gateway: &Gateway, ip: std::net::Ipv4Addr) -> Value {
    let got = gateway.api(&format!("/exits/{ip}")).await;
    serde_json::from_str::<Value>(&got.body).unwrap_or_default()["identity"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_has_the_time_zone_of_its_country_or_city() {
    let bed = Testbed::start_with(network()).await.unwrap();
    let file = bed.sandbox.folder().join("cities.mmdb");
    let more = format!("geo.mmdb = {file:?}\n");
    let text = config(&bed, "gateway", &more);

    // Without the file the gateway does not start, and says why.
    let path = bed.sandbox.folder().join("bad.toml");
    std::fs::write(&path, &text).unwrap();
    let checked = run(env!("CARGO_BIN_EXE_exitgate"), &["check-config", "--config", path.to_str().unwrap()]).await;
    let said = String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
    assert!(!checked.status.success() && said.contains("geo.mmdb") && said.contains("cannot be read"), "{said}");

    let american = bed.network.relay("american").outbound;
    let place = |city, time_zone| {
        let coordinates = Some((41.9, -87.6));
        Place { country: "US", city: Some(city), region: Some("IL"), time_zone: Some(time_zone), coordinates }
    };
    let network = format!("{american}/32");
    let write = |city, zone| std::fs::write(&file, Mmdb::cities(&[(&network, place(city, zone))])).unwrap();
    write("Chicago", "America/Chicago");
    let gateway = Gateway::launch(&bed, &text);
    gateway.wait_tested(2).await;

    let us = identity(&gateway, american).await;
    let shown = |at: &Value| (at["time_zone"].clone(), at["city"].clone(), at["precision"].clone());
    assert_eq!(shown(&us), ("America/Chicago".into(), "Chicago".into(), "city".into()), "{us}");
    let german = identity(&gateway, bed.network.relay("german").outbound).await;
    assert_eq!(shown(&german), ("Europe/Berlin".into(), Value::Null, "country".into()), "{german}");
    assert_eq!((&german["locale"], &german["languages"][0]), (&"de-DE".into(), &"de".into()), "{german}");

    // Headers come on request only, over CONNECT and over plain HTTP.
    let proxy = format!("http://us-session-a@{}", gateway.addr());
    let plain = bed.web.http("echo.test", "/ip");
    let secure = bed.web.https("echo.test", "/ip");
    let ca = bed.web.ca_pem();
    let ca = ca.to_str().unwrap();
    let asks = "X-Exitgate-Identity: 1";
    for (url, asked) in [(&plain, true), (&plain, false), (&secure, true), (&secure, false)] {
        let mut args = vec!["-x", &proxy, "--cacert", ca];
        if asked {
            args.extend(["--proxy-header", asks, "-H", asks]);
        }
        args.push(url);
        let got = curl(&args).await;
        assert_eq!((got.status, got.body.trim()), (200, &*american.to_string()), "{url}: {}", got.errors);
        let zone = got.headers.get("x-exitgate-exit-timezone").map(String::as_str);
        assert_eq!(zone, asked.then_some("America/Chicago"), "{url}: {:?}", got.headers);
        let more = ["locale", "languages", "coordinates", "precision"];
        let count = more.iter().filter(|name| got.headers.contains_key(&format!("x-exitgate-exit-{name}"))).count();
        assert_eq!(count, if asked { 4 } else { 0 }, "{url}: {:?}", got.headers);
    }

    // exit.gate knows the identity of the session's exit.
    let got = curl(&["-x", &proxy, "http://exit.gate/"]).await;
    let whole: Value = serde_json::from_str(&got.body).unwrap();
    assert_eq!(whole["exit"]["identity"]["time_zone"], "America/Chicago", "{whole}");

    // A new edition is read without a restart; a broken one changes nothing.
    write("Peoria", "America/Chicago");
    let is = |city: &'static str| move |at: &Value| at["city"] == city;
    assert!(is("Peoria")(&until(|| identity(&gateway, american), is("Peoria")).await), "{}", gateway.log());
    std::fs::write(&file, "half a download").unwrap();
    let warned = until(async || gateway.log(), |log: &String| log.contains("is not a MaxMind DB file")).await;
    assert!(warned.contains("is not a MaxMind DB file"), "{warned}");
    assert_eq!(identity(&gateway, american).await["city"], "Peoria");
}
