//! What clients send to the gateway: usernames, keys, PROXY headers, and what must not be forwarded.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use exitgate_testnet::Testbed;
use exitgate_testnet::dns::Answer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::gateway::{Gateway, Got, curl, run, until};

/// A site at `forger.test` that sends every client the same bytes.
async fn site(bed: &Testbed, answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((bed.sandbox.ip(90, 1), 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    bed.dns.set("forger.test", Answer::ip(at.ip()));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                stream.write_all(answer.as_bytes()).await?;
                stream.read_to_end(&mut Vec::new()).await
            });
        }
    });
    at
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_fields_are_dropped_and_hops_are_counted() {
    let bed = Testbed::start().await.unwrap();
    let gateway = Gateway::start(&bed, "").await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let want = bed.network.relay("de1").outbound.to_string();
    let forged = "HTTP/1.1 200 OK\r\nX-Exitgate-Exit-Ip: 6.6.6.6\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n\
                  0\r\nDigest: d\r\nx-exitgate-exit-ip: 6.6.6.6\r\nX-Exitgate-Moved: 6.6.6.6\r\n\r\n";
    let port = site(&bed, forged).await.port();
    let mut stream = TcpStream::connect(gateway.addr()).await.unwrap();
    let who = "Proxy-Authorization: Basic ZGU6\r\n";
    let ask = |host: &str| format!("GET http://{host}/ip HTTP/1.1\r\nHost: {host}\r\n{who}\r\n");
    stream.write_all(ask(&format!("forger.test:{port}")).as_bytes()).await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\n") || !said.windows(3).any(|three| three == b"\r\n0") {
        said.push(stream.read_u8().await.unwrap());
    }
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains(&format!("X-Exitgate-Exit-Ip: {want}\r\n")) && !said.contains("6.6.6.6"), "{said}");
    assert!(said.ends_with("\r\n5\r\nhello\r\n0\r\nDigest: d\r\n\r\n"), "{said}");
    // And the connection goes on where the trailers ended.
    let next = ask(&format!("echo.test:{}", bed.web.http_port())).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    stream.write_all(next.as_bytes()).await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 200 ") && rest.ends_with(&want), "{rest}");

    let proxy = format!("http://de@{}", gateway.addr());
    let url = bed.web.http("echo.test", "/hops");
    let method = |method: &'static str, hops: &'static str| {
        let args = ["-x", &proxy, "-X", method, "-H", hops, &url].map(str::to_owned);
        async move { curl(&args.each_ref().map(|arg| &**arg)).await }
    };
    let traced = method("TRACE", "Max-Forwards: 0").await;
    assert_eq!((traced.status, traced.headers["content-type"].as_str()), (200, "message/http"), "{}", traced.errors);
    assert!(
        traced.body.starts_with("TRACE http://echo.test") && !traced.body.contains("Authorization"),
        "{}",
        traced.body
    );
    let options = method("OPTIONS", "Max-Forwards: 0").await;
    assert!(options.status == 200 && options.headers["allow"].contains("CONNECT"), "{:?}", options.headers);
    assert!(bed.web.sources("/hops").is_empty(), "a request was forwarded beyond its Max-Forwards");
    method("OPTIONS", "Max-Forwards: 2").await;
    let seen = bed.web.seen().into_iter().find(|seen| seen.path == "/hops").unwrap();
    assert_eq!(seen.headers["max-forwards"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn usernames_of_paid_gateways_work_and_errors_name_the_wrong_token() {
    let bed = Testbed::start().await.unwrap();
    let more = "gateway.alias_prefixes = [\"customer-acme-\", \"user-\"]\n[groups]\nnordic = [\"se\", \"no\"]\n";
    let gateway = Gateway::start(&bed, more).await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let (page, at) = (bed.web.http("echo.test", "/ip"), gateway.addr());
    let country = |ip: &str| bed.network.exit_at(ip.parse().unwrap()).map(|exit| exit.outbound_country.clone());
    let mut sessions = Vec::new();
    for (user, wanted, session) in [
        ("customer-acme-cc-US-sessid-abc123-sesstime-5", "US", "abc123"),
        ("customer-acme-country-us-session-abc123", "US", "abc123"),
        ("country-us-sessionid-abc123", "US", "abc123"),
        ("user-country-us-sessionduration-30-session-abc123", "US", "abc123"),
        ("us-session-abc123-lifetime-10m", "US", "abc123"),
        ("cc-DE", "DE", ""),
        ("country-fr", "FR", ""),
    ] {
        for scheme in ["http", "socks5h"] {
            let got = curl(&["-x", &format!("{scheme}://{at}"), "--proxy-user", &format!("{user}:pass"), &page]).await;
            assert_eq!(country(&got.body).as_deref(), Some(wanted), "{scheme} {user}: {} {}", got.body, got.errors);
            if !session.is_empty() {
                sessions.push(got.body);
            }
        }
    }
    assert!(sessions.iter().all(|ip| *ip == sessions[0]), "one session in other words moved: {sessions:?}");

    for (user, named) in [
        ("us-strcit", "strcit"),
        ("us-session", "session"),
        ("us-session-a-session-b", "session"),
        ("us-ttl-5m", "ttl"),
        ("us-sesstime-5", "sesstime"),
        ("customer-other-cc-US", "customer"),
        ("us-strict-rotate", "rotate"),
        ("uk", "gb"),
        ("any+us", "any"),
        ("nordic", "no exit"),
        ("us-exit-zz", "exit"),
        ("us-source-nowhere", "source"),
    ] {
        let status = if user == "nordic" { 503 } else { 400 };
        let plain = curl(&["-x", &format!("http://{user}:p@{at}"), &page]).await;
        let tunnel = curl(&["-p", "-x", &format!("http://{user}:p@{at}"), &page]).await;
        for got in [&plain, &tunnel] {
            let said = got.headers.get("x-exitgate-error").cloned().unwrap_or_default();
            assert!(got.status == status && said.to_lowercase().contains(named), "{user}: {} {said}", got.status);
            assert!(got.headers["proxy-status"].starts_with("exitgate; error="), "{user}");
            let id = format!("\"id\":\"{}\"", got.headers["x-exitgate-id"]);
            let log = until(|| async { gateway.log() }, |log| log.contains(&id)).await;
            assert!(log.contains(&id), "{user}: no access line has {id}");
        }
        assert_eq!((plain.code, tunnel.code), (0, 56), "{user}");
        let (five, four) = (format!("socks5h://{user}:p@{at}"), format!("socks4a://{user}@{at}"));
        let code = if user == "nordic" { "(3)" } else { "(2)" };
        let got = curl(&["-x", &five, &page]).await;
        assert!(got.code == 97 && got.errors.contains(code), "{user}: {}", got.errors);
        let got = curl(&["-x", &four, &page]).await;
        assert!(got.code == 97 && got.errors.contains("91"), "{user}: {}", got.errors);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guesser_behind_a_nat_does_not_lock_out_others() {
    let bed = Testbed::start().await.unwrap();
    let more =
        "gateway.keys = [{ name = \"a\", key = \"right\" }]\ngateway.auth_failures = 4\ngateway.auth_pause = \"1h\"";
    let gateway = Gateway::start(&bed, more).await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let page = bed.web.http("echo.test", "/ip");
    let by = |scheme: &'static str, key: String| {
        let (proxy, page) = (format!("{scheme}://us:{key}@{}", gateway.addr()), page.clone());
        async move { curl(&["-x", &proxy, &page]).await }
    };
    assert_eq!(by("http", "right".into()).await.status, 200);
    assert_eq!(by("socks5h", "right".into()).await.status, 200);
    // A scraper with last month's key is one wrong key, however often it tries.
    for _ in 0..10 {
        let got = by("http", "last-month".into()).await;
        assert_eq!((got.status, got.headers["x-exitgate-error"].as_str()), (407, "the key is wrong"));
        assert!(got.headers["proxy-authenticate"].starts_with("Basic"));
    }
    let nobody = curl(&["-x", &format!("http://{}", gateway.addr()), &page]).await;
    assert_eq!((nobody.status, nobody.headers["x-exitgate-error"].as_str()), (407, "a key is needed"));
    let mut damped = None;
    for guess in 0..10 {
        let got = by("http", format!("guess{guess}")).await;
        if got.status == 429 {
            damped = Some(got);
            break;
        }
    }
    let damped = damped.expect("ten different keys were all read");
    assert!(damped.headers["retry-after"].parse::<u32>().unwrap() > 3000, "{:?}", damped.headers);
    assert!(damped.headers["x-exitgate-error"].contains("too many wrong keys"), "{:?}", damped.headers);
    let guess = by("socks5h", "guess-by-socks".into()).await;
    assert_eq!(guess.code, 97, "{}", guess.errors);
    for scheme in ["http", "socks5h"] {
        let got = by(scheme, "right".into()).await;
        assert_eq!(got.status, 200, "a key that was good a moment ago is locked out: {}", got.errors);
    }
}

/// A haproxy in front of the gateway; killed when dropped.
struct Balancer(Child);

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Balancer {
    /// Listens on the ports 1081 (PROXY version 1) and 1082 (version 2) of its address.
    fn start(bed: &Testbed, gateway: &Gateway) -> Self {
        let (ip, to) = (bed.sandbox.ip(60, 1), gateway.addr());
        let mut text =
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n".to_owned();
        for (port, word) in [(1081, "send-proxy"), (1082, "send-proxy-v2")] {
            let server = format!("server gate {to} {word} source {ip}");
            text.push_str(&format!("listen at{port}\n bind {ip}:{port}\n {server}\n"));
        }
        let path = bed.sandbox.folder().join("haproxy.cfg");
        fs::write(&path, text).unwrap();
        let child = Command::new("haproxy").arg("-db").arg("-f").arg(path).stderr(Stdio::null()).spawn();
        Self(child.expect("no haproxy here: run .ci/need haproxy"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancers_proxy_header_is_trusted_and_others_are_refused() {
    let bed = Testbed::start().await.unwrap();
    let (balancer, client) = (bed.sandbox.ip(60, 1), bed.sandbox.ip(61, 7).to_string());
    let more = format!("gateway.proxy_protocol.trusted = [\"{balancer}\"]\ngateway.client_limits.connections = 1");
    let gateway = Gateway::start(&bed, &more).await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let _running = Balancer::start(&bed, &gateway);
    let (page, want) = (bed.web.http("echo.test", "/ip"), bed.network.relay("de1").outbound.to_string());
    for port in [1081, 1082] {
        for scheme in ["socks5h", "socks4a", "http"] {
            let proxy = format!("{scheme}://de@{balancer}:{port}");
            let ask = || curl_from(&client, &proxy, &page);
            let got = until(ask, |got: &Got| got.status == 200).await;
            assert_eq!(got.body, want, "{proxy}: {}", got.errors);
        }
    }
    let said =
        until(|| async { gateway.log() }, |log| log.matches(&format!("\"client\":\"{client}\"")).count() >= 6).await;
    assert!(said.contains(&format!("\"client\":\"{client}\"")), "the access line names the balancer as the client");

    // What is counted is the client, not the balancer: one connection each, and a second one is refused.
    let slow = bed.web.http("echo.test", "/slow/4");
    let proxy = format!("http://de@{balancer}:1082");
    let first = {
        let (client, proxy) = (client.clone(), proxy.clone());
        tokio::spawn(async move { curl_from(&client, &proxy, &slow).await })
    };
    until(|| async { bed.web.sources("/slow").len() }, |seen| *seen == 1).await;
    assert_eq!(curl_from(&client, &proxy, &page).await.status, 429);
    assert_eq!(curl_from(&bed.sandbox.ip(61, 8).to_string(), &proxy, &page).await.status, 200);
    assert_eq!(first.await.unwrap().body.len(), 4);

    let direct = format!("http://de@{}", gateway.addr());
    let forged = run("curl", &["-sS", "--max-time", "20", "--haproxy-protocol", "-x", &direct, &page]).await;
    assert!(
        !forged.status.success() || !String::from_utf8_lossy(&forged.stdout).contains(&want),
        "a forged header was accepted"
    );
    let bare = curl_from(&balancer.to_string(), &direct, &page).await;
    assert_ne!(bare.status, 200, "a balancer without a header was let in");
}

async fn curl_from(ip: &str, proxy: &str, page: &str) -> Got {
    curl(&["--interface", ip, "-x", proxy, page]).await
}
