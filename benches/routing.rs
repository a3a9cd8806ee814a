//! What one connection pays for its choice of an exit, and what one verdict pays to reach every pool.
//!
//! Ten thousand exits and a thousand routes are several times what anybody has. A mean hides what a client feels, so
//! beside criterion's figures the 99th percentile of each kind of question is printed, from single decisions.

#![expect(clippy::print_stderr, reason = "what a bench measures is told to whoever runs it")]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::Criterion;
use exitgate::exit::country::Country;
use exitgate::exit::facts::Flags;
use exitgate::exit::{Catalog, ExitId, Fingerprint, Listing, Moment, Verdict};
use exitgate::net::Target;
use exitgate::route::memory::Bounds;
use exitgate::route::selector::RouteName;
use exitgate::route::table::Origin;
use exitgate::route::{Ask, Bans, Memory, Policy, Route, RouteTable, Selector, Site, View, Words, decide};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

const EXITS: u32 = 10_000;
const ROUTES: u32 = 1_000;
const NOW: Moment = Moment(1_788_314_400_000_000);

/// Decisions for each percentile: the hundredth largest of ten thousand is not one odd moment of the machine.
const DECISIONS: usize = 10_000;

/// Where exits are, roughly as in the public network.
const PLACES: [&str; 10] = ["DE", "DE", "US", "US", "NL", "FR", "RO", "SE", "CH", "AT"];

fn exit(n: u32) -> ExitId {
    let mut id = [0; 20];
    id[..4].copy_from_slice(&n.wrapping_mul(2_654_435_761).to_be_bytes());
    id[4..8].copy_from_slice(&n.to_be_bytes());
    ExitId::Tor(Fingerprint(id))
}

fn catalog() -> Catalog {
    let mut edit = Catalog::default().edit();
    for n in 0..EXITS {
        let country = Country::parse(PLACES[n as usize % PLACES.len()]).expect("two letters");
        // Two of a hundred share an address with another, one lets nothing but the web out, one in fifty mail.
        let ip = Ipv4Addr::from(0x0B00_0000 + if n % 100 < 2 { n / 100 } else { n });
        let policy = match n % 50 {
            0 => "accept 80,443,6667",
            1..20 => "accept 80,443",
            _ => "reject 25,6667",
        };
        edit.list(Listing {
            id: exit(n),
            nickname: "x".into(),
            announced: vec![ip.into()],
            country,
            asn: Some(64_500 + n % 300),
            as_name: None,
            policy: policy.parse().expect("a policy"),
            policy_v6: "reject 1-65535".parse().expect("a policy"),
            flags: Flags { running: true, stable: true, fast: true, bad_exit: false },
            weight: 1,
            public: None,
        });
        edit.learn(&exit(n), |known| {
            known.saw(ip.into(), country, NOW);
            known.verdict = if n % 20 == 7 { Verdict::Bad } else { Verdict::Good };
            known.latency = Some(Duration::from_millis(u64::from(100 + n % 1900)));
            if n % 3 > 0 {
                known.passed.insert("steam".into());
            }
        });
    }
    edit.finish()
}

fn routes(catalog: &Catalog) -> RouteTable {
    let words = Words::default();
    let mut table = RouteTable::new(words.clone(), Policy::default());
    let selectors = ["us", "nonus", "de", "any", "us-strict", "nl+fr", "any-asn-64510", "ro"];
    for n in 0..ROUTES {
        let selector = Selector::parse(selectors[n as usize % selectors.len()], &words).expect("a selector");
        let name = RouteName::parse(&format!("route-{n}x"), &selector, &words).expect("a name");
        let check = (n % 4 == 0).then(|| Arc::from("steam"));
        let policy = Arc::new(Policy { check, ..Policy::default() });
        let port = u16::try_from(20_000 + n).ok();
        let route = Route { name, selector, port, policy, origin: Origin::Config, created: NOW, expires: None };
        table = table.with(route).expect("no clash");
    }
    table.refreshed(catalog, NOW)
}

struct World {
    catalog: Catalog,
    routes: RouteTable,
    bans: Bans,
    memory: Memory,
}

impl World {
    fn new() -> Self {
        let catalog = catalog();
        let shop = Site::of(&"shop.example:443".parse::<Target>().expect("a target").host);
        let bans =
            Bans::default().with((0..500).map(|n| (shop.clone(), exit(n * 7), NOW.after(Duration::from_secs(60)))));
        Self { routes: routes(&catalog), catalog, bans, memory: Memory::new(Bounds::default()) }
    }

    /// One decision, from the user name to the plan.
    fn decide(&self, username: &str, target: &Target, rng: &mut SmallRng) -> bool {
        let view = View { catalog: &self.catalog, routes: &self.routes, bans: &self.bans };
        let Ok(wish) = self.routes.resolve(username, None) else { return false };
        let ask = Ask { wish: &wish, key: "team-a", target, now: NOW, avoid: &[], plain: false };
        black_box(decide(view, &self.memory, &ask, rng)).is_ok()
    }
}

/// Every kind of question: what it is called, the user name (`#` is a number of its own for each decision), the target,
/// and whether there is an exit for it.
fn questions() -> Vec<(&'static str, String, &'static str, bool)> {
    let fingerprint = format!("any-exit-{}", exit(4));
    vec![
        ("any", "any".into(), "shop.example:443", true),
        ("country", "us".into(), "shop.example:443", true),
        ("not a country", "nonus".into(), "other.example:443", true),
        ("several countries", "de+fr+nl".into(), "other.example:443", true),
        ("AS", "any-asn-64510".into(), "other.example:443", true),
        ("one exit", fingerprint, "other.example:443", true),
        ("rotate", "us-rotate".into(), "shop.example:443", true),
        ("new session", "us-session-s#".into(), "shop.example:443", true),
        ("old session", "us-session-same".into(), "shop.example:443", true),
        ("new pin", "us-strict-session-p#".into(), "shop.example:443", true),
        ("old pin", "us-strict".into(), "shop.example:443", true),
        ("route", "route-8x".into(), "shop.example:443", true),
        ("route, narrowed", "route-11x-session-a#".into(), "shop.example:443", true),
        ("a port that few let out", "de".into(), "irc.example:6667", true),
        ("a port that nobody lets out", "us".into(), "mail.example:25", false),
        ("nobody there", "jp".into(), "shop.example:443", false),
    ]
}

fn percentiles(world: &World) {
    eprintln!("single decisions, {EXITS} exits, {ROUTES} routes: p50 / p99 / largest of {DECISIONS}");
    for (what, username, target, there) in questions() {
        let target: Target = target.parse().expect("a target");
        let mut rng = SmallRng::seed_from_u64(7);
        let names: Vec<String> = (0..DECISIONS).map(|n| username.replace('#', &n.to_string())).collect();
        let mut took: Vec<Duration> = Vec::with_capacity(DECISIONS);
        for name in &names {
            let begun = Instant::now();
            let found = world.decide(name, &target, &mut rng);
            took.push(begun.elapsed());
            assert_eq!(found, there, "{what}");
        }
        took.sort_unstable();
        let at = |share: usize| took[DECISIONS * share / 100].as_secs_f64() * 1e6;
        let largest = took[DECISIONS - 1].as_secs_f64() * 1e6;
        eprintln!("  {what:28} {:7.2} / {:7.2} / {largest:8.2} µs", at(50), at(99));
    }
}

fn main() {
    let world = World::new();
    percentiles(&world);
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("decide");
    for (what, username, target, _) in questions().into_iter().filter(|(_, username, ..)| !username.contains('#')) {
        let (target, mut rng) = (target.parse().expect("a target"), SmallRng::seed_from_u64(7));
        group.bench_function(what, |bench| bench.iter(|| world.decide(&username, &target, &mut rng)));
    }
    group.finish();
    let mut turn = 0;
    criterion.bench_function("a verdict reaches every pool", |bench| {
        bench.iter(|| {
            turn += 1;
            let mut edit = world.catalog.edit();
            edit.learn(&exit(turn % EXITS), |known| known.verdict = Verdict::Bad);
            black_box(world.routes.refreshed(&edit.finish(), NOW))
        })
    });
    criterion.final_summary();
}
