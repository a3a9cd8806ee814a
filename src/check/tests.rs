//! Tests of the tester with simulated exits: in the end, the snapshot must show what each exit does.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Mutex as Lock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::config::{Check, CheckTarget};
use crate::dial::{EngineFault, ExitFault};
use crate::exit::country::Country;
use crate::exit::load::DialSpeed;
use crate::exit::{Exit, Fingerprint, Listing, Source, Verdict};
use crate::lifecycle::{Lifecycle, Tasks};
use crate::net::Host;
use crate::route::memory::{Bounds, Memory};
use crate::route::{Policy, Site, Words};
use crate::state::{Change, Clock, Snapshot};

/// How long a condition may take to become true. The tests wait for conditions, so only a failed test takes this long.
const SOON: Duration = Duration::from_secs(20);

/// What a simulated exit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Works,
    /// The second echo server sees another address than the first.
    Lies,
    /// No circuit to the exit can be built.
    Nothing,
    /// No Tor engine is ready.
    Waits,
    /// The test's site refuses the exit.
    Refused,
    /// The exit returns the same prepared answer for every request.
    Cans,
    /// The exit changes pages.
    Tampers,
    /// Streams open, and no byte arrives on them.
    Silent,
    /// The code of the check panics.
    Panics,
}

struct FakeExits {
    does: Lock<HashMap<ExitId, Does>>,
    asked: Lock<Vec<(ExitId, Host)>>,
    /// True if the gateway is idle: no answer of a first relay is known.
    idle: AtomicBool,
    tasks: Tasks,
}

fn exit(n: u8) -> ExitId {
    ExitId::Tor(Fingerprint([n; 20]))
}

fn ip(exit: &ExitId) -> Ipv4Addr {
    let ExitId::Tor(Fingerprint(id)) = exit else { panic!("{exit}") };
    Ipv4Addr::new(198, 51, 100, id[0])
}

impl ExitDialer for Arc<FakeExits> {
    type Stream = DuplexStream;

    async fn open(&self, exit: &ExitId, target: &Target, _: Wait) -> Result<OpenedStream<DuplexStream>, DialError> {
        let does = self.does.lock().unwrap()[exit];
        self.asked.lock().unwrap().push((exit.clone(), target.host.clone()));
        match does {
            Does::Nothing => return Err(ExitFault::Unreachable.into()),
            Does::Waits => return Err(EngineFault::NotReady.into()),
            Does::Panics => panic!("planted"),
            _ => {}
        }
        let (stream, far) = tokio::io::duplex(4096);
        self.tasks.spawn("server", serve(far, target.host.to_string(), does, ip(exit)));
        Ok(OpenedStream { stream, circuit: Some(Duration::from_millis(20)), connect: Duration::from_millis(7) })
    }

    fn first_hop_answered(&self, _: Instant) -> bool {
        !self.idle.load(Ordering::Relaxed)
    }
}

/// Serves the test's pages: two echo servers, of which the second repeats the nonce, and a shop.
async fn serve(mut stream: DuplexStream, host: String, does: Does, ip: Ipv4Addr) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    if does == Does::Silent {
        return std::future::pending().await;
    }
    let nonce = head.split_once("nonce=").and_then(|(_, rest)| rest.split(' ').next()).unwrap_or_default();
    let nonce = if does == Does::Cans { "canned" } else { nonce };
    let ip = if does == Does::Lies && host == "two.test" { Ipv4Addr::new(192, 0, 2, 1) } else { ip };
    let (status, body) = match (&*host, does) {
        ("one.test", _) => (200, ip.to_string()),
        ("two.test", _) => (200, format!("{{\"origin\":\"{ip}\",\"nonce\":\"{nonce}\"}}")),
        ("page.test" | "text.test", Does::Tampers) => (200, "welcome, and buy this".to_owned()),
        ("www.shop.test", Does::Refused) => (403, "no".to_owned()),
        _ => (200, "welcome".to_owned()),
    };
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes()).await; // fails if the test has already ended
}

fn check() -> Check {
    let text = r#"
        [check]
        echo = ["http://one.test/ip", "http://two.test/origin.json"]
        canary = ["http://page.test/", "http://text.test/"]
        per_second = 1000.0
        every = "1h"
        timeout = "5s"
        [[check.targets]]
        name = "shop"
        url = "http://www.shop.test/"
        expect_body = "welcome"
    "#;
    crate::config::parse("test", text, [], None).unwrap().0.check
}

struct Setup {
    life: Lifecycle,
    exits: Arc<FakeExits>,
    state: State,
    handle: Handle,
}

impl Setup {
    fn new(does: &[Does]) -> Self {
        let check = check();
        let life = Lifecycle::new();
        let does = does.iter().zip(1..).map(|(does, n)| (exit(n), *does)).collect();
        let exits = Arc::new(FakeExits {
            does: Lock::new(does),
            asked: Lock::default(),
            idle: AtomicBool::new(false),
            tasks: life.tasks(),
        });
        let words = Words::default();
        let memory = Memory::new(Bounds::default());
        let (state, wishes) = State::new(Snapshot::new(words, Policy::default()), memory, Clock::start(), None);
        let geo: Geo = Arc::new(|_| Country::parse("DE").unwrap());
        let settings = Settings::of(&check).unwrap();
        let (tester, handle) = Tester::new(exits.clone(), settings, state.clone(), geo, wishes);
        let tasks = life.tasks();
        life.tasks().supervise("tester", move || tester.clone().run(tasks.clone()));
        Self { life, exits, state, handle }
    }

    async fn list(&self) {
        let ids: Vec<_> = self.exits.does.lock().unwrap().keys().cloned().collect();
        let listings = ids.iter().cloned().map(Listing::new).collect();
        self.state.apply(Change::Listed(Source::Tor, listings)).await.unwrap();
        // Nobody wants most of these exits, so the test orders a check of each exit, as a person would.
        drop(self.handle.pass(CheckBatch { exits: ids, extra: None }).await);
    }

    /// Waits until exit number `n` in the snapshot fulfils the condition.
    async fn until(&self, n: u8, is_so: impl Fn(&Exit) -> bool) -> Arc<Exit> {
        let mut revisions = self.state.revisions();
        let seen = async {
            loop {
                let found = self.state.load().catalog.get(&exit(n)).filter(|exit| is_so(exit)).cloned();
                if let Some(found) = found {
                    return found;
                }
                revisions.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(SOON, seen).await {
            Ok(found) => found,
            Err(_) => {
                panic!("exit {n} is {:?}", self.state.load().catalog.get(&exit(n)).map(|exit| exit.known().clone()))
            }
        }
    }

    async fn verdict(&self, n: u8) -> Verdict {
        self.until(n, |exit| exit.known().verdict != Verdict::Untested).await.known().verdict
    }

    /// Sets what exit number `n` does from now on.
    fn script(&self, n: u8, does: Does) {
        self.exits.does.lock().unwrap().insert(exit(n), does);
    }
}

#[tokio::test]
async fn verdicts_show_what_exits_do() {
    use Does::*;
    let setup = Setup::new(&[Works, Nothing, Lies, Cans, Waits, Works]);
    setup.list().await;
    let good = setup.until(1, Exit::usable).await;
    assert_eq!((good.ip(), good.country().as_str()), (Some(ip(&exit(1)).into()), "DE"));
    assert_eq!(good.known().latency, Some(Duration::from_millis(7)));
    assert!(good.distinct() && good.known().good.is_some());
    for n in [2, 3, 4] {
        assert_eq!(setup.verdict(n).await, Verdict::Bad, "{n}");
    }
    setup.until(6, |exit| exit.known().passed.contains("shop")).await;
    let waits = setup.state.load().catalog.get(&exit(5)).unwrap().known().clone();
    assert_eq!(waits.verdict, Verdict::Untested, "an engine failed, not the exit");
    setup.script(5, Works);
    setup.until(5, Exit::usable).await;
}

#[tokio::test]
async fn a_site_that_refuses_one_exit_bans_it_there_and_only_there() {
    use Does::*;
    let setup = Setup::new(&[Works, Refused, Works, Works]);
    setup.list().await;
    for n in [1, 3, 4] {
        setup.until(n, |exit| exit.known().passed.contains("shop")).await;
    }
    let refused = setup.until(2, Exit::usable).await;
    let shop = Site::of(&Host::parse("shop.test").unwrap());
    let banned = || setup.state.load().bans.until(&shop, &exit(2), setup.state.now());
    let mut revisions = setup.state.revisions();
    while banned().is_none() {
        tokio::time::timeout(SOON, revisions.changed()).await.expect("no ban").unwrap();
    }
    assert!(!refused.known().passed.contains("shop"));
    assert_eq!(setup.state.load().bans.iter(setup.state.now()).count(), 1);
}

#[tokio::test]
async fn a_forced_check_is_in_the_snapshot_when_it_is_answered() {
    let setup = Setup::new(&[Does::Works, Does::Nothing]);
    assert_eq!(setup.handle.force(exit(1)).await, None, "no source has listed it");
    setup.list().await;
    setup.until(1, Exit::usable).await;
    setup.script(1, Does::Nothing);
    let checked = setup.handle.force(exit(1)).await.unwrap();
    assert_eq!(
        (checked.verdict, &*checked.why),
        (Verdict::Bad, "the exit failed: no circuit to the exit could be built")
    );
    assert!(!setup.state.load().catalog.get(&exit(1)).unwrap().usable());
    setup.script(1, Does::Works);
    let checked = setup.handle.force(exit(1)).await.unwrap();
    assert_eq!((checked.ips, checked.sites), (vec![ip(&exit(1)).into()], vec![("shop".into(), None)]));
    assert!(setup.state.load().catalog.get(&exit(1)).unwrap().usable());
}

#[tokio::test]
async fn a_check_that_a_person_orders_is_made_despite_traffic() {
    let setup = Setup::new(&[Does::Works]);
    setup.list().await;
    setup.handle.force(exit(1)).await.unwrap(); // no check runs after this
    let good = setup.until(1, Exit::usable).await;
    let later = setup.state.now().after(Duration::from_secs(1));
    good.load().succeeded(Duration::from_millis(50), DialSpeed::Kept, later);
    let checked = tokio::time::timeout(SOON, setup.handle.force(exit(1))).await.expect("no answer").unwrap();
    assert_eq!(checked.verdict, Verdict::Good);
}

#[tokio::test(start_paused = true)]
async fn an_exit_with_silent_streams_is_bad_although_the_gateway_is_idle() {
    let setup = Setup::new(&[Does::Silent, Does::Works]);
    setup.exits.idle.store(true, Ordering::Relaxed);
    setup.list().await;
    assert_eq!(setup.handle.force(exit(1)).await.unwrap().verdict, Verdict::Bad, "a stream has opened");
}

#[tokio::test]
async fn an_exit_that_changes_pages_is_condemned() {
    use Does::*;
    let setup = Setup::new(&[Works, Tampers, Works, Works, Works]);
    setup.list().await;
    let caught = setup.until(2, |exit| exit.known().marks.bad_for_good).await;
    assert_eq!((caught.known().verdict, caught.alive()), (Verdict::Bad, false));
    assert_eq!(setup.handle.force(exit(2)).await, None, "it is not checked again");
    for n in [1, 3, 4, 5] {
        assert!(setup.until(n, Exit::usable).await.alive());
    }
}

#[tokio::test]
async fn a_pass_yields_every_exit_once() {
    use Does::*;
    let setup = Setup::new(&[Works, Nothing, Waits]);
    setup.list().await;
    setup.until(1, Exit::usable).await;
    let mut results = setup.handle.pass(CheckBatch { exits: (1..=4).map(exit).collect(), extra: None }).await;
    let mut seen = HashMap::new();
    while let Some((id, checked)) = tokio::time::timeout(SOON, results.recv()).await.unwrap() {
        assert!(seen.insert(id, checked.map(|checked| checked.verdict)).is_none());
    }
    let want = [Some(Verdict::Good), Some(Verdict::Bad), Some(Verdict::Untested), None];
    assert_eq!(seen, (1..=4).map(exit).zip(want).collect());
}

#[tokio::test]
async fn a_check_that_panics_does_not_count_as_running() {
    let does: Vec<_> = (0..100).map(|_| Does::Panics).chain([Does::Works]).collect();
    let setup = Setup::new(&does);
    setup.list().await;
    setup.until(101, Exit::usable).await;
    assert!(setup.life.tasks().panics() > 0);
}

#[tokio::test]
async fn stopping_ends_the_worker_and_its_checks() {
    let setup = Setup::new(&[Does::Works; 20]);
    setup.list().await;
    setup.until(20, Exit::usable).await;
    let ended = setup.life.stop(SOON, std::future::pending()).await;
    assert_eq!(ended, crate::lifecycle::Ended::Drained);
}

/// The text that a log subscriber wrote.
#[derive(Clone, Default)]
struct Log(Arc<Lock<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn debug_lines_of_a_check_carry_its_id() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _default = tracing::subscriber::set_default(subscriber);
    let setup = Setup::new(&[Does::Works]);
    setup.list().await;
    setup.until(1, |exit| exit.known().passed.contains("shop")).await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let id_of = |message: &str| {
        let line = text.lines().find(|line| line.contains(message)).unwrap_or_else(|| panic!("{message}: {text}"));
        let (_, rest) = line.split_once("check{id=k-").unwrap_or_else(|| panic!("no id: {line}"));
        assert!(rest.contains(&format!("exit={}", exit(1))), "{line}");
        rest.split(' ').next().unwrap().to_owned()
    };
    let ids = ["a check begins", "a probe was answered", "the echo probes have ended", "a site was asked"].map(id_of);
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn presets_have_valid_urls() {
    let names: Vec<_> = Settings::of(&check()).unwrap().sites.iter().map(|site| site.name.clone()).collect();
    assert_eq!(names, ["shop".into(), "steam".into(), Arc::<str>::from("maps")]);
    let target = CheckTarget { url: "ftp://x.test/".parse().unwrap(), ..check().targets[0].clone() };
    let bad = Check { targets: vec![target], ..check() };
    assert!(Settings::of(&bad).err().unwrap().to_string().contains("neither http:// nor https://"));
}
