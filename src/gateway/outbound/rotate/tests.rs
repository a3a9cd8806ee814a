use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::super::{Parts, RefusalReporter, Terms, Times};
use super::*;
use crate::exit::country::Country;
use crate::exit::identity::Identities;
use crate::exit::{Fingerprint, Listing, Moment, Source, Verdict};
use crate::gateway::relay::Idle;
use crate::limit::target::Rules;
use crate::limit::{Amounts, Damping, Limits};
use crate::route::memory::Bounds;
use crate::route::selector::{RouteName, Selector};
use crate::route::table::{Origin, Route};
use crate::route::{Memory, Policy, Words};
use crate::state::{Clock, ExitUpdate, Snapshot, State};

const EXITS: u8 = 8;

fn ip(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

fn number(exit: &ExitId) -> u8 {
    match exit {
        ExitId::Tor(Fingerprint([n, ..])) => *n,
        other => panic!("{other}"),
    }
}

struct World {
    outbound: Outbound,
    state: State,
    /// The numbers of the exits that were tested, in the order of their tests.
    tested: Arc<Mutex<Vec<u8>>>,
}

/// Sets up eight good exits, a route with a pool of three exits, and a tester. A test of an exit succeeds if `good`
/// returns true for the exit.
async fn world(good: fn(u8) -> bool) -> World {
    let country = Country::parse("US").unwrap();
    let listing =
        |n: u8| Listing { announced: vec![ip(n)], country, ..Listing::new(ExitId::Tor(Fingerprint([n; 20]))) };
    let update = |n: u8| ExitUpdate {
        exit: ExitId::Tor(Fingerprint([n; 20])),
        update: Box::new(move |known| {
            known.saw(ip(n), country, Moment(1));
            known.verdict = Verdict::Good;
        }),
        ban: None,
        writes: Vec::new(),
    };
    let selector = Selector::parse("us", &Words::default()).unwrap();
    let name = RouteName::parse("shop", &selector, &Words::default()).unwrap();
    let policy = Arc::new(Policy { pool: 3, ..Policy::default() });
    let route = Route { name, selector, port: None, policy, origin: Origin::Config, created: Moment(1), expires: None };
    let snapshot = Snapshot::new(Words::default(), Policy { pool: 3, ..Policy::default() });
    let (state, _wished) = State::new(snapshot, Memory::new(Bounds::default()), Clock::start(), None);
    let defaults = Policy { pool: 3, ..Policy::default() };
    for change in [
        Change::Listed(Source::Tor, (1..=EXITS).map(listing).collect()),
        Change::ExitUpdates((1..=EXITS).map(update).collect()),
        Change::Configured { words: Words::default(), defaults, routes: vec![route] },
    ] {
        state.apply(change).await.unwrap();
    }
    let tested = Arc::new(Mutex::new(Vec::new()));
    let seen = tested.clone();
    let verify: Verify = Arc::new(move |exit| {
        let n = number(&exit);
        seen.lock().unwrap().push(n);
        Box::pin(async move { if good(n) { Proof::Good(vec![ip(n)]) } else { Proof::Not("refused".to_owned()) } })
    });
    let minute = Duration::from_secs(60);
    let damping = Damping { failures: NonZeroU32::MIN, pause: minute };
    let terms = Terms {
        rules: Rules::default(),
        allow_direct: false,
        times: Times { dial: minute, attempt: minute, idle: Idle::default() },
        public: crate::dial::public::Times { connect: minute, reply: minute },
        max_attempts: NonZeroU32::new(3).unwrap(),
        hedge: 0.0,
        ban_for: minute,
    };
    let parts = Parts {
        state: state.clone(),
        limits: Limits::new(Vec::new(), Amounts::default(), damping),
        tor: None,
        terms,
        identities: Identities::default(),
        refusals: RefusalReporter::new(mpsc::channel(1).0),
        verify,
        stopping: watch::channel(false).1,
    };
    World { outbound: Outbound::new(parts), state, tested }
}

impl World {
    fn wish(&self, username: &str) -> Wish {
        self.state.load().routes.resolve(username, None).unwrap()
    }

    /// Returns the exit that a connection with this username would use.
    fn first(&self, username: &str) -> u8 {
        let wish = self.wish(username);
        let plan =
            self.outbound.question("", &wish, &[], |view, memory, ask| decide(view, memory, ask, &mut rand::rng()));
        number(plan.unwrap().first().id())
    }

    fn pool(&self) -> BTreeSet<u8> {
        self.outbound.explained("", &self.wish("shop")).pool.iter().map(number).collect()
    }

    async fn rotate(&self, username: &str) -> Result<Rotation, RotateFault> {
        self.outbound.rotate("", &self.wish(username), Instant::now() + Duration::from_secs(60)).await
    }

    fn tested(&self) -> Vec<u8> {
        std::mem::take(&mut self.tested.lock().unwrap())
    }
}

#[tokio::test]
async fn a_session_or_pin_moves_to_an_exit_that_was_just_tested() {
    let world = world(|_| true).await;
    for username in ["us-strict", "us-session-a", "shop-strict"] {
        let home = world.first(username);
        let turned = world.rotate(username).await.unwrap();
        let now = number(turned.after.id());
        assert_eq!((turned.before_ip, turned.after_ip), (Some(ip(home)), Some(ip(now))), "{username}");
        assert_ne!(now, home, "{username}");
        assert_eq!((world.first(username), world.tested()), (now, vec![now]), "{username}");
    }
}

#[tokio::test]
async fn exits_that_fail_their_test_are_skipped_and_nothing_moves_when_all_fail() {
    let even = world(|n| n.is_multiple_of(2)).await;
    for username in ["us-strict", "us-session-a"] {
        for _ in 0..4 {
            let before = even.first(username);
            match even.rotate(username).await {
                Ok(turned) => {
                    let now = number(turned.after.id());
                    assert!(now.is_multiple_of(2) && now != before && even.first(username) == now, "{username}");
                }
                Err(RotateFault::NoneGood { .. }) => assert_eq!(even.first(username), before),
                Err(fault) => panic!("{fault}"),
            }
        }
    }
    let none = world(|_| false).await;
    for username in ["us-strict", "us-session-a", "shop"] {
        let (before, pool) = (none.first(username), none.pool());
        let fault = none.rotate(username).await.unwrap_err();
        assert!(matches!(&fault, RotateFault::NoneGood { tried: 5, last } if last == "refused"), "{username}: {fault}");
        assert_eq!(none.tested().iter().collect::<BTreeSet<_>>().len(), 5, "{username}: each once");
        assert_eq!(none.pool(), pool, "{username}");
        assert!(username == "shop" || none.first(username) == before, "{username}");
    }
}

#[tokio::test]
async fn a_rotated_pool_begins_with_an_exit_that_it_did_not_have() {
    let world = world(|_| true).await;
    let before = world.pool();
    let turned = world.rotate("shop").await.unwrap();
    assert!(world.pool().is_disjoint(&before), "{before:?} {:?}", world.pool());
    let now = number(turned.after.id());
    assert!(!before.contains(&now) && world.tested().contains(&now));
}

#[tokio::test(start_paused = true)]
async fn a_rotation_waits_for_a_test_until_its_deadline() {
    let mut world = world(|_| true).await;
    world.outbound.parts.verify = Arc::new(|_| Box::pin(std::future::pending()));
    let before = world.first("us-strict");
    assert!(matches!(world.rotate("us-strict").await, Err(RotateFault::Slow)));
    assert_eq!(world.first("us-strict"), before);
}

#[tokio::test]
async fn a_report_about_an_exit_bans_it_for_that_site() {
    let world = world(|_| true).await;
    let site = Host::parse("www.shop.example").unwrap();
    let report = async |username: &str, exit: Option<&str>, outcome: Option<&str>| {
        world.outbound.report("", &world.wish(username), &site, exit, outcome).await
    };
    assert_eq!(report("us", None, None).await, Err(ReportFault::WhichExit));
    assert_eq!(report("us", Some("192.0.2.99"), None).await, Err(ReportFault::UnknownExit("192.0.2.99".to_owned())));
    let long = "x".repeat(65);
    for outcome in ["ok", "OK", "", "a\nb", &long] {
        assert_eq!(report("us", Some("192.0.2.1"), Some(outcome)).await, Err(ReportFault::Outcome), "{outcome:?}");
    }
    assert_eq!(number(&report("us", Some("192.0.2.1"), None).await.unwrap().exit), 1);
    let home = world.first("us-session-a");
    let ban = report("us-session-a", None, Some("captcha")).await.unwrap();
    assert_eq!((number(&ban.exit), ban.site), (home, Site::of(&site)));
    let snapshot = world.state.load();
    assert_eq!(snapshot.bans.until(&Site::of(&site), &ban.exit, world.state.now()), Some(ban.until));
}
