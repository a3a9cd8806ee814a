//! How long the choice of an exit takes for one connection, and how long one verdict takes to reach every pool.
//!
//! Ten thousand exits and a thousand routes are several times as many as a real gateway has. A mean hides the slow cases that a client
//! notices, so the bench also prints the 99th percentile of single decisions for each kind of question. Above them it prints the same
//! for a sum that is equal each time: whatever that takes above its median is the machine's doing.

#![expect(clippy::print_stderr, reason = "the figures are this program's output")]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::Criterion;
use exitgate::exit::country::Country;
use exitgate::exit::facts::Flags;
use exitgate::exit::{Catalog, ExitId, Fingerprint, Listing, Moment, Protocol, PublicId, Source, Verdict};
use exitgate::net::Target;
use exitgate::route::memory::Bounds;
use exitgate::route::rules::{Action, HostPattern, Rule, RuleSelector, Rules};
use exitgate::route::selector::RouteName;
use exitgate::route::table::Origin;
use exitgate::route::{Ask, Bans, Memory, Policy, Route, RouteTable, Selector, Site, View, Words, decide};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

const EXITS: u32 = 10_000;
const ROUTES: u32 = 1_000;
const NOW: Moment = Moment(1_788_314_400_000_000);

/// Decisions for each percentile. The 99th percentile of ten thousand does not depend on a single slow moment of the machine.
const DECISIONS: usize = 10_000;

/// Rounds, of which the median counts: on a shared machine one or two kinds are disturbed in every round.
const ROUNDS: usize = 5;

/// Countries of most exits, roughly as in the public network; one in ten is elsewhere.
const PLACES: [&str; 10] = ["DE", "DE", "US", "US", "NL", "FR", "RO", "SE", "CH", ""];
const ELSEWHERE: [&str; 40] = [
    "AT", "AU", "BE", "BG", "BR", "CA", "CZ", "DK", "EE", "ES", "FI", "GB", "GR", "HK", "HR", "HU", "ID", "IE", "IL",
    "IN", "IS", "IT", "KR", "LT", "LU", "LV", "MD", "MX", "NO", "NZ", "PL", "PT", "RS", "SG", "SI", "SK", "TR", "TW",
    "UA", "ZA",
];

/// Every fourth exit is a public proxy.
const PUBLIC: u32 = 4;

fn exit(n: u32) -> ExitId {
    let mut id = [0; 20];
    id[..4].copy_from_slice(&n.wrapping_mul(2_654_435_761).to_be_bytes());
    id[4..8].copy_from_slice(&n.to_be_bytes());
    match n % PUBLIC {
        3 => ExitId::Public(Arc::new(PublicId { protocol: Protocol::Socks5, addr: (address(n), 1080).into() })),
        _ => ExitId::Tor(Fingerprint(id)),
    }
}

/// Two of a hundred exits share an address with another exit; five hundred exits share one address.
fn address(n: u32) -> Ipv4Addr {
    let own = if n % 100 < 2 { n / 100 } else { n };
    Ipv4Addr::from(0x0B00_0000 + if n >= EXITS - 500 { EXITS } else { own })
}

/// One policy in fifty allows IRC (6667); the others differ as those of real relays do.
fn policy(n: u32) -> String {
    match n % 50 {
        0 => "accept 80,443,6667".to_owned(),
        _ if n % PUBLIC == 3 => "reject 25".to_owned(),
        1..20 => format!("accept 80,443,{}", 8000 + n % 300),
        _ => "reject 25,6667".to_owned(),
    }
}

fn catalog() -> Catalog {
    let mut edit = Catalog::default().edit();
    for n in 0..EXITS {
        let place = Some(PLACES[n as usize % PLACES.len()]).filter(|place| !place.is_empty());
        let place = place.unwrap_or(ELSEWHERE[n as usize / PLACES.len() % ELSEWHERE.len()]);
        let country = Country::parse(place).expect("two letters");
        let ip = address(n);
        edit.list(Listing {
            announced: vec![ip.into()],
            country,
            asn: Some(64_500 + n % 300),
            policy: policy(n).parse().expect("a policy"),
            // Many small exits and few large ones, as in the public network.
            weight: 300 << ((n.wrapping_mul(2_654_435_761) >> 20) % 10),
            flags: Flags { running: true, stable: true, fast: true, bad_exit: false },
            ..Listing::new(exit(n))
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

/// Makes a thousand rules for names, ports and networks.
fn rules(words: &Words) -> Rules {
    let de = Selector::parse("de", words).expect("a selector");
    let rule = |n: u32| {
        let host = match n % 3 {
            0 => format!("*.shop{n}.example"),
            1 => format!("shop{n}.example"),
            _ => format!("10.{}.{}.0/24", n / 256, n % 256),
        };
        let hosts = vec![HostPattern::parse(&host).expect("a pattern")];
        let ports = if n.is_multiple_of(2) { vec![443..=443] } else { Vec::new() };
        Rule { hosts, ports, action: Action::Use(RuleSelector::new(de.clone(), false)) }
    };
    Rules::new((0..1_000).map(rule).collect())
}

fn routes(catalog: &Catalog) -> RouteTable {
    let nordic = ["se", "no", "dk", "fi", "is"].map(str::to_owned).to_vec();
    let words = Words::new([("nordic".to_owned(), nordic)], []).expect("a group");
    let mut table = RouteTable::new(words.clone(), Policy::default());
    let selectors = ["us", "nonus", "de", "any", "us-strict", "nl+fr", "any-asn-64510", "ro"];
    let mut add = |name: &str, selector: &str, policy: Policy| {
        let selector = Selector::parse(selector, &words).expect("a selector");
        let name = RouteName::parse(name, &selector, &words).expect("a name");
        let (port, policy) = (None, Arc::new(policy));
        let route = Route { name, selector, port, policy, origin: Origin::Config, created: NOW, expires: None };
        table.put(route).expect("no clash");
    };
    for n in 0..ROUTES {
        let check = (n % 4 == 0).then(|| Arc::from("steam"));
        let selector = selectors[n as usize % selectors.len()];
        add(&format!("route-{n}x"), selector, Policy { check, ..Policy::default() });
    }
    let both = vec![Source::Public, Source::Tor];
    add("mixed", "any", Policy { sources: both.clone(), ..Policy::default() });
    add("second", "any", Policy { sources: both, fallback: true, ..Policy::default() });
    add("ruled", "us", Policy { rules: rules(&words), ..Policy::default() });
    add("alone", "us-strict", Policy { exclusive: true, ..Policy::default() });
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
        let closed = Site::of(&"closed.example:443".parse::<Target>().expect("a target").host);
        let shop = Site::of(&"shop.example:443".parse::<Target>().expect("a target").host);
        let bans =
            Bans::default().with((0..500).map(|n| (shop.clone(), exit(n * 7), NOW.after(Duration::from_secs(60)))));
        let bans = bans.with((0..EXITS).map(|n| (closed.clone(), exit(n), NOW.after(Duration::from_secs(60)))));
        Self { routes: routes(&catalog), catalog, bans, memory: Memory::new(Bounds::default()) }
    }

    /// One decision, from the username to the plan.
    fn decide(&self, username: &str, target: &Target, rng: &mut SmallRng) -> bool {
        let view = View { catalog: &self.catalog, routes: &self.routes, bans: &self.bans };
        let Ok(wish) = self.routes.resolve(username, None) else { return false };
        let Ok(wish) = self.routes.for_target(wish, &target.host, Some(target.port)) else { return false };
        let ask = Ask { wish: &wish, key: "team-a", target, now: NOW, avoid: &[], plain: false };
        black_box(decide(view, &self.memory, &ask, rng)).is_ok()
    }
}

/// Every kind of question: its name, the username (`#` stands for a number that differs for each decision), the target, and whether
/// there is an exit for it.
fn questions() -> Vec<(&'static str, String, &'static str, bool)> {
    const SHOP: &str = "shop.example:443";
    const OTHER: &str = "other.example:443";
    let fingerprint = format!("any-exit-{}", exit(4));
    let one_of_many = format!("any-source-any-exit-{}", Ipv4Addr::from(0x0B00_0000 + EXITS));
    let rows = [
        ("any", "any", SHOP, true),
        ("country", "us", SHOP, true),
        ("not a country", "nonus", OTHER, true),
        ("several countries", "de+fr+nl", OTHER, true),
        ("none of several", "nonde+fr+nl", OTHER, true),
        ("a group", "nordic", OTHER, true),
        ("AS", "any-asn-64510", OTHER, true),
        ("public", "any-source-public", OTHER, true),
        ("public, country", "us-source-public", OTHER, true),
        ("both sources", "us-source-any", OTHER, true),
        ("one exit", &fingerprint, OTHER, true),
        ("an address", "any-exit-11.0.3.242", OTHER, true),
        ("an address that 500 share", &one_of_many, OTHER, true),
        ("rotate", "us-rotate", SHOP, true),
        ("rotate, public", "any-source-public-rotate", SHOP, true),
        ("new session", "us-session-s#", SHOP, true),
        ("new session, ttl", "nonus-session-t#-ttl-10m", SHOP, true),
        ("old session", "us-session-same", SHOP, true),
        ("exclusive pin", "alone-session-x1", SHOP, true),
        ("new pin", "us-strict-session-p#", SHOP, true),
        ("new pin, any", "any-strict-session-p#", OTHER, true),
        ("new pin, public", "any-source-public-strict-session-q#", OTHER, true),
        ("new pin, all taken", "ro-strict-session-r#", OTHER, true),
        ("old pin", "us-strict", SHOP, true),
        ("route", "route-1x", SHOP, true),
        ("route, checked", "route-8x", SHOP, true),
        ("route, mixed sources", "mixed", SHOP, true),
        ("route, fall-back", "second", SHOP, true),
        ("route, no rule of 1,000 matches", "ruled", SHOP, true),
        ("route, rule 1,000 of 1,000", "ruled", "www.shop999.example:80", true),
        ("route, narrowed, rule 1,000", "ruled-session-a#", "www.shop999.example:80", true),
        ("route, narrowed", "route-11x-session-a#", SHOP, true),
        ("a port that few exits allow", "de", "irc.example:6667", true),
        ("a port that differs between exits", "de", "odd.example:8123", true),
        ("session, a port that few exits allow", "de-session-p#", "irc.example:6667", true),
        ("pin, a port that few exits allow", "de-strict-session-o#", "irc.example:6667", true),
        ("a port that no exit allows", "us", "mail.example:25", false),
        ("pin, no exit allows the port", "us-strict-session-n#", "mail.example:25", false),
        ("no exit in the country", "jp", SHOP, false),
        ("no exit in the AS", "us-asn-1", SHOP, false),
        ("a site that bans all", "us", "closed.example:443", false),
        ("session, a site that bans all", "any-session-c#", "closed.example:443", false),
        ("pin, a site that bans all", "any-strict-session-c#", "closed.example:443", false),
        ("IPv6", "us", "[2001:db8::1]:443", false),
    ];
    rows.into_iter().map(|(what, username, target, there)| (what, username.to_owned(), target, there)).collect()
}

/// Decisions between two copies of the memory's changes for the store. A gateway copies them each second.
const COPIED: usize = 1_000;

/// Times each call, round by round, and prints the medians of the rounds.
fn timed<T>(what: &str, prepared: impl Fn(usize) -> T, mut call: impl FnMut(&T), mut copy: impl FnMut()) {
    let mut rounds: Vec<[f64; 3]> = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let all: Vec<T> = (round * DECISIONS..(round + 1) * DECISIONS).map(&prepared).collect();
        let mut took: Vec<Duration> = Vec::with_capacity(DECISIONS);
        for some in all.chunks(COPIED) {
            for one in some {
                let begun = Instant::now();
                call(one);
                took.push(begun.elapsed());
            }
            copy();
        }
        took.sort_unstable();
        rounds.push([DECISIONS / 2, DECISIONS * 99 / 100, DECISIONS - 1].map(|at| took[at].as_secs_f64() * 1e6));
    }
    let of = |which: usize| {
        let mut each: Vec<f64> = rounds.iter().map(|round| round[which]).collect();
        each.sort_unstable_by(f64::total_cmp);
        each
    };
    let ([half, most, largest], mosts) = ([0, 1, 2].map(|which| of(which)[ROUNDS / 2]), of(1));
    let (least, worst) = (mosts[0], mosts[ROUNDS - 1]);
    eprintln!("  {what:38} {half:7.2} / {most:7.2} ({least:.1} to {worst:.1}) / {largest:8.2} µs");
}

fn percentiles(world: &mut World) {
    eprintln!(
        "single decisions, {EXITS} exits, {ROUTES} routes: p50 / p99 (of each round) / largest of {DECISIONS}, medians of {ROUNDS} rounds"
    );
    for (what, steps) in [("a sum, a short one", 3_000_u64), ("a sum, a longer one", 15_000)] {
        let sum = |(): &()| _ = black_box((0..steps).fold(1, |sum: u64, n| black_box(sum.wrapping_mul(3) ^ n)));
        timed(what, |_| (), sum, || ());
    }
    let pin = ("new pin, as many as may be", "us-strict-session-f#".to_owned(), "shop.example:443", true);
    let (all, few) = (Bounds::default(), Bounds { pins: DECISIONS, ..Bounds::default() });
    let rows = questions().into_iter().map(|row| (row, all)).chain([(pin, few)]);
    for ((what, username, target, there), bounds) in rows {
        // Each kind begins with an empty memory.
        world.memory = Memory::new(bounds);
        let target: Target = target.parse().expect("a target");
        let mut rng = SmallRng::seed_from_u64(7);
        let name = |n: usize| username.replace('#', &n.to_string());
        let decide = |name: &String| assert_eq!(world.decide(name, &target, &mut rng), there, "{what}");
        timed(what, name, decide, || drop(world.memory.changes()));
    }
}

fn main() {
    let mut world = World::new();
    percentiles(&mut world);
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("decide");
    for (what, username, target, _) in questions().into_iter().filter(|(_, username, ..)| !username.contains('#')) {
        let (target, mut rng) = (target.parse().expect("a target"), SmallRng::seed_from_u64(7));
        group.bench_function(what, |bench| bench.iter(|| world.decide(&username, &target, &mut rng)));
    }
    group.finish();
    let mut number = 0;
    criterion.bench_function("a verdict reaches every pool", |bench| {
        bench.iter(|| {
            number += 1;
            let mut edit = world.catalog.edit();
            edit.learn(&exit(number % EXITS), |known| known.verdict = Verdict::Bad);
            black_box(world.routes.refreshed(&edit.finish(), NOW))
        })
    });
    criterion.final_summary();
}
