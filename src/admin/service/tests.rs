use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use serde_json::json;

use super::super::restore::restored;
use super::*;
use crate::config::Config;
use crate::exit::country::Country;
use crate::exit::identity::Identities;
use crate::exit::{ExitId, Fingerprint, Listing, Source, Verdict};
use crate::gateway::outbound::rotate::Proof;
use crate::gateway::outbound::{Outbound, Parts, RefusalReporter, Terms, Times};
use crate::gateway::relay::Idle;
use crate::lifecycle::Lifecycle;
use crate::limit::target::{Own, Ports, Rules};
use crate::limit::{Amounts, Damping, Limits};
use crate::listen::Permits;
use crate::route::memory::{Bounds, Memory};
use crate::route::{Policy, RouteTable, Words};
use crate::state::{Clock, ExitUpdate, Snapshot};
use crate::store::{self, Options, Store};

struct TestService {
    service: RouteService,
    ip: IpAddr,
    dir: tempfile::TempDir,
    store: Store,
    _life: Lifecycle,
}

impl TestService {
    /// Creates a service with three exits in the US and the ports 20000 to 20003. `n` selects an address that no other
    /// test uses.
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
        let damping = Damping { failures: config.gateway.auth_failures, pause: config.gateway.auth_pause };
        let parts = Parts {
            state: state.clone(),
            limits: Limits::new(Vec::new(), Amounts::default(), damping),
            tor: None,
            terms: terms(&own),
            identities: Identities::default(),
            refusals: RefusalReporter::new(reports),
            verify: Arc::new(|_| Box::pin(async { Proof::Not("nothing is tested here".to_owned()) })),
            stopping: watch::channel(false).1,
        };
        let outbound = Arc::new(Outbound::new(parts));
        let listeners = Listeners::new(outbound, Permits::new(100), life.tasks(), own, config.clone());
        let rules = Arc::new(ArcSwap::from_pointee(RouteRules::of(&config)));
        let listeners = Arc::new(Mutex::new(listeners));
        let service = RouteService::new(state, listeners, HashMap::new(), rules, watch::Sender::default());
        Self { service, ip: config.gateway.route_bind, dir, store, _life: life }
    }

    fn validated(&self, body: Value) -> Vec<ValidSpec> {
        let spec = RouteSpec::read(body.as_object().unwrap()).unwrap();
        let validate = |spec: RouteSpec| {
            let (selector, policy) =
                spec.validate(&self.service.state.load().routes, &self.service.rules.load()).unwrap();
            ValidSpec { spec, selector, policy }
        };
        spec.expand().unwrap().into_iter().map(validate).collect()
    }

    async fn create(&mut self, body: Value) -> Result<(Vec<String>, bool), RouteError> {
        let specs = self.validated(body);
        let Created { names, new } = self.service.create(specs).await?;
        Ok((names.iter().map(ToString::to_string).collect(), new))
    }

    async fn change(&mut self, name: &str, patch: Value) -> Result<(), RouteError> {
        self.service.change(name, patch.as_object().unwrap().clone()).await.map(drop)
    }

    fn at(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }

    fn listens(&self, port: u16) -> bool {
        TcpStream::connect(self.at(port)).is_ok()
    }

    /// Returns the name and port of each route in the route table.
    fn routes(&self) -> Vec<(String, u16)> {
        let snapshot = self.service.state.load();
        let mut all: Vec<_> =
            snapshot.routes.iter().map(|entry| (entry.route.name.to_string(), entry.route.port.unwrap())).collect();
        all.sort();
        all
    }

    /// Returns the routes in the store, and the route or username of each stored pin, as they are after a restart.
    async fn stored(self) -> (Vec<store::Route>, Vec<String>) {
        let Self { service, dir, store, .. } = self;
        drop(service);
        store.close().await;
        let (_store, loaded) = Store::open(&dir.path().join("exitgate.db"), Options::default()).unwrap();
        (loaded.routes, loaded.pins.iter().map(|pin| pin.holder.scope.to_string()).collect())
    }
}

fn terms(own: &Own) -> Terms {
    let second = Duration::from_secs(1);
    Terms {
        rules: Rules::new(Ports::default(), true, own.clone()),
        allow_direct: false,
        times: Times {
            dial: second,
            attempt: second,
            idle: Idle { open: second, answer: second, half: second, stalled: second },
        },
        public: crate::dial::public::Times { connect: second, reply: second },
        max_attempts: std::num::NonZeroU32::new(3).unwrap(),
        hedge: 0.0,
        ban_for: second,
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
async fn a_route_is_created_once_on_the_next_free_port() {
    let mut routes = TestService::new(1).await;
    let body = json!({"selector": "us", "name": "shop", "port": 20001});
    assert_eq!(routes.create(body.clone()).await.unwrap(), (vec!["shop".to_owned()], true));
    assert!(routes.listens(20001));
    assert_eq!(routes.create(body).await.unwrap(), (vec!["shop".to_owned()], false), "an equal body again");
    let two = routes.create(json!({"selector": "us", "count": 2, "name": "w"})).await.unwrap();
    assert_eq!(two, (vec!["w-1".to_owned(), "w-2".to_owned()], true));
    let ports = routes.routes();
    assert_eq!(ports, [("shop".to_owned(), 20001), ("w-1".to_owned(), 20000), ("w-2".to_owned(), 20002)]);
    let (kept, _) = routes.stored().await;
    assert_eq!(kept.iter().map(|route| route.name.as_str()).collect::<Vec<_>>(), ["shop", "w-1", "w-2"]);
}

#[tokio::test]
async fn a_refused_order_changes_nothing() {
    let mut routes = TestService::new(2).await;
    routes.create(json!({"selector": "us", "name": "shop", "port": 20001})).await.unwrap();
    let other = TcpListener::bind(routes.at(20002)).unwrap();
    for (body, want) in [
        (json!({"selector": "us", "name": "shop"}), RouteError::NameTaken("shop".to_owned())),
        (json!({"selector": "us", "port": 20001}), RouteError::PortOfRoute { port: 20001, route: "shop".to_owned() }),
        (json!({"selector": "us", "port": 20002}), RouteError::PortInUse(20002)),
        (json!({"selector": "us", "count": 3}), RouteError::NoPortLeft),
    ] {
        assert_eq!(routes.create(body.clone()).await.unwrap_err(), want, "{body}");
    }
    let none = routes.create(json!({"selector": "jp"})).await.unwrap_err();
    assert!(matches!(none, RouteError::NoExit { .. }), "{none}");
    assert_eq!(routes.routes(), [("shop".to_owned(), 20001)]);
    assert!(!routes.listens(20000) && !routes.listens(20003), "reserved ports are free again");
    drop(other);
    assert_eq!(routes.stored().await.0.len(), 1);
}

#[tokio::test]
async fn a_route_is_created_before_anybody_has_tested_its_exits() {
    let mut routes = TestService::new(9).await;
    let state = routes.service.state.clone();
    let verdict = |verdict| {
        let update = move |exit: ExitId| ExitUpdate {
            exit,
            update: Box::new(move |known| known.verdict = verdict),
            ban: None,
            writes: Vec::new(),
        };
        Change::ExitUpdates((1..4).map(|n| update(ExitId::Tor(Fingerprint([n; 20])))).collect())
    };
    state.apply(verdict(Verdict::Untested)).await.unwrap();
    assert_eq!(routes.create(json!({"selector": "us", "name": "early"})).await, Ok((vec!["early".to_owned()], true)));
    let own = |count| json!({"selector": "us-strict", "count": count, "exclusive": true});
    assert!(matches!(routes.create(own(4)).await, Err(RouteError::NoExit { .. } | RouteError::NoPortLeft)));
    routes.create(own(3)).await.unwrap();
    state.apply(verdict(Verdict::Bad)).await.unwrap();
    routes.service.close("early", true).await.unwrap();
    routes.create(json!({"selector": "us", "name": "late"})).await.unwrap();
    routes.service.close("late", true).await.unwrap();
    // In the first case no known exit is in Japan. In the second case Tor is off, so no exit will ever be listed or
    // tested.
    for (body, tor) in [(json!({"selector": "jp"}), true), (json!({"selector": "us"}), false)] {
        let rules = RouteRules { tor, ..RouteRules::clone(&routes.service.rules.load()) };
        routes.service.rules.store(Arc::new(rules));
        let none = routes.create(body).await.unwrap_err();
        assert!(matches!(none, RouteError::NoExit { .. }), "{none}");
    }
}

#[tokio::test]
async fn a_route_is_created_before_any_exit_is_known() {
    let mut routes = TestService::new(10).await;
    let state = routes.service.state.clone();
    for _ in 0..2 {
        state.apply(Change::Listed(Source::Tor, Vec::new())).await.unwrap();
    }
    assert!(state.load().catalog.is_empty());
    routes.create(json!({"selector": "jp"})).await.unwrap();
}

#[tokio::test]
async fn a_change_moves_the_port_and_is_stored() {
    let mut routes = TestService::new(3).await;
    routes.create(json!({"selector": "us", "name": "shop", "port": 20001, "ttl": "1h"})).await.unwrap();
    routes.change("shop", json!({"port": 20003, "pool": 2, "ttl": null})).await.unwrap();
    assert!(!routes.listens(20001) && routes.listens(20003));
    let entry = routes.service.own("shop").unwrap();
    assert_eq!((entry.route.policy.pool, entry.route.expires), (2, None));
    let unknown = routes.change("nobody", json!({})).await.unwrap_err();
    assert_eq!(unknown, RouteError::Unknown("nobody".to_owned()));
    let wrong = routes.change("shop", json!({"pool": 0})).await.unwrap_err();
    assert!(matches!(&wrong, RouteError::BadField(bad) if bad.field == "pool"), "{wrong}");
    let none = routes.change("shop", json!({"selector": "jp"})).await.unwrap_err();
    assert!(matches!(none, RouteError::NoExit { .. }), "{none}");
    let again = routes.create(json!({"selector": "us", "name": "shop", "port": 20003, "pool": 2})).await.unwrap();
    assert!(!again.1, "the route equals this spec now");
    let (kept, _) = routes.stored().await;
    assert_eq!(
        (kept[0].port, &*kept[0].asked),
        (Some(20003), r#"{"name":"shop","pool":2,"port":20003,"selector":"us"}"#)
    );
}

#[tokio::test]
async fn a_closed_route_leaves_nothing() {
    let mut routes = TestService::new(4).await;
    for _ in 0..3 {
        routes
            .create(json!({"selector": "us-strict", "name": "shop", "port": 20001, "exclusive": true}))
            .await
            .unwrap();
        // Gives the strict route its exit (a pin), as a client's first connection does.
        let state = routes.service.state.clone();
        let snapshot = state.snapshot();
        let wish = snapshot.routes.resolve("", Some("shop")).unwrap();
        let target = "shop.example:443".parse().unwrap();
        let ask =
            crate::route::Ask { wish: &wish, key: "", target: &target, now: state.now(), avoid: &[], plain: false };
        crate::route::decide(snapshot.view(), state.memory(), &ask, &mut rand::rng()).unwrap();
        assert_eq!(state.memory().pins().len(), 1);
        routes.service.close("shop", false).await.unwrap();
        assert!(!routes.listens(20001) && state.memory().pins().is_empty());
        assert_eq!(routes.service.close("shop", false).await, Err(RouteError::Unknown("shop".to_owned())));
    }
    assert_eq!(routes.stored().await, (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn a_route_is_closed_after_its_ttl() {
    let mut routes = TestService::new(5).await;
    let mut specs = routes.validated(json!({"selector": "us", "name": "brief"}));
    specs[0].spec.ttl = Some(HumanDuration(Duration::from_millis(1)));
    routes.service.create(specs).await.unwrap();
    while !routes.service.expired(routes.service.state.now()).contains(&routes.service.own("brief").unwrap().route.name)
    {
        tokio::task::yield_now().await;
    }
    routes.service.tick().await;
    assert!(routes.routes().is_empty() && !routes.listens(20000));
}

#[tokio::test]
async fn routes_are_restored_and_closed_ports_are_tried_again() {
    let kept = |name: &str, asked: &str| store::Route {
        name: name.to_owned(),
        selector: "us".to_owned(),
        port: Some(20000),
        asked: asked.to_owned(),
        created: Moment(1),
        expires: None,
    };
    let mut routes = TestService::new(6).await;
    let table = RouteTable::new(Words::default(), Policy::default());
    let all = [kept("shop", r#"{"selector":"us"}"#), kept("odd", "{"), kept("late", r#"{"selector":"us","later":1}"#)];
    let table = restored(&all, table, &routes.service.rules.load());
    assert_eq!(table.iter().map(|entry| entry.route.name.to_string()).collect::<Vec<_>>(), ["shop"]);
    let route = table.get("shop").unwrap().route.clone();
    routes.service.state.apply(Change::Created(vec![((*route).clone(), "{}".to_owned())])).await.unwrap();
    let other = TcpListener::bind(routes.at(20000)).unwrap();
    routes.service.tick().await;
    assert_eq!(routes.service.closed_ports.borrow().iter().collect::<Vec<_>>(), ["shop"]);
    drop(other);
    routes.service.tick().await;
    assert!(routes.service.closed_ports.borrow().is_empty() && routes.listens(20000));
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_stored_and_lead_only_to_routes_that_exist() {
    let mut it = TestService::new(21).await;
    let rules =
        |to: &str| json!([{"host": "*.shop.example", "use": "us-strict"}, {"host": "dear.example", "route": to}]);
    let field = |error: RouteError| match error {
        RouteError::BadField(bad) => bad.to_string(),
        other => panic!("{other}"),
    };
    let refused = it.create(json!({"name": "shop", "selector": "any", "rules": rules("dear")})).await.unwrap_err();
    assert_eq!(field(refused), "`rules[1].route` is `dear`, and there is no route with this name; see /proxies");
    let own = it.create(json!({"name": "shop", "selector": "any", "rules": rules("shop")})).await.unwrap_err();
    assert_eq!(field(own), "`rules[1].route` leads back to its own route: shop -> shop");
    it.create(json!({"name": "dear", "selector": "us"})).await.unwrap();
    it.create(json!({"name": "shop", "selector": "any", "rules": rules("dear")})).await.unwrap();
    let back = it.change("dear", json!({"rules": [{"host": "*", "route": "shop"}]})).await.unwrap_err();
    assert_eq!(field(back), "`rules[0].route` leads back to its own route: dear -> shop -> dear");
    it.change("dear", json!({"rules": [{"port": 25, "refuse": true}]})).await.unwrap();

    let in_use = it.service.check_unused("dear").unwrap_err().to_string();
    assert_eq!(in_use, "rules of `shop` lead to the route `dear`; change these rules first");
    it.service.check_unused("shop").unwrap();
    let before = it.service.state.load().routes.clone();
    let rules = it.service.rules.load_full();
    let (stored, _) = it.stored().await;
    let after = restored(&stored, RouteTable::new(Words::default(), Policy::default()), &rules);
    for name in ["shop", "dear"] {
        let of = |table: &RouteTable| table.get(name).unwrap().route.policy.rules.clone();
        assert!(!of(&before).is_empty() && of(&before) == of(&after), "{name}: {:?}", of(&after));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_whose_times_are_too_long_now_is_restored() {
    let mut it = TestService::new(23).await;
    let use_long = json!({"host": "a.test", "use": "us-session-b-ttl-24h"});
    it.create(json!({"name": "long", "selector": "us-session-a-ttl-24h"})).await.unwrap();
    it.create(json!({"name": "ruled", "selector": "any", "rules": [use_long]})).await.unwrap();
    let rules = it.service.rules.load_full();
    let (stored, _) = it.stored().await;
    let shorter = Policy { max_session_ttl: Duration::from_secs(3600), ..Policy::default() };
    let after = restored(&stored, RouteTable::new(Words::default(), shorter), &rules);
    assert!(after.get("long").is_some() && after.get("ruled").is_some(), "both ports open again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_rules_ends_the_pins_that_no_rule_has_any_more() {
    let mut it = TestService::new(22).await;
    let rule = |selector: &str| json!({"rules": [{"host": "a.example", "use": selector}]});
    it.create(json!({"name": "shop", "selector": "us", "rules": rule("us-strict")["rules"]})).await.unwrap();
    let pins = |it: &TestService| {
        let pins = it.service.state.memory().pins().list(it.service.state.now());
        pins.iter().map(|pin| pin.holder.scope.to_string()).collect::<Vec<_>>()
    };
    let target: Target = "a.example:443".parse().unwrap();
    let snapshot = it.service.state.snapshot();
    let wish = snapshot.routes.resolve("shop", None).unwrap();
    let wish = snapshot.routes.for_target(wish, &target.host, Some(443)).unwrap();
    let ask = Ask { wish: &wish, key: "", target: &target, now: it.service.state.now(), avoid: &[], plain: false };
    route::decide(snapshot.view(), it.service.state.memory(), &ask, &mut rand::rng()).unwrap();
    assert_eq!(pins(&it), ["shop:us-strict"]);
    it.change("shop", json!({"pool": 2})).await.unwrap();
    assert_eq!(pins(&it), ["shop:us-strict"], "the rule is as before");
    it.change("shop", rule("de-strict")).await.unwrap();
    assert_eq!(pins(&it), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn source_and_fallback_are_set_changed_and_restored() {
    let mut it = TestService::new(23).await;
    let body = json!({"name": "shop", "selector": "us", "source": ["tor", "public"], "fallback": true});
    it.create(body).await.unwrap();
    let policy = |it: &TestService| it.service.state.load().routes.get("shop").unwrap().route.policy.clone();
    assert_eq!((policy(&it).sources.clone(), policy(&it).fallback), (vec![Source::Tor, Source::Public], true));
    it.change("shop", json!({"source": ["public", "tor"]})).await.unwrap();
    assert_eq!((policy(&it).sources.clone(), policy(&it).fallback), (vec![Source::Public, Source::Tor], true));
    let refused = it.change("shop", json!({"source": null})).await.unwrap_err().to_string();
    assert_eq!(refused, "`fallback` needs two or more sources in `source`, the preferred one first");
    it.change("shop", json!({"source": null, "fallback": null})).await.unwrap();
    assert_eq!((policy(&it).sources.len(), policy(&it).fallback), (0, false));
    it.change("shop", json!({"source": ["tor", "public"]})).await.unwrap();
    let rules = it.service.rules.load_full();
    let (stored, _) = it.stored().await;
    let after = restored(&stored, RouteTable::new(Words::default(), Policy::default()), &rules);
    assert_eq!(after.get("shop").unwrap().route.policy.sources, [Source::Tor, Source::Public]);
}
