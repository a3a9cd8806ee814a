//! The network, seen by plain tor from one end and by the fake web from the other.
#![expect(clippy::print_stderr, reason = "start times are wanted in the output")]

use std::net::IpAddr;

use exitgate_testnet::{Client, ClientOptions, Testbed, Wait, fetch};

/// GETs over HTTP through `client`, on a circuit of its own for each `isolation`.
async fn get(client: &Client, isolation: &str, host: &str, port: u16, path: &str) -> anyhow::Result<fetch::Got> {
    let tunnel = fetch::socks5(client.socks(), Some((isolation, "x")), host, port).await?;
    fetch::get(tunnel, host, path).await
}

#[tokio::test]
async fn every_exit_leaves_from_its_own_address() {
    let bed = Testbed::start().await.unwrap();
    eprintln!("network: {:?} in {:?}", bed.network.start_kind(), bed.network.start_took());
    // Without circuits made in advance, each stream gets one to the exit that is set at that moment.
    let lines = ["StrictNodes 1", "__DisablePredictedCircuits 1"].map(String::from).to_vec();
    let options = ClientOptions { lines, wait: Wait::Directory, seed: None };
    let client = bed.network.client_with("each", options).await.unwrap();
    eprintln!("client: directory in {:?}", client.boot_took());
    let mut control = client.control().await.unwrap();
    for exit in bed.network.exits() {
        control.command(&format!("SETCONF ExitNodes=${}", exit.fingerprint)).await.unwrap();
        let got = get(&client, &exit.name, "echo.test", bed.web.http_port(), "/ip").await.unwrap();
        assert_eq!(got.text(), exit.outbound.to_string(), "{}", exit.name);
        assert_eq!(bed.web.sources("/ip").last(), Some(&IpAddr::V4(exit.outbound)));
    }
    assert!(bed.dns.asked().iter().any(|name| name == "echo.test"));
}
