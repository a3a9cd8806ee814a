//! Exits of one's own: lists of proxies with logins, and gateways of providers, over real sockets.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use exitgate_testnet::upstream::{self, Decide, Grammar, OwnProxy, Provider, Spoken, Standing, Verdict};
use exitgate_testnet::{Dns, Sandbox, Web};
use serde_json::Value;

use crate::gateway::{Gateway, Got, curl, until};

/// What must be seen nowhere.
const USER: &str = "planted-user-41c7";
const PASSWORD: &str = "planted-password-9e02";

pub struct Bed {
    pub web: Web,
    pub dns: Dns,
    pub sandbox: Arc<Sandbox>,
}

impl Bed {
    pub async fn start() -> Self {
        let sandbox = Sandbox::claim().unwrap();
        let (web, dns) = (Web::start(&sandbox).await.unwrap(), Dns::start(&sandbox).await.unwrap());
        Self { web, dns, sandbox }
    }

    /// Starts a proxy that requires the planted login, and whose clients leave from this country.
    pub async fn proxy(&self, spoken: Spoken, country: &str, number: u8) -> OwnProxy {
        let ip = upstream::address_in(&self.sandbox, country, number);
        let decide: Decide = Arc::new(move |user, password| match (user, password, spoken) {
            (USER, PASSWORD, _) | (USER, _, Spoken::Socks4) => Verdict::Leave(ip),
            _ => Verdict::BadLogin,
        });
        self.proxy_at(self.sandbox.ip(70, number), spoken, decide).await
    }

    async fn proxy_at(&self, ip: Ipv4Addr, spoken: Spoken, decide: Decide) -> OwnProxy {
        OwnProxy::start(&self.sandbox, &self.dns, (ip, 0).into(), spoken, decide).await.unwrap()
    }

    /// A file that only this user can read.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.sandbox.folder().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    pub fn launch(&self, more: &str) -> Gateway {
        let ip = self.sandbox.ip(90, 1);
        let config = format!(
            r#"data_dir = {data:?}
gateway.listen = "{ip}:1080"
gateway.route_bind = "{ip}"
gateway.allow_private_targets = true
api.listen = "{ip}:8080"
tor.enabled = false
tor.geoip_file = {geoip:?}
check.echo = [{echo:?}, {second:?}]
check.canary = [{canary:?}]
check.ca_file = {ca:?}
log.level = "info,exitgate=debug"
log.targets = true
{more}
"#,
            data = self.sandbox.folder().join("gateway"),
            geoip = upstream::geoip(&self.sandbox).unwrap(),
            echo = self.web.https("echo.test", "/ip"),
            second = self.web.https("ip.test", "/ip.json"),
            canary = self.web.http("echo.test", "/bytes/64"),
            ca = self.web.ca_pem(),
        );
        Gateway::launch_on(&self.sandbox, ip, &config)
    }
}

pub fn json(got: &Got) -> Value {
    serde_json::from_str(&got.body).unwrap_or_else(|_| panic!("no JSON: {} {} {}", got.status, got.body, got.errors))
}

pub fn usable(got: &Got) -> usize {
    let all: Value = serde_json::from_str(&got.body).unwrap_or_default();
    all["exits"].as_array().map_or(0, |all| all.iter().filter(|exit| exit["usable"] == true).count())
}

pub fn line(scheme: &str, proxy: &OwnProxy) -> String {
    format!("{scheme}://{USER}:{PASSWORD}@{}\n", proxy.address())
}

/// Fails if the planted login, or its form in a header, is in a text.
fn assert_unseen(place: &str, text: &str) {
    let coded = curl_basic();
    for secret in [USER, PASSWORD, coded.as_str()] {
        assert!(!text.contains(secret), "{secret} is in {place}:\n{text}");
    }
}

/// The login as HTTP Basic writes it, without the `=` at the end.
fn curl_basic() -> String {
    let text = format!("{USER}:{PASSWORD}");
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let coded = text.as_bytes().chunks(3).flat_map(|chunk| {
        let bits = chunk.iter().chain([&0, &0]).take(3).fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        (0..=chunk.len()).map(move |at| char::from(digits[(bits >> (18 - 6 * at)) as usize & 63]))
    });
    coded.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn own_proxies_of_every_protocol_are_exits_like_others() {
    let bed = Bed::start().await;
    let secure = bed.proxy(Spoken::Https, "DE", 2).await;
    let all = [
        ("http", bed.proxy(Spoken::Http, "US", 1).await),
        ("https", secure),
        ("socks4", bed.proxy(Spoken::Socks4, "FR", 3).await),
        ("socks5", bed.proxy(Spoken::Socks5, "US", 4).await),
    ];
    // One has a host name, and one a login that its proxy refuses.
    let ip = upstream::address_in(&bed.sandbox, "JP", 5);
    let open: Decide = Arc::new(move |_, _| Verdict::Leave(ip));
    let named = bed.proxy_at(Ipv4Addr::LOCALHOST, Spoken::Http, open).await;
    let mut list: String = all.iter().map(|(scheme, proxy)| line(scheme, proxy)).collect();
    list += &format!("http://localhost:{}\n", named.address().port());
    list += &format!("http://{USER}-dead:{PASSWORD}@{}\nhttp://{USER}:{PASSWORD}@nowhere\n", all[0].1.address());
    let file = bed.file("proxies.txt", &list);
    let ca = all[1].1.ca_pem().unwrap();
    let gateway = bed.launch(&format!(
        "[[sources.upstream]]\nname = \"acme\"\nfile = {file:?}\nca_file = {ca:?}\n\
         [[routes]]\nname = \"bought\"\nselector = \"nonus\"\nsource = [\"acme\"]\nport = 20000\n"
    ));
    let exits = async || gateway.api("/exits?source=acme").await;
    let got = until(exits, |got| usable(got) == 5).await;
    assert_eq!(usable(&got), 5, "{}\n{}", got.body, gateway.log());
    let listed = json(&got);
    assert_eq!(listed["total"], 6, "{listed}");
    let dead = listed["exits"].as_array().unwrap().iter().find(|exit| exit["usable"] == false).unwrap();
    assert_eq!((&dead["verdict"], &dead["why"]), (&"bad".into(), &"the exit failed: the exit refused".into()));
    let sources = json(&gateway.api("/sources").await);
    assert_eq!((&sources["sources"][0]["name"], &sources["sources"][0]["records"]), (&"acme".into(), &6.into()));
    assert_eq!(sources["sources"][0]["why"], "entry 7: it has no valid port", "{sources}");

    // Each serves plain and encrypted requests, under a username that the API names.
    let (page, secure) = (bed.web.http("echo.test", "/ip"), bed.web.https("echo.test", "/ip"));
    let web_ca = bed.web.ca_pem().display().to_string();
    for exit in listed["exits"].as_array().unwrap().iter().filter(|exit| exit["usable"] == true) {
        let (user, ip) = (exit["username"].as_str().unwrap(), exit["ip"].as_str().unwrap());
        let plain = gateway.get(user, &page).await;
        assert_eq!((plain.status, plain.body.as_str()), (200, ip), "{exit} {}", plain.errors);
        assert_eq!(plain.headers["x-exitgate-exit"], exit["id"].as_str().unwrap());
        let at = format!("socks5h://{user}@{}", gateway.addr());
        assert_eq!(curl(&["-x", &at, "--cacert", &web_ca, &secure]).await.body, ip, "{exit}");
    }
    let us = gateway.get("us-source-acme", &page).await;
    let from_us = [1, 4].map(|n| upstream::address_in(&bed.sandbox, "US", n).to_string());
    assert!(from_us.contains(&us.body), "{} {}", us.body, us.errors);
    let strict: Vec<String> = vec![
        gateway.get("us-strict-source-acme", &page).await.body,
        gateway.get("us-strict-source-acme", &page).await.body,
    ];
    assert!(strict[0] == strict[1] && from_us.contains(&strict[0]), "{strict:?}");
    let at = format!("http://{}", gateway.port(20000));
    let nonus = curl(&["-x", &at, &page]).await;
    assert!(nonus.status == 200 && !from_us.contains(&nonus.body), "{}", nonus.body);
    let unknown = gateway.get("us-source-acne", &page).await;
    assert!(unknown.status == 400 && unknown.body.contains("sources.upstream"), "{}", unknown.body);
    assert_eq!(json(&gateway.api("/ready").await)["sources"]["acme"]["usable"], 5);

    // The file changes, and the exits follow.
    bed.file("proxies.txt", &line("http", &all[0].1));
    let got = until(exits, |got| json(got)["total"] == 1).await;
    assert_eq!(json(&got)["total"], 1, "{}", got.body);
    let gone = curl(&["-x", &at, &page]).await;
    assert_eq!(gone.status, 503, "{}", gone.body);
    bed.file("proxies.txt", "");
    let got = until(exits, |got| json(got)["total"] == 0).await;
    assert_eq!(json(&got)["total"], 0, "{}", got.body);
    bed.file("proxies.txt", &list);
    let got = until(exits, |got| usable(got) == 5).await;
    assert_eq!(usable(&got), 5, "{}", got.body);

    for path in ["/exits", "/sources", "/metrics", "/ready", "/checks", "/connections", "/proxies", "/list", "/stats"] {
        assert_unseen(path, &gateway.api(path).await.body);
    }
    let id = listed["exits"][0]["id"].as_str().unwrap();
    assert_unseen("an exit", &gateway.api(&format!("/exits/{id}")).await.body);
    assert_unseen("an exit's checks", &gateway.api(&format!("/exits/{id}/checks")).await.body);
    assert_unseen("the log", &gateway.log());
    let database = std::fs::read(bed.sandbox.folder().join("gateway/exitgate.db")).unwrap();
    assert_unseen("the database", &String::from_utf8_lossy(&database));
}

#[tokio::test(flavor = "multi_thread")]
async fn own_sources_serve_in_their_order_and_keep_their_verdicts_over_a_restart() {
    let bed = Bed::start().await;
    let (first, second) = (bed.proxy(Spoken::Http, "US", 1).await, bed.proxy(Spoken::Socks5, "DE", 2).await);
    let one = bed.file("one", &line("http", &first));
    let folder = bed.sandbox.folder().join("lists");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("two"), line("socks5", &second)).unwrap();
    bed.web.serve_folder("lists", &folder);
    let two = format!("http://{}:{}/files/lists/two?token={PASSWORD}", bed.web.ip(), bed.web.http_port());
    let config = format!(
        "[[sources.upstream]]\nname = \"cheap\"\nfile = {one:?}\n[[sources.upstream]]\nname = \"dear\"\nurl = {two:?}\n\
         [[routes]]\nname = \"both\"\nselector = \"any\"\nsource = [\"cheap\", \"dear\"]\nfallback = true\nport = 20000\n"
    );
    let mut gateway = bed.launch(&config);
    let got = until(|| gateway.api("/exits"), |got| usable(got) == 2).await;
    assert_eq!(usable(&got), 2, "{}\n{}", got.body, gateway.log());
    let page = bed.web.http("echo.test", "/ip");
    let addresses = [("US", 1), ("DE", 2)].map(|(code, n)| upstream::address_in(&bed.sandbox, code, n).to_string());
    let get = async |gateway: &Gateway| curl(&["-x", &format!("http://{}", gateway.port(20000)), &page]).await.body;
    assert_eq!(get(&gateway).await, addresses[0], "the first source serves while it has an exit");
    // A check that passes costs one echo request and one canary. The bytes of all checks so far are measured.
    let checks = second.bytes();
    assert!(second.requests() <= 3 && checks > 0, "{} requests, {checks} bytes", second.requests());
    eprintln!("the checks of one proxy carried {checks} bytes in {} requests", second.requests());

    let before = json(&gateway.api("/exits").await);
    gateway.signal("TERM");
    assert!(gateway.ended().await.success());
    drop(gateway);
    let (asked, mut gateway) = (first.requests() + second.requests(), bed.launch(&config));
    let got = until(|| gateway.api("/exits"), |got| usable(got) == 2).await;
    let after = json(&got);
    for at in 0..2 {
        assert_eq!(before["exits"][at]["id"], after["exits"][at]["id"]);
        assert_eq!(before["exits"][at]["ip"], after["exits"][at]["ip"]);
    }
    assert_eq!(first.requests() + second.requests(), asked, "verdicts of the last run count, so nothing is tested");

    drop(first);
    let fallen = until(async || get(&gateway).await, |body| *body == addresses[1]).await;
    assert_eq!(fallen, addresses[1], "the second source serves while the first has no exit\n{}", gateway.log());
    assert_unseen("/sources", &gateway.api("/sources").await.body);
    assert_unseen("the log", &gateway.log());
    gateway.signal("TERM");
    assert!(gateway.ended().await.success());
}

/// A provider and the proxy in front of it.
struct Paid {
    provider: Arc<Provider>,
    proxy: OwnProxy,
}

impl Bed {
    async fn paid(&self, grammar: Grammar, number: u8) -> Paid {
        let provider = Provider::new(&self.sandbox, grammar, USER, PASSWORD);
        let proxy = self.proxy_at(self.sandbox.ip(71, number), Spoken::Http, provider.decide()).await;
        Paid { provider, proxy }
    }
}

/// The lines of one gateway source.
fn paid_source(name: &str, paid: &Paid, more: &str) -> String {
    let (at, provider) = (paid.proxy.address(), name.split('_').next().unwrap());
    format!(
        "[[sources.upstream]]\nname = {name:?}\nkind = \"gateway\"\nprovider = {provider:?}\nat = \"{at}\"\n\
         user = \"{USER}\"\npassword = \"{PASSWORD}\"\nallow_private = true\n{more}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn own_gateways_of_six_providers_make_a_session_when_a_request_needs_one() {
    let bed = Bed::start().await;
    let mut sources = String::new();
    let mut all = Vec::new();
    for (grammar, number) in Grammar::ALL.into_iter().zip(1..) {
        let paid = bed.paid(grammar, number).await;
        sources += &paid_source(grammar.as_str(), &paid, "");
        all.push((grammar, paid));
    }
    let gateway = bed.launch(&sources);
    gateway.wait_ready().await;
    let page = bed.web.http("echo.test", "/ip");
    for (grammar, paid) in &all {
        assert_eq!(paid.provider.sessions(), 0, "no session before somebody wants one");
        for country in ["us", "de"] {
            let got = gateway.get(&format!("{country}-source-{}", grammar.as_str()), &page).await;
            let block = upstream::address_in(&bed.sandbox, &country.to_ascii_uppercase(), 0).octets()[2];
            let ip: Ipv4Addr =
                got.body.parse().unwrap_or_else(|_| panic!("{grammar:?}: {}\n{}", got.body, gateway.log()));
            assert_eq!(ip.octets()[2], block, "{grammar:?} leaves in {country}: {ip}");
            assert!(got.headers["x-exitgate-exit"].starts_with(&format!("{}:{country}-", grammar.as_str())));
        }
        let any = gateway.get(&format!("any-session-cart-source-{}", grammar.as_str()), &page).await;
        let again = gateway.get(&format!("any-session-cart-source-{}", grammar.as_str()), &page).await;
        assert!(any.status == 200 && any.body == again.body, "{grammar:?}: {} {}", any.body, again.body);
    }
    for path in ["/exits", "/sources", "/metrics", "/ready"] {
        assert_unseen(path, &gateway.api(path).await.body);
    }
    assert_unseen("the log", &gateway.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn own_gateway_sessions_that_move_or_leave_elsewhere_are_never_used_silently() {
    let bed = Bed::start().await;
    let paid = bed.paid(Grammar::Oxylabs, 1).await;
    let gateway = bed.launch(&paid_source("oxylabs", &paid, "check_every = \"1s\""));
    gateway.wait_ready().await;
    let page = bed.web.http("echo.test", "/ip");
    let strict = async || gateway.get("us-strict-source-oxylabs", &page).await;
    let first = strict().await;
    assert_eq!(first.status, 200, "{}\n{}", first.body, gateway.log());
    assert_eq!(strict().await.body, first.body);
    let cart = async || gateway.get("us-session-cart-source-oxylabs", &page).await;
    assert_eq!(cart().await.status, 200);
    paid.provider.move_all();
    let refused = until(strict, |got| got.status != 200).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.body.contains(&first.body), "it names the address that was promised: {}", refused.body);
    for _ in 0..5 {
        let later = strict().await;
        assert!(later.status == 503 || later.body == first.body, "a pin never moves silently: {}", later.body);
    }

    let moved = until(cart, |got| got.status == 200 && got.headers.contains_key("x-exitgate-moved")).await;
    assert!(moved.headers.contains_key("x-exitgate-moved") && moved.body != first.body, "{:?}", moved.headers);

    // Another country than ordered, and no peer at all: nobody gets an address of another country.
    paid.provider.mislead("DE", "NL");
    paid.provider.empty("JP");
    for username in ["de-source-oxylabs", "jp-source-oxylabs"] {
        let got = curl(&["-m", "8", "-x", &format!("http://{username}@{}", gateway.addr()), &page]).await;
        assert_ne!(got.status, 200, "{username}: {}", got.body);
    }
    let elsewhere = async || gateway.api("/exits?source=oxylabs&country=nl&usable=true").await;
    let exits = json(&until(elsewhere, |got| json(got)["total"] == 0).await);
    assert_eq!(exits["total"], 0, "a session that leaves elsewhere ends: {exits}");
}

#[tokio::test(flavor = "multi_thread")]
async fn own_gateway_whose_account_is_refused_blames_no_exit_and_the_next_source_serves() {
    let bed = Bed::start().await;
    let spare = bed.proxy(Spoken::Http, "JP", 9).await;
    let file = bed.file("spare", &line("http", &spare));
    for (standing, outcome) in [(Standing::Refused, "login"), (Standing::Empty, "quota")] {
        let paid = bed.paid(Grammar::Oxylabs, 1).await;
        let mut gateway = bed.launch(&format!(
            "{}[[sources.upstream]]\nname = \"spare\"\nfile = {file:?}\n\
             [[routes]]\nname = \"both\"\nselector = \"any\"\nsource = [\"oxylabs\", \"spare\"]\nfallback = true\nport = 20000\n",
            paid_source("oxylabs", &paid, "")
        ));
        gateway.wait_ready().await;
        let page = bed.web.http("echo.test", "/ip");
        let get = async || curl(&["-x", &format!("http://{}", gateway.port(20000)), &page]).await;
        let spare_ip = upstream::address_in(&bed.sandbox, "JP", 9).to_string();
        let served = until(get, |got| got.status == 200 && got.body != spare_ip).await;
        assert_eq!(served.status, 200, "{}\n{}", served.body, gateway.log());
        paid.provider.set_standing(standing);
        let got = get().await;
        assert_eq!(
            (got.status, &got.body),
            (200, &spare_ip),
            "the next source serves the first request\n{}",
            gateway.log()
        );
        assert!(got.headers["x-exitgate-exit"].starts_with("spare:"), "{:?}", got.headers);
        let sources = until(|| gateway.api("/sources"), |got| got.body.contains(outcome)).await;
        let sources = json(&sources);
        let source = sources["sources"].as_array().unwrap().iter().find(|source| source["name"] == "oxylabs").unwrap();
        assert_eq!(source["outcome"], outcome, "{source}");
        assert!(source["failures"].as_u64() > Some(0) && source["why"].as_str().unwrap().contains("no exit is used"));
        let exits = json(&gateway.api("/exits?source=oxylabs").await);
        let bad = exits["exits"].as_array().unwrap().iter().filter(|exit| exit["verdict"] == "bad").count();
        assert_eq!(bad, 0, "an account fault counts against no exit: {exits}");
        let alone = gateway.get("any-source-oxylabs", &page).await;
        assert_eq!(alone.status, 503, "{}", alone.body);
        assert!(gateway.log().contains("the provider of a source refuses the account"), "{}", gateway.log());
        assert!(!gateway.log().contains("its last good one is still used"), "{}", gateway.log());
        let events = gateway.ask(&["-m", "1", "-H", "Last-Event-ID: 0"], "/events").await.body;
        let is_said = |line: &str| line.contains("oxylabs") && line.contains(&format!("\"outcome\":\"{outcome}\""));
        assert!(events.lines().any(is_said), "{events}");
        assert_unseen("the events", &events);
        assert_unseen("the log", &gateway.log());
        gateway.signal("TERM");
        assert!(gateway.ended().await.success());
    }
}
