//! The sources of Tor relays over real sockets: what they say is believed, what they do wrong is survived.
//!
//! One run of the sources here is what the first minute after a restart is: the catalog of the run before is there,
//! and so is what the store remembers of each source.

mod fed;
mod memory;

use std::sync::Arc;
use std::time::Duration;

use exitgate::exit::country::GeoIp;
use exitgate::exit::{Catalog, ExitId};
use exitgate::lifecycle::Lifecycle;
use exitgate::limit::target::{Own, Ports, Rules};
use exitgate::route::memory::{Bounds, Memory};
use exitgate::route::{Policy, Words};
use exitgate::source::fetch::{Client, Direct, Limits};
use exitgate::source::handle::Sources;
use exitgate::source::onionoo::QUERY;
use exitgate::source::poll::Feed;
use exitgate::source::relay_sources::{EXIT_ADDRESSES, ONIONOO, Relays};
use exitgate::state::{Clock, Snapshot, State};
use exitgate::store::{Options, Source, Store};
use exitgate::tor::netdir::Netdir;
use exitgate_testnet::onionoo::{Behaviour, Onionoo};
use exitgate_testnet::sandbox::Sandbox;
use serde_json::json;
use tokio::sync::watch;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Long enough for the slowest machine that runs this; nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a source is asked while it gives no good answer.
const EVERY: Duration = Duration::from_millis(50);

fn client() -> Client<Direct> {
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Client::new(Direct::new(Rules::new(Ports::default(), true, Own::new())), Arc::new(tls))
}

fn limits() -> Limits {
    Limits { silence: Duration::from_millis(2000), ..Limits::default() }
}

fn feed(name: &str, url: &str) -> Feed {
    let limits = limits();
    let (url, stale_after) = (url.parse().unwrap(), Duration::from_secs(3 * 3600));
    Feed { name: name.into(), url, every: EVERY, stale_after, limits }
}

fn state(store: Option<Store>) -> State {
    let snapshot = Snapshot::new(Words::default(), Policy::default());
    State::new(snapshot, Memory::new(Bounds::default()), Clock::start(), store).0
}

fn alive(catalog: &Catalog) -> usize {
    catalog.alive().count()
}

/// A gateway's sources, from run to run.
struct Bench {
    onionoo: Onionoo,
    state: State,
    store: Option<Store>,
    directory: watch::Sender<Option<Arc<Netdir>>>,
    /// How the sources fared, as of the end of the last run.
    known: Vec<Source>,
    /// What one request may take.
    limits: Limits,
}

impl Bench {
    async fn new(relays: u32, store: Option<Store>) -> Self {
        let onionoo = Onionoo::start(&Sandbox::claim().unwrap(), &[]).await.unwrap();
        onionoo.add_synthetic(relays);
        let state = state(store.clone());
        Self { onionoo, state, store, directory: watch::Sender::default(), known: Vec::new(), limits: limits() }
    }

    /// Runs the sources until `name` satisfies `done`, and says how it fared then.
    async fn run(&mut self, name: &str, done: impl Fn(&Source) -> bool) -> Source {
        let life = Lifecycle::new();
        let (sources, begun) = (self.start(&life), self.state.now());
        let mut status = sources.get(name).unwrap().status();
        let done = |source: &Source| source.attempt.is_some_and(|at| at >= begun) && done(source);
        let waited = tokio::time::timeout(PATIENCE, status.wait_for(done)).await;
        let fared = waited.expect("the source never came to that").unwrap().clone();
        self.end(&sources, life).await;
        fared
    }

    /// The same until there is also a new list in the state.
    async fn run_listed(&mut self, name: &str, outcome: &str) -> Source {
        let mut revisions = self.state.revisions();
        let life = Lifecycle::new();
        let sources = self.start(&life);
        let mut status = sources.get(name).unwrap().status();
        let begun = self.state.now();
        let listed = async {
            let heard = |source: &Source| source.outcome == outcome && source.attempt.is_some_and(|at| at >= begun);
            revisions.changed().await.unwrap();
            status.wait_for(heard).await.unwrap().clone()
        };
        let fared = tokio::time::timeout(PATIENCE, listed).await.expect("nothing new was listed");
        self.end(&sources, life).await;
        fared
    }

    /// Ends a run. The next one begins when the next request is due.
    async fn end(&mut self, sources: &Sources, life: Lifecycle) {
        self.known = sources.statuses().into_iter().map(|known| Source { next: None, ..known }).collect();
        life.stop(PATIENCE, std::future::pending()).await;
    }

    fn start(&self, life: &Lifecycle) -> Sources {
        let onionoo = feed(ONIONOO, &format!("{}/details?{QUERY}", self.onionoo.url()));
        let onionoo = Feed { limits: Limits { silence: limits().silence, ..self.limits }, ..onionoo };
        let relays = Relays {
            onionoo: Some(onionoo),
            exit_addresses: Some(feed(EXIT_ADDRESSES, &self.onionoo.exit_list_url())),
            client: client(),
            directory: self.directory.subscribe(),
            geoip: Arc::new(GeoIp::default()),
            known: self.known.clone(),
            state: self.state.clone(),
            store: self.store.clone(),
        };
        relays.start(&life.tasks())
    }
}

#[tokio::test]
async fn the_last_good_list_survives_every_misbehaviour() {
    let mut bench = Bench::new(2000, None).await;
    let fresh = bench.run_listed(ONIONOO, "fresh").await;
    assert_eq!((fresh.records, fresh.skipped, fresh.failures), (1000, 0, 0));
    assert_eq!(alive(&bench.state.load().catalog), 1000);
    let revision = bench.state.load().revision;

    for (behaviour, outcome, why) in [
        (Behaviour::Status(500), "status", "500"),
        (Behaviour::Status(503), "status", "503"),
        (Behaviour::Truncated, "http", "HTTP"),
        (Behaviour::Garbage, "garbage", "not a JSON object"),
        (Behaviour::Hang, "timeout", "waiting for the answer"),
    ] {
        bench.onionoo.behave(behaviour);
        let fared = bench.run(ONIONOO, |_| true).await;
        assert_eq!(fared.outcome, outcome, "{behaviour:?}: {}", fared.why);
        assert!(fared.why.contains(why), "{behaviour:?}: {}", fared.why);
        assert_eq!((fared.records, &fared.last_modified), (1000, &fresh.last_modified), "{behaviour:?}");
        assert!(fared.failures > 0, "{behaviour:?}");
        assert_eq!(alive(&bench.state.load().catalog), 1000, "{behaviour:?}");
    }
    bench.onionoo.edit(|relays| relays.truncate(1990));
    bench.onionoo.behave(Behaviour::Stale(5));
    let older = bench.run(ONIONOO, |source| source.failures > 2).await;
    assert_eq!((older.outcome.as_str(), older.records), ("garbage", 1000), "{}", older.why);
    assert!(older.why.contains("older than the answer before"), "{}", older.why);
    assert_eq!(bench.state.load().revision, revision, "none of it was a change");

    bench.onionoo.behave(Behaviour::Normal);
    let healed = bench.run_listed(ONIONOO, "fresh").await;
    assert_eq!((healed.records, healed.failures, healed.why.as_str()), (995, 0, ""));
    let catalog = bench.state.load().catalog.clone();
    assert_eq!((alive(&catalog), catalog.len()), (995, 1000), "what left drains first");
}

#[tokio::test]
async fn a_source_that_fails_is_asked_until_it_heals() {
    let mut bench = Bench::new(20, None).await;
    bench.onionoo.behave(Behaviour::Status(500));
    bench.run(ONIONOO, |source| source.failures > 2).await;
    let asked = bench.onionoo.asked().into_iter().filter(|asked| asked.path.starts_with("/details")).count();
    assert!(asked > 2);
    assert!(bench.state.load().catalog.is_empty());
    bench.onionoo.behave(Behaviour::Normal);
    bench.run_listed(ONIONOO, "fresh").await;
    assert_eq!(alive(&bench.state.load().catalog), 10);
}

#[tokio::test]
async fn an_unchanged_hour_costs_one_question_without_an_answer() {
    let mut bench = Bench::new(200, None).await;
    bench.run_listed(ONIONOO, "fresh").await;
    let (revision, before) = (bench.state.load().revision, bench.onionoo.asked().len());
    let fared = bench.run(ONIONOO, |source| source.outcome == "unchanged").await;
    assert_eq!((fared.records, fared.failures, fared.why.as_str()), (100, 0, ""));
    let asked: Vec<_> =
        bench.onionoo.asked().split_off(before).into_iter().filter(|a| a.path.starts_with("/d")).collect();
    assert_eq!(asked.iter().map(|asked| asked.status).collect::<Vec<_>>(), [304]);
    assert!(!asked[0].if_modified_since.is_empty());
    assert_eq!(bench.state.load().revision, revision);
    let max_age = fared.next.unwrap().since(fared.attempt.unwrap());
    assert!(max_age >= Duration::from_secs(300), "the server asked to be left alone, not for {max_age:?}");
}

#[tokio::test]
async fn unchanged_for_ever_is_found_out() {
    let mut bench = Bench::new(20, None).await;
    bench.onionoo.behave(Behaviour::NotModified);
    let unasked = bench.run(ONIONOO, |_| true).await;
    assert_eq!(unasked.outcome, "garbage");
    assert!(unasked.why.contains("not conditional"), "{}", unasked.why);

    bench.onionoo.behave(Behaviour::Stale(5));
    let stale = bench.run_listed(ONIONOO, "stale").await;
    assert_eq!((stale.records, stale.failures), (10, 0), "old data are better than none: {}", stale.why);
    bench.onionoo.behave(Behaviour::NotModified);
    let found_out = bench.run(ONIONOO, |_| true).await;
    assert_eq!(found_out.outcome, "garbage", "a question about stale data is not conditional");
    assert_eq!(alive(&bench.state.load().catalog), 10);
}

#[tokio::test]
async fn the_exit_list_is_a_witness_that_may_fall_silent() {
    let mut bench = Bench::new(20, None).await;
    let fresh = bench.run(EXIT_ADDRESSES, |source| source.outcome == "fresh").await;
    assert_eq!((fresh.records, fresh.skipped), (10, 0));
    for (behaviour, outcome) in
        [(Behaviour::Status(404), "status"), (Behaviour::Garbage, "garbage"), (Behaviour::Truncated, "http")]
    {
        bench.onionoo.exit_list_behaves(behaviour);
        let fared = bench.run(EXIT_ADDRESSES, |_| true).await;
        assert_eq!((fared.outcome.as_str(), fared.records), (outcome, 10), "{}", fared.why);
    }
    bench.run(ONIONOO, |source| source.failures == 0).await;
    assert_eq!(alive(&bench.state.load().catalog), 10, "nobody needs it");
}

#[tokio::test]
async fn the_store_remembers_marks_and_exits_together() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exitgate.db");
    let (store, _) = Store::open(&path, Options::default()).unwrap();
    let mut bench = Bench::new(200, Some(store.clone())).await;
    let fresh = bench.run_listed(ONIONOO, "fresh").await;
    store.close().await;
    drop((bench, store));
    let (_store, loaded) = Store::open(&path, Options::default()).unwrap();
    assert_eq!(loaded.exits.len(), 100);
    let kept = loaded.sources.iter().find(|source| source.name == ONIONOO).unwrap();
    assert!(kept.last_modified.is_some());
    assert_eq!(kept, &fresh);

    let mut without = Bench::new(200, None).await;
    without.known = loaded.sources;
    without.known.iter_mut().for_each(|known| known.next = None);
    let again = without.run(ONIONOO, |_| true).await;
    assert_eq!(again.outcome, "fresh", "marks without the exits that they stand for are no good");
}

#[tokio::test]
async fn the_directory_alone_is_enough_and_onionoo_adds_to_it() {
    const EXIT2: &str = "529ADEDCDB28DCC3AA4CD02B2A63B5AE19BC4EC2";
    const CONSENSUS: &str = include_str!("../../src/tor/netdir/testdata/consensus-microdesc.txt");
    const MICRODESCS: &str = include_str!("../../src/tor/netdir/testdata/md-all.txt");
    let mut bench = Bench::new(2, None).await;
    bench.onionoo.behave(Behaviour::Status(500));
    bench.onionoo.edit(|relays| {
        relays[0].set("fingerprint", json!(EXIT2));
        relays[0].set("or_addresses", json!(["127.82.1.2:9001"]));
        relays[0].set("exit_addresses", json!(["127.82.1.77"]));
    });
    bench.directory.send_replace(Some(Arc::new(Netdir::parse(CONSENSUS, MICRODESCS).unwrap())));
    let consensus = bench.run_listed("consensus", "stale").await;
    assert_eq!((consensus.outcome.as_str(), consensus.records), ("stale", 4), "the fixture is of some day in the past");
    bench.run(ONIONOO, |source| source.failures > 0).await;
    let id = ExitId::Tor(EXIT2.parse().unwrap());
    let listing = |bench: &Bench| bench.state.load().catalog.get(&id).unwrap().listing().clone();
    assert_eq!((bench.state.load().catalog.len(), listing(&bench).asn), (4, None));

    bench.onionoo.behave(Behaviour::Normal);
    bench.run_listed(ONIONOO, "fresh").await;
    let exit2 = listing(&bench);
    assert_eq!((&*exit2.nickname, exit2.asn, exit2.weight), ("exit2", Some(64496), 1));
    assert_eq!(exit2.announced[0].to_string(), "127.82.1.77");
    assert_eq!(bench.state.load().catalog.len(), 4, "an engine can reach no relay that is in no directory");
}
