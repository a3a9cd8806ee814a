//! Public proxies behave as their kind says, seen by a client on one side and by the fake web on the other.
#![expect(clippy::print_stderr, reason = "the test prints how long a start takes")]

use std::net::SocketAddr;
use std::time::Duration;

use exitgate_testnet::public::{Behaviour, Kind, Mix, Protocol, Proxy};
use exitgate_testnet::{Dns, PublicProxies, Sandbox, Web, fetch};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

struct Bed {
    web: Web,
    proxies: PublicProxies,
    _dns: Dns,
}

async fn start(mix: &Mix) -> Bed {
    let sandbox = Sandbox::claim().unwrap();
    let (web, dns) = (Web::start(&sandbox).await.unwrap(), Dns::start(&sandbox).await.unwrap());
    let proxies = PublicProxies::start(&sandbox, &dns, &web, mix).await.unwrap();
    Bed { web, proxies, _dns: dns }
}

impl Bed {
    fn one(&self, kind: Kind, protocol: Protocol) -> &Proxy {
        let of_kind = self.proxies.of_kind(kind);
        of_kind.into_iter().find(|proxy| proxy.protocol == protocol).expect("one of each was ordered")
    }

    async fn tunnel(&self, proxy: &Proxy, host: &str, port: u16) -> anyhow::Result<TcpStream> {
        let address = SocketAddr::V4(proxy.address);
        match proxy.protocol {
            Protocol::Http => fetch::connect(address, host, port).await,
            Protocol::Socks4 => fetch::socks4(address, host, port).await,
            Protocol::Socks5 => fetch::socks5(address, None, host, port).await,
        }
    }

    /// One GET for a page of `echo.test` without TLS, through a tunnel.
    async fn get(&self, proxy: &Proxy, path: &str) -> anyhow::Result<fetch::Got> {
        fetch::get(self.tunnel(proxy, "echo.test", self.web.http_port()).await?, "echo.test", path).await
    }

    /// One GET for a page of `echo.test` with a request in proxy form.
    async fn get_plain(&self, proxy: &Proxy, path: &str) -> fetch::Got {
        let stream = TcpStream::connect(proxy.address).await.unwrap();
        fetch::get(stream, "echo.test", &self.web.http("echo.test", path)).await.unwrap()
    }
}

#[tokio::test]
async fn good_ones_carry_in_every_protocol_and_leave_from_their_own_address() {
    let bed = start(&Mix::of(&[(Kind::Good, 8)])).await;
    for proxy in bed.proxies.proxies() {
        let own = proxy.address.ip().to_string();
        assert_eq!(bed.get(proxy, "/ip").await.unwrap().text(), own, "{}", proxy.url());
        let tunnel = bed.tunnel(proxy, "echo.test", bed.web.https_port()).await.unwrap();
        let secure = fetch::tls(tunnel, "echo.test", bed.web.ca_pem()).await.unwrap();
        assert_eq!(fetch::get(secure, "echo.test", "/ip").await.unwrap().text(), own);
        assert!(bed.tunnel(proxy, "nx.test", 80).await.is_err());
        assert!(bed.tunnel(proxy, "192.0.2.1", 80).await.is_err(), "nothing leaves loopback");
        assert_eq!(bed.proxies.served(proxy), 4);
        assert_eq!(bed.proxies.at((*proxy.address.ip()).into()), Some(proxy));
    }
    assert_eq!(bed.get_plain(bed.one(Kind::Good, Protocol::Http), "/ip").await.status, 200);
}

#[tokio::test]
async fn bad_ones_fail_as_their_kind_says() {
    let kinds = [Kind::Dead, Kind::Hanging, Kind::Slow, Kind::Flapping, Kind::Locked, Kind::WebServer, Kind::NoConnect];
    let bed = start(&Mix::of(&kinds.map(|kind| (kind, 4)))).await;
    let socks = |kind| bed.one(kind, Protocol::Socks5);
    assert!(bed.get(socks(Kind::Dead), "/ip").await.is_err());
    assert!(timeout(Duration::from_secs(1), bed.get(socks(Kind::Hanging), "/ip")).await.is_err());
    let begun = Instant::now();
    assert!(bed.get(socks(Kind::Slow), "/ip").await.is_ok());
    assert!(begun.elapsed() >= Duration::from_secs(3));
    let flapping = socks(Kind::Flapping);
    let both = [bed.get(flapping, "/ip").await.is_ok(), bed.get(flapping, "/ip").await.is_ok()];
    assert_eq!(both, [true, false]);
    assert!(bed.get(socks(Kind::Locked), "/ip").await.is_err());
    let http = |kind| bed.one(kind, Protocol::Http);
    let refusal = |error: anyhow::Error| error.downcast_ref::<fetch::HttpRefusal>().map(|refusal| refusal.0);
    assert_eq!(refusal(bed.get(http(Kind::Locked), "/ip").await.unwrap_err()), Some(407));
    assert_eq!(refusal(bed.get(http(Kind::NoConnect), "/ip").await.unwrap_err()), Some(403));
    assert_eq!(bed.get_plain(http(Kind::NoConnect), "/ip").await.status, 200);
    assert_eq!(bed.get_plain(http(Kind::WebServer), "/ip").await.text(), "welcome\n");
}

#[tokio::test]
async fn dishonest_ones_change_what_they_can_see() {
    let kinds = [Kind::Lying, Kind::Tampering, Kind::BreaksTls, Kind::Transparent, Kind::Anonymous];
    let bed = start(&Mix::of(&kinds.map(|kind| (kind, 4)))).await;
    let liar = bed.one(Kind::Lying, Protocol::Socks4);
    assert_eq!(bed.get(liar, "/ip").await.unwrap().text(), liar.claims().to_string());
    assert_eq!(bed.web.sources("/ip"), [*liar.address.ip()], "the target is not deceived");

    let tamperer = bed.one(Kind::Tampering, Protocol::Http);
    assert_eq!(bed.get(tamperer, "/ip").await.unwrap().text(), tamperer.address.ip().to_string());
    assert_ne!(bed.get(tamperer, "/bytes/1000").await.unwrap().body, exitgate_testnet::web::pattern(0..1000));

    let spy = bed.one(Kind::BreaksTls, Protocol::Socks5);
    let tunnel = bed.tunnel(spy, "echo.test", bed.web.https_port()).await.unwrap();
    assert!(
        fetch::tls(tunnel, "echo.test", bed.web.ca_pem()).await.is_err(),
        "a client that verifies certificates fails"
    );
    assert_eq!(bed.get(spy, "/ip").await.unwrap().text(), spy.address.ip().to_string());

    let headers = |got: fetch::Got| serde_json::from_slice::<Value>(&got.body).unwrap()["headers"].clone();
    let transparent = headers(bed.get_plain(bed.one(Kind::Transparent, Protocol::Http), "/headers").await);
    assert_eq!((&transparent["x-forwarded-for"], &transparent["via"]), (&"127.0.0.1".into(), &"1.1 proxy".into()));
    let anonymous = headers(bed.get_plain(bed.one(Kind::Anonymous, Protocol::Http), "/headers").await);
    assert_eq!((&anonymous["x-forwarded-for"], &anonymous["via"]), (&Value::Null, &"1.1 proxy".into()));
}

#[tokio::test]
async fn one_that_breaks_tls_serves_clients_that_do_not_verify() {
    let bed = start(&Mix::of(&[(Kind::BreaksTls, 2)])).await;
    let spy = bed.one(Kind::BreaksTls, Protocol::Socks5);
    let tunnel = bed.tunnel(spy, "echo.test", bed.web.https_port()).await.unwrap();
    let secure = fetch::tls_to_anybody(tunnel, "echo.test").await.unwrap();
    assert_eq!(fetch::get(secure, "echo.test", "/ip").await.unwrap().text(), spy.address.ip().to_string());
}

#[tokio::test]
async fn one_can_die_and_recover() {
    let bed = start(&Mix::of(&[(Kind::Good, 1)])).await;
    let proxy = bed.one(Kind::Good, Protocol::Http);
    bed.proxies.change_kind(proxy, Kind::Dead).await.unwrap();
    assert!(bed.get(proxy, "/ip").await.is_err());
    bed.proxies.change_kind(proxy, Kind::Good).await.unwrap();
    assert!(bed.get(proxy, "/ip").await.is_ok());
}

#[tokio::test]
async fn the_list_names_thousands_that_listen() {
    let begun = Instant::now();
    let bed = start(&Mix::typical(3_000)).await;
    eprintln!("{} proxies in {:?}", bed.proxies.proxies().len(), begun.elapsed());
    let base: SocketAddr = bed.proxies.cdn.url()[7..].trim_end_matches("/proxies/").parse().unwrap();
    let get = async |path: &str, headers: &[(&str, &str)]| {
        let stream = TcpStream::connect(base).await.unwrap();
        fetch::get_with(stream, "cdn.test", &format!("/proxies/{path}"), headers).await.unwrap()
    };
    let all = get("all/data.json", &[]).await;
    let entries: Vec<Value> = serde_json::from_slice(&all.body).unwrap();
    assert_eq!(entries.len(), bed.proxies.proxies().len());
    let meta: Value = serde_json::from_slice(&get("meta/data.json", &[]).await.body).unwrap();
    assert_eq!(meta["totals"]["all"], entries.len());
    assert!(get("protocols/socks5/data.txt", &[]).await.text().lines().all(|line| line.starts_with("socks5://127.")));
    let tag = all.headers["etag"].to_str().unwrap();
    assert_eq!(get("all/data.json", &[("If-None-Match", tag)]).await.status, 304);
    bed.proxies.cdn.edit(|listed| listed.truncate(10));
    assert_eq!(get("all/data.csv", &[("If-None-Match", tag)]).await.text().lines().count(), 10);
    bed.proxies.cdn.behave(Behaviour::Status(500));
    assert_eq!(get("all/data.json", &[]).await.status, 500);
    for proxy in bed.proxies.proxies().iter().step_by(50) {
        assert_eq!(TcpStream::connect(proxy.address).await.is_ok(), proxy.kind != Kind::Dead, "{proxy:?}");
    }
}
