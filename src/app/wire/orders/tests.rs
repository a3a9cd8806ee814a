use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use serde_json::json;

use super::*;
use crate::exit::country::Country;
use crate::exit::{ExitId, Fingerprint, Listing, Source, Verdict};
use crate::gateway::outbound::rotate::Proof;
use crate::gateway::outbound::{Outbound, Parts, RefusalReporter};
use crate::lifecycle::Lifecycle;
use crate::limit::target::Own;
use crate::listen::Permits;
use crate::route::memory::{Bounds, Memory};
use crate::route::{Policy, Words};
use crate::state::{Clock, ExitUpdate, Snapshot};
use crate::store::{Options, Store};

struct Bench {
    service: RouteService,
    ip: IpAddr,
    dir: tempfile::TempDir,
    store: Store,
    _life: Lifecycle,
}

impl Bench {
    /// A desk with three exits in the US and the ports 20000 to 20003 of an address of its own.
    async fn new(n: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(&dir.path().join("exitgate.db"), Options::default()).unwrap();
        let snapshot = Snapshot::new(Words::default(), Policy::default());
        let memory = Memory::new(Bounds::default());
        let (state, _wished) = State::new(snapshot, memory, Clock::start(), Some(store.clone()));
        state.apply(Change::Listed(Source::Tor, (1..4).map(listing).collect())).await.unwrap();
        state.apply(Change::ExitUpdates((1..4).map(good).collect())).await.unwrap();
        let mut config = Config::default();
        config.gateway.route_bind = [127, 66, n, 1].into();
        config.gateway.route_ports = crate::config::PortRange::new(20_000, 20_003).unwrap();
        let (life, own) = (Lifecycle::new(), Own::new());
        let (reports, _) = mpsc::channel(1);
        let parts = Parts {
            state: state.clone(),
            limits: super::super::settings::limits(&config),
            tor: None,
            terms: super::super::settings::outbound_terms(&config, &own),
            refusals: RefusalReporter::new(reports),
            verify: Arc::new(|_| Box::pin(async { Proof::Not("nobody tests here".to_owned()) })),
            stopping: watch::channel(false).1,
        };
        let outbound = Arc::new(Outbound::new(parts));
        let listeners = Listeners::new(outbound, Permits::new(100), life.tasks(), own, config.clone());
        let service = RouteService {
            state,
            listeners: Arc::new(Mutex::new(listeners)),
            said: HashMap::new(),
            rules: Arc::new(ArcSwap::from_pointee(rules(&config))),
            shut: watch::Sender::default(),
        };
        Self { service, ip: config.gateway.route_bind, dir, store, _life: life }
    }

    fn wanted(&self, body: Value) -> Vec<Wanted> {
        let asked = RouteSpec::read(body.as_object().unwrap()).unwrap();
        let judge = |asked: RouteSpec| {
            let (selector, policy) =
                asked.judged(&self.service.state.load().routes, &self.service.rules.load()).unwrap();
            Wanted { asked, selector, policy }
        };
        asked.each().unwrap().into_iter().map(judge).collect()
    }

    async fn open(&mut self, body: Value) -> Result<(Vec<String>, bool), OrderFault> {
        let wanted = self.wanted(body);
        let Opened { names, new } = self.service.open(wanted).await?;
        Ok((names.iter().map(ToString::to_string).collect(), new))
    }

    async fn change(&mut self, name: &str, patch: Value) -> Result<(), OrderFault> {
        self.service.change(name, patch.as_object().unwrap().clone()).await.map(drop)
    }

    fn at(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }

    fn listens(&self, port: u16) -> bool {
        TcpStream::connect(self.at(port)).is_ok()
    }

    /// Names and ports, as the table has them.
    fn routes(&self) -> Vec<(String, u16)> {
        let snapshot = self.service.state.load();
        let mut all: Vec<_> =
            snapshot.routes.iter().map(|entry| (entry.route.name.to_string(), entry.route.port.unwrap())).collect();
        all.sort();
        all
    }

    /// What a restart would find.
    async fn kept(self) -> (Vec<store::Route>, Vec<String>) {
        let Self { service, dir, store, .. } = self;
        drop(service);
        store.close().await;
        let (_store, loaded) = Store::open(&dir.path().join("exitgate.db"), Options::default()).unwrap();
        (loaded.routes, loaded.pins.iter().map(|pin| pin.holder.scope.to_string()).collect())
    }
}

fn listing(n: u8) -> Listing {
    Listing {
        announced: vec![[192, 0, 2, n].into()],
        country: Country::parse("US").unwrap(),
        ..Listing::new(ExitId::Tor(Fingerprint([n; 20])))
    }
}

fn good(n: u8) -> ExitUpdate {
    let update = move |known: &mut crate::exit::Known| {
        known.saw([192, 0, 2, n].into(), Country::parse("US").unwrap(), Moment(1));
        known.verdict = Verdict::Good;
    };
    ExitUpdate { exit: ExitId::Tor(Fingerprint([n; 20])), update: Box::new(update), ban: None, writes: Vec::new() }
}

#[tokio::test]
async fn a_route_is_opened_once_and_the_next_free_port_is_found() {
    let mut bench = Bench::new(1).await;
    let body = json!({"selector": "us", "name": "shop", "port": 20001});
    assert_eq!(bench.open(body.clone()).await.unwrap(), (vec!["shop".to_owned()], true));
    assert!(bench.listens(20001));
    assert_eq!(bench.open(body).await.unwrap(), (vec!["shop".to_owned()], false), "the same words again");
    let two = bench.open(json!({"selector": "us", "count": 2, "name": "w"})).await.unwrap();
    assert_eq!(two, (vec!["w-1".to_owned(), "w-2".to_owned()], true));
    let ports = bench.routes();
    assert_eq!(ports, [("shop".to_owned(), 20001), ("w-1".to_owned(), 20000), ("w-2".to_owned(), 20002)]);
    let (kept, _) = bench.kept().await;
    assert_eq!(kept.iter().map(|route| route.name.as_str()).collect::<Vec<_>>(), ["shop", "w-1", "w-2"]);
}

#[tokio::test]
async fn what_is_refused_changes_nothing() {
    let mut bench = Bench::new(2).await;
    bench.open(json!({"selector": "us", "name": "shop", "port": 20001})).await.unwrap();
    let other = TcpListener::bind(bench.at(20002)).unwrap();
    for (body, want) in [
        (json!({"selector": "us", "name": "shop"}), OrderFault::NameTaken("shop".to_owned())),
        (json!({"selector": "us", "port": 20001}), OrderFault::PortOfRoute { port: 20001, route: "shop".to_owned() }),
        (json!({"selector": "us", "port": 20002}), OrderFault::PortInUse(20002)),
        (json!({"selector": "us", "count": 3}), OrderFault::NoPortLeft),
    ] {
        assert_eq!(bench.open(body.clone()).await.unwrap_err(), want, "{body}");
    }
    let none = bench.open(json!({"selector": "jp"})).await.unwrap_err();
    assert!(matches!(none, OrderFault::NoExit { .. }), "{none}");
    assert_eq!(bench.routes(), [("shop".to_owned(), 20001)]);
    assert!(!bench.listens(20000) && !bench.listens(20003), "what was reserved is free again");
    drop(other);
    assert_eq!(bench.kept().await.0.len(), 1);
}

#[tokio::test]
async fn a_change_moves_the_port_and_is_kept() {
    let mut bench = Bench::new(3).await;
    bench.open(json!({"selector": "us", "name": "shop", "port": 20001, "ttl": "1h"})).await.unwrap();
    bench.change("shop", json!({"port": 20003, "pool": 2, "ttl": null})).await.unwrap();
    assert!(!bench.listens(20001) && bench.listens(20003));
    let entry = bench.service.own("shop").unwrap();
    assert_eq!((entry.route.policy.pool, entry.route.expires), (2, None));
    let unknown = bench.change("nobody", json!({})).await.unwrap_err();
    assert_eq!(unknown, OrderFault::Unknown("nobody".to_owned()));
    let wrong = bench.change("shop", json!({"pool": 0})).await.unwrap_err();
    assert!(matches!(&wrong, OrderFault::Wrong(wrong) if wrong.field == "pool"), "{wrong}");
    let none = bench.change("shop", json!({"selector": "jp"})).await.unwrap_err();
    assert!(matches!(none, OrderFault::NoExit { .. }), "{none}");
    let again = bench.open(json!({"selector": "us", "name": "shop", "port": 20003, "pool": 2})).await.unwrap();
    assert!(!again.1, "it is what these words ask for");
    let (kept, _) = bench.kept().await;
    assert_eq!(
        (kept[0].port, &*kept[0].asked),
        (Some(20003), r#"{"name":"shop","pool":2,"port":20003,"selector":"us"}"#)
    );
}

#[tokio::test]
async fn what_is_closed_leaves_nothing() {
    let mut bench = Bench::new(4).await;
    for _ in 0..3 {
        bench.open(json!({"selector": "us-strict", "name": "shop", "port": 20001, "exclusive": true})).await.unwrap();
        // A connection pins it, as the tunnel does.
        let state = bench.service.state.clone();
        let snapshot = state.snapshot();
        let wish = snapshot.routes.resolve("", Some("shop")).unwrap();
        let target = "shop.example:443".parse().unwrap();
        let ask =
            crate::route::Ask { wish: &wish, key: "", target: &target, now: state.now(), avoid: &[], plain: false };
        crate::route::decide(snapshot.view(), state.memory(), &ask, &mut rand::rng()).unwrap();
        assert_eq!(state.memory().pins().len(), 1);
        bench.service.close("shop", false).await.unwrap();
        assert!(!bench.listens(20001) && state.memory().pins().is_empty());
        assert_eq!(bench.service.close("shop", false).await, Err(OrderFault::Unknown("shop".to_owned())));
    }
    assert_eq!(bench.kept().await, (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn a_route_ends_with_its_time() {
    let mut bench = Bench::new(5).await;
    let mut wanted = bench.wanted(json!({"selector": "us", "name": "brief"}));
    wanted[0].asked.ttl = Some(Span(Duration::from_millis(1)));
    bench.service.open(wanted).await.unwrap();
    while !bench.service.over(bench.service.state.now()).contains(&bench.service.own("brief").unwrap().route.name) {
        tokio::task::yield_now().await;
    }
    bench.service.tick().await;
    assert!(bench.routes().is_empty() && !bench.listens(20000));
}

#[tokio::test]
async fn routes_are_recalled_and_their_ports_tried_again() {
    let kept = |name: &str, asked: &str| store::Route {
        name: name.to_owned(),
        selector: "us".to_owned(),
        port: Some(20000),
        asked: asked.to_owned(),
        created: Moment(1),
        expires: None,
    };
    let mut bench = Bench::new(6).await;
    let table = RouteTable::new(Words::default(), Policy::default());
    // Earlier versions let a route be called as its own selector.
    let old = store::Route { port: Some(20001), ..kept("us", r#"{"selector":"us","name":"us"}"#) };
    let shop = kept("shop", r#"{"selector":"us"}"#);
    let all = [shop, kept("odd", "{"), kept("late", r#"{"selector":"us","later":1}"#), old];
    let table = recalled(&all, table, &bench.service.rules.load());
    let mut names: Vec<_> = table.iter().map(|entry| entry.route.name.to_string()).collect();
    names.sort();
    assert_eq!(names, ["shop", "us"]);
    let route = table.get("shop").unwrap().route.clone();
    bench.service.state.apply(Change::Created(vec![((*route).clone(), "{}".to_owned())])).await.unwrap();
    let other = TcpListener::bind(bench.at(20000)).unwrap();
    bench.service.tick().await;
    assert_eq!(bench.service.shut.borrow().iter().collect::<Vec<_>>(), ["shop"]);
    drop(other);
    bench.service.tick().await;
    assert!(bench.service.shut.borrow().is_empty() && bench.listens(20000));
}
