//! The fake web, with direct connections.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use exitgate_testnet::web::{self, pattern};
use exitgate_testnet::{Dns, Sandbox, Web, fetch};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

async fn start() -> (Web, Arc<Sandbox>) {
    let sandbox = Sandbox::claim().unwrap();
    (Web::start(&sandbox).await.unwrap(), sandbox)
}

async fn open(web: &Web, port: u16) -> TcpStream {
    TcpStream::connect((web.ip(), port)).await.unwrap()
}

async fn get(web: &Web, host: &str, path: &str) -> fetch::Got {
    fetch::get(open(web, web.http_port()).await, host, path).await.unwrap()
}

fn json(got: &fetch::Got) -> Value {
    serde_json::from_slice(&got.body).unwrap()
}

#[tokio::test]
async fn echoes_return_the_source_in_every_format_and_the_nonce() {
    let (web, _sandbox) = start().await;
    let plain = get(&web, "echo.test", "/ip?nonce=n1").await;
    assert_eq!((plain.text().as_str(), &plain.headers["x-nonce"]), ("127.0.0.1", &"n1".parse().unwrap()));
    for (path, key) in [("/ip.json", "ip"), ("/origin.json", "origin"), ("/query.json", "query"), ("/tor.json", "IP")] {
        let answer = json(&get(&web, "echo.test", &format!("{path}?nonce=n2")).await);
        assert_eq!((&answer[key], &answer["nonce"]), (&"127.0.0.1".into(), &"n2".into()), "{path}");
    }
    assert_eq!(json(&get(&web, "echo.test", "/headers").await)["headers"]["host"], "echo.test");
    assert_eq!(web.sources("/ip"), [IpAddr::from([127, 0, 0, 1]); 2]);
    assert_eq!((web.seen().len(), web.seen()[0].host.as_str(), web.accepted()), (6, "echo.test", 6));
    web.forget();
    assert!(web.seen().is_empty());
}

#[tokio::test]
async fn https_is_good_for_every_name_but_the_bad_ones() {
    let (web, _sandbox) = start().await;
    for host in ["echo.test", "never.heard.of.test"] {
        let stream = fetch::tls(open(&web, web.https_port()).await, host, web.ca_pem()).await.unwrap();
        assert_eq!(fetch::get(stream, host, "/ip").await.unwrap().text(), "127.0.0.1");
    }
    for host in ["expired.test", "wronghost.test", "selfsigned.test"] {
        assert!(fetch::tls(open(&web, web.https_port()).await, host, web.ca_pem()).await.is_err(), "{host}");
        assert!(fetch::tls_to_anybody(open(&web, web.https_port()).await, host).await.is_ok(), "{host}");
    }
    assert!(web.seen().iter().all(|seen| seen.tls));
}

#[tokio::test]
async fn bodies_can_be_resumed() {
    let (web, _sandbox) = start().await;
    let whole = get(&web, "echo.test", "/bytes/300000").await;
    assert!(whole.body == pattern(0..300_000));
    let ranged = async |range: &str| {
        let stream = open(&web, web.http_port()).await;
        fetch::get_with(stream, "echo.test", "/bytes/300000", &[("Range", range), ("If-Range", "\"300000\"")])
            .await
            .unwrap()
    };
    let rest = ranged("bytes=299990-").await;
    assert_eq!((rest.status, rest.body), (206, pattern(299_990..300_000)));
    assert_eq!(rest.headers["content-range"], "bytes 299990-299999/300000");
    assert_eq!(ranged("bytes=300000-").await.status, 416);
    let stream = open(&web, web.http_port()).await;
    let changed = [("Range", "bytes=5-"), ("If-Range", "\"other\"")];
    assert_eq!(fetch::get_with(stream, "echo.test", "/bytes/9", &changed).await.unwrap().status, 200);
}

#[tokio::test]
async fn the_shop_refuses_the_given_sources() {
    let (web, _sandbox) = start().await;
    let me = Ipv4Addr::LOCALHOST;
    assert_eq!(get(&web, "shop.test", "/").await.status, 200);
    web.shop_refuses(me, 429);
    let refused = get(&web, "shop.test:80", "/").await;
    assert_eq!((refused.status, &refused.headers["retry-after"]), (429, &"60".parse().unwrap()));
    assert_eq!(get(&web, "echo.test", "/ip").await.status, 200, "only the shop refuses");
    web.shop_serves(me);
    assert_eq!(get(&web, "shop.test", "/").await.status, 200);
}

#[tokio::test]
async fn redirects_slow_pages_and_errors() {
    let (web, _sandbox) = start().await;
    let to = |got: fetch::Got| (got.status, got.headers["location"].to_str().unwrap().to_owned());
    assert_eq!(to(get(&web, "a.test", "/redirect/2").await), (302, "/redirect/1".into()));
    assert_eq!(to(get(&web, "a.test", "/redirect/1").await), (302, "/ip".into()));
    let private = "http://169.254.169.254/latest".to_owned();
    assert_eq!(to(get(&web, "a.test", "/redirect-to?url=http%3A%2F%2F169.254.169.254%2Flatest").await), (302, private));
    assert_eq!(get(&web, "a.test", "/status/503").await.status, 503);
    assert_eq!(get(&web, "a.test", "/sleep/0.01").await.text(), "127.0.0.1");
    assert_eq!(get(&web, "a.test", "/slow/1").await.text(), "x");
    assert_eq!(get(&web, "a.test", "/nowhere").await.status, 404);
    assert_eq!(get(&web, "a.test", "/bytes/x").await.status, 400);
    assert!(timeout(Duration::from_millis(300), get(&web, "a.test", "/hang")).await.is_err());
    let page = get(&web, "a.test", "/page").await.text();
    assert_eq!(page.matches("<script src=").count(), 50);
    assert_eq!(get(&web, "a.test", "/asset/7.js").await.text(), "(window.seen ??= []).push(\"127.0.0.1\");\n");
}

#[tokio::test]
async fn a_body_comes_back_while_it_is_sent() {
    let (web, _sandbox) = start().await;
    let mut stream = open(&web, web.http_port()).await;
    stream
        .write_all(b"POST /echo HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        .await
        .unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("hello") {
        assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
    }
    assert_eq!(web.open(), 1);
    drop(stream);
    while web.open() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_websocket_echoes() {
    let (web, _sandbox) = start().await;
    let mut stream = open(&web, web.http_port()).await;
    let hello = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(hello.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    stream.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).await.unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(back, [0x81, 2, b'h', b'i']);
}

#[tokio::test]
async fn a_folder_is_served_as_it_is() {
    let (web, _sandbox) = start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("info")).unwrap();
    std::fs::write(folder.path().join("info/refs"), "refs\n").unwrap();
    web.serve_folder("repo", folder.path());
    assert_eq!(get(&web, "a.test", "/files/repo/info/refs").await.text(), "refs\n");
    for path in ["/files/repo/none", "/files/other/info/refs", "/files/repo/../../etc/passwd"] {
        assert_eq!(get(&web, "a.test", path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn ports_without_http() {
    let (web, sandbox) = start().await;
    let mut echo = open(&web, web::ECHO_PORT).await;
    echo.write_all(b"twice").await.unwrap();
    let mut back = [0; 5];
    echo.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"twice");
    assert!(TcpStream::connect((web.ip(), web::REFUSED_PORT)).await.is_err());
    assert!(TcpStream::connect((sandbox.ip(80, 3), web.http_port())).await.is_err(), "closed.test");
    // The reset may come before or after the client's connect has returned.
    let reset = async { TcpStream::connect((web.ip(), web::RESET_PORT)).await?.read_u8().await };
    assert_eq!(reset.await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let mut hang = TcpStream::connect((sandbox.ip(80, 2), web.https_port())).await.unwrap();
    hang.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(timeout(Duration::from_millis(200), hang.read_u8()).await.is_err(), "hang.test");
    let other = TcpStream::connect((sandbox.ip(80, 4), web.http_port())).await.unwrap();
    assert_eq!(fetch::get(other, "other.test", "/ip").await.unwrap().status, 200);
    let dual = SocketAddr::from((web.ip(), web.dual_port()));
    assert_eq!(fetch::get(TcpStream::connect(dual).await.unwrap(), "dual.test", "/ip").await.unwrap().status, 200);
}

#[tokio::test]
async fn names_resolve_over_udp() {
    let (web, sandbox) = start().await;
    let dns = Dns::start(&sandbox).await.unwrap();
    let asker = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let ask = async |label: &str| {
        let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, label.len() as u8];
        query.extend(label.as_bytes());
        query.extend(b"\x04test\x00\x00\x01\x00\x01");
        asker.send_to(&query, dns.address()).await.unwrap();
        let mut reply = [0; 512];
        let length = timeout(Duration::from_millis(300), asker.recv(&mut reply)).await.ok()?.unwrap();
        Some((reply[3] & 15, reply[length - 4..length].to_vec()))
    };
    assert_eq!(ask("echo").await, Some((0, web.ip().octets().to_vec())));
    assert_eq!(ask("refused").await.map(|(code, _)| code), Some(5));
    assert_eq!(ask("nx").await.map(|(code, _)| code), Some(3));
    assert_eq!(ask("silent").await, None);
    dns.set("new.test", exitgate_testnet::dns::Answer::ip([127, 9, 9, 9]));
    assert_eq!(ask("new").await, Some((0, vec![127, 9, 9, 9])));
    assert_eq!(dns.asked(), ["echo.test", "refused.test", "nx.test", "silent.test", "new.test"]);
}
