//! Decisions, one after the other, among a hundred tested exits in five countries.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Duration;

use exitgate::exit::country::Country;
use exitgate::exit::facts::{Flags, Listing};
use exitgate::exit::policy::PortPolicy;
use exitgate::exit::{Catalog, ExitId, Fingerprint, Moment, Verdict};
use exitgate::net::{Host, Target};
use exitgate::route::memory::Bounds;
use exitgate::route::{Ask, Bans, Memory, Policy, RouteTable, View, Words, decide};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

const START: Moment = Moment(1_788_314_400_000_000);

pub struct Decisions {
    catalog: Catalog,
    routes: RouteTable,
    bans: Bans,
    memory: Memory,
    rng: SmallRng,
}

impl Decisions {
    pub fn new() -> Self {
        let mut edit = Catalog::default().edit();
        let countries = ["US", "DE", "FR", "NL", "SE"].map(|code| Country::parse(code).unwrap_or(Country::UNKNOWN));
        for n in 0..100u8 {
            let country = countries[usize::from(n) % countries.len()];
            let listing = listing(n, country);
            let id = listing.id.clone();
            edit.list(listing);
            edit.learn(&id, |known| {
                known.saw(Ipv4Addr::new(198, 18, 0, n).into(), country, START);
                known.verdict = Verdict::Good;
                known.latency = Some(Duration::from_millis(50));
            });
        }
        let catalog = edit.finish();
        let routes = RouteTable::new(Words::default(), Policy::default()).refreshed(&catalog, START);
        let memory = Memory::new(Bounds::default());
        Self { catalog, routes, bans: Bans::default(), memory, rng: SmallRng::seed_from_u64(42) }
    }

    /// Everything between the username of a connection and its exits.
    pub fn decide(&mut self, username: &str) {
        let Ok(wish) = self.routes.resolve(black_box(username), None) else { return };
        let target = Target { host: Host::Name("shop.example".into()), port: 443 };
        let Ok(wish) = self.routes.for_target(wish, &target.host, Some(target.port)) else { return };
        let ask = Ask { wish: &wish, key: "", target: &target, now: START, avoid: &[], plain: false };
        let view = View { catalog: &self.catalog, routes: &self.routes, bans: &self.bans };
        drop(black_box(decide(view, &self.memory, &ask, &mut self.rng)));
    }
}

fn listing(n: u8, country: Country) -> Listing {
    Listing {
        id: ExitId::Tor(Fingerprint([n; 20])),
        nickname: format!("relay{n}").into(),
        announced: vec![Ipv4Addr::new(198, 18, 0, n).into()],
        country,
        asn: Some(u32::from(n % 5) + 1),
        as_name: None,
        policy: PortPolicy::accept_all(),
        policy_v6: PortPolicy::reject_all(),
        flags: Flags { running: true, stable: true, fast: true, bad_exit: false },
        weight: 1,
        unlisted: None,
        public: None,
        upstream: None,
    }
}
