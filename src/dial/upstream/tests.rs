use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::exit::Login;
use crate::limit::target::{OnlyTor, Own, Ports};
use crate::net::Secret;

const TIMES: Times = Times { connect: Duration::from_secs(5), reply: Duration::from_secs(5) };

fn rules() -> Rules {
    Rules::new(Ports::default(), false, Own::new())
}

fn proxy(at: &str, allow_private: bool) -> UpstreamProxy {
    let login = Some(Login { user: "user".into(), password: Secret::new("pass") });
    UpstreamProxy { protocol: Protocol::Http, at: at.parse().unwrap(), tls: None, login, allow_private, account: None }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn target() -> Target {
    "web.test:443".parse().unwrap()
}

/// Accepts one connection, reads the request, and answers with these bytes. Returns the request.
async fn answer(server: TcpListener, bytes: &'static [u8]) -> String {
    let (mut stream, _) = server.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(bytes).await.unwrap();
    String::from_utf8(head).unwrap()
}

async fn server() -> (TcpListener, SocketAddr) {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = server.local_addr().unwrap();
    (server, addr)
}

#[tokio::test]
async fn a_private_proxy_needs_the_permission_of_its_source_also_if_it_has_a_name() {
    let (server, addr) = server().await;
    for at in [addr.to_string(), format!("localhost:{}", addr.port())] {
        let refused = connect(&proxy(&at, false), &rules(), TIMES.connect, soon()).await.unwrap_err();
        assert_eq!(refused, ExitFault::Refused.into(), "{at}");
        connect(&proxy(&at, true), &rules(), TIMES.connect, soon()).await.unwrap();
        server.accept().await.unwrap();
    }
    let own = Own::new();
    own.insert(addr);
    let rules = Rules::new(Ports::default(), false, own);
    let ours = connect(&proxy(&addr.to_string(), true), &rules, TIMES.connect, soon()).await.unwrap_err();
    assert_eq!(ours, ExitFault::Refused.into(), "a listener of the gateway is never a proxy");
}

#[tokio::test]
async fn a_tunnel_carries_the_login_and_the_first_bytes_of_the_target() {
    let (server, addr) = server().await;
    let (proxy, rules, target) = (proxy(&addr.to_string(), true), rules(), target());
    let asked = answer(server, b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0");
    let (opened, asked) = tokio::join!(tunnel(&proxy, &target, &rules, TIMES, soon()), asked);
    assert_eq!(opened.unwrap().first, b"SSH-2.0");
    assert!(asked.starts_with("CONNECT web.test:443 HTTP/1.1\r\n") && asked.contains("Basic dXNlcjpwYXNz"), "{asked}");
}

#[tokio::test]
async fn failures_are_the_exits_own_and_bridges_close_this_way() {
    let (server, addr) = server().await;
    let (proxy, target) = (proxy(&addr.to_string(), true), target());
    let refused = answer(server, b"HTTP/1.1 407 No\r\n\r\n");
    let rules = rules();
    let (opened, _) = tokio::join!(tunnel(&proxy, &target, &rules, TIMES, soon()), refused);
    assert_eq!(opened.unwrap_err(), ExitFault::Refused.into());
    let closed = tunnel(&proxy, &target, &rules, TIMES, soon()).await.unwrap_err();
    assert_eq!(closed, ExitFault::Unreachable.into(), "nobody listens any more");
    let only_tor = OnlyTor::default();
    only_tor.set(true);
    let rules = rules.with_only_tor(only_tor);
    let closed = tunnel(&proxy, &target, &rules, TIMES, soon()).await.unwrap_err();
    assert_eq!(closed, ExitFault::NoPath.into());
}

#[tokio::test]
async fn a_refused_account_counts_against_no_exit_and_is_reported() {
    let account = AccountRef(Arc::default());
    let (rules, target) = (rules(), target());
    for (bytes, want, said) in [
        (&b"HTTP/1.1 407 No\r\n\r\n"[..], Err(EngineFault::Account.into()), Some(Err(AccountFault::Login))),
        (b"HTTP/1.1 402 No\r\n\r\n", Err(EngineFault::Account.into()), Some(Err(AccountFault::Quota))),
        (b"HTTP/1.1 502 No\r\nX-BRD-Err-Msg: no_peers\r\n\r\n", Err(ExitFault::Unreachable.into()), None),
        (b"HTTP/1.1 200 OK\r\n\r\n", Ok(()), Some(Ok(()))),
    ] {
        let (server, addr) = server().await;
        let proxy = UpstreamProxy { account: Some(account.clone()), ..proxy(&addr.to_string(), true) };
        let (opened, _) = tokio::join!(tunnel(&proxy, &target, &rules, TIMES, soon()), answer(server, bytes));
        assert_eq!((opened.map(|_| ()), account.0.take()), (want, said));
    }
}

#[tokio::test]
async fn a_target_whose_name_is_private_is_refused() {
    let target: Target = "localhost:80".parse().unwrap();
    let private = Rules::new(Ports::default(), true, Own::new());
    assert_eq!(check_target(&target, &rules(), soon()).await, Err(TargetFault::Forbidden.into()));
    assert_eq!(check_target(&target, &private, soon()).await, Ok(()));
    assert_eq!(check_target(&"192.0.2.1:80".parse().unwrap(), &rules(), soon()).await, Ok(()), "checked elsewhere");
}

#[tokio::test]
async fn a_proxy_without_tls_is_no_proxy_with_tls() {
    let (server, addr) = server().await;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.unwrap().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let tls = Some(ProxyTls(tokio_rustls::TlsConnector::from(Arc::new(config))));
    let proxy = UpstreamProxy { tls, ..proxy(&addr.to_string(), true) };
    let plain = async {
        let (mut stream, _) = server.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream
    };
    let rules = rules();
    let (opened, _) = tokio::join!(connect(&proxy, &rules, TIMES.connect, soon()), plain);
    assert_eq!(opened.unwrap_err(), ExitFault::Refused.into());
}

#[tokio::test]
async fn a_silent_proxy_does_not_keep_a_connection_that_the_caller_has_closed() {
    let (secure, mut proxy) = tokio::io::duplex(64);
    let (near, far) = UnixStream::pair().unwrap();
    let client = async {
        let mut near = near;
        near.write_all(b"hello").await.unwrap();
        near.shutdown().await.unwrap();
        let mut asked = Vec::new();
        proxy.read_to_end(&mut asked).await.unwrap();
        assert_eq!(asked, b"hello");
        // The caller has sent everything, and still waits for the answer.
        tokio::time::sleep(LOOK_CLOSED * 2).await;
        proxy.write_all(b"late").await.unwrap();
        let mut answer = [0; 4];
        near.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"late");
    };
    let both = async { tokio::join!(pass(secure, far), client) };
    tokio::time::timeout(LOOK_CLOSED * 10, both).await.expect("the connection ends although the proxy stays open");
}
