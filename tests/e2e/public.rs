//! Public proxies: what the shipped binary finds out about them, and what it does with those that work.

mod coming_from;

use std::collections::BTreeMap;
use std::sync::Arc;

use exitgate_testnet::public::{Kind, Mix, Protocol, Proxy};
use exitgate_testnet::{Dns, PublicProxies, Sandbox, Testbed, Web};
use serde_json::Value;

use crate::gateway::{Gateway, Got, config, until};

/// Proxies, the sites that they reach, and no Tor.
struct Bed {
    proxies: PublicProxies,
    web: Web,
    sandbox: Arc<Sandbox>,
    _dns: Dns,
}

impl Bed {
    async fn start(mix: &[(Kind, u32)]) -> Self {
        let sandbox = Sandbox::claim().unwrap();
        let (web, dns) = (Web::start(&sandbox).await.unwrap(), Dns::start(&sandbox).await.unwrap());
        let proxies = PublicProxies::start(&sandbox, &dns, &web, &Mix::of(mix)).await.unwrap();
        Self { proxies, web, sandbox, _dns: dns }
    }

    /// Where the gateway listens: below the proxies' own addresses.
    fn ip(&self) -> std::net::Ipv4Addr {
        self.sandbox.ip(90, 1)
    }

    fn config(&self, more: &str) -> String {
        let ip = self.ip();
        format!(
            r#"data_dir = {data:?}
gateway.listen = "{ip}:1080"
gateway.route_bind = "{ip}"
gateway.allow_private_targets = true
api.listen = "{ip}:8080"
tor.enabled = false
tor.geoip_file = {geoip:?}
check.echo = [{secure:?}]
check.canary = [{canary:?}]
check.ca_file = {ca:?}
log.level = "info,exitgate=debug"
{lists}
{more}
"#,
            data = self.sandbox.folder().join("gateway"),
            geoip = self.proxies.geoip_file(),
            secure = self.web.https("echo.test", "/ip"),
            canary = self.web.http("echo.test", "/bytes/64"),
            ca = self.web.ca_pem(),
            lists = lists(&self.web, &self.proxies),
        )
    }

    fn launch(&self, more: &str) -> Gateway {
        Gateway::launch_on(&self.sandbox, self.ip(), &self.config(more))
    }
}

/// Configuration lines for the tester of public proxies, with the fake web.
fn lists(web: &Web, proxies: &PublicProxies) -> String {
    format!(
        r#"sources.proxifly.enabled = true
sources.proxifly.url = {url:?}
check.public.echo = [{echo:?}, {second:?}]
check.public.headers = {headers:?}
check.public.extended_probes = 6
check.public.extended_passes = 5
check.public.failed_every = "3s"
check.public.remove_after = 20
check.public.reply_timeout = "10s""#,
        url = proxies.cdn.url().trim_end_matches('/'),
        echo = web.http("echo.test", "/ip"),
        second = web.http("ip.test", "/ip.json"),
        headers = web.http("echo.test", "/headers"),
    )
}

fn json(got: &Got) -> Value {
    serde_json::from_str(&got.body).unwrap_or_else(|_| panic!("no JSON: {} {} {}", got.status, got.body, got.errors))
}

/// Whether a proxy of this kind is to be found working.
fn works(kind: Kind) -> bool {
    matches!(kind, Kind::Good | Kind::Slow | Kind::Transparent | Kind::Anonymous | Kind::NoConnect)
}

/// What is to be said of a proxy; nothing, if it is not to be listed.
fn truth(proxy: &Proxy) -> Option<String> {
    let anonymity = match (proxy.kind, proxy.protocol) {
        (Kind::Transparent, Protocol::Http) => "transparent",
        (Kind::Anonymous, Protocol::Http) => "anonymous",
        _ => "elite",
    };
    let country = if proxy.country == "ZZ" { "-" } else { proxy.country };
    let (tunnels, slow, ip) = (proxy.kind != Kind::NoConnect, proxy.kind == Kind::Slow, proxy.address.ip());
    works(proxy.kind).then(|| format!("{anonymity} {country} {ip} tunnels {tunnels} {tunnels} slow {slow} tested true"))
}

fn said(shown: &Value) -> String {
    let text = |key: &str| shown[key].as_str().unwrap_or("-");
    let (connect, https, slow) = (&shown["connect"], &shown["https"], shown["response_ms"].as_u64() >= Some(3000));
    let (country, ip, tested) = (text("country"), text("exit_ip"), shown["reliability"].is_number());
    format!("{} {country} {ip} tunnels {connect} {https} slow {slow} tested {tested}", text("anonymity"))
}

/// Proxies of which something else is said than what is true.
fn misjudged(bed: &Bed, list: &Got) -> Vec<String> {
    let list: Value = serde_json::from_str(&list.body).unwrap_or_default();
    let all = list.as_array().map_or(&[][..], Vec::as_slice);
    let shown: BTreeMap<&str, String> = all.iter().map(|one| (one["url"].as_str().unwrap_or(""), said(one))).collect();
    let proxies = bed.proxies.proxies().into_iter();
    let wrong = proxies.filter(|proxy| shown.get(proxy.url().as_str()).cloned() != truth(proxy));
    wrong.map(|proxy| format!("{:?} {}: {:?}", proxy.kind, proxy.url(), shown.get(proxy.url().as_str()))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn public_tester_finds_the_planted_truth_of_every_kind() {
    let kinds = [
        Kind::Good,
        Kind::Dead,
        Kind::Hanging,
        Kind::Slow,
        Kind::Lying,
        Kind::Tampering,
        Kind::BreaksTls,
        Kind::Transparent,
        Kind::Anonymous,
        Kind::NoConnect,
        Kind::Flapping,
        Kind::Locked,
        Kind::WebServer,
    ];
    let mut mix = kinds.map(|kind| (kind, 4)).to_vec();
    mix[0].1 = 16;
    let bed = Bed::start(&mix).await;
    let gateway = bed.launch("");
    let got = until(|| gateway.api("/list?format=json"), |got| misjudged(&bed, got).is_empty()).await;
    let wrong = misjudged(&bed, &got);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let want = bed.proxies.proxies().iter().filter(|proxy| works(proxy.kind)).count();
    let stats = json(&gateway.api("/stats").await);
    assert_eq!((&stats["working_proxies"], &stats["enabled"]), (&want.into(), &true.into()), "{stats}");
    assert!(stats["last_meta_update"].is_string() && stats["failed_proxies"].as_u64() > Some(0), "{stats}");

    let text = gateway.api("/list?protocol=socks5&format=proxychains&limit=2").await;
    assert!(text.body.lines().count() == 2 && text.body.starts_with("socks5 127."), "{}", text.body);
    let one = gateway.api("/random?anonymity=elite&https=true").await;
    assert!(bed.proxies.proxies().iter().any(|proxy| proxy.url() == one.body.trim()), "{}", one.body);
    assert_eq!(gateway.api("/random?country=KP").await.status, 404);
    assert_eq!(gateway.api("/list?anonymity=high").await.status, 400);
    let sources = json(&gateway.api("/sources").await);
    assert_eq!(sources["sources"][0]["name"], "proxifly", "{sources}");
    let dead = bed.proxies.of_kind(Kind::Dead)[0].url().replace('/', "%2F").replace(':', "%3A");
    let checked = json(&gateway.post(&format!("/exits/{dead}/check"), "").await);
    assert_eq!(checked["verdict"], "bad", "{checked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_leave_through_proxies_of_every_protocol() {
    let bed = Bed::start(&[(Kind::Good, 8), (Kind::NoConnect, 4)]).await;
    let gateway = bed.launch("");
    let all = until(|| gateway.api("/list"), |got| got.body.lines().count() == 12).await;
    assert_eq!(all.body.lines().count(), 12, "{}\n{}", all.body, gateway.log());
    let (page, secure) = (bed.web.http("echo.test", "/ip"), bed.web.https("echo.test", "/ip"));
    let ca = bed.web.ca_pem().display().to_string();
    for proxy in bed.proxies.proxies() {
        let ip = proxy.address.ip();
        let user = format!("any-exit-{ip}-source-public");
        let plain = gateway.get(&user, &page).await;
        assert_eq!((plain.status, plain.body.as_str()), (200, ip.to_string().as_str()), "{proxy:?} {}", plain.errors);
        assert_eq!(plain.headers["x-exitgate-exit"], proxy.url());
        let at = format!("socks5h://{user}@{}", gateway.addr());
        let tunnelled = crate::gateway::curl(&["-x", &at, "--cacert", &ca, &secure]).await;
        if proxy.kind == Kind::NoConnect {
            assert_ne!(tunnelled.code, 0, "a proxy that forwards cannot carry TLS");
        } else {
            assert_eq!(tunnelled.body, ip.to_string(), "{proxy:?} {}", tunnelled.errors);
        }
    }
    let not_tor = gateway.get("any", &page).await;
    assert_eq!(not_tor.status, 503, "a name without a source means Tor");
    let us = gateway.get("us-source-public", &page).await;
    let exit = bed.proxies.at(us.body.parse().unwrap()).unwrap();
    assert_eq!(exit.country, "US");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_worked_is_served_again_at_once_and_what_was_caught_stays_out() {
    // Six work. A decision needs half of those that passed to pass again, and three are tested again immediately, so the
    // test does not wait for the minute after which a decision falls anyway.
    let bed = Bed::start(&[(Kind::Good, 6), (Kind::BreaksTls, 4), (Kind::Tampering, 4)]).await;
    let mut gateway = bed.launch("");
    let caught = |got: &Got| json(got)["condemned_proxies"] == 8 && json(got)["working_proxies"] == 6;
    let stats = until(|| gateway.api("/stats"), |got| got.status == 200 && caught(got)).await;
    assert!(caught(&stats), "{}\n{}", stats.body, gateway.api("/exits?source=public&usable=false").await.body);
    gateway.signal("TERM");
    assert!(gateway.ended().await.success());

    // Nobody can be tested now, and nothing is listed.
    bed.proxies.cdn.behave(exitgate_testnet::public::Behaviour::Status(503));
    for proxy in bed.proxies.of_kind(Kind::Good) {
        bed.proxies.change_kind(proxy, Kind::Hanging).await.unwrap();
    }
    drop(gateway);
    let begun = std::time::Instant::now();
    let gateway = bed.launch("check.public.working_every = \"1h\"");
    let list = until(|| gateway.api("/list?format=json"), |got| got.status == 200).await;
    let took = begun.elapsed();
    // A second is the mark on an idle machine; two cores with other tests on them are given five.
    assert!(took < std::time::Duration::from_secs(5), "what worked is served {took:?} after the start");
    let all = json(&list);
    assert_eq!(all.as_array().unwrap().len(), 6, "{all}");
    assert!(all.as_array().unwrap().iter().all(|one| one["age_seconds"].is_number() && one["checked"].is_string()));
    bed.proxies.cdn.behave(exitgate_testnet::public::Behaviour::Normal);
    let stats = json(&gateway.api("/stats").await);
    assert_eq!(stats["condemned_proxies"], 8, "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_behind_tor_never_see_us_and_routes_mix_sources() {
    let bed = Testbed::start().await.unwrap();
    let proxies = bed.public_proxies(&Mix::of(&[(Kind::Transparent, 4), (Kind::Good, 4)])).await.unwrap();
    let more = format!(
        r#"gateway.allow_private_targets = true
{lists}
sources.proxifly.through = "tor"
[[routes]]
name = "mixed"
selector = "any"
source = ["public", "tor"]
fallback = true
port = 20000
"#,
        lists = lists(&bed.web, &proxies),
    );
    let gateway = Gateway::launch(&bed, &config(&bed, "gateway", &more));
    let full = until(|| gateway.api("/list"), |got| got.body.lines().count() == 8).await;
    assert_eq!(full.body.lines().count(), 8, "{} {}", full.body, gateway.log());
    let page = bed.web.http("echo.test", "/headers");
    let at = format!("http://{}", gateway.port(20000));
    let through = crate::gateway::curl(&["-x", &at, &page]).await;
    let seen: Value =
        serde_json::from_str(&through.body).unwrap_or_else(|_| panic!("{} {}", through.body, through.errors));
    assert!(proxies.at(seen["ip"].as_str().unwrap().parse().unwrap()).is_some(), "public comes first: {seen}");
    // A transparent one names whom it sees: a Tor exit, and nobody else.
    let transparent = proxies.of_kind(Kind::Transparent)[0];
    let user = format!("any-exit-{}-source-public", transparent.address.ip());
    let got = gateway.get(&user, &page).await;
    assert_eq!(got.status, 200, "{} {}", got.body, got.errors);
    let named = json(&got)["headers"]["x-forwarded-for"].as_str().map(str::to_owned);
    let exits: Vec<_> = bed.network.exits().iter().map(|exit| exit.outbound.to_string()).collect();
    // Through a tunnel it adds nothing; where it forwards, it names the exit.
    assert!(named.as_ref().is_none_or(|ip| exits.contains(ip)), "{named:?}");

    for proxy in proxies.proxies() {
        proxies.change_kind(proxy, Kind::Dead).await.unwrap();
    }
    let by_tor = async || crate::gateway::curl(&["-x", &at, &bed.web.http("echo.test", "/ip")]).await;
    let got = until(by_tor, |got| got.status == 200).await;
    assert!(exits.contains(&got.body), "Tor serves while no proxy does: {} {}", got.body, got.errors);
}
