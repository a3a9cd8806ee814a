//! Lists of public proxies over real sockets: their proxies are listed, those that leave them drain, and bad answers do no
//! harm.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use exitgate::config::{self, Config};
use exitgate::exit::country::GeoIp;
use exitgate::exit::{ExitId, Through};
use exitgate::lifecycle::Lifecycle;
use exitgate::limit::target::{Own, Ports, Rules};
use exitgate::route::memory::{Bounds, Memory};
use exitgate::route::{Policy, Words};
use exitgate::source::fetch::{Client, Direct};
use exitgate::source::handle::Sources;
use exitgate::source::list;
use exitgate::source::public::PublicListInputs;
use exitgate::state::{Clock, Snapshot, State};
use exitgate::store::Source;
use exitgate_testnet::public::{Behaviour, Kind, Mix};
use exitgate_testnet::{Dns, PublicProxies, Sandbox, Web};
use tokio::sync::mpsc;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long a condition may take. Tests wait for conditions, so only a failure takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

struct Setup {
    proxies: PublicProxies,
    web: Web,
    sandbox: Arc<Sandbox>,
    _dns: Dns,
}

impl Setup {
    async fn start(count: u32) -> Self {
        let sandbox = Sandbox::claim().unwrap();
        let (web, dns) = (Web::start(&sandbox).await.unwrap(), Dns::start(&sandbox).await.unwrap());
        let proxies = PublicProxies::start(&sandbox, &dns, &web, &Mix::of(&[(Kind::Good, count)])).await.unwrap();
        Self { proxies, web, sandbox, _dns: dns }
    }

    fn folder(&self) -> String {
        self.proxies.cdn.url().trim_end_matches('/').to_owned()
    }

    fn urls(&self) -> BTreeSet<String> {
        self.proxies.proxies().into_iter().map(|proxy| proxy.url()).collect()
    }

    /// A file of the fake web, and its URL.
    fn file(&self, name: &str, text: &str) -> String {
        let folder = self.sandbox.folder().join("lists");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), text).unwrap();
        self.web.serve_folder("lists", &folder);
        format!("http://{}:{}/files/lists/{name}", self.web.ip(), self.web.http_port())
    }
}

/// Running lists.
struct Lists {
    state: State,
    sources: Sources,
    give_up: mpsc::Sender<ExitId>,
    life: Lifecycle,
}

fn parsed(text: &str) -> Config {
    config::parse("t.toml", text, [], None).unwrap().0
}

impl Lists {
    fn start(text: &str, private: bool) -> Self {
        let config = parsed(text);
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let rules = Rules::new(Ports::default(), true, Own::new());
        let snapshot = Snapshot::new(Words::default(), Policy::default());
        let state = State::new(snapshot, Memory::new(Bounds::default()), Clock::start(), None).0;
        let (give_up, given_up) = mpsc::channel(16);
        let life = Lifecycle::new();
        let publics = PublicListInputs {
            sources: config.sources.clone(),
            bounds: list::Bounds { most: 1000, private },
            removed_for: config.check.public.removed_for,
            client: Client::new(Direct::new(rules), Arc::new(tls)),
            geoip: Arc::new(GeoIp::default()),
            known: Vec::new(),
            state: state.clone(),
            store: None,
            given_up,
        };
        let sources = publics.start(&life.tasks());
        Self { state, sources, give_up, life }
    }

    fn alive(&self) -> BTreeSet<String> {
        let snapshot = self.state.load();
        snapshot.catalog.iter().filter(|exit| exit.alive()).map(|exit| exit.id().to_string()).collect()
    }

    async fn wait(&self, name: &str, done: impl Fn(&Source) -> bool) -> Source {
        let mut status = self.sources.get(name).unwrap().status();
        tokio::time::timeout(PATIENCE, status.wait_for(|status| done(status))).await.expect("never so").unwrap().clone()
    }

    async fn until(&self, done: impl Fn(&Self) -> bool) {
        let mut revisions = self.state.revisions();
        let waiting = async {
            while !done(self) {
                revisions.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("never so: {:?}", self.alive()));
    }

    async fn end(self) {
        self.life.stop(PATIENCE, std::future::pending()).await;
    }
}

fn proxifly(url: &str, mirror: &str) -> String {
    format!("[sources.proxifly]\nenabled = true\nurl = {url:?}\nmirror = {mirror:?}\nevery = \"50ms\"\n")
}

const NOWHERE: &str = "http://127.0.0.1:9/proxies";

#[tokio::test]
async fn proxifly_is_fetched_when_its_date_changes_and_proxies_that_left_it_drain() {
    let setup = Setup::start(12).await;
    let lists = Lists::start(&proxifly(&setup.folder(), NOWHERE), true);
    let want = setup.urls();
    lists.until(|lists| lists.alive() == want).await;
    let status = lists.wait("proxifly", |status| status.outcome == "unchanged").await;
    assert!((status.records, status.skipped) == (12, 0) && status.published.is_some(), "{status:?}");
    let asked = |file: &str| setup.proxies.cdn.asked().iter().filter(|path| path.ends_with(file)).count();
    assert_eq!(asked("all/data.json"), 1, "the date has not changed");
    assert!(asked("meta/data.json") > 1);

    setup.proxies.cdn.edit(|listed| listed.truncate(7));
    lists.until(|lists| lists.alive().len() == 7).await;
    lists.end().await;
}

#[tokio::test]
async fn the_mirror_is_used_while_the_first_copy_is_down_or_stale() {
    let (first, mirror) = (Setup::start(3).await, Setup::start(5).await);
    first.proxies.cdn.behave(Behaviour::Status(503));
    let lists = Lists::start(&proxifly(&first.folder(), &mirror.folder()), true);
    let want = mirror.urls();
    lists.until(|lists| lists.alive() == want).await;
    first.proxies.cdn.behave(Behaviour::Stale(4));
    mirror.proxies.cdn.edit(|listed| listed.truncate(4));
    lists.until(|lists| lists.alive().len() == 4).await;
    lists.end().await;

    let lists = Lists::start(&proxifly(NOWHERE, NOWHERE), true);
    let status = lists.wait("proxifly", |status| status.failures > 0).await;
    assert_eq!((status.outcome.as_str(), lists.alive().len()), ("connect", 0));
    lists.end().await;
}

#[tokio::test]
async fn lists_of_every_format_are_merged_without_private_addresses() {
    let setup = Setup::start(1).await;
    let text = setup.file("a.txt", "# mine\n193.0.0.1:80\n10.0.0.1:80\nnonsense\nsocks5://8.8.8.8:1080\n");
    let json = setup
        .file("b.json", r#"{"data":[{"ip":"8.8.8.8","port":1080,"protocol":"socks5"},{"ip":"1.1.1.1","port":"80"}]}"#);
    let csv = setup.file("c.csv", "ip,port\n9.9.9.9,4145,socks4\n");
    let entry = |name: &str, url: &str, more: &str| {
        format!("[[sources.list]]\nname = {name:?}\nurl = {url:?}\nevery = \"1h\"\n{more}\n")
    };
    let config = [entry("a", &text, "through = \"tor\""), entry("b", &json, ""), entry("c", &csv, "")].concat();
    let lists = Lists::start(&config, false);
    let want = ["http://193.0.0.1:80", "socks5://8.8.8.8:1080", "http://1.1.1.1:80", "socks4://9.9.9.9:4145"];
    let want: BTreeSet<_> = want.map(str::to_owned).into();
    lists.until(|lists| lists.alive() == want).await;
    let a = lists.wait("a", |status| status.attempt.is_some()).await;
    assert_eq!((a.records, a.skipped), (2, 2));
    let snapshot = lists.state.snapshot();
    let shared = snapshot.catalog.iter().find(|exit| exit.id().to_string() == "socks5://8.8.8.8:1080").unwrap();
    assert_eq!(
        shared.listing().public.as_ref().unwrap().through,
        Through::Tor,
        "one of its lists is to be reached through Tor"
    );

    lists.give_up.send(shared.id().clone()).await.unwrap();
    lists.until(|lists| lists.alive().len() == 3).await;
    lists.end().await;
}
