//! A real browser.

use std::collections::BTreeSet;
use std::process::Command;

use exitgate_testnet::Testbed;
use serde_json::Value;

use crate::gateway::{Gateway, run_for};
use crate::installed::beside_packages;

/// How long six visits by a browser that starts each time may take on two cores.
const VISITS: std::time::Duration = std::time::Duration::from_secs(200);

const ROUTES: &str = r#"
gateway.keys = [{ name = "a", key = "k" }]
[[routes]]
name = "one"
selector = "us-strict"
port = 20001
auth = "open"
[[routes]]
name = "several"
selector = "us"
port = 20002
auth = "open"
"#;

/// The browser, by whatever name this system has it.
fn chromium() -> String {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = names.into_iter().find(|name| Command::new(name).arg("--version").output().is_ok());
    let path =
        found.map(|name| Command::new("sh").args(["-c", &format!("command -v {name}")]).output().unwrap().stdout);
    String::from_utf8(path.expect("no Chromium here: run .ci/need chromium")).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_fifty_scripts_through_a_routes_own_port() {
    let bed = Testbed::start().await.unwrap();
    let gateway = Gateway::start(&bed, ROUTES).await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let (ip, browser) = (gateway.addr().ip().to_string(), chromium());
    let (plain, secure) = (bed.web.http("echo.test", ""), bed.web.https("echo.test", ""));
    let script = beside_packages("browser.mjs");
    let output = run_for(VISITS, "node", &[&script, &browser, &ip, &plain, &secure]).await;
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");

    let us = bed.network.exits().into_iter().filter(|exit| exit.outbound_country == "US");
    let us: BTreeSet<String> = us.map(|exit| exit.outbound.to_string()).collect();
    let mut strict = BTreeSet::new();
    for line in said.lines() {
        let visit: Value = serde_json::from_str(line).unwrap();
        let case = visit["case"].as_str().unwrap();
        let seen: Vec<_> = visit["seen"].as_array().unwrap().iter().map(|ip| ip.as_str().unwrap().to_owned()).collect();
        assert_eq!(
            (seen.len(), &visit["socket"], &visit["failures"]),
            (50, &"hello".into(), &Value::Array(vec![])),
            "{case}"
        );
        let seen: BTreeSet<_> = seen.into_iter().collect();
        assert!(seen.is_subset(&us), "{case}: {seen:?}");
        if !case.starts_with("flexible") {
            assert_eq!(
                seen.iter().map(|ip| &**ip).collect::<Vec<_>>(),
                [visit["named"].as_str().unwrap_or("nobody")],
                "{case}"
            );
        }
        if case.starts_with("strict") {
            strict.extend(seen);
        }
    }
    assert_eq!(said.lines().count(), 6, "{said}");
    assert_eq!(strict.len(), 1, "a strict route shows one address, whoever asks: {strict:?}");
}
