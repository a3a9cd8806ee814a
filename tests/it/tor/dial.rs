//! Dials: where they come out, and what they say when they do not.

use std::net::IpAddr;

use exitgate::dial::tor::{Caller, Options, dial, onion, resolve};
use exitgate::route::Isolation;
use exitgate::tor::preflight;
use exitgate_testnet::fetch;

use super::rig::{deadline, fingerprint, target};
use super::*;

on_both!(every_exit_is_reached_by_name_and_leaves_from_its_own_address);

async fn every_exit_is_reached_by_name_and_leaves_from_its_own_address(backend: Backend) {
    let bed = bed(backend).await;
    let rig = Rig::start(&bed).await;
    let checked = preflight(&rig.settings).await.unwrap();
    assert!(checked.version.is_some());
    for exit in bed.network.exits() {
        let (seen, facts) = rig.seen_from(way(exit, 1)).await.unwrap();
        assert_eq!(seen, exit.outbound.to_string(), "{}", exit.name);
        assert_eq!((facts.path.len(), facts.path.last()), (3, Some(&fingerprint(exit))), "{}", exit.name);
        let two = exitgate::tor::Way { hops: 2, ..way(exit, 2) };
        let (seen, facts) = rig.seen_from(two).await.unwrap();
        assert_eq!((seen, facts.path.len()), (exit.outbound.to_string(), 2), "{}", exit.name);
    }
    let name = target("other.test", 1).host;
    let address = resolve(&rig.tor, way(bed.network.relay("us1"), 1), &name, deadline()).await.unwrap();
    assert!(matches!(address, IpAddr::V4(_)), "{address}");

    let service = bed.network.onion("shop", (bed.web.ip(), bed.web.http_port()).into()).await.unwrap();
    let at = target(&service.host, 80);
    let (stream, facts) =
        onion(&rig.tor, Caller { isolation: Isolation(1), own: None }, &at, b"", deadline()).await.unwrap();
    assert_eq!(facts.circuit, None);
    assert_eq!(fetch::get(stream, &service.host, "/status/204").await.unwrap().status, 204);

    let early = b"GET /ip HTTP/1.1\r\nHost: echo.test\r\nConnection: close\r\n\r\n";
    let options = Options { early, ..Options::default() };
    let at = target("echo.test", bed.web.http_port());
    let (mut stream, _) = dial(&rig.tor, way(bed.network.relay("de1"), 1), &at, options, deadline()).await.unwrap();
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await.unwrap();
    assert!(text.ends_with(&bed.network.relay("de1").outbound.to_string()), "{text}");
    rig.stop().await;
}
