use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::*;
use crate::cli::ExitStatus;
use crate::lifecycle::Lifecycle;

fn no_roots() -> RootCertStore {
    RootCertStore::empty()
}

fn api(listen: &str, url: Option<&str>) -> Result<Api, ClientError> {
    let mut config = Config::default();
    config.api.listen = vec![listen.parse().unwrap()];
    Api::new(&config, url.map(str::to_owned), Some(Secret::new("t")), no_roots())
}

#[test]
fn the_environment_comes_first_and_a_configured_address_is_called_localhost() {
    for (listen, url, base, host) in [
        ("0.0.0.0:8080", None, "http://0.0.0.0:8080", Some("localhost")),
        ("[::]:81", None, "http://[::]:81", Some("localhost")),
        ("127.0.0.1:8080", Some("http://gate.example:9"), "http://gate.example:9", None),
        ("127.0.0.1:8080", Some("https://gate.example/api/"), "https://gate.example/api", None),
    ] {
        let api = api(listen, url).unwrap();
        assert_eq!((api.base.as_str(), api.host), (base, host), "{listen} {url:?}");
        assert!(api.token.unwrap().matches(b"t"));
    }
    for url in ["ftp://gate.example", "gate.example", "http://", "", "http://gate.example/?x=1"] {
        let error = api("127.0.0.1:8080", Some(url)).err().unwrap();
        assert_eq!(error.exit_status(), ExitStatus::Usage, "{url}: {error}");
    }
    let mut config = Config::default();
    config.api.listen = Vec::new();
    assert!(matches!(Api::new(&config, None, None, no_roots()), Err(ClientError::NoAddress)));
}

/// Starts a TLS server for `localhost` that answers one request with `answer`. Returns its address, root certificates
/// that trust it, and the request that the server received.
async fn tls_server(
    life: &Lifecycle,
    answer: &'static str,
) -> (SocketAddr, RootCertStore, Arc<std::sync::Mutex<String>>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = tokio_rustls::rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut roots = no_roots();
    roots.add(made.cert.der().clone()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let received = Arc::new(std::sync::Mutex::new(String::new()));
    let record = received.clone();
    life.tasks().spawn("server", async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut tls) = TlsAcceptor::from(Arc::new(config.clone())).accept(stream).await else { continue };
            let mut head = vec![0; 4096];
            let length = tls.read(&mut head).await.unwrap();
            record.lock().unwrap().push_str(&String::from_utf8_lossy(&head[..length]));
            tls.write_all(answer.as_bytes()).await.unwrap();
            tls.shutdown().await.unwrap();
        }
    });
    (address, roots, received)
}

#[tokio::test]
async fn a_gateway_behind_tls_is_asked_by_its_name() {
    let life = Lifecycle::new();
    let body = "HTTP/1.1 200 OK\r\ncontent-length: 13\r\nconnection: close\r\n\r\n{\"status\": 1}";
    let (address, roots, received) = tls_server(&life, body).await;
    let url = format!("https://localhost:{}", address.port());
    let api = Api::new(&Config::default(), Some(url.clone()), Some(Secret::new("opens")), roots).unwrap();
    assert_eq!(api.send(Method::GET, "/health", None).await.unwrap(), json!({ "status": 1 }));
    let head = received.lock().unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get /health http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: localhost:{}\r\n", address.port())), "{head}");
    assert!(head.contains("authorization: bearer opens\r\n"), "{head}");

    let stranger = Api::new(&Config::default(), Some(url), None, no_roots()).unwrap();
    let error = stranger.send(Method::GET, "/health", None).await.unwrap_err();
    assert!(matches!(&error, ClientError::Unreachable { .. }), "an unknown certificate is refused: {error:?}");
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_eq!(error.exit_status(), ExitStatus::Unavailable);
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_token() {
    let life = Lifecycle::new();
    let moved =
        "HTTP/1.1 302 Found\r\nlocation: https://localhost:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (address, roots, _) = tls_server(&life, moved).await;
    let url = format!("https://localhost:{}", address.port());
    let api = Api::new(&Config::default(), Some(url), None, roots).unwrap();
    let error = api.send(Method::GET, "/health", None).await.unwrap_err();
    assert!(matches!(error, ClientError::NotExitgate { status: StatusCode::FOUND, .. }), "{error:?}");
}

#[tokio::test]
async fn lines_are_handed_on_as_they_come_and_a_refusal_is_an_error() {
    let life = Lifecycle::new();
    let body = "HTTP/1.1 200 OK\r\ncontent-length: 23\r\nconnection: close\r\n\r\n{\"total\":1}\n{\"id\":\"A\"}\n";
    let (address, roots, _) = tls_server(&life, body).await;
    let url = format!("https://localhost:{}", address.port());
    let api = Api::new(&Config::default(), Some(url), None, roots).unwrap();
    let mut lines = Vec::new();
    api.send_for_lines("/checks", &json!({}), |line| lines.push(line)).await.unwrap();
    assert_eq!(lines, [json!({"total": 1}), json!({"id": "A"})]);

    let refused = "HTTP/1.1 422 X\r\ncontent-length: 49\r\nconnection: close\r\n\r\n{\"error\":{\"code\":\"bad_field\",\"message\":\"no URL\"}}";
    let (address, roots, _) = tls_server(&life, refused).await;
    let url = format!("https://localhost:{}", address.port());
    let api = Api::new(&Config::default(), Some(url), None, roots).unwrap();
    let error = api.send_for_lines("/checks", &json!({}), |_| panic!("there is no line")).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.exit_status()), ("no URL (422)", ExitStatus::Usage));
}
