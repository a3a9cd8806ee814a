//! Tests of the store through its public functions: acknowledged writes are still there, whatever happens to the file
//! and the process.

mod crash;
mod faults;
mod files;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::exit::facts::Flags;
use crate::exit::{Anonymity, Fingerprint, Listing, Login, Moment, Protocol, PublicId, Through};
use crate::net::Secret;
use crate::route::Holder;
use crate::route::pin::PinRecord;
use crate::route::pinned::Pinned;
use crate::route::selector::SessionId;
use crate::route::session::{SessionRecord, Term};

/// A temporary folder that contains a database.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("exitgate.db")
    }

    fn open(&self) -> (Store, Loaded) {
        Store::open(&self.path(), Options::default()).unwrap()
    }
}

fn tor(n: u8) -> ExitId {
    ExitId::Tor(Fingerprint([n; 20]))
}

fn public(port: u16) -> PublicId {
    PublicId { protocol: Protocol::Socks5, addr: ([192, 0, 2, 1], port).into() }
}

fn route(name: &str, port: Option<u16>) -> Route {
    Route {
        name: name.to_owned(),
        selector: "us-strict".to_owned(),
        port,
        asked: r#"{"geo_category":"US"}"#.to_owned(),
        created: Moment(1),
        expires: None,
    }
}

fn check_of(exit: ExitId, target: &str, at: u64) -> Check {
    Check {
        id: 0,
        exit,
        target: target.to_owned(),
        at: Moment(at),
        outcome: "passed".to_owned(),
        detail: String::new(),
        ip: Some([203, 0, 113, 7].into()),
        status: Some(200),
        timings: Timings { tls: Some(Duration::from_millis(40)), ..Timings::default() },
    }
}

fn verdict(exit: ExitId) -> Verdict {
    Verdict {
        exit,
        target: "echo".to_owned(),
        verdict: TargetVerdict::Good,
        streak: 3,
        checked: Moment(50),
        good: Some(Moment(50)),
        latency: Some(Duration::from_millis(120)),
        why: String::new(),
    }
}

fn seen(exit: ExitId, last: u64) -> Observed {
    Observed { exit, ip: [203, 0, 113, 7].into(), first: Moment(last), last: Moment(last), times: 1 }
}

fn proxy(port: u16, working: bool, millis: Option<u64>) -> Public {
    Public {
        id: public(port),
        list: "proxifly".to_owned(),
        working,
        response_time: millis.map(Duration::from_millis),
        failed_count: 0,
        last_tested: Some(Moment(9)),
        last_working: working.then_some(Moment(9)),
        created_at: Moment(1),
        anonymity: Anonymity::Elite,
        https: true,
        connect: true,
        country: Some("US".to_owned()),
        exit_ip: Some([203, 0, 113, 9].into()),
        login: Some(Login { user: "team".into(), password: Secret::new("pass:word") }),
        through: Through::Tor,
        several: true,
        condemned: false,
        asked: 20,
        passed: 19,
    }
}

fn key(name: &str) -> Key {
    let asked = r#"{"sources":["tor"]}"#.to_owned();
    Key { name: name.to_owned(), digest: [7; 32], asked, created: Moment(8), expires: Some(Moment(9)) }
}

fn usage(key: &str, created: u64, bytes: u64) -> KeyUsage {
    let period = |index, bytes| UsagePeriod { index, requests: 3, bytes };
    let (days, months) = ([period(20_000, bytes), period(19_999, 1)], [period(24_322, bytes), period(24_321, 2)]);
    KeyUsage { key: key.to_owned(), created: Moment(created), source: "tor".to_owned(), days, months }
}

/// Returns one row of each kind that is loaded at the start, as writes and as the expected result of loading.
fn one_of_each() -> (Vec<Write>, Loaded) {
    let holder = |key: &str, scope: &str, session: &str| Holder {
        key: key.into(),
        scope: scope.into(),
        session: SessionId::parse(session),
    };
    let pin = PinRecord {
        holder: holder("team-a", "us-strict", ""),
        to: Pinned { exit: tor(1), ip: [203, 0, 113, 7].into() },
        made: Moment(2),
        used: Moment(3),
        term: Term { span: Duration::from_secs(30 * 86_400), fixed: false },
        exclusive: true,
    };
    let session = SessionRecord {
        holder: holder("", "any", "Cart42"),
        exit: ExitId::Public(Arc::new(public(1080))),
        bound: Moment(3),
        used: Moment(4),
        term: Term { span: Duration::from_micros(i64::MAX as u64 - 4), fixed: false },
    };
    let ban = Ban {
        site: "steamcommunity.com".to_owned(),
        exit: tor(1),
        since: Moment(5),
        until: Moment(u64::MAX >> 1),
        why: "403".to_owned(),
    };
    let listing = Listing {
        id: tor(1),
        nickname: "Quintex152".into(),
        announced: vec![[204, 8, 96, 141].into()],
        country: "US".parse().unwrap(),
        asn: Some(62744),
        as_name: Some("Quintex".into()),
        policy: "accept 80,443".parse().unwrap(),
        policy_v6: "accept 443".parse().unwrap(),
        flags: Flags { running: true, stable: true, ..Flags::default() },
        weight: 3600,
        unlisted: None,
        public: None,
        upstream: None,
    };
    let exit = Exit { listing, first_seen: Moment(6), last_seen: Moment(7) };
    let source = Source {
        name: "onionoo".to_owned(),
        etag: Some("\"x\"".to_owned()),
        attempt: Some(Moment(8)),
        outcome: "fresh".to_owned(),
        records: 2000,
        ..Source::default()
    };
    let writes = vec![
        Write::PutRoute(route("us-strict", Some(20001))),
        Write::PutKey(key("team-b")),
        Write::PutKeyUsage(vec![usage("team-b", 8, 1 << 40)]),
        Write::PutPin(pin.clone()),
        Write::PutSession(session.clone()),
        Write::PutBan(ban.clone()),
        Write::PutExit(exit.clone()),
        Write::PutVerdict(verdict(tor(1))),
        Write::Saw(seen(tor(1), 50)),
        Write::PutSource(source.clone()),
        Write::PutPublic(proxy(1080, true, Some(20))),
        Write::PutMeta("events", "17".to_owned()),
    ];
    let meta = [("events", "17"), ("written_by", env!("CARGO_PKG_VERSION"))];
    let loaded = Loaded {
        routes: vec![route("us-strict", Some(20001))],
        keys: vec![key("team-b")],
        key_usage: vec![usage("team-b", 8, 1 << 40)],
        pins: vec![pin],
        sessions: vec![session],
        bans: vec![ban],
        exits: vec![exit],
        verdicts: vec![verdict(tor(1))],
        observed: vec![seen(tor(1), 50)],
        sources: vec![source],
        public: vec![proxy(1080, true, Some(20))],
        meta: meta.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        skipped: 0,
    };
    (writes, loaded)
}

#[tokio::test]
async fn what_is_committed_is_loaded_after_a_restart() {
    let home = Home::new();
    let (store, empty) = home.open();
    assert_eq!(empty.routes, []);
    let (writes, wanted) = one_of_each();
    store.commit(writes).await.unwrap();
    store.close().await;
    let (store, loaded) = home.open();
    assert_eq!(loaded, wanted);
    store.close().await;
    assert_eq!(store.commit(vec![]).await, Err(StoreError::Closed));
}

#[tokio::test]
async fn notes_are_written_in_order_with_the_changes_behind_them() {
    let home = Home::new();
    let (store, _) = home.open();
    (1..=100).for_each(|last| store.note(Write::Saw(seen(tor(1), last))));
    store.note(Write::PutRoute(route("gone", None)));
    store.commit(vec![Write::DropRoute("gone".to_owned()), Write::PutMeta("a", "b".to_owned())]).await.unwrap();
    let sum = Observed { first: Moment(1), times: 100, ..seen(tor(1), 100) };
    store.note(Write::PutRoute(route("last", None)));
    store.close().await;
    let loaded = home.open().1;
    assert_eq!(loaded.observed, [sum]);
    assert_eq!(loaded.routes, [route("last", None)], "a note before the close is written, a dropped route stays away");
}

#[tokio::test]
async fn a_change_is_all_or_nothing_and_does_not_take_others_with_it() {
    let home = Home::new();
    let (store, _) = home.open();
    store.commit(vec![Write::PutRoute(route("a", Some(20001)))]).await.unwrap();
    let clash = vec![Write::PutRoute(route("b", Some(20002))), Write::PutRoute(route("c", Some(20001)))];
    let (refused, taken) = tokio::join!(store.commit(clash), store.commit(vec![Write::PutRoute(route("d", None))]));
    assert!(matches!(refused, Err(StoreError::Refused(Fault::Conflict(_)))), "{refused:?}");
    assert_eq!((taken, store.health.borrow().clone()), (Ok(()), Health::Ok));
    store.close().await;
    let names: Vec<_> = home.open().1.routes.into_iter().map(|route| route.name).collect();
    assert_eq!(names, ["a", "d"]);
}

#[tokio::test]
async fn history_is_listed_newest_first_by_exit_and_target() {
    let home = Home::new();
    let (store, _) = home.open();
    for at in 1..=6 {
        store.note(Write::Check(check_of(tor(1), if at % 2 == 0 { "steam" } else { "echo" }, at)));
        store.note(Write::Check(check_of(tor(2), "echo", at)));
    }
    store.commit(vec![]).await.unwrap();
    let at = |checks: Vec<Check>| checks.into_iter().map(|check| check.at.0).collect::<Vec<_>>();
    let first = store.checks(&tor(1), None, Page { limit: 4, before: None }).await.unwrap();
    let rest = Page { limit: 4, before: Some(first[3].id) };
    assert_eq!(first[0], Check { id: first[0].id, ..check_of(tor(1), "steam", 6) });
    assert_eq!(at(first), [6, 5, 4, 3]);
    assert_eq!(at(store.checks(&tor(1), None, rest).await.unwrap()), [2, 1]);
    let steam = store.checks(&tor(1), Some("steam"), Page { limit: 9, before: None }).await.unwrap();
    assert_eq!(at(steam), [6, 4, 2]);
    assert_eq!(store.checks(&tor(3), None, rest).await.unwrap(), []);

    store.commit(vec![Write::DropExit(tor(1))]).await.unwrap();
    assert_eq!(store.checks(&tor(1), None, Page { limit: 9, before: None }).await.unwrap(), []);
}

#[tokio::test]
async fn the_history_of_a_public_proxy_is_short_and_ends_with_the_proxy() {
    let home = Home::new();
    let (store, _) = home.open();
    let exit = ExitId::Public(Arc::new(public(1080)));
    let other = ExitId::Public(Arc::new(public(1081)));
    let checks = (1..=150).map(|at| Write::Check(check_of(exit.clone(), "echo", at)));
    store.commit(checks.chain([Write::Check(check_of(other.clone(), "echo", 1))]).collect()).await.unwrap();
    let page = Page { limit: 999, before: None };
    let kept = store.checks(&exit, None, page).await.unwrap();
    assert_eq!((kept.len(), kept[0].at, kept[99].at), (100, Moment(150), Moment(51)));
    assert_eq!(store.checks(&other, None, page).await.unwrap().len(), 1, "each proxy has its own");
    store.commit(vec![Write::DropPublic(public(1080))]).await.unwrap();
    assert_eq!(store.checks(&exit, None, page).await.unwrap(), []);
    assert_eq!(store.checks(&other, None, page).await.unwrap().len(), 1);
}

#[tokio::test]
async fn one_file_is_used_by_one_gateway_only() {
    let home = Home::new();
    let (store, _) = home.open();
    let second = Store::open(&home.path(), Options::default()).map(|_| ());
    assert_eq!(second, Err(StoreError::InUse { path: home.path() }));
    assert!(set_aside(&home.path()).is_err(), "a file in use is not moved");
    store.close().await;
    home.open();
}

#[cfg(unix)]
#[test]
fn the_files_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let (_store, _) = home.open();
    for entry in std::fs::read_dir(home.0.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
}

/// Waits until the store's health fulfils the condition `is`.
async fn healthy(store: &Store, is: impl Fn(&Health) -> bool) {
    let mut health = store.health.clone();
    let waited = tokio::time::timeout(Duration::from_secs(20), health.wait_for(|now| is(now))).await;
    assert!(waited.is_ok(), "the health stays {:?}", store.health.borrow());
}

fn raw(path: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(path).unwrap()
}

#[tokio::test]
async fn a_key_goes_and_its_usage_does_not_become_that_of_the_next_key() {
    let home = Home::new();
    let (store, _) = home.open();
    store.commit(vec![Write::PutKey(key("a"))]).await.unwrap();
    let twin = store.commit(vec![Write::PutKey(key("b"))]).await;
    assert!(twin.is_err(), "two keys have the same secret");
    store.note(Write::PutKeyUsage(vec![usage("a", 8, 5), usage("a", 0, 6)]));
    store.note(Write::PutKeyUsage(vec![usage("a", 8, 7)]));
    store.commit(vec![Write::DropKey("a".to_owned())]).await.unwrap();
    store.note(Write::DropKeyUsage("a".to_owned(), Moment(8)));
    store.close().await;
    let (_, loaded) = home.open();
    assert_eq!(
        (loaded.keys, loaded.key_usage),
        (vec![], vec![usage("a", 0, 6)]),
        "the other one is of the configuration"
    );
}
