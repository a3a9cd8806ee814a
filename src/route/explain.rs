//! Why, and why not: the funnel from all exits to those that a user name may use.
//!
//! "No exit" is the least useful thing that a gateway can say. What helps is where they went: 2,041 known, 312 in the
//! US, 280 that allow the port, none that a check found good. Every step is a set that the catalog keeps, so that a
//! refusal costs little more than a choice: whoever asks for what there is not asks again.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::ban::Site;
use super::choose::{Ask, Case, View};
use super::memory::Memory;
use super::pin::Pinned;
use super::pool::picked;
use super::selector::Mode;
use crate::exit::catalog::{Bits, Filter};
use crate::exit::country::CountrySet;
use crate::exit::{ExitId, Moment};

/// Untested exits that a refusal names for a check at once: the first good one ends the wait.
const WORTH_A_CHECK: usize = 3;

/// Why there is no exit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why} ({funnel})")]
pub struct Refusal {
    /// The reason.
    pub why: Why,
    /// Where all exits went.
    pub funnel: Funnel,
    /// Exits that nobody has checked, and that would do if they are good.
    pub untested: Vec<ExitId>,
}

/// The reason for which there is no exit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// No source has named an exit.
    #[error("no exit is known yet: GET /ready says what is still under way")]
    NoneKnown,
    /// The selector asks for what there is none of.
    #[error("no exit is what was asked for")]
    NoneMatch,
    /// There are such exits, and they are down or on their way out.
    #[error("no such exit is up")]
    NoneRunning,
    /// No exit lets the port through.
    #[error("no such exit allows the port")]
    PortRefused,
    /// None of those has a good verdict.
    #[error("no such exit has passed its last check")]
    NoneTested,
    /// None of those passes the route's check target.
    #[error("no such exit passes the route's check")]
    NonePass,
    /// None of those has one known IPv4 address.
    #[error("no such exit has one IP of its own")]
    NoneDistinct,
    /// The target's site refuses all of those.
    #[error("the site bans every such exit")]
    AllBanned,
    /// Every one has failed this request.
    #[error("every such exit has failed this request")]
    AllFailed,
    /// The target is IPv6 and the route has not opted in.
    #[error("the route does not reach IPv6 targets: exits would show an address that nobody checked")]
    Ipv6,
    /// Every IP is some pin's.
    #[error("every such exit's IP is taken by a pin")]
    Exclusive,
    /// The pinned exit is down.
    #[error("the pinned exit {exit} ({ip}) is down")]
    PinDown {
        /// The exit.
        exit: ExitId,
        /// Its address.
        ip: Ipv4Addr,
        /// Since when that is known.
        since: Moment,
        /// When the pin will move; `None`: never by itself.
        repin_at: Option<Moment>,
    },
    /// The pinned exit does not let the port through.
    #[error("the pinned exit {exit} does not allow the port")]
    PinPort {
        /// The exit.
        exit: ExitId,
    },
}

/// How many exits are left after each step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Funnel {
    /// The steps in order; the first is all exits that are known.
    pub steps: Vec<(Step, usize)>,
}

/// One step of the funnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// All there are.
    Known,
    /// From the source that was asked for.
    Source,
    /// In the countries.
    Geo(String),
    /// In the AS.
    Asn(u32),
    /// The very exit.
    Exit(String),
    /// Up.
    Running,
    /// Lets the port through.
    Port(u16),
    /// Good in its last check.
    Tested,
    /// Passes the route's check target.
    Check(Arc<str>),
    /// Seen with one IPv4 address (strict only).
    Distinct,
    /// Not banned by the site.
    NotBanned(Site),
    /// Not taken by a pin (strict only).
    Free,
}

impl Step {
    fn why(&self) -> Why {
        match self {
            Self::Known => Why::NoneKnown,
            Self::Source | Self::Geo(_) | Self::Asn(_) | Self::Exit(_) => Why::NoneMatch,
            Self::Running => Why::NoneRunning,
            Self::Port(_) => Why::PortRefused,
            Self::Tested => Why::NoneTested,
            Self::Check(_) => Why::NonePass,
            Self::Distinct => Why::NoneDistinct,
            Self::NotBanned(_) => Why::AllBanned,
            Self::Free => Why::Exclusive,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known => f.write_str("known"),
            Self::Source => f.write_str("from the source"),
            Self::Geo(place) => write!(f, "in {place}"),
            Self::Asn(asn) => write!(f, "in AS{asn}"),
            Self::Exit(exit) => write!(f, "are {exit}"),
            Self::Running => f.write_str("up"),
            Self::Port(port) => write!(f, "allow {port}"),
            Self::Tested => f.write_str("tested"),
            Self::Check(check) => write!(f, "pass {check}"),
            Self::Distinct => f.write_str("with one IP"),
            Self::NotBanned(site) => write!(f, "not banned by {site}"),
            Self::Free => f.write_str("not taken"),
        }
    }
}

impl fmt::Display for Funnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().enumerate().try_for_each(|(at, (step, left))| {
            let joint = if at == 0 { "" } else { " -> " };
            write!(f, "{joint}{left} {step}")
        })
    }
}

/// The answer to "what would this user name use, and why?".
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Where all exits went.
    pub funnel: Funnel,
    /// The pool now; empty if it is an implicit route's that nobody has used.
    pub pool: Vec<ExitId>,
    /// Where the session is.
    pub session: Option<ExitId>,
    /// What the strict holder is pinned to.
    pub pin: Option<Pinned>,
    /// What would be refused, and why; `None` if nothing.
    pub why: Option<Why>,
}

/// Explains a wish without using it: nothing is bound, made or moved.
pub fn explain(view: View<'_>, memory: &Memory, ask: &Ask<'_>) -> Explanation {
    let case = Case::new(view, memory, ask);
    let (funnel, _) = case.funnel();
    let pool = match (&ask.wish.pool, &ask.wish.entry) {
        (None, Some(entry)) => Some(entry.pool.clone()),
        (scope, _) => memory.implicit().peek(scope.as_ref().unwrap_or(&ask.wish.scope)),
    };
    let pool = pool.iter().flat_map(|pool| pool.members()).map(|member| member.id().clone()).collect();
    let strict = ask.wish.selector.mode == Mode::Strict;
    let pin = if strict { memory.pins().of(case.holder, ask.now) } else { None };
    let session = if strict { None } else { memory.sessions().of(case.holder, ask.now) };
    let why = funnel.dry();
    Explanation { funnel, pool, session, pin, why }
}

impl Funnel {
    /// The reason that the first step without exits gives.
    fn dry(&self) -> Option<Why> {
        self.steps.iter().find(|(_, left)| *left == 0).map(|(step, _)| step.why())
    }
}

impl Case<'_> {
    /// Refuses for want of exits.
    pub(super) fn refuse(&self) -> Box<Refusal> {
        let (funnel, untested) = self.funnel();
        // Everything fits and nothing was found: what fits has failed this request.
        let why = funnel.dry().unwrap_or(Why::AllFailed);
        Box::new(Refusal { why, funnel, untested })
    }

    /// Refuses for a reason that is known.
    pub(super) fn refuse_as(&self, why: Why) -> Box<Refusal> {
        Box::new(Refusal { why, funnel: self.funnel().0, untested: Vec::new() })
    }

    pub(super) fn refuse_v6(&self) -> Box<Refusal> {
        self.refuse_as(Why::Ipv6)
    }

    /// Counts, step by step, and finds exits that lack nothing but a check.
    fn funnel(&self) -> (Funnel, Vec<ExitId>) {
        let (catalog, selector) = (self.view.catalog, self.need.selector);
        let mut sieve = self.sieve();
        if let Some(exit) = &selector.exit {
            sieve.keep(Step::Exit(exit.to_string()), &picked(exit, catalog));
        }
        sieve.keep(Step::Running, catalog.alive());
        sieve.keep(Step::Port(self.ask.target.port), &self.taking());
        let untested = sieve.left.and(catalog.untested());
        let untested = untested.iter().take(WORTH_A_CHECK).filter_map(|slot| catalog.at(slot));
        let untested = untested.map(|exit| exit.id().clone()).collect();
        sieve.keep(Step::Tested, catalog.usable());
        if let Some(check) = &self.need.policy.check {
            sieve.keep(Step::Check(check.clone()), catalog.passing(check).unwrap_or(&Bits::default()));
        }
        let strict = selector.mode == Mode::Strict;
        if strict {
            sieve.keep(Step::Distinct, catalog.distinct());
        }
        if let Some(bans) = self.bans {
            sieve.drop(Step::NotBanned(Site::of(&self.ask.target.host)), &bans.slots(catalog, self.ask.now));
        }
        if strict {
            let taken = self.memory.pins().taken(catalog, self.need.policy.exclusive);
            sieve.drop(Step::Free, &taken);
        }
        (Funnel { steps: sieve.steps }, untested)
    }

    /// What the source and the place leave.
    fn sieve(&self) -> Sieve {
        let (catalog, selector) = (self.view.catalog, self.need.selector);
        let sources = self.need.policy.sources(selector);
        let mut filter = Filter { sources, countries: &CountrySet::ALL, asn: None, check: None };
        let mut left = catalog.matching(&filter);
        let mut steps = vec![(Step::Known, catalog.len())];
        if left.count() < catalog.len() {
            steps.push((Step::Source, left.count()));
        }
        if *selector.geo.countries() != CountrySet::ALL {
            filter.countries = selector.geo.countries();
            left = catalog.matching(&filter);
            steps.push((Step::Geo(selector.geo.to_string()), left.count()));
        }
        if let Some(asn) = selector.asn {
            filter.asn = Some(asn);
            left = catalog.matching(&filter);
            steps.push((Step::Asn(asn), left.count()));
        }
        Sieve { left, steps }
    }
}

/// Exits that are left, and how many were after each step.
struct Sieve {
    left: Bits,
    steps: Vec<(Step, usize)>,
}

impl Sieve {
    fn keep(&mut self, step: Step, pass: &Bits) {
        self.left.keep(pass);
        self.steps.push((step, self.left.count()));
    }

    fn drop(&mut self, step: Step, fail: &Bits) {
        self.left.drop(fail);
        self.steps.push((step, self.left.count()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::super::policy::Policy;
    use super::{Funnel, Step, Why};
    use crate::exit::Verdict;

    fn world() -> World {
        let mut world = World::new(&["US", "US", "US", "US", "US", "US", "US", "DE", "FR", "??"]);
        world.kill(0);
        world.relist(1, |listing| listing.policy = "reject 443".parse().unwrap());
        world.learn(2, |known| known.verdict = Verdict::Bad);
        world.learn(3, |known| known.verdict = Verdict::Untested);
        world.ban("shop.com", 4, MINUTE);
        world
    }

    #[test]
    fn the_funnel_counts_every_step() {
        let mut world = world();
        let explained = world.explain("us", "www.shop.com:443");
        let want = "10 known -> 7 in us -> 6 up -> 5 allow 443 -> 3 tested -> 2 not banned by shop.com";
        assert_eq!((explained.funnel.to_string(), explained.why), (want.to_owned(), None));
        assert!(explained.pool.is_empty() && world.memory.implicit().is_empty(), "a question makes nothing");
        world.first("us");
        assert_eq!(world.explain("us", "www.shop.com:443").pool.len(), 3);
        let home = world.first("us-session-a");
        assert_eq!(world.explain("us-session-a", "shop.com:443").session, Some(id(home)));
        let home = world.first("us-strict");
        let explained = world.explain("us-strict", "other.com:80");
        assert_eq!(explained.pin.map(|pin| pin.ip), Some(ip(home)));
        assert_eq!(
            explained.funnel.to_string(),
            "10 known -> 7 in us -> 6 up -> 6 allow 80 -> 4 tested -> 4 with one IP -> 4 not taken"
        );
    }

    #[test]
    fn a_refusal_names_the_step_that_left_none() {
        let mut world = world();
        world.route("steam", "any", Policy { check: Some("steam".into()), ..Policy::default() });
        for (username, to, want) in [
            ("jp", "shop.com:443", "no exit is what was asked for (10 known -> 0 in jp"),
            ("us-source-public", "shop.com:443", "no exit is what was asked for (10 known -> 0 from the source"),
            (
                "us-asn-4",
                "shop.com:443",
                "no such exit has passed its last check (10 known -> 7 in us -> 1 in AS4 -> 1 up -> 1 allow 443 -> 0 tested",
            ),
            ("us-asn-1", "shop.com:443", "no such exit is up"),
            ("us-asn-2", "shop.com:443", "no such exit allows the port"),
            ("us-asn-5", "shop.com:443", "the site bans every such exit"),
            ("us-asn-5", "[2001:db8::1]:443", "the route does not reach IPv6 targets"),
            ("steam", "shop.com:443", "no such exit passes the route's check"),
        ] {
            if username == "us-asn-1" {
                world.kill(5);
            }
            if username == "us-asn-2" {
                world.kill(6);
            }
            let refusal = world.decide_to(username, to).unwrap_err();
            assert!(refusal.to_string().starts_with(want), "{username}: {refusal}");
        }
    }

    #[test]
    fn before_any_source_has_answered_nobody_is_blamed() {
        let of = |known| Funnel { steps: vec![(Step::Known, known), (Step::Geo("jp".into()), 0)] };
        assert_eq!((of(0).dry(), of(3).dry()), (Some(Why::NoneKnown), Some(Why::NoneMatch)));
    }

    #[test]
    fn a_refusal_names_exits_that_lack_only_a_check() {
        let mut world = world();
        let refusal = world.decide("us-asn-4").unwrap_err();
        assert_eq!(refusal.untested, [id(3)]);
        world.learn(3, |known| known.verdict = Verdict::Good);
        assert_eq!(world.first("us-asn-4"), 3);
    }
}
