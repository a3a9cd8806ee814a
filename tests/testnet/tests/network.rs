//! The network, seen by a plain tor client on one side and by the fake web on the other.
#![expect(clippy::print_stderr, reason = "the test prints how long a start takes")]

use std::net::IpAddr;
use std::time::Duration;

use exitgate_testnet::{Client, ClientOptions, ExitSpec, Network, Options, Role, Testbed, Wait, fetch};
use tokio::time::timeout;

/// One GET over HTTP through `client`, on a circuit of its own for each `isolation`.
async fn get(client: &Client, isolation: &str, host: &str, port: u16, path: &str) -> anyhow::Result<fetch::Got> {
    let tunnel = fetch::socks5(client.socks(), Some((isolation, "x")), host, port).await?;
    fetch::get(tunnel, host, path).await
}

#[tokio::test]
async fn every_exit_leaves_from_its_own_address() {
    let bed = Testbed::start().await.unwrap();
    eprintln!("network: {:?} in {:?}", bed.network.start_kind(), bed.network.start_took());
    // Without predicted circuits, each stream gets a circuit to the exit that is set at that moment.
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

#[tokio::test]
async fn the_directory_is_like_the_public_one() {
    let network = Network::start(Options::default()).await.unwrap();
    let options = ClientOptions { wait: Wait::Directory, ..ClientOptions::default() };
    let client = network.client_with("directory", options).await.unwrap();
    let mut control = client.control().await.unwrap();
    let consensus = control.info("dir/status-vote/current/consensus-microdesc").await.unwrap();
    assert!(consensus.contains("\nbandwidth-weights Wbd="), "path selection needs the weights");
    for relay in network.relays() {
        let status = control.info(&format!("ns/id/{}", relay.fingerprint)).await.unwrap();
        let flags = status.lines().find(|line| line.starts_with("s ")).unwrap();
        let has = |flag: &str| flags.split(' ').any(|word| word == flag);
        assert!(["Fast", "Stable", "Running", "Valid"].into_iter().all(has), "{} {flags}", relay.name);
        assert_eq!(
            (has("Exit"), has("Guard")),
            (relay.role == Role::Exit, relay.role == Role::Guard),
            "{}",
            relay.name
        );
        assert!(!status.contains("w Bandwidth=0"), "{} {status}", relay.name);
        let ip: IpAddr = relay.ip.into();
        assert_eq!(control.info(&format!("ip-to-country/{ip}")).await.unwrap(), relay.country.to_lowercase());
    }
    assert!(control.info("md/name/no443").await.unwrap().contains("\np reject 443\n"));
    assert!(control.info("md/name/us1").await.unwrap().contains("\np accept 1-65535\n"));
}

#[tokio::test]
async fn relays_fail_and_recover_as_ordered() {
    let bed = Testbed::start().await.unwrap();
    let us1 = bed.network.relay("us1");
    let lines = [format!("ExitNodes ${}", us1.fingerprint), "StrictNodes 1".into(), "SocksTimeout 10".into()].to_vec();
    let client = bed.network.client_with("ops", ClientOptions { lines, ..ClientOptions::default() }).await.unwrap();
    let port = bed.web.http_port();
    assert_eq!(get(&client, "a", "echo.test", port, "/ip").await.unwrap().text(), us1.outbound.to_string());

    bed.network.pause("us1").await.unwrap();
    let hung = timeout(Duration::from_secs(1), get(&client, "a", "echo.test", port, "/ip")).await;
    assert!(hung.is_err(), "a stopped relay answers nothing: {hung:?}");
    bed.network.resume("us1").await.unwrap();
    assert!(get(&client, "a", "echo.test", port, "/ip").await.is_ok());

    bed.network.set_policy("us1", &["reject *:*"]).await.unwrap();
    assert!(
        get(&client, "a", "echo.test", port, "/ip").await.is_err(),
        "the directory still says that the exit allows it"
    );
    bed.network.set_policy("us1", &["accept *:*"]).await.unwrap();

    bed.network.kill("us1").await.unwrap();
    assert_eq!(bed.network.pid("us1").await.unwrap(), None);
    assert!(get(&client, "b", "echo.test", port, "/ip").await.is_err());
    bed.network.respawn("us1").await.unwrap();
    let fresh =
        bed.network.client("fresh", &["StrictNodes 1", &format!("ExitNodes ${}", us1.fingerprint)]).await.unwrap();
    assert_eq!(get(&fresh, "a", "echo.test", port, "/ip").await.unwrap().text(), us1.outbound.to_string());
}

#[tokio::test]
async fn an_onion_service_is_reached_through_the_network() {
    let bed = Testbed::start().await.unwrap();
    let onion = bed.network.onion("shop", (bed.web.ip(), bed.web.http_port()).into()).await.unwrap();
    let client = bed.network.client("visitor", &[]).await.unwrap();
    let got = get(&client, "a", &onion.host, 80, "/ip").await.unwrap();
    assert_eq!((got.status, got.text().as_str()), (200, "127.0.0.1"));
}

#[tokio::test]
async fn two_networks_run_at_the_same_time() {
    let small = || Options { guards: 2, exits: vec![ExitSpec::new("us1", "US")], ..Options::default() };
    let (one, two) = tokio::try_join!(Testbed::start_with(small()), Testbed::start_with(small())).unwrap();
    for bed in [&one, &two] {
        let client = bed.network.client("c", &[]).await.unwrap();
        let got = get(&client, "a", "echo.test", bed.web.http_port(), "/ip").await.unwrap();
        assert_eq!(got.text(), bed.network.relay("us1").outbound.to_string());
    }
    assert_ne!(one.sandbox.prefix(), two.sandbox.prefix());
}
