use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::exit::country::Country;
use crate::exit::facts::Flags;
use crate::exit::{Fingerprint, Listing, Source, Verdict};
use crate::net::Host;
use crate::route::ban::Site;
use crate::route::memory::Bounds;
use crate::route::selector::{RouteName, Selector};
use crate::route::table::{Origin, Route};
use crate::store::Options;
use crate::store::testing::WriteLock;

fn id(n: u8) -> ExitId {
    ExitId::Tor(Fingerprint([n; 20]))
}

fn listing(n: u8) -> Listing {
    Listing {
        announced: vec![[198, 18, 0, n].into()],
        country: Country::parse("US").unwrap(),
        flags: Flags { running: true, stable: true, fast: true, bad_exit: false },
        ..Listing::new(id(n))
    }
}

fn route(name: &str, port: Option<u16>) -> Route {
    let (selector, words) = (Selector::parse("us", &Words::default()).unwrap(), Words::default());
    Route {
        name: RouteName::parse(name, &selector, &words).unwrap(),
        selector,
        port,
        policy: Arc::default(),
        origin: Origin::Config,
        created: Moment(1),
        expires: None,
    }
}

fn site(host: &str) -> Site {
    Site::of(&Host::parse(host).unwrap())
}

fn configured(routes: impl IntoIterator<Item = Route>) -> Change {
    Change::Configured { words: Words::default(), defaults: Policy::default(), routes: routes.into_iter().collect() }
}

fn listed(exits: &[u8]) -> Change {
    Change::Listed(Source::Tor, exits.iter().copied().map(listing).collect())
}

fn update(n: u8, teach: impl FnOnce(&mut crate::exit::Known) + Send + 'static) -> ExitUpdate {
    ExitUpdate { exit: id(n), update: Box::new(teach), ban: None, writes: Vec::new() }
}

fn state(store: Option<Store>) -> (State, mpsc::Receiver<ExitId>) {
    let snapshot = Snapshot::new(Words::default(), Policy::default());
    State::new(snapshot, Memory::new(Bounds::default()), Clock::start(), store)
}

fn names(state: &State) -> Vec<(String, Option<u16>)> {
    let snapshot = state.load();
    let mut all: Vec<_> =
        snapshot.routes.iter().map(|entry| (entry.route.name.to_string(), entry.route.port)).collect();
    all.sort();
    all
}

#[tokio::test]
async fn an_exit_that_left_its_list_drains_and_is_removed_when_idle() {
    let (state, _wished) = state(None);
    state.apply(listed(&[1, 2, 3])).await.unwrap();
    state.apply(Change::ExitUpdates(vec![update(3, |known| known.marks.bad_for_good = true)])).await.unwrap();
    let busy = state.load().catalog.get(&id(2)).unwrap().load().begin();

    state.apply(listed(&[])).await.unwrap();
    let draining = |n| state.load().catalog.get(&id(n)).map(|exit| exit.known().marks.draining);
    assert_eq!([draining(1), draining(2), draining(3)], [Some(true); 3], "exits that left drain first");
    state.apply(listed(&[])).await.unwrap();
    assert_eq!([draining(1), draining(2), draining(3)], [None, Some(true), Some(true)]);
    drop(busy);
    state.apply(listed(&[1])).await.unwrap();
    assert_eq!([draining(1), draining(2), draining(3)], [Some(false), None, Some(true)]);
    assert!(
        state.load().catalog.get(&id(3)).unwrap().known().marks.bad_for_good,
        "and a condemned exit stays condemned"
    );
}

#[tokio::test]
async fn a_refused_change_changes_nothing() {
    let (state, _wished) = state(None);
    state.apply(configured([route("a", Some(20_001)), route("b", None)])).await.unwrap();
    let before = (names(&state), state.load().revision);
    let clash = state.apply(configured([route("c", Some(20_002)), route("d", Some(20_002))])).await;
    assert!(matches!(clash, Err(Refused::Clash(_))), "{clash:?}");
    assert_eq!((names(&state), state.load().revision), before);
}

#[tokio::test]
async fn routes_of_one_configuration_may_exchange_ports() {
    let (state, _wished) = state(None);
    state.apply(configured([route("a", Some(20_001)), route("b", Some(20_002)), route("c", None)])).await.unwrap();
    state.apply(configured([route("a", Some(20_002)), route("b", Some(20_001))])).await.unwrap();
    assert_eq!(names(&state), [("a".to_owned(), Some(20_002)), ("b".to_owned(), Some(20_001))]);
}

#[tokio::test]
async fn an_update_makes_an_exit_usable_and_its_route_wants_it() {
    let (state, _wished) = state(None);
    let mut revisions = state.revisions();
    let pool = || {
        state
            .load()
            .routes
            .get("a")
            .unwrap()
            .pool
            .members()
            .iter()
            .map(|member| member.id().clone())
            .collect::<Vec<_>>()
    };
    state.apply(configured([route("a", None)])).await.unwrap();
    state.apply(listed(&[1])).await.unwrap();
    assert_eq!(pool(), [], "it was not checked");
    revisions.mark_unchanged();
    state.apply(Change::ExitUpdates(vec![update(1, |known| known.verdict = Verdict::Good)])).await.unwrap();
    assert!(revisions.has_changed().unwrap(), "requests that wait for a first check are woken");
    assert_eq!(pool(), [id(1)]);
}

#[tokio::test]
async fn bans_hold_until_they_end() {
    let (state, _wished) = state(None);
    let shop = site("www.shop.com");
    let until = state.now().after(Duration::from_millis(20));
    state.apply(Change::Banned { site: shop.clone(), exit: id(1), until, why: "403".into() }).await.unwrap();
    assert_eq!(state.load().bans.until(&shop, &id(1), state.now()), Some(until));
    let mut revisions = state.revisions();
    revisions.mark_unchanged();
    while state.now() < until {
        tokio::task::yield_now().await;
    }
    state.tick(&mut 0, &mut state.now()).await;
    assert!(revisions.has_changed().unwrap(), "an expired ban is removed");
    assert_eq!(state.load().bans.iter(Moment(0)).count(), 0);
}

#[tokio::test]
async fn exits_and_bans_are_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("exitgate.db");
    let (store, _) = Store::open(&path, Options::default()).unwrap();
    let (first, _wished) = state(Some(store.clone()));
    first.apply(listed(&[1, 2])).await.unwrap();
    let until = first.now().after(Duration::from_secs(3600));
    let shop = site("shop.com");
    let ban = ExitUpdate { ban: Some((shop, until, "429".into())), ..update(2, |_| ()) };
    first.apply(Change::ExitUpdates(vec![ban])).await.unwrap();
    store.close().await;

    let (_store, loaded) = Store::open(&path, Options::default()).unwrap();
    let mut exits: Vec<_> = loaded.exits.into_iter().map(|exit| exit.listing).collect();
    exits.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(exits, [listing(1), listing(2)]);
    let bans: Vec<_> = loaded.bans.into_iter().map(|ban| (ban.site, ban.exit, ban.until, ban.why)).collect();
    assert_eq!(bans, [("shop.com".to_owned(), id(2), until, "429".to_owned())]);
}

fn made(name: &str, port: u16) -> Change {
    let route = Route { origin: Origin::Api, ..route(name, Some(port)) };
    Change::Created(vec![(route, "{}".to_owned())])
}

fn dropped(name: &str) -> Change {
    let (selector, words) = (Selector::parse("us", &Words::default()).unwrap(), Words::default());
    Change::Dropped(vec![RouteName::parse(name, &selector, &words).unwrap()])
}

#[tokio::test]
async fn a_route_of_the_api_is_stored_before_it_is_published_and_deleted_with_its_row() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("exitgate.db");
    let (store, _) = Store::open(&path, Options::default()).unwrap();
    let (state, _wished) = state(Some(store.clone()));
    state.apply(made("a", 20_001)).await.unwrap();
    state.apply(made("b", 20_002)).await.unwrap();
    for (change, taken) in [(made("a", 20_003), "a"), (made("c", 20_002), "20002")] {
        let clash = state.apply(change).await.unwrap_err().to_string();
        assert!(clash.contains(taken), "{clash}");
    }
    let changed = Route { origin: Origin::Api, ..route("b", Some(20_004)) };
    state.apply(Change::Changed(changed, "{\"port\":20004}".to_owned())).await.unwrap();
    state.apply(dropped("a")).await.unwrap();
    assert!(matches!(state.apply(dropped("a")).await, Err(Refused::NoRoute(_))));
    assert_eq!(names(&state), [("b".to_owned(), Some(20_004))]);
    drop(state);
    store.close().await;
    let (_store, loaded) = Store::open(&path, Options::default()).unwrap();
    let kept: Vec<_> = loaded.routes.into_iter().map(|route| (route.name, route.port, route.asked)).collect();
    assert_eq!(kept, [("b".to_owned(), Some(20_004), "{\"port\":20004}".to_owned())]);
}

#[tokio::test]
async fn the_api_cannot_change_routes_of_the_configuration() {
    let (state, _wished) = state(None);
    state.apply(configured([route("a", Some(20_001))])).await.unwrap();
    let other = Route { origin: Origin::Api, ..route("a", Some(20_002)) };
    for change in [dropped("a"), Change::Changed(other, "{}".to_owned())] {
        assert!(matches!(state.apply(change).await, Err(Refused::NoRoute(_))));
    }
    assert!(matches!(state.apply(made("a", 20_002)).await, Err(Refused::Clash(_))));
    assert_eq!(names(&state), [("a".to_owned(), Some(20_001))]);
}

#[tokio::test]
async fn sessions_and_pins_end_with_their_route() {
    let (state, _wished) = state(None);
    state.apply(listed(&[1, 2, 3])).await.unwrap();
    let good = |n| {
        update(n, move |known| {
            known.saw([198, 18, 0, n].into(), Country::parse("US").unwrap(), Moment(1));
            known.verdict = Verdict::Good;
        })
    };
    state.apply(Change::ExitUpdates(vec![good(1), good(2), good(3)])).await.unwrap();
    for (name, port) in [("shop", 20_001), ("shop-two", 20_002)] {
        state.apply(made(name, port)).await.unwrap();
    }
    let target = "site.example:443".parse().unwrap();
    let usernames = ["shop-strict", "shop-session-a", "shop-two-strict", "us-strict"];
    for username in usernames {
        let snapshot = state.snapshot();
        let wish = snapshot.routes.resolve(username, None).unwrap();
        let ask =
            crate::route::Ask { wish: &wish, key: "", target: &target, now: state.now(), avoid: &[], plain: false };
        crate::route::decide(snapshot.view(), state.memory(), &ask, &mut rand::rng()).unwrap();
    }
    let scopes = || {
        let mut all: Vec<_> =
            state.memory().pins().list(state.now()).iter().map(|pin| pin.holder.scope.to_string()).collect();
        all.sort();
        (all, state.memory().sessions().len())
    };
    assert_eq!(scopes(), (vec!["shop-strict".into(), "shop-two-strict".into(), "us-strict".into()], 1));
    state.apply(dropped("shop")).await.unwrap();
    assert_eq!(scopes(), (vec!["shop-two-strict".into(), "us-strict".into()], 0));
    // After its selector has changed, a route loses exactly the pins that do not match the new selector.
    let words = Words::default();
    let elsewhere = Selector::parse("de", &words).unwrap();
    let changed = Route { origin: Origin::Api, selector: elsewhere, ..route("shop-two", Some(20_002)) };
    state.apply(Change::Changed(changed, "{}".to_owned())).await.unwrap();
    assert_eq!(scopes(), (vec!["us-strict".to_owned()], 0));
}

#[tokio::test]
async fn a_rotated_pool_has_other_exits() {
    let (state, _wished) = state(None);
    state.apply(listed(&[1, 2, 3, 4])).await.unwrap();
    let updates = (1..5).map(|n| update(n, |known| known.verdict = Verdict::Good)).collect();
    state.apply(Change::ExitUpdates(updates)).await.unwrap();
    let narrow = Route { policy: Arc::new(Policy { pool: 2, ..Policy::default() }), ..route("a", None) };
    let name = narrow.name.clone();
    state.apply(configured([narrow])).await.unwrap();
    let pool = || {
        let snapshot = state.load();
        snapshot
            .routes
            .get("a")
            .unwrap()
            .pool
            .members()
            .iter()
            .map(|member| member.id().clone())
            .collect::<BTreeSet<_>>()
    };
    let before = pool();
    state.apply(Change::Rotated(name)).await.unwrap();
    assert!(pool().len() == 2 && pool().is_disjoint(&before));
}

#[tokio::test]
async fn a_new_pin_is_on_the_disk_when_the_client_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exitgate.db");
    let (store, _) = Store::open(&path, Options::default()).unwrap();
    let (state, _wishes) = state(Some(store.clone()));
    state.apply(listed(&[1])).await.unwrap();
    let good = |known: &mut crate::exit::Known| {
        known.verdict = Verdict::Good;
        known.saw([198, 18, 0, 1].into(), Country::parse("US").unwrap(), Moment(1));
    };
    state.apply(Change::ExitUpdates(vec![update(1, good)])).await.unwrap();
    let (snapshot, now) = (state.snapshot(), state.now());
    let (wish, target) = (snapshot.routes.resolve("us-strict", None).unwrap(), "shop.test:443".parse().unwrap());
    let ask = crate::route::Ask { wish: &wish, key: "", target: &target, now, avoid: &[], plain: false };
    let plan = crate::route::decide(snapshot.view(), state.memory(), &ask, &mut rand::rng()).unwrap();
    assert!(matches!(&plan.events[..], [Event::PinMade { .. }]));
    state.make_durable(plan.events).await;
    // Copies the file as it is now, which is what a kill of the process would leave.
    let copy = folder.path().join("copy.db");
    crate::store::backup(&path, &copy).unwrap();
    let (_other, loaded) = Store::open(&copy, Options::default()).unwrap();
    assert_eq!(loaded.pins.len(), 1);
    assert_eq!(loaded.pins[0].to.exit, id(1));
}

#[tokio::test]
async fn bans_and_condemned_exits_are_announced_once() {
    let (state, _wishes) = state(None);
    state.apply(listed(&[1, 2])).await.unwrap();
    let mut events = state.events();
    let caught = |known: &mut crate::exit::Known| {
        (known.marks.bad_for_good, known.why) = (true, Some("it changes pages".into()));
    };
    let until = state.now().after(Duration::from_secs(60));
    let ban = || Change::Banned { site: site("shop.test"), exit: id(2), until, why: "reported".to_owned() };
    for _ in 0..2 {
        state.apply(Change::ExitUpdates(vec![update(1, caught)])).await.unwrap();
        state.apply(ban()).await.unwrap();
    }
    let told: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).map(|event| event.to_string()).collect();
    let want = [
        format!("{} is condemned and not used for two weeks: it changes pages", id(1)),
        format!("shop.test refuses {}: reported", id(2)),
    ];
    assert_eq!(told, want);
}

#[tokio::test]
async fn a_disk_that_hangs_stops_no_verdict_and_no_later_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exitgate.db");
    let (store, _) = Store::open(&path, Options::default()).unwrap();
    let (state, _wishes) = state(Some(store.clone()));
    state.apply(listed(&[1])).await.unwrap();
    state.apply(made("before", 20_001)).await.unwrap();
    let lock = WriteLock::take(&path);
    tokio::time::pause(); // deadlines pass as soon as nothing else happens
    let good = Change::ExitUpdates(vec![update(1, |known| known.verdict = Verdict::Good)]);
    let (created, checked) = tokio::join!(state.apply(made("refused", 20_002)), state.apply(good));
    assert!(matches!(created, Err(Refused::Store(_))), "{created:?}");
    checked.unwrap();
    assert!(state.load().catalog.get(&id(1)).unwrap().known().verdict == Verdict::Good);
    assert_eq!(names(&state), [("before".to_owned(), Some(20_001))]);
    tokio::time::resume();
    drop(lock);
    while state.apply(made("after", 20_003)).await.is_err() {
        tokio::task::yield_now().await; // until the store has its lock
    }
    store.close().await;
    let names: Vec<_> = Store::open(&path, Options::default()).unwrap().1.routes.into_iter().map(|r| r.name).collect();
    assert_eq!(names, ["after", "before"]);
}

#[tokio::test]
async fn a_person_sets_and_lifts_bans_and_a_restart_keeps_both() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("exitgate.db");
    let (store, _) = Store::open(&path, Options::default()).unwrap();
    let (state, _wished) = state(Some(store.clone()));
    state.apply(listed(&[1, 2, 3])).await.unwrap();
    let mut events = state.events();
    let minutes = |count: u64| state.now().after(Duration::from_secs(60 * count));
    let set = |exits: &[u8], until| Change::BanSet {
        site: site("shop.com"),
        exits: exits.iter().copied().map(id).collect(),
        until,
        why: "by hand".to_owned(),
    };
    let held = || {
        let snapshot = state.snapshot();
        let mut held: Vec<_> =
            snapshot.bans.iter(state.now()).map(|(_, exit, until)| (exit.to_string(), until)).collect();
        held.sort();
        held
    };
    let (long, short) = (minutes(60), minutes(5));
    state.apply(set(&[1, 2, 3], Some(long))).await.unwrap();
    state.apply(set(&[1], Some(short))).await.unwrap();
    assert_eq!(held().iter().map(|(_, until)| *until).collect::<Vec<_>>(), [short, long, long], "also a shorter time");
    state.apply(set(&[2], None)).await.unwrap();
    assert_eq!(
        held().iter().map(|(exit, _)| exit.clone()).collect::<Vec<_>>(),
        [id(1), id(3)].map(|id| id.to_string())
    );
    let mut kinds = Vec::new();
    while let Ok(event) = events.try_recv() {
        kinds.push(matches!(&*event, Event::BanLifted { .. }));
    }
    assert_eq!(kinds, [false, false, false, true], "a new end of a ban is no event");
    drop(state);
    store.close().await;
    let (_store, loaded) = Store::open(&path, Options::default()).unwrap();
    let now = Clock::start().now();
    let mut kept: Vec<_> =
        loaded.bans.into_iter().filter(|ban| ban.until > now).map(|ban| (ban.exit, ban.until)).collect();
    kept.sort();
    assert_eq!(kept, [(id(1), short), (id(3), long)]);
}
