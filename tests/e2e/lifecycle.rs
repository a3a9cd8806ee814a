//! Start, reload, drain and end, as an operator sees them.

use std::fs;
use std::time::{Duration, Instant};

use exitgate_testnet::Testbed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::gateway::{Gateway, config, curl, run, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_work_finish_and_a_second_signal_does_not_wait() {
    let bed = Testbed::start().await.unwrap();
    let mut gateway = Gateway::start(&bed, "").await;
    let slow = bed.web.http("echo.test", "/slow/4");
    let (proxy, at) = (format!("socks5h://any@{}", gateway.addr()), gateway.addr());
    let download = tokio::spawn(async move { curl(&["-x", &proxy, &slow]).await });
    until(|| async { bed.web.sources("/slow").len() }, |seen| *seen == 1).await;
    gateway.signal("TERM");
    let _ = until(|| TcpStream::connect(at), Result::is_err).await;
    assert!(TcpStream::connect(at).await.is_err(), "the port still accepts while draining");
    let got = download.await.unwrap();
    assert_eq!((got.code, got.body.len()), (0, 4), "a tunnel was cut while draining: {}", got.errors);
    assert_eq!(gateway.ended().await.code(), Some(0));

    let mut gateway = Gateway::start(&bed, "lifecycle.drain = \"1h\"").await;
    let mut held = open_tunnel(&gateway, &bed).await;
    let engines = gateway.engines();
    assert!(!engines.is_empty(), "no tor among the gateway's children");
    gateway.signal("TERM");
    let _ = until(|| TcpStream::connect(at), Result::is_err).await;
    let begun = Instant::now();
    gateway.signal("TERM");
    assert_eq!(gateway.ended().await.code(), Some(143));
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(held.read(&mut [0; 16]).await.unwrap_or(0), 0, "the tunnel is over");
    let gone = || async { engines.iter().all(|pid| !fs::exists(format!("/proc/{pid}/stat")).unwrap_or(false)) };
    assert!(until(gone, |gone| *gone).await, "engines outlived the gateway");
}

async fn open_tunnel(gateway: &Gateway, bed: &Testbed) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.addr()).await.unwrap();
    let request = format!("CONNECT echo.test:{0} HTTP/1.1\r\nHost: echo.test:{0}\r\n\r\n", bed.web.http_port());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    // The rest of the head: nothing else comes until we speak.
    let mut byte = [0];
    let mut last = [0; 4];
    while last != *b"\r\n\r\n" {
        stream.read_exact(&mut byte).await.unwrap();
        last.rotate_left(1);
        last[3] = byte[0];
    }
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_is_all_or_nothing_and_a_taken_port_is_said() {
    let bed = Testbed::start().await.unwrap();
    let gateway = Gateway::start(&bed, "").await;
    let path = bed.sandbox.folder().join("exitgate.toml");
    let page = bed.web.http("echo.test", "/ip");
    let api = format!("http://{}", gateway.port(8080));
    let reload = || async {
        let args = ["-X", "POST", "-H", "Content-Type: application/json", &format!("{api}/reload")];
        curl(&args).await
    };

    let added = "[[routes]]\nname = \"added\"\nselector = \"de\"\nport = 20005\n";
    fs::write(&path, config(&bed, "gateway", &format!("gateway.idle_timeout = \"never-ever\"\n{added}"))).unwrap();
    let refused = reload().await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert!(refused.body.contains("gateway.idle_timeout"), "{}", refused.body);
    assert!(TcpStream::connect(gateway.port(20005)).await.is_err(), "half of a refused reload was applied");

    let moved = "api.listen = \"127.0.0.9:9\"";
    let text = config(&bed, "gateway", added);
    let text = text.lines().map(|line| if line.starts_with("api.listen") { moved } else { line });
    fs::write(&path, text.collect::<Vec<_>>().join("\n")).unwrap();
    let applied = reload().await;
    assert_eq!(applied.status, 200, "{}", applied.body);
    assert!(applied.body.contains("api.listen") && applied.body.contains("routes"), "{}", applied.body);
    let got = curl(&["-x", &format!("http://{}", gateway.port(20005)), &page]).await;
    assert_eq!(got.body, bed.network.relay("de1").outbound.to_string(), "{}", got.errors);

    fs::write(&path, config(&bed, "gateway", "")).unwrap();
    gateway.signal("HUP");
    let at = gateway.port(20005);
    let _ = until(|| TcpStream::connect(at), Result::is_err).await;
    assert!(TcpStream::connect(at).await.is_err(), "a route that is gone still has its port");

    let program = env!("CARGO_BIN_EXE_exitgate");
    let second = bed.sandbox.folder().join("second.toml");
    fs::write(&second, config(&bed, "second", "")).unwrap();
    let taken = run(program, &["serve", "--config", second.to_str().unwrap()]).await;
    let said = String::from_utf8_lossy(&taken.stderr).into_owned();
    assert_eq!(taken.status.code(), Some(69), "{said}");
    assert!(said.contains(&gateway.addr().to_string()) && said.contains("in use"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_fails_first_and_the_api_answers_until_the_last_tunnel_ends() {
    let bed = Testbed::start().await.unwrap();
    let mut gateway = Gateway::start(&bed, "lifecycle.drain_delay = \"3s\"\nlifecycle.drain = \"1h\"").await;
    let api = format!("http://{}", gateway.port(8080));
    let ready = || async { curl(&[&format!("{api}/ready")]).await };
    assert_eq!(ready().await.status, 200);
    let mut held = open_tunnel(&gateway, &bed).await;
    gateway.signal("TERM");
    let draining = until(&ready, |got| got.status == 503).await;
    assert!(
        draining.body.contains("\"draining\":true") && draining.body.contains("\"ready\":false"),
        "{}",
        draining.body
    );
    // The ports still take connections, because a load balancer needs time to see the answer of /ready.
    let page = bed.web.http("echo.test", "/ip");
    let late = curl(&["-x", &format!("http://any@{}", gateway.addr()), &page]).await;
    assert_eq!(late.status, 200, "{}", late.errors);

    let at = gateway.addr();
    let _ = until(|| TcpStream::connect(at), Result::is_err).await;
    assert!(TcpStream::connect(at).await.is_err(), "the port still accepts while draining");
    assert_eq!(ready().await.status, 503, "the API answers while the tunnel is open");
    let metrics = curl(&[&format!("{api}/metrics")]).await;
    assert!(metrics.status == 200 && metrics.body.contains("exitgate_connections_open"), "{}", metrics.errors);
    let json = ["-H", "Content-Type: application/json"];
    let proxies = format!("{api}/proxies");
    let refused = curl(&["-X", "POST", json[0], json[1], "-d", "{\"selector\": \"us\"}", &proxies]).await;
    assert_eq!((refused.status, refused.body.contains("\"draining\"")), (503, true), "{}", refused.body);

    held.write_all(b"GET /ip HTTP/1.1\r\nHost: echo.test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    held.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "the tunnel was cut: {}", String::from_utf8_lossy(&answer));
    drop(held);
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert_ne!(ready().await.code, 0, "the API is gone");
}
