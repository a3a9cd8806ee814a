use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::config::Config;
use crate::exit::identity::Identities;
use crate::gateway::outbound::rotate::Proof;
use crate::gateway::outbound::{Outbound, Parts, RefusalReporter, Terms, Times};
use crate::gateway::relay::Idle;
use crate::lifecycle::Lifecycle;
use crate::limit::target::{Own, Ports, Rules};
use crate::limit::{Amounts, Budgets, Damping, Key, KeyRefusal};
use crate::listen::Permits;
use crate::route::memory::{Bounds, Memory};
use crate::route::{Policy, Words};
use crate::state::{Clock, Snapshot};
use crate::store::Options;

/// A gateway that has one key of the configuration, `config`, and no ports.
struct Rig {
    admin: KeyAdmin,
    limits: Limits,
    store: Store,
    life: Lifecycle,
}

fn terms(own: &Own) -> Terms {
    let ports = Ports { allow: vec![1..=65535], deny: Vec::new() };
    let second = Duration::from_secs(1);
    Terms {
        rules: Rules::new(ports, false, own.clone()),
        allow_direct: false,
        times: Times { dial: second, attempt: second, idle: Idle::default() },
        public: crate::dial::public::Times { connect: second, reply: second },
        max_attempts: 1.try_into().unwrap(),
        hedge: 0.0,
        ban_for: second,
    }
}

impl Rig {
    fn start(dir: &std::path::Path, file: Option<&Secret>) -> Self {
        let (store, loaded) = Store::open(&dir.join("exitgate.db"), Options::default()).unwrap();
        let snapshot = Snapshot::new(Words::default(), Policy::default());
        let memory = Memory::new(Bounds::default());
        let (state, _wished) = State::new(snapshot, memory, Clock::start(), Some(store.clone()));
        let config = Config::default();
        let damping = Damping { failures: config.gateway.auth_failures, pause: config.gateway.auth_pause };
        let key = Key {
            name: "config".into(),
            secret: Secret::new("of the configuration"),
            amounts: Amounts::default(),
            budgets: Budgets::default(),
        };
        let limits = Limits::new(vec![key], Amounts::default(), damping);
        restore_keys(&limits, &loaded.keys, file, state.now());
        let rest = restore_usage(&limits, loaded.key_usage);
        let (life, own) = (Lifecycle::new(), Own::new());
        let outbound = Arc::new(Outbound::new(Parts {
            identities: Identities::default(),
            state: state.clone(),
            limits: limits.clone(),
            tor: None,
            terms: terms(&own),
            refusals: RefusalReporter::new(mpsc::channel(1).0),
            verify: Arc::new(|_| Box::pin(async { Proof::Not("nothing is tested here".to_owned()) })),
            stopping: watch::channel(false).1,
        }));
        let listeners = Listeners::new(outbound, Permits::new(100), life.tasks(), own, config);
        let parts = KeyParts {
            limits: limits.clone(),
            state,
            store: store.clone(),
            connections: listeners.connections(),
            listeners: Arc::new(Mutex::new(listeners)),
            key_file: Box::new(|| Ok(Secret::new("the key file"))),
        };
        let admin = KeyAdmin::start(&life.tasks(), parts, file, rest);
        Self { admin, limits, store, life }
    }

    async fn stop(self) {
        self.life.stop(Duration::ZERO, std::future::pending()).await;
        self.admin.save();
        self.store.close().await;
    }

    async fn create(&self, body: Value) -> Result<Option<Secret>, KeyError> {
        let spec = KeySpec::read(body.as_object().unwrap())?;
        self.admin.create(spec).await.map(|created| created.secret)
    }

    async fn change(&self, name: &str, patch: Value) -> Result<(), KeyError> {
        self.admin.change(name, patch.as_object().unwrap().clone(), None).await
    }

    fn identify(&self, secret: &Secret) -> Result<String, KeyRefusal> {
        let found = self.limits.identify([192, 0, 2, 1].into(), Some(secret.expose().as_bytes()), Instant::now());
        found.map(|identity| identity.key().unwrap().to_string())
    }
}

#[tokio::test]
async fn a_key_is_created_once_changed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path(), None);
    let mut events = rig.admin.events();
    let secret = rig.create(json!({ "name": "a", "sources": ["tor"] })).await.unwrap().unwrap();
    assert!(secret.expose().starts_with("xg_") && secret.expose().len() == 35);
    assert_eq!(rig.identify(&secret), Ok("a".to_owned()));
    assert_eq!(rig.create(json!({ "sources": ["tor"], "name": "a" })).await, Ok(None), "an equal body again");
    assert_eq!(rig.create(json!({ "name": "a" })).await, Err(KeyError::NameTaken("a".to_owned())));
    assert_eq!(rig.create(json!({ "name": "config" })).await, Err(KeyError::NameOfConfig("config".to_owned())));
    assert!(matches!(rig.create(json!({})).await, Err(KeyError::BadField(bad)) if bad.field == "name"));
    let rights = || rig.limits.keys().iter().find(|key| &*key.name == "a").unwrap().rights().clone();
    assert!(rights().sources.is_some());
    rig.change("a", json!({ "sources": null, "limits": { "connections": 2 } })).await.unwrap();
    assert!(rights().sources.is_none());
    assert_eq!(rig.identify(&secret), Ok("a".to_owned()), "the secret stays");
    let listed = rig.admin.list();
    let names: Vec<_> = listed.iter().map(|key| (&*key.name, key.created.is_some())).collect();
    assert_eq!(names, [("a", true), ("config", false)]);
    for name in ["config", "b"] {
        let refused = [rig.change(name, json!({})).await, rig.admin.delete(name, false, true, None).await];
        let wanted = if name == "b" { unknown("b") } else { KeyError::ReadOnly(name.to_owned()) };
        assert_eq!(refused, [Err(wanted.clone()), Err(wanted)]);
    }
    rig.admin.delete("a", true, false, None).await.unwrap();
    assert_eq!(rig.identify(&secret), Err(KeyRefusal::WrongKey));
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        told.push(event.what);
    }
    assert_eq!(told, [KeyChange::Created, KeyChange::Changed, KeyChange::Deleted]);
}

#[tokio::test]
async fn a_change_reaches_its_end_when_its_client_disconnects() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path(), None);
    let secret = rig.create(json!({ "name": "a" })).await.unwrap().unwrap();
    let mut events = rig.admin.events();
    {
        let delete = rig.admin.delete("a", true, false, None);
        // One poll begins the deletion; then the future is dropped, as for an HTTP client that disconnects.
        assert!(delete.now_or_never().is_none());
    }
    let deleted = async { while events.recv().await.unwrap().what != KeyChange::Deleted {} };
    tokio::time::timeout(Duration::from_secs(20), deleted).await.unwrap();
    assert_eq!(rig.identify(&secret), Err(KeyRefusal::WrongKey));
}

#[tokio::test]
async fn a_change_made_for_another_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path(), None);
    let body = json!({ "name": "a", "ttl": "1h", "budget": { "bytes_per_day": 100 } });
    rig.create(body).await.unwrap();
    let present = |rig: &Rig| version(&rig.admin.one("a").unwrap());
    let mut seen = vec![present(&rig)];
    rig.admin.one("a").unwrap().account.spend("tor").add(7);
    assert_eq!(present(&rig), seen[0], "use is no change");
    for patch in [
        json!({ "ttl": null }),
        json!({ "limits": { "connections": 2 } }),
        json!({ "budget": { "bytes_per_day": 200 } }),
        json!({ "source_budgets": { "tor": { "requests_per_day": 1 } } }),
        json!({ "source_budgets": { "tor": null, "public": { "requests_per_day": 1 } } }),
        json!({ "sources": ["tor"] }),
        json!({ "routes": ["shop"] }),
    ] {
        let change = |versions: Vec<String>| {
            let (admin, patch) = (rig.admin.clone(), patch.as_object().unwrap().clone());
            async move { admin.change("a", patch, Some(versions)).await }
        };
        let old = present(&rig);
        for versions in [seen[..seen.len() - 1].to_vec(), Vec::new()] {
            let refused = KeyError::Stale { name: "a".to_owned(), version: old.clone() };
            assert_eq!(change(versions).await, Err(refused), "{patch}");
        }
        change(seen.clone()).await.unwrap();
        assert!(!seen.contains(&present(&rig)), "{patch}");
        seen.push(present(&rig));
    }
    let (old, new) = (seen[..1].to_vec(), seen[seen.len() - 1..].to_vec());
    rig.stop().await;
    let rig = Rig::start(dir.path(), Some(&Secret::new("the key file")));
    assert_eq!(present(&rig), new[0], "after a restart");
    assert!(matches!(rig.admin.delete("a", false, false, Some(old)).await, Err(KeyError::Stale { .. })));
    rig.admin.delete("a", false, false, Some(new)).await.unwrap();
}

#[test]
fn a_key_of_a_removed_source_can_be_changed() {
    let body = r#"{"name":"a","sources":["gone_one","tor"],"source_budgets":{"gone_two":{"requests_per_day":5}}}"#;
    let patched = |patch: Value| KeySpec::patched(body, patch.as_object().unwrap());
    let changed = patched(json!({ "budget": { "bytes_per_day": 100 } })).unwrap();
    assert!(changed.source_budgets.is_some());
    assert!(patched(json!({ "source_budgets": { "gone_two": null } })).is_ok());
    assert!(patched(json!({ "sources": ["gone_two"] })).is_ok(), "the key named it before");
    for (patch, field) in [
        (json!({ "sources": ["gone_three"] }), "sources"),
        (json!({ "source_budgets": { "gone_three": {} } }), "source_budgets"),
    ] {
        assert_eq!(patched(patch).unwrap_err().field, field);
    }
}

#[tokio::test]
async fn the_last_key_is_deleted_only_on_purpose() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path(), None);
    let damping = Damping { failures: 10.try_into().unwrap(), pause: Duration::from_secs(60) };
    rig.limits.replace(Vec::new(), Amounts::default(), damping);
    assert!(!rig.limits.needs_key());
    rig.create(json!({ "name": "a" })).await.unwrap();
    assert!(rig.limits.needs_key());
    assert_eq!(rig.admin.delete("a", false, false, None).await, Err(KeyError::LastKey("a".to_owned())));
    rig.admin.delete("a", false, true, None).await.unwrap();
    assert!(!rig.limits.needs_key());
}

#[tokio::test]
async fn keys_and_their_usage_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path(), None);
    let body = json!({ "name": "a", "budget": { "bytes_per_day": 100 } });
    let secret = rig.create(body).await.unwrap().unwrap();
    let spend = |rig: &Rig, name: &str| {
        rig.limits.keys().iter().find(|key| &*key.name == name).unwrap().account.spend("public")
    };
    assert_eq!((spend(&rig, "a").take(60), spend(&rig, "config").take(7)), (60, 7));
    rig.stop().await;

    let file = Secret::new("the key file");
    let rig = Rig::start(dir.path(), Some(&file));
    assert_eq!(rig.identify(&secret), Ok("a".to_owned()));
    assert_eq!(spend(&rig, "a").take(60), 40, "the rest of the day's budget");
    let used = |rig: &Rig, name: &str| {
        let usage =
            rig.limits.keys().iter().find(|key| &*key.name == name).unwrap().account.usage(SystemTime::now().into());
        usage.iter().map(|usage| usage.ledger.day.used.bytes).collect::<Vec<_>>()
    };
    assert_eq!((used(&rig, "config"), used(&rig, "a")), (vec![7, 7], vec![100, 100]), "in all, and of the source");
    rig.admin.delete("a", false, false, None).await.unwrap();
    let again = rig.create(json!({ "name": "a", "budget": { "bytes_per_day": 100 } })).await.unwrap().unwrap();
    assert_eq!((rig.identify(&again), used(&rig, "a")), (Ok("a".to_owned()), vec![0]), "another key of the same name");
    rig.stop().await;

    let rig = Rig::start(dir.path(), None);
    assert_eq!(rig.identify(&again), Err(KeyRefusal::WrongKey), "without the key file no secret is right");
    rig.stop().await;
}

#[tokio::test]
async fn what_a_key_used_is_stored_after_a_reload_removed_it() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path(), None);
    let account = rig.limits.keys()[0].account.clone();
    let damping = Damping { failures: 10.try_into().unwrap(), pause: Duration::from_secs(60) };
    rig.limits.replace(Vec::new(), Amounts::default(), damping);
    account.spend("tor").add(7); // a connection that was open at the reload
    rig.stop().await;
    let rig = Rig::start(dir.path(), None);
    let usage = rig.limits.keys()[0].account.usage(SystemTime::now().into());
    assert_eq!(usage.iter().map(|usage| usage.ledger.day.used.bytes).collect::<Vec<_>>(), [7, 7]);
    rig.stop().await;
}

#[tokio::test]
async fn an_expired_key_is_refused_until_it_gets_more_time() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path(), None);
    let secret = rig.create(json!({ "name": "a", "ttl": "1s" })).await.unwrap().unwrap();
    let mut events = rig.admin.events();
    let expired = async { while events.recv().await.unwrap().what != KeyChange::Expired {} };
    tokio::time::timeout(Duration::from_secs(20), expired).await.unwrap();
    assert_eq!(rig.identify(&secret), Err(KeyRefusal::Expired));
    rig.change("a", json!({ "ttl": "1h" })).await.unwrap();
    assert_eq!(rig.identify(&secret), Ok("a".to_owned()));
}

#[tokio::test]
async fn budgets_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path(), None);
    let mut events = rig.admin.events();
    rig.create(json!({ "name": "a", "source_budgets": { "tor": { "bytes_per_day": 100 } } })).await.unwrap();
    let account = rig.limits.keys().iter().find(|key| &*key.name == "a").unwrap().account.clone();
    for (bytes, level) in [(80, Level::Near), (20, Level::Spent)] {
        account.spend("tor").add(bytes);
        let wanted = KeyChange::Budget { source: Some("tor".into()), level };
        let told = async { while events.recv().await.unwrap().what != wanted {} };
        tokio::time::timeout(Duration::from_secs(20), told).await.unwrap();
    }
}

/// Returns limits without keys of the configuration, after the stored keys were restored.
fn restored(stored: &[store::Key], file: &Secret) -> Limits {
    let damping = Damping { failures: std::num::NonZeroU32::MIN, pause: Duration::ZERO };
    let limits = Limits::new(Vec::new(), Amounts::default(), damping);
    restore_keys(&limits, stored, Some(file), Moment(1));
    limits
}

#[test]
fn a_stored_key_stays_valid_if_its_source_is_gone_and_a_lost_key_opens_nothing() {
    let (file, secret) = (Secret::new("the key file"), Secret::new("of the client"));
    let key = |asked: &str| store::Key {
        name: "a".to_owned(),
        digest: Digester::new(&file).digest(secret.expose().as_bytes()),
        asked: asked.to_owned(),
        created: Moment(1),
        expires: None,
    };
    let (client, password) = ([192, 0, 2, 1].into(), Some(secret.expose().as_bytes()));
    let of_removed_source = restored(&[key(r#"{"name":"a","sources":["acme","tor"]}"#)], &file);
    let identity = of_removed_source.identify(client, password, Instant::now()).unwrap();
    assert!(identity.may_use_source("tor") && !identity.may_use_source("public"));

    assert!(restored(&[], &file).identify(client, None, Instant::now()).is_ok(), "there was never a key");
    let unreadable = restored(&[key(r#"{"name":"a","routes":[]}"#)], &file);
    assert!(unreadable.needs_key());
    for password in [None, password] {
        assert!(unreadable.identify(client, password, Instant::now()).is_err(), "{password:?}");
    }
}
