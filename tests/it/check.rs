//! The tester of Tor exits against real sockets: public proxies of the test network stand in for Tor exits. Lies, tampering
//! and broken TLS are real bytes, and sites see real addresses.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use exitgate::check::{CheckBatch, Checked, ExitDialer, Geo, Handle, OpenedStream, Settings, Tester, Wait};
use exitgate::config;
use exitgate::dial::{DialError, ExitFault};
use exitgate::exit::country::Country;
use exitgate::exit::{Exit, ExitId, Fingerprint, Listing, Source, Verdict};
use exitgate::lifecycle::Lifecycle;
use exitgate::net::{Host, Target};
use exitgate::route::memory::{Bounds, Memory};
use exitgate::route::{Policy, Site, Words};
use exitgate::state::{Change, Clock, Snapshot, State};
use exitgate_testnet::public::{Kind, Mix, Protocol, Proxy};
use exitgate_testnet::{Dns, PublicProxies, Sandbox, Web, fetch};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// How long a condition may take to come true on a busy machine.
const SOON: Duration = Duration::from_secs(40);

/// A web, proxies that stand in for exits, and a tester of them.
struct Setup {
    web: Web,
    proxies: Arc<PublicProxies>,
    exits: HashMap<ExitId, Proxy>,
    state: State,
    handle: Handle,
    _life: Lifecycle,
    _dns: Dns,
}

/// Opens streams through proxies.
struct ByProxy {
    exits: HashMap<ExitId, Proxy>,
    _proxies: Arc<PublicProxies>,
}

impl ExitDialer for ByProxy {
    type Stream = TcpStream;

    async fn open(&self, exit: &ExitId, target: &Target, wait: Wait) -> Result<OpenedStream<TcpStream>, DialError> {
        let proxy = &self.exits[exit];
        let (address, host, begun) = (SocketAddr::V4(proxy.address), target.host.to_string(), Instant::now());
        let opened = timeout(wait.timeout, async {
            match proxy.protocol {
                Protocol::Http => fetch::connect(address, &host, target.port).await,
                Protocol::Socks4 => fetch::socks4(address, &host, target.port).await,
                Protocol::Socks5 => fetch::socks5(address, None, &host, target.port).await,
            }
        });
        let stream = opened.await.map_err(|_| ExitFault::Hung)?.map_err(|_| ExitFault::Unreachable)?;
        Ok(OpenedStream { stream, circuit: None, connect: begun.elapsed() })
    }

    fn first_hop_answered(&self, _: Instant) -> bool {
        true
    }
}

impl Setup {
    /// `lines` belong to `[check]`; `SECURE`, `SECOND`, `PLAIN`, `THIRD` and `SHOP` in them become URLs of the web.
    async fn start(mix: &[(Kind, u32)], lines: &str) -> Self {
        let sandbox = Sandbox::claim().unwrap();
        let (web, dns) = (Web::start(&sandbox).await.unwrap(), Dns::start(&sandbox).await.unwrap());
        let proxies = Arc::new(PublicProxies::start(&sandbox, &dns, &web, &Mix::of(mix)).await.unwrap());
        let exits: HashMap<_, _> = (1u8..)
            .zip(proxies.proxies())
            .map(|(n, proxy)| (ExitId::Tor(Fingerprint([n; 20])), proxy.clone()))
            .collect();
        let lines = lines
            .replace("SECURE", web.https("echo.test", "").trim_end_matches('/'))
            .replace("SECOND", web.https("ip.test", "").trim_end_matches('/'))
            .replace("THIRD", web.http("ip.test", "").trim_end_matches('/'))
            .replace("PLAIN", web.http("other.test", "").trim_end_matches('/'))
            .replace("SHOP", web.http("shop.test", "").trim_end_matches('/'));
        let text = format!("[check]\nca_file = {:?}\nper_second = 1000.0\n{lines}", web.ca_pem());
        let check = config::parse("test", &text, [], None).unwrap().0.check;
        let memory = Memory::new(Bounds::default());
        let (state, wishes) =
            State::new(Snapshot::new(Words::default(), Policy::default()), memory, Clock::start(), None);
        let geo: Geo = Arc::new(|_| Country::UNKNOWN);
        let through = ByProxy { exits: exits.clone(), _proxies: proxies.clone() };
        let (tester, handle) = Tester::new(through, Settings::of(&check).unwrap(), state.clone(), geo, wishes);
        let life = Lifecycle::new();
        let tasks = life.tasks();
        life.tasks().supervise("tester", move || tester.clone().run(tasks.clone()));
        let setup = Self { web, proxies, exits, state, handle, _life: life, _dns: dns };
        let listings = setup.exits.keys().cloned().map(Listing::new).collect();
        setup.state.apply(Change::Listed(Source::Tor, listings)).await.unwrap();
        setup
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&ExitId, &Proxy)> {
        self.exits.iter().filter(move |(_, proxy)| proxy.kind == kind)
    }

    fn exit(&self, id: &ExitId) -> Arc<Exit> {
        self.state.load().catalog.get(id).unwrap().clone()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let mut revisions = self.state.revisions();
        let waited = timeout(SOON, async {
            while !is_so(self) {
                revisions.changed().await.unwrap();
            }
        });
        if waited.await.is_err() {
            let known = |(id, proxy): (&ExitId, &Proxy)| (proxy.kind, self.exit(id).known().clone());
            panic!("never came true: {what}\n{:#?}", self.exits.iter().map(known).collect::<Vec<_>>());
        }
    }

    /// Checks these exits, and returns the results. An exit that cannot be checked has none.
    async fn pass(&self, exits: impl Iterator<Item = &ExitId>) -> Vec<(ExitId, Option<Checked>)> {
        let mut results = self.handle.pass(CheckBatch { exits: exits.cloned().collect(), extra: None }).await;
        let mut all = Vec::new();
        while let Some(result) = timeout(SOON, results.recv()).await.unwrap() {
            all.push(result);
        }
        all
    }

    async fn force(&self, id: &ExitId) -> Option<Checked> {
        timeout(SOON, self.handle.force(id.clone())).await.unwrap()
    }
}

/// Every check asks both echo servers, so it sees both certificates. The second canary has the host of an echo server.
const VERIFIED: &str = r#"
    echo = ["SECURE/ip", "SECOND/ip.json"]
    canary = ["PLAIN/page", "THIRD/page"]
    timeout = "2s"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts_show_what_each_kind_of_proxy_does() {
    let kinds = [
        (Kind::Good, 6), // three that are checked again are half of them: condemning need not wait for a minute
        (Kind::Dead, 2),
        (Kind::Hanging, 2),
        (Kind::Slow, 2),
        (Kind::Tampering, 2),
        (Kind::BreaksTls, 4),
        (Kind::Locked, 3),
        (Kind::WebServer, 2),
    ];
    let setup = Setup::start(&kinds, VERIFIED).await;
    setup
        .until("every exit has a verdict", |setup| {
            setup.exits.keys().all(|id| setup.exit(id).known().verdict != Verdict::Untested)
        })
        .await;
    setup
        .until("exits that tamper or intercept are condemned", |setup| {
            let mut caught = setup.of_kind(Kind::Tampering).chain(setup.of_kind(Kind::BreaksTls));
            caught.all(|(id, _)| setup.exit(id).known().marks.bad_for_good)
        })
        .await;
    for _ in 0..2 {
        for (id, proxy) in &setup.exits {
            let (exit, good) = (setup.exit(id), proxy.kind == Kind::Good);
            assert_eq!(exit.usable(), good, "{proxy:?} {:?}", exit.known());
            assert_eq!(exit.ip(), (good || proxy.kind == Kind::Tampering).then_some(IpAddr::V4(*proxy.address.ip())));
            let condemned = matches!(proxy.kind, Kind::Tampering | Kind::BreaksTls);
            assert_eq!(exit.known().marks.bad_for_good, condemned, "{proxy:?} {:?}", exit.known());
            assert!(good <= exit.distinct());
        }
        setup.pass(setup.exits.keys()).await; // another check of each exit must change nothing
    }
}

const MIXED: &str = r#"
    echo = ["SECURE/ip", "SECOND/ip.json", "PLAIN/origin.json"]
    canary = ["PLAIN/page", "THIRD/page"]
    timeout = "2s"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interceptor_is_condemned_although_one_check_may_see_one_certificate() {
    // Two, because three that fail together may look like a fault of the server, and the verdict then waits for a minute.
    let setup = Setup::start(&[(Kind::Good, 6), (Kind::BreaksTls, 2)], MIXED).await;
    setup
        .until("exits that intercept are condemned", |setup| {
            setup.of_kind(Kind::BreaksTls).all(|(id, _)| setup.exit(id).known().marks.bad_for_good)
        })
        .await;
}

/// Every check asks both echo servers. Only the answer of the second one can be forged.
const FORGEABLE: &str = r#"
    echo = ["SECURE/ip", "PLAIN/origin.json"]
    canary = []
    timeout = "2s"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exit_that_lies_about_its_address_is_bad_and_has_no_address() {
    let setup = Setup::start(&[(Kind::Good, 4), (Kind::Lying, 3)], FORGEABLE).await;
    for _ in 0..3 {
        setup.pass(setup.exits.keys()).await;
        for (id, proxy) in &setup.exits {
            let (exit, good) = (setup.exit(id), proxy.kind == Kind::Good);
            assert_eq!((exit.usable(), exit.known().marks.bad_for_good), (good, false), "{proxy:?} {:?}", exit.known());
            assert_eq!(exit.ip(), good.then_some(IpAddr::V4(*proxy.address.ip())), "{proxy:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_good_exit_is_ever_condemned() {
    let setup = Setup::start(&[(Kind::Good, 8), (Kind::Tampering, 1), (Kind::BreaksTls, 1)], MIXED).await;
    let ids: Vec<_> = setup.of_kind(Kind::Good).map(|(id, _)| id.clone()).collect();
    for round in 0..10 {
        for (id, checked) in setup.pass(ids.iter()).await {
            let checked = checked.unwrap_or_else(|| panic!("{id} is gone in round {round}"));
            assert_eq!((checked.verdict, &*checked.why), (Verdict::Good, ""), "{id} in round {round}");
        }
    }
    assert!(ids.iter().all(|id| setup.exit(id).usable() && !setup.exit(id).known().marks.bad_for_good));
    assert!(ids.iter().all(|id| setup.exit(id).ip() == Some(IpAddr::V4(*setup.exits[id].address.ip()))));
}

const SHOP: &str = r#"
    echo = ["SECURE/ip", "PLAIN/origin.json"]
    canary = []
    [[check.targets]]
    name = "shop"
    url = "SHOP/"
    expect_body = "welcome to the shop"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_bans_the_exits_that_it_refuses_unless_it_refuses_all() {
    let setup = Setup::start(&[(Kind::Good, 7)], SHOP).await;
    let passes = |setup: &Setup, id: &ExitId| setup.exit(id).known().passed.contains("shop");
    setup.until("all pass the shop", |setup| setup.exits.keys().all(|id| passes(setup, id))).await;
    let (refused, proxy) = setup.exits.iter().next().unwrap();
    setup.web.shop_refuses(IpAddr::V4(*proxy.address.ip()), 403);
    let checked = setup.force(refused).await.unwrap();
    assert_eq!(checked.verdict, Verdict::Good, "the exit itself works");
    assert_eq!(checked.sites, [("shop".into(), Some("it answers 403".to_owned()))]);
    assert!(!passes(&setup, refused), "it is out of the shop's pools at once");
    let shop = Site::of(&Host::parse("shop.test").unwrap());
    let banned = |setup: &Setup| {
        let (now, snapshot) = (setup.state.now(), setup.state.snapshot());
        setup.exits.keys().filter(|id| snapshot.bans.until(&shop, id, now).is_some()).cloned().collect::<Vec<_>>()
    };
    // Three that passed are checked again, and three of six are half of those that passed recently: no minute to wait for.
    setup.until("the one that is refused is banned", |setup| banned(setup) == std::slice::from_ref(refused)).await;
    setup.proxies.proxies().iter().for_each(|proxy| setup.web.shop_refuses(IpAddr::V4(*proxy.address.ip()), 429));
    let others: Vec<_> = setup.exits.keys().filter(|id| *id != refused).cloned().collect();
    for id in &others {
        setup.force(id).await.unwrap();
    }
    setup.until("those that passed before pass again", |setup| others.iter().all(|id| passes(setup, id))).await;
    assert_eq!(banned(&setup), std::slice::from_ref(refused), "a shop that refuses every exit bans none");
}
