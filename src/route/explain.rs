//! Why, and why not: the funnel from all exits to those that a user name may use.
//!
//! "No exit" is the least useful thing that a gateway can say. What helps is where they went: 2,041 known, 312 in the
//! US, 280 that allow the port, none that a check found good. Counting that takes a walk over the candidates, so it is
//! done for a refusal and for whoever asks, never for a connection that succeeds.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::ban::Site;
use super::choose::{Ask, Case, View};
use super::memory::Memory;
use super::pin::Pinned;
use super::selector::Mode;
use crate::exit::catalog::Filter;
use crate::exit::country::CountrySet;
use crate::exit::{Exit, ExitId, Moment, Verdict};

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
    Place(String),
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
            Self::Known | Self::Source | Self::Place(_) | Self::Asn(_) | Self::Exit(_) => Why::NoneMatch,
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
            Self::Place(place) => write!(f, "in {place}"),
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
            let joint = if at == 0 { "" } else { " → " };
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

impl<'a> Case<'a> {
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
        let catalog = self.view.catalog;
        let selector = self.need.selector;
        let mut steps = vec![(Step::Known, catalog.len())];
        let mut filter =
            Filter { sources: self.need.policy.sources(selector), countries: &CountrySet::ALL, asn: None, check: None };
        let mut left = catalog.matching(&filter);
        if left.count() < catalog.len() {
            steps.push((Step::Source, left.count()));
        }
        if *selector.place.countries() != CountrySet::ALL {
            filter.countries = selector.place.countries();
            left = catalog.matching(&filter);
            steps.push((Step::Place(selector.place.to_string()), left.count()));
        }
        if let Some(asn) = selector.asn {
            filter.asn = Some(asn);
            left = catalog.matching(&filter);
            steps.push((Step::Asn(asn), left.count()));
        }
        let mut exits: Vec<&Arc<Exit>> = left.iter().filter_map(|slot| catalog.at(slot)).collect();
        let mut keep = |step: Step, pass: &dyn Fn(&Exit) -> bool| {
            exits.retain(|exit| pass(exit));
            steps.push((step, exits.len()));
        };
        if let Some(exit) = &selector.exit {
            keep(Step::Exit(exit.to_string()), &|exit| selector.picks(exit));
        }
        keep(Step::Running, &Exit::alive);
        keep(Step::Port(self.ask.target.port), &|exit| self.takes(exit));
        let untested = std::cell::RefCell::new(Vec::new());
        keep(Step::Tested, &|exit| {
            if exit.known().verdict == Verdict::Untested && untested.borrow().len() < WORTH_A_CHECK {
                untested.borrow_mut().push(exit.id().clone());
            }
            exit.usable()
        });
        self.late_steps(&mut keep);
        (Funnel { steps }, untested.into_inner())
    }

    fn late_steps(&self, keep: &mut dyn FnMut(Step, &dyn Fn(&Exit) -> bool)) {
        if let Some(check) = &self.need.policy.check {
            keep(Step::Check(check.clone()), &|exit| exit.known().passed.contains(check));
        }
        let strict = self.need.selector.mode == Mode::Strict;
        if strict {
            keep(Step::Distinct, &Exit::distinct);
        }
        if self.bans.is_some() {
            keep(Step::NotBanned(Site::of(&self.ask.target.host)), &|exit| !self.is_banned(exit));
        }
        if strict {
            let pins = self.memory.pins();
            let exclusive = self.need.policy.exclusive;
            keep(Step::Free, &|exit| exit.v4().is_some_and(|ip| pins.is_free(ip, exclusive)));
        }
    }
}
