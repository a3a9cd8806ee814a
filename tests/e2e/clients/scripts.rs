//! Libraries: a script a language, which goes through every client and every protocol that each one knows.

use std::path::Path;

use exitgate_testnet::Testbed;

use super::installed::{beside_packages, installed};
use crate::gateway::{Gateway, run};

/// What the web was asked, under a case's name, and by whom.
pub fn sources_of(bed: &Testbed, case: &str) -> Vec<String> {
    let query = format!("case={case}");
    let asked = bed.web.seen().into_iter().filter(|seen| seen.path.split('?').nth(1) == Some(&query));
    asked.map(|seen| seen.source.ip().to_string()).collect()
}

/// Runs a script, and sees that each of its cases left from where the gateway said, and in the country asked for.
async fn run_through(program: &str, script: &str, cases: usize) {
    let bed = Testbed::start().await.unwrap();
    let gateway = Gateway::start(&bed, "").await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let (plain, secure) = (bed.web.http("echo.test", ""), bed.web.https("echo.test", ""));
    let args = [script, &gateway.addr().to_string(), &plain, &secure, bed.web.ca_pem().to_str().unwrap()];
    let output = run(program, &args).await;
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
    for line in said.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let (case, named) = (line["case"].as_str().unwrap(), line["named"].as_str().unwrap());
        let seen = sources_of(&bed, case);
        assert!(!seen.is_empty() && seen.iter().all(|ip| ip == named), "{case}: seen from {seen:?}, named {named}");
        let exit = bed.network.exit_at(named.parse().unwrap());
        assert_eq!(exit.map(|exit| &*exit.outbound_country), Some("US"), "{case}: {named}");
    }
    assert_eq!(said.lines().count(), cases, "a case was left out, or nobody counted a new one:\n{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn python_requests_httpx_aiohttp_urllib_and_websockets() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/clients/through.py");
    run_through(installed("venv/bin/python").to_str().unwrap(), script.to_str().unwrap(), 24).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_undici_agents_and_ws() {
    run_through("node", &beside_packages("through.mjs"), 12).await;
}
