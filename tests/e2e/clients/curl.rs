//! curl, in every way that it knows, and what it cannot do: SOCKS by hand.

use std::net::IpAddr;
use std::time::Duration;

use exitgate_testnet::Testbed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::gateway::{Gateway, curl, run, until};

/// How much goes through in one piece: enough that every window on the way is full for seconds, and little enough that
/// two cores carry it through three relays in that time.
const LARGE: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn curl_in_every_protocol() {
    let bed = Testbed::start().await.unwrap();
    let gateway = Gateway::start(&bed, "").await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let want = bed.network.relay("de1").outbound.to_string();
    let at = gateway.addr();
    let (plain, secure) = (bed.web.http("echo.test", "/ip"), bed.web.https("echo.test", "/ip"));
    let ca = bed.web.ca_pem().to_str().unwrap();
    for proxy in [
        format!("socks5h://de@{at}"),
        format!("socks5h://de:any@{at}"),
        format!("socks4a://de@{at}"),
        format!("http://de@{at}"),
    ] {
        for url in [&plain, &secure] {
            let got = curl(&["--cacert", ca, "-x", &proxy, url]).await;
            assert_eq!((got.status, &got.body), (200, &want), "{proxy} {url}: {}", got.errors);
        }
    }
    let tunnelled = curl(&["-p", "-x", &format!("http://de@{at}"), &plain]).await;
    assert_eq!(tunnelled.body, want, "{}", tunnelled.errors);
    assert_eq!(tunnelled.headers["x-exitgate-exit-ip"], want);
    assert_eq!(tunnelled.headers["x-exitgate-exit-country"], "DE");

    for proxy in [format!("socks5h://{at}"), format!("http://{at}")] {
        let got = curl(&["-x", &proxy, &plain]).await;
        assert!(bed.network.exit_at(got.body.parse().unwrap()).is_some(), "{proxy} without a word: any exit");
    }

    let page = curl(&[&format!("http://{at}/")]).await;
    assert!(page.body.contains("exitgate") && page.body.contains("curl"), "{}", page.body);
    let whoami = curl(&["-x", &format!("http://de@{at}"), "http://exit.gate/"]).await;
    let said: serde_json::Value = serde_json::from_str(&whoami.body).unwrap();
    assert_eq!(said["exit"]["ip"], want.as_str(), "{}", whoami.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_arrive_whole() {
    let bed = Testbed::start().await.unwrap();
    let gateway = Gateway::start(&bed, "").await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("body");
    let (size, proxy) = (20_000_000, format!("socks5h://any-session-big@{}", gateway.addr()));
    let url = bed.web.http("echo.test", &format!("/bytes/{size}"));
    let half = size / 2;
    let path = file.to_str().unwrap();
    let first = curl(&["-x", &proxy, "-r", &format!("0-{}", half - 1), "-o", path, &url]).await;
    assert_eq!(first.code, 0, "{}", first.errors);
    // `-i` wrote the head into the file too; a resume needs the body alone.
    let body = std::fs::read(&file).unwrap();
    let head = body.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    std::fs::write(&file, &body[head..]).unwrap();
    let rest = run("curl", &["-sS", "--max-time", "50", "-x", &proxy, "-C", "-", "-o", path, &url]).await;
    assert!(rest.status.success(), "{}", String::from_utf8_lossy(&rest.stderr));
    assert_eq!(std::fs::read(&file).unwrap(), exitgate_testnet::web::pattern(0..size), "the body differs");

    let up = vec![7; 3_000_000];
    let sent = dir.path().join("up");
    std::fs::write(&sent, &up).unwrap();
    let data = format!("@{}", sent.display());
    let back = dir.path().join("back");
    let chunked = ["-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue"];
    for extra in [&[] as &[&str], &chunked] {
        let mut args = vec!["-sS", "--max-time", "50", "-x"];
        let proxy = format!("http://any@{}", gateway.addr());
        let to = bed.web.http("echo.test", "/echo");
        args.extend([proxy.as_str(), "--data-binary", &data, "-o", back.to_str().unwrap(), &to]);
        args.extend(extra);
        let output = run("curl", &args).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(std::fs::read(&back).unwrap(), up, "{extra:?}");
    }
}

/// A certificate for `ip` from nobody but itself, and its key, as files.
fn certificate(bed: &Testbed, ip: IpAddr) -> [String; 2] {
    let made = rcgen::generate_simple_self_signed(vec![ip.to_string()]).unwrap();
    [("gate.pem", made.cert.pem()), ("gate.key", made.signing_key.serialize_pem())].map(|(name, text)| {
        let path = bed.sandbox.folder().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_says_who_it_is_in_every_way() {
    let bed = Testbed::start().await.unwrap();
    let [cert, key] = certificate(&bed, bed.sandbox.ip(200, 1).into());
    let more = format!(
        "gateway.tls.cert = {cert:?}\ngateway.tls.key = {key:?}\ngateway.keys = [{{ name = \"a\", key = \"k\" }}]"
    );
    let gateway = Gateway::start(&bed, &more).await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let (at, ca) = (gateway.addr().to_string(), bed.web.ca_pem().to_str().unwrap());
    let want = bed.network.relay("de1").outbound.to_string();
    let (http, tls) = (format!("http://{at}"), format!("https://{at}"));
    let socks4 = format!("de:k@{at}");
    let who = ["--proxy-user", "de:k"];
    for url in [bed.web.http("echo.test", "/ip"), bed.web.https("echo.test", "/ip")] {
        for args in [
            &["--socks5-hostname", &at, who[0], who[1]] as &[&str],
            &["--socks5-basic", "--socks5-hostname", &at, who[0], who[1]],
            &["-x", &http, who[0], who[1]],
            &["-x", &http, "--proxy-anyauth", who[0], who[1]],
            &["-x", &http, "-p", who[0], who[1]],
            &["--proxy1.0", &at, who[0], who[1]],
            &["-x", &tls, "--proxy-cacert", &cert, who[0], who[1]],
            &["-x", &tls, "--proxy-cacert", &cert, "--tls-max", "1.2", "--proxy-tlsv1", who[0], who[1]],
            &["-x", &tls, "--proxy-cacert", &cert, "-p", who[0], who[1]],
        ] {
            let got = curl(&[args, &["--cacert", ca, &url]].concat()).await;
            assert_eq!((got.status, &got.body), (200, &want), "{args:?} {url}: {}", got.errors);
            if let Some(named) = got.headers.get("x-exitgate-exit-ip") {
                assert_eq!(*named, want, "{args:?}");
            }
        }
        // SOCKS4 has no password, so where keys are asked for it cannot come in.
        let got = curl(&["--cacert", ca, "--socks4a", &socks4, &url]).await;
        assert_eq!(got.code, 97, "{}", got.errors);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_download_is_resumed_through_another_exit() {
    let bed = Testbed::start().await.unwrap();
    let gateway = Gateway::start(&bed, "").await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("body");
    let (size, file) = (LARGE, path.to_str().unwrap().to_owned());
    let (page, proxy) = (format!("/bytes/{size}"), format!("http://us-session-r@{}", gateway.addr()));
    let url = bed.web.http("echo.test", &page);
    let args = ["-sS", "--max-time", "50", "-C", "-", "-o", &file, "-x", &proxy, &url].map(str::to_owned);
    let slow = [&args[..], &["--limit-rate".to_owned(), "4M".to_owned()]].concat();
    let first = tokio::spawn(async move { run("curl", &slow.iter().map(|arg| &**arg).collect::<Vec<_>>()).await });
    let length = || async { std::fs::metadata(&path).map_or(0, |meta| meta.len()) };
    assert!(until(length, |length| *length > 2_000_000).await > 2_000_000);
    let began = bed.web.sources(&page)[0];
    let IpAddr::V4(ip) = began else { panic!("{began}") };
    bed.network.kill(&bed.network.exit_at(ip).unwrap().name).await.unwrap();
    let broken = first.await.unwrap();
    let complaint = String::from_utf8_lossy(&broken.stderr);
    assert_eq!(broken.status.code(), Some(18), "a body cut short must not look whole: {complaint}");
    let kept = length().await;
    assert!((2_000_000..size).contains(&kept), "{kept}");

    let args: Vec<_> = args.iter().map(|arg| &**arg).collect();
    let resumed = until(|| run("curl", &args), |output| output.status.success()).await;
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    assert!(std::fs::read(&path).unwrap() == exitgate_testnet::web::pattern(0..size), "the body differs");
    let last = *bed.web.sources(&page).last().unwrap();
    assert_ne!(last, began);
    let asked: Vec<_> = bed.web.seen().iter().filter_map(|seen| seen.headers.get("range").cloned()).collect();
    assert!(asked.iter().any(|range| range == &format!("bytes={kept}-")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_arrives_whole_in_every_protocol() {
    let bed = Testbed::start().await.unwrap();
    let gateway = Gateway::start(&bed, "").await;
    let url = bed.web.http("echo.test", &format!("/bytes/{LARGE}"));
    let want = exitgate_testnet::web::pattern(0..LARGE);
    let folder = tempfile::tempdir().unwrap();
    for scheme in ["socks5h", "http"] {
        let path = folder.path().join(scheme);
        let proxy = format!("{scheme}://any@{}", gateway.addr());
        let args = ["-sS", "-o", path.to_str().unwrap(), "-x", &proxy, &url];
        let output = tokio::time::timeout(Duration::from_secs(100), run("curl", &args)).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(std::fs::read(&path).unwrap() == want, "{scheme}: the body differs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn socks_says_what_went_wrong_and_resolves_at_the_exit() {
    let bed = Testbed::start().await.unwrap();
    let gateway = Gateway::start(&bed, "").await;
    for (host, port, code) in
        [("closed.test", 81, 0x05), ("nx.test", 80, 0x04), ("echo.test", bed.web.http_port(), 0x00)]
    {
        let (reply, _) = socks5(&gateway, "any", 0x01, host, port).await;
        assert_eq!(reply, code, "{host}:{port}");
    }
    let (reply, answer) = socks5(&gateway, "any", 0xF0, "echo.test", 0).await;
    assert_eq!((reply, answer), (0x00, Some(bed.web.ip().into())), "RESOLVE");
    for command in [0x02, 0x03] {
        assert_eq!(socks5(&gateway, "any", command, "echo.test", 80).await.0, 0x07);
    }
    let forbidden =
        curl(&["-x", &format!("http://any@{}", gateway.addr()), "http://169.254.169.254/latest/meta-data"]).await;
    assert_eq!(forbidden.status, 403, "{}", forbidden.body);
}

/// One SOCKS5 request by hand: the reply code and the address in it.
async fn socks5(gateway: &Gateway, user: &str, command: u8, host: &str, port: u16) -> (u8, Option<IpAddr>) {
    let mut stream = TcpStream::connect(gateway.addr()).await.unwrap();
    let mut request = vec![5, 1, 2, 1, user.len() as u8];
    request.extend(user.as_bytes());
    request.push(0);
    request.extend([5, command, 0, 3, host.len() as u8]);
    request.extend(host.as_bytes());
    request.extend(port.to_be_bytes());
    stream.write_all(&request).await.unwrap();
    let mut head = [0; 8];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[..4], [5, 2, 1, 0], "the method and the key");
    let (code, kind) = (head[5], head[7]);
    let mut v4 = [0; 4];
    let address = match kind {
        1 => stream.read_exact(&mut v4).await.ok().map(|_| IpAddr::from(v4)),
        _ => None,
    };
    (code, address)
}
