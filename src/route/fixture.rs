//! A small world for tests of the choice of exits. The world has exits with given facts, routes, and a clock that
//! advances only when a test advances the clock.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::choose::{Ask, Plan, Rotated, Successor, decide, succeed, successor};
use super::explain::{Explanation, explain};
use super::memory::{Bounds, Memory};
use super::no_plan::NoPlan;
use super::policy::Policy;
use super::selector::{RouteName, Selector, Words};
use super::table::{Origin, Route, RouteTable, Wish};
use super::view::View;
use super::{Bans, Site};
use crate::exit::country::Country;
use crate::exit::facts::{Flags, Known, Listing};
use crate::exit::{Catalog, Exit, ExitId, Fingerprint, Moment, Protocol, PublicId, UpstreamId, UpstreamName, Verdict};
use crate::net::Target;

pub(super) const START: Moment = Moment(1_788_314_400_000_000);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);

pub(super) struct World {
    pub(super) catalog: Catalog,
    pub(super) routes: RouteTable,
    pub(super) bans: Bans,
    pub(super) memory: Memory,
    pub(super) now: Moment,
    pub(super) rng: SmallRng,
}

pub(super) fn id(n: u16) -> ExitId {
    let mut bytes = [7; 20];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    ExitId::Tor(Fingerprint(bytes))
}

pub(super) fn number(id: &ExitId) -> u16 {
    let ExitId::Tor(Fingerprint(bytes)) = id else { panic!("{id} is no relay of this world") };
    u16::from_be_bytes([bytes[0], bytes[1]])
}

pub(super) fn ip(n: u16) -> IpAddr {
    IpAddr::from([198, 18, (n >> 8) as u8, n as u8])
}

pub(super) fn country(code: &str) -> Country {
    Country::parse(code).unwrap()
}

pub(super) fn target(text: &str) -> Target {
    text.parse().unwrap()
}

pub(super) fn words() -> Words {
    Words::new([("eu".to_owned(), vec!["de".to_owned(), "fr".to_owned()])], ["customer-acme".to_owned()]).unwrap()
}

pub(super) fn listing(n: u16, code: &str) -> Listing {
    Listing {
        nickname: format!("relay{n}").into(),
        announced: vec![ip(n)],
        country: country(code),
        asn: Some(u32::from(n % 5) + 1),
        flags: Flags { running: true, stable: true, fast: true, bad_exit: false },
        ..Listing::new(id(n))
    }
}

impl World {
    /// Makes exits 0, 1, 2, … in these countries. Each exit is tested and has an IP of its own that sites see.
    pub(super) fn new(codes: &[&str]) -> Self {
        let routes = RouteTable::new(words(), Policy { pool: 3, ..Policy::default() });
        let memory = Memory::new(Bounds::default());
        let rng = SmallRng::seed_from_u64(42);
        let mut world = Self { catalog: Catalog::default(), routes, bans: Bans::default(), memory, now: START, rng };
        (0..).zip(codes).for_each(|(n, code)| world.join(n, code));
        world
    }

    pub(super) fn join(&mut self, n: u16, code: &str) {
        let mut edit = self.catalog.edit();
        edit.list(listing(n, code));
        edit.learn(&id(n), |known| {
            known.saw(ip(n), country(code), START);
            known.verdict = Verdict::Good;
            known.latency = Some(Duration::from_millis(50));
        });
        self.catalog = edit.finish();
        self.refresh();
    }

    /// Adds a public proxy that was tested and opens tunnels. Its address is that of number `n`.
    pub(super) fn join_public(&mut self, n: u16, code: &str) {
        let id = ExitId::Public(Arc::new(PublicId { protocol: Protocol::Socks5, addr: (ip(n), 1080).into() }));
        let mut edit = self.catalog.edit();
        edit.list(Listing { id: id.clone(), ..listing(n, code) });
        edit.learn(&id, |known| {
            known.saw(ip(n), country(code), START);
            known.verdict = Verdict::Good;
        });
        self.catalog = edit.finish();
        self.refresh();
    }

    /// Adds a tested exit of an upstream source. Its address is that of number `n`.
    pub(super) fn join_upstream(&mut self, n: u16, source: UpstreamName, code: &str) {
        let id = ExitId::Upstream(Arc::new(UpstreamId { source, key: format!("{n}").into() }));
        let mut edit = self.catalog.edit();
        edit.list(Listing { id: id.clone(), ..listing(n, code) });
        edit.learn(&id, |known| {
            known.saw(ip(n), country(code), START);
            known.verdict = Verdict::Good;
        });
        self.catalog = edit.finish();
        self.refresh();
    }

    pub(super) fn learn(&mut self, n: u16, change: impl FnOnce(&mut Known)) {
        let mut edit = self.catalog.edit();
        assert!(edit.learn(&id(n), change));
        self.catalog = edit.finish();
        self.refresh();
    }

    pub(super) fn relist(&mut self, n: u16, change: impl FnOnce(&mut Listing)) {
        let mut listing = (**self.exit(n).listing()).clone();
        change(&mut listing);
        let mut edit = self.catalog.edit();
        edit.list(listing);
        self.catalog = edit.finish();
        self.refresh();
    }

    /// Gives exits 0, 1, 2, … these consensus weights.
    pub(super) fn weigh(&mut self, weights: impl IntoIterator<Item = u32>) {
        let mut edit = self.catalog.edit();
        for (n, weight) in (0..).zip(weights) {
            edit.list(Listing { weight, ..(**self.exit(n).listing()).clone() });
        }
        self.catalog = edit.finish();
        self.refresh();
    }

    /// Removes exit `n` from the directory. From now on the exit counts as not listed.
    pub(super) fn unlist(&mut self, n: u16) {
        let since = Some(self.now);
        self.relist(n, |listing| listing.unlisted = since);
    }

    pub(super) fn kill(&mut self, n: u16) {
        self.relist(n, |listing| listing.flags.running = false);
    }

    pub(super) fn revive(&mut self, n: u16) {
        self.relist(n, |listing| listing.flags.running = true);
    }

    pub(super) fn ban(&mut self, site: &str, n: u16, span: Duration) {
        let site = Site::of(&target(&format!("{site}:443")).host);
        self.bans = self.bans.with([(site, id(n), self.now.after(span))]);
    }

    pub(super) fn eject(&self, n: u16) {
        while self.exit(n).load().failed(self.now).is_none() {}
    }

    pub(super) fn exit(&self, n: u16) -> &Arc<Exit> {
        self.catalog.get(&id(n)).unwrap()
    }

    pub(super) fn route(&mut self, name: &str, selector: &str, policy: Policy) {
        let selector = Selector::parse(selector, &words()).unwrap();
        let name = RouteName::parse(name, &selector, &words()).unwrap();
        let policy = Arc::new(policy);
        let route = Route { name, selector, port: None, policy, origin: Origin::Api, created: START, expires: None };
        self.routes.put(route).unwrap();
        self.refresh();
    }

    pub(super) fn refresh(&mut self) {
        self.routes = self.routes.refreshed(&self.catalog, self.now);
    }

    pub(super) fn tidy(&self) -> Vec<super::Event> {
        self.memory.tidy(self.view(), self.now)
    }

    pub(super) fn pass(&mut self, span: Duration) {
        self.now = self.now.after(span);
    }

    pub(super) fn view(&self) -> View<'_> {
        View { catalog: &self.catalog, routes: &self.routes, bans: &self.bans }
    }

    pub(super) fn wish(&self, username: &str) -> Wish {
        self.routes.resolve(username, None).unwrap_or_else(|bad| panic!("{username}: {bad}"))
    }

    pub(super) fn ask<T>(
        &mut self,
        username: &str,
        to: &str,
        act: impl FnOnce(View<'_>, &Memory, &Ask<'_>, &mut SmallRng) -> T,
    ) -> T {
        let (wish, target) = (self.wish(username), target(to));
        let ask = Ask { wish: &wish, key: "", target: &target, now: self.now, avoid: &[], plain: false };
        let view = View { catalog: &self.catalog, routes: &self.routes, bans: &self.bans };
        act(view, &self.memory, &ask, &mut self.rng)
    }

    pub(super) fn decide_to(&mut self, username: &str, to: &str) -> Result<Plan, Box<NoPlan>> {
        self.ask(username, to, decide)
    }

    pub(super) fn decide(&mut self, username: &str) -> Result<Plan, Box<NoPlan>> {
        self.decide_to(username, "shop.com:443")
    }

    /// Returns the exit that a connection would use first.
    pub(super) fn first(&mut self, username: &str) -> u16 {
        let plan = self.decide(username).unwrap_or_else(|why| panic!("{username}: {why}"));
        number(plan.first().id())
    }

    /// Makes the first exit of a connection fail. Returns the exit that the connection uses next, if any, and the plan
    /// of the connection.
    pub(super) fn fail_over(&mut self, username: &str) -> (Option<u16>, Plan) {
        self.ask(username, "shop.com:443", |view, memory, ask, rng| {
            let mut plan = decide(view, memory, ask, rng).unwrap();
            let next = plan.fail_over(view, memory, ask).map(|exit| number(exit.id()));
            (next, plan)
        })
    }

    pub(super) fn rotate(&mut self, username: &str) -> Result<(Successor, Rotated), Box<NoPlan>> {
        self.ask(username, "shop.com:443", |view, memory, ask, rng| {
            let next = successor(view, memory, ask, rng)?;
            let rotated = succeed(view, memory, ask, &next).expect("no other rotation interferes");
            Ok((next, rotated))
        })
    }

    pub(super) fn explain(&mut self, username: &str, to: &str) -> Explanation {
        self.ask(username, to, |view, memory, ask, _| explain(view, memory, ask))
    }

    /// Returns the world after a restart: the same exits, routes and bans, and the part of the memory that the store
    /// keeps.
    pub(super) fn restart(&self) -> Self {
        let memory = Memory::new(Bounds::default());
        memory.import(self.memory.sessions().list(self.now), self.memory.pins().list(self.now), self.now);
        let rng = SmallRng::seed_from_u64(43);
        let routes = RouteTable::new(words(), (**self.routes.defaults()).clone());
        let mut world =
            Self { catalog: Catalog::default(), routes, bans: self.bans.clone(), memory, now: self.now, rng };
        // The exits are added in another order than in the first catalog, so they get other slots.
        let mut edit = world.catalog.edit();
        let mut exits: Vec<_> = self.catalog.iter().collect();
        exits.reverse();
        for exit in exits {
            edit.list((**exit.listing()).clone());
            edit.learn(exit.id(), |known| *known = exit.known().clone());
        }
        world.catalog = edit.finish();
        for entry in self.routes.iter() {
            world.routes.put((*entry.route).clone()).unwrap();
        }
        world.refresh();
        world
    }
}
