//! Tests of TLS and of the PROXY header, which both come before the client's protocol.

use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::gateway::listener::ListenerConfig;
use crate::gateway::testing::{FACTS, Open, Script, expect, head, listener, observed, rest, talk};

/// Returns a listener with TLS, and a TLS client that trusts the listener's certificate.
fn secure() -> (ListenerConfig, TlsConnector) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["gate.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (
        ListenerConfig { tls: Some(TlsAcceptor::from(Arc::new(server))), ..listener() },
        TlsConnector::from(Arc::new(client)),
    )
}

async fn handshake(connector: &TlsConnector, client: TcpStream) -> TlsStream<TcpStream> {
    connector.connect(ServerName::try_from("gate.test").unwrap(), client).await.unwrap()
}

#[test]
fn every_protocol_works_inside_tls() {
    for (opening, answer) in [
        (
            &b"\x05\x01\x00\x05\x01\x00\x03\x06a.test\x00\x50hello"[..],
            b"\x05\x00\x05\x00\x00\x01\xC0\x00\x02\x07\x00\x00".to_vec(),
        ),
        (b"\x04\x01\x00\x50\0\0\0\x01\0a.test\0hello", b"\x00\x5A\x00\x00\xC0\x00\x02\x07".to_vec()),
        (
            b"CONNECT a.test:80 HTTP/1.1\r\nHost: x\r\n\r\nhello",
            format!("HTTP/1.1 200 Connection established\r\n{FACTS}\r\n").into_bytes(),
        ),
    ] {
        let ((), seen) = observed(async || {
            let (listener, connector) = secure();
            let (gate, [mut target]) = Script::targets();
            talk(listener, &Arc::new(gate), async |client| {
                let mut client = handshake(&connector, client).await;
                client.write_all(opening).await.unwrap();
                expect(&mut client, &answer).await;
                expect(&mut target, b"hello").await;
                target.write_all(b"you").await.unwrap();
                expect(&mut client, b"you").await;
                drop((client, target));
            })
            .await;
        });
        assert_eq!(seen.access(&["tls", "route"]), [["true", "us"]]);
    }
}

#[tokio::test(start_paused = true)]
async fn plain_http_inside_tls_and_plain_clients_beside_it() {
    let (listener, connector) = secure();
    let gate = Arc::new(Script::new([]));
    let page = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    talk(listener.clone(), &gate, async |client| {
        let mut client = handshake(&connector, client).await;
        client.write_all(page).await.unwrap();
        assert!(rest(&mut client).await.contains("also inside TLS"));
    })
    .await;
    talk(listener, &gate, async |mut client| {
        client.write_all(page).await.unwrap();
        assert!(rest(&mut client).await.ends_with("</html>\n"));
    })
    .await;
}

#[test]
fn tls_that_is_not_offered_is_refused_with_an_alert() {
    let ((), seen) = observed(async || {
        talk(listener(), &Arc::new(Script::new([])), async |mut client| {
            client.write_all(b"\x16\x03\x01\x00\x05hello").await.unwrap();
            expect(&mut client, [0x15, 3, 3, 0, 2, 2, 40]).await;
            assert_eq!(rest(&mut client).await, "");
        })
        .await;
    });
    assert_eq!(seen.access(&["outcome"]), [["client_tls"]]);
}

#[test]
fn an_invalid_handshake_gets_an_alert_and_ends_at_once() {
    for hello in [&b"\x16\x03\x01\x00\x05\x02\0\0\x01\0"[..], b"\x16GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xFF\xFFxx"]
    {
        for pieces in [1, 100] {
            let ((), seen) = observed(async || {
                let (listener, _) = secure();
                talk(listener, &Arc::new(Script::new([])), async |mut client| {
                    let begun = tokio::time::Instant::now();
                    for piece in hello.chunks(pieces) {
                        let _ = client.write_all(piece).await;
                        tokio::task::yield_now().await;
                    }
                    let said = rest(&mut client).await;
                    assert!(said.starts_with('\x15'), "an alert: {said:?}");
                    assert!(begun.elapsed().as_secs() < 2, "{:?}", begun.elapsed());
                })
                .await;
            });
            assert_eq!(seen.access(&["outcome"]), [["client_tls"]]);
        }
    }
}

fn behind_a_balancer() -> ListenerConfig {
    ListenerConfig { trusted: vec!["127.0.0.0/8".parse().unwrap()], ..listener() }
}

#[test]
fn a_trusted_peer_names_the_client() {
    let header = b"PROXY TCP4 198.51.100.1 203.0.113.1 5000 1080\r\n";
    for pieces in [1, header.len(), 1000] {
        let ((), seen) = observed(async || {
            let gate = Arc::new(Script::new([]).with_key(b"k"));
            talk(behind_a_balancer(), &gate, async |mut client| {
                for piece in [&header[..], b"\x05\x01\x02\x01\x00\x01x"].concat().chunks(pieces) {
                    client.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                expect(&mut client, b"\x05\x02\x01\x01").await;
            })
            .await;
            assert_eq!(gate.log(), ["198.51.100.1 kept out"]);
        });
        assert_eq!(seen.access(&["client", "outcome"]), [["198.51.100.1", "auth_wrong"]]);
    }
}

#[test]
fn trusted_peers_must_send_a_header_and_others_must_not() {
    for (listener, opening) in [
        (behind_a_balancer(), &b"\x05\x01\x00"[..]),
        (behind_a_balancer(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        (listener(), b"PROXY TCP4 198.51.100.1 203.0.113.1 5000 1080\r\n\x05\x01\x00"),
        (listener(), b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00\x05\x01\x00"),
        (ListenerConfig { trusted: vec!["192.0.2.0/24".parse().unwrap()], ..listener() }, b"PROXY UNKNOWN\r\n"),
    ] {
        let ((), seen) = observed(async || {
            talk(listener, &Arc::new(Script::new([])), async |mut client| {
                client.write_all(opening).await.unwrap();
                // The gateway closes the connection while bytes are unread, so this read may fail with a reset. With a
                // reset or without one, the gateway has sent nothing.
                let mut said = Vec::new();
                let _ = tokio::io::AsyncReadExt::read_to_end(&mut client, &mut said).await;
                assert!(said.is_empty());
            })
            .await;
        });
        assert_eq!(seen.access(&["outcome"]), [["client_proxy_header"]]);
    }
}

#[tokio::test(start_paused = true)]
async fn tls_may_follow_a_proxy_header() {
    let (secure, connector) = secure();
    let listener = ListenerConfig { trusted: vec!["127.0.0.0/8".parse().unwrap()], ..secure };
    talk(listener, &Arc::new(Script::new([])), async |mut client| {
        client.write_all(b"PROXY TCP4 198.51.100.1 203.0.113.1 5000 1080\r\n").await.unwrap();
        let mut client = handshake(&connector, client).await;
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        assert!(rest(&mut client).await.starts_with("HTTP/1.1 200 "));
    })
    .await;
}

#[test]
fn a_version_2_header_is_read_too_and_a_health_check_names_no_client() {
    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    let address = [198, 51, 100, 1, 203, 0, 113, 1, 0x13, 0x88, 4, 56];
    for (header, client) in [
        ([SIGNATURE, &[0x21, 0x11, 0, 12], &address].concat(), "198.51.100.1"),
        ([SIGNATURE, &[0x20, 0x00, 0, 0]].concat(), "127.0.0.1"),
    ] {
        for pieces in [1, 100] {
            let ((), seen) = observed(async || {
                talk(behind_a_balancer(), &Arc::new(Script::new([])), async |mut client| {
                    for piece in [&header[..], b"GET / HTTP/1.0\r\n\r\n"].concat().chunks(pieces) {
                        client.write_all(piece).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    assert!(rest(&mut client).await.starts_with("HTTP/1.1 200 "));
                })
                .await;
            });
            assert_eq!(seen.access(&["client", "outcome"]), [[client, "here"]]);
        }
    }
}

#[test]
fn proxy_headers_and_tls_handshakes_have_the_same_deadline() {
    let hello = [&b"\x16\x03\x01\x01\x00"[..], &[1, 0, 0, 0xFC, 3, 3]].concat();
    for (listener, drip) in [
        (behind_a_balancer(), b"PROXY TCP4 198.51.100.1 203.0.113.1 5000".to_vec()),
        (behind_a_balancer(), b"PROXY UNKNOWN\r\n".to_vec()),
        (secure().0, [hello, vec![0; 100]].concat()),
    ] {
        let ((), seen) = observed(async || {
            talk(listener, &Arc::new(Script::new([])), async |mut client| {
                let begun = tokio::time::Instant::now();
                for byte in drip {
                    if client.write_all(&[byte]).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                }
                let _ = tokio::io::AsyncReadExt::read_to_end(&mut client, &mut Vec::new()).await;
                assert!((9..=12).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
            })
            .await;
        });
        assert_eq!(seen.access(&["outcome"]), [["client_slow"]]);
    }
}

#[test]
fn a_client_inside_tls_that_leaves_releases_its_stream() {
    let ((), seen) = observed(async || {
        let (listener, connector) = secure();
        let gate = Arc::new(Script::new([Open::Hangs]));
        talk(listener, &gate, async |client| {
            let mut client = handshake(&connector, client).await;
            client.write_all(b"CONNECT a.test:443 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        })
        .await;
        assert_eq!(gate.log(), ["connect @a.test:443", "given back"]);
    });
    assert_eq!(seen.access(&["outcome", "tls"]), [["client_left", "true"]]);
}

#[tokio::test(start_paused = true)]
async fn requests_and_upgrades_go_through_inside_tls() {
    let (listener, connector) = secure();
    let (gate, [mut target]) = Script::targets();
    talk(listener, &Arc::new(gate), async |client| {
        let mut client = handshake(&connector, client).await;
        let get = b"GET http://a.test/ HTTP/1.1\r\nHost: x\r\n\r\n";
        let upgrade = b"GET http://a.test/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: ws\r\n\r\n";
        client.write_all(&[&get[..], upgrade].concat()).await.unwrap();
        head(&mut target).await;
        target.write_all(b"HTTP/1.1 204 No\r\n\r\n").await.unwrap();
        expect(&mut client, format!("HTTP/1.1 204 No\r\n{FACTS}\r\n")).await;
        head(&mut target).await;
        target.write_all(b"HTTP/1.1 101 Go\r\nUpgrade: ws\r\nConnection: Upgrade\r\n\r\nhello").await.unwrap();
        assert!(head(&mut client).await.starts_with("HTTP/1.1 101 "));
        expect(&mut client, b"hello").await;
        client.write_all(b"you").await.unwrap();
        expect(&mut target, b"you").await;
        drop((client, target));
    })
    .await;
}
