//! Request → open stream: who is it, may they, which exit, dial, fail over.
//!
//! This is the only place where the rooms of the data path meet: the limits say who, the rules say whether, the
//! snapshot and the loads say which exits in which order, the dialer opens. Choosing is pure and done in one call; what
//! remains here is the order of things, and the clock. A fault of the exit is worth the next exit of the plan; a fault
//! of the target is told as it is, because every exit would see the same; a strict plan has one exit, so that it can
//! only succeed or fail clearly.
//!
//! An exit that nobody has tested yet is not used, but a live request that wants one gets it tested at once, ahead of
//! the tester's backlog, and waits for the verdict up to its deadline.
//!
//! Next: `outbound/attempt.rs` dials one plan; `outbound/builtin.rs` answers `http://exit.gate/`; `outbound/rotate.rs` does what
//! its errands and the API ask.

mod attempt;
mod builtin;
mod hedge;
mod meters;
mod pass;
mod public;
mod refusal_reporter;
pub mod rotate;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use self::attempt::{Attempt, is_onion};
pub use self::hedge::Budget;
use self::meters::Meters;
pub use self::pass::{Lease, Pass};
pub use self::refusal_reporter::{RefusalReporter, Report};
use super::failure::{ClientFault, Denial, Failure, NoExit};
use super::gate::{self, BuiltinRequest, Caller, Gate, ListenerConfig, Lookup, Observation, Opened, Refusal, Resolved};
use super::record::RouteMeters;
use super::relay::Idle;

use crate::dial::{self, ExitFault};
use crate::limit::Limits;
use crate::limit::target::{Forbidden, Rules};
use crate::net::{Host, Target};
use crate::route::selector::SourcePick;
use crate::route::table::{IMPLICIT, Wish};
use crate::route::{self, Ask, Plan, Why, decide};
use crate::state::State;
use crate::tor::Tor;

/// How long things take at most.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Opening: all attempts together, and the wait for a first check.
    pub dial: Duration,
    /// Opening through one exit.
    pub attempt: Duration,
    /// How long nothing may happen on an open stream.
    pub idle: Idle,
}

/// What a configuration says of the way out; replaced as a whole.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Where nobody may go.
    pub rules: Rules,
    /// Whether somebody may ask for this machine's own address.
    pub allow_direct: bool,
    /// Deadlines.
    pub times: Times,
    /// Deadlines of what a public proxy does.
    pub public: dial::public::Times,
    /// Second dials, as a share of all.
    pub hedge: f64,
    /// How long a site that refuses an exit is taken to go on so.
    pub ban_for: Duration,
}

/// What the way out is made of; `app` fills it in.
pub struct Parts {
    /// The snapshot, sessions, pins.
    pub state: State,
    /// Keys and how much each may do.
    pub limits: Limits,
    /// The engines, unless Tor is switched off.
    pub tor: Option<Tor>,
    /// What a reload may change.
    pub terms: Terms,
    /// Who hears of sites that refuse exits.
    pub refusals: RefusalReporter,
    /// Tests an exit that is wanted now.
    pub verify: rotate::Verify,
    /// True once no new request may be taken.
    pub stopping: watch::Receiver<bool>,
}

/// The way out of this gateway: what [`super::connection`] asks.
pub struct Outbound {
    parts: Parts,
    terms: ArcSwap<Terms>,
    hedges: Budget,
    meters: Meters,
}

impl Outbound {
    /// A way out made of these parts.
    pub fn new(parts: Parts) -> Self {
        let (terms, hedges) = (ArcSwap::from_pointee(parts.terms.clone()), Budget::new(parts.terms.hedge));
        Self { parts, terms, hedges, meters: Meters::default() }
    }

    /// Other terms, for what is opened from now on.
    pub fn change(&self, terms: Terms) {
        self.hedges.change(terms.hedge);
        self.terms.store(Arc::new(terms));
    }

    /// What the route of this name has counted, if it was ever used; `implicit` is all that has no name.
    pub fn figures(&self, label: &str) -> Option<Arc<RouteMeters>> {
        self.meters.peek(label)
    }

    /// Forgets what routes counted that are no more, and reckons the pace of the others. To be called every few seconds.
    pub fn tidy(&self) {
        let snapshot = self.parts.state.snapshot();
        let now = std::time::Instant::now();
        let used = |label: &str| label == IMPLICIT || snapshot.routes.get(label).is_some();
        self.meters.keep(used).iter().for_each(|meters| meters.figures().measure(now));
    }

    /// What the username asks for, at this door.
    fn wish(&self, caller: &Caller<'_>) -> Result<Wish, Refusal> {
        let snapshot = self.parts.state.load();
        if caller.listener.route.as_ref().is_some_and(|own| snapshot.routes.get(own).is_none()) {
            return Err(Failure::Draining.into());
        }
        // Who says nothing at the shared port takes what comes, as at any proxy; at a route's own port that is the route.
        let username = match (caller.username, &caller.listener.route) {
            ("", None) => "any",
            (username, _) => username,
        };
        let wish = snapshot.routes.resolve(username, caller.listener.route.as_deref());
        let wish = wish.map_err(|bad| Refusal::because(Failure::Client(ClientFault::Username), bad.to_string()))?;
        if wish.selector.source == SourcePick::Direct && !self.terms.load().allow_direct {
            return Err(Failure::Denied(Denial::Source).into());
        }
        Ok(wish)
    }

    /// Chooses the exits for one request, as things are now.
    fn decide(&self, attempt: &Attempt<'_>) -> Result<Plan, Box<route::Refusal>> {
        let state = &self.parts.state;
        let Attempt { pass, wish, ask: gate::Ask { target, avoid, .. }, .. } = *attempt;
        let snapshot = state.load();
        let ask = Ask { wish, key: pass.key(), target, now: state.now(), avoid, plain: attempt.plain };
        decide(snapshot.view(), state.memory(), &ask, &mut rand::rng())
    }

    /// Chooses again with every verdict that comes, up to the deadline, where only a first check is missing.
    async fn tested(&self, attempt: &Attempt<'_>, refusal: Box<route::Refusal>) -> Result<Plan, Refusal> {
        let state = &self.parts.state;
        if refusal.untested.is_empty() {
            return Err(self.refused(&refusal, attempt.wish));
        }
        let mut revisions = state.revisions();
        loop {
            revisions.borrow_and_update();
            let refusal = match self.decide(attempt) {
                Ok(plan) => return Ok(plan),
                Err(refusal) => refusal,
            };
            let hopeless = refusal.untested.is_empty();
            refusal.untested.iter().for_each(|exit| state.request_check(exit.clone()));
            if hopeless || timeout_at(attempt.by, revisions.changed()).await.is_err() {
                return Err(self.refused(&refusal, attempt.wish));
            }
        }
    }

    /// The choice's refusal in the front's words; the funnel goes along as the detail.
    fn refused(&self, refusal: &route::Refusal, wish: &Wish) -> Refusal {
        let failure = match &refusal.why {
            Why::NoneKnown | Why::NoneMatch => NoExit::NoneMatch,
            Why::PinDown { .. } | Why::PinPort { .. } => NoExit::PinDown,
            Why::Exclusive => NoExit::NoneFree,
            Why::NoneRunning
            | Why::PortRefused
            | Why::NoneTested
            | Why::NonePass
            | Why::NoneDistinct
            | Why::AllBanned
            | Why::AllFailed
            | Why::Ipv6 => NoExit::NoneUsable,
        };
        let said = Refusal::because(Failure::NoExit(failure), refusal.to_string());
        Refusal { meters: Some(self.meters.of(wish.label())), ..said }
    }

    fn may(&self, target: &Target) -> Result<(), Refusal> {
        self.terms.load().rules.target(target).map_err(|why| {
            let denial = if why == Forbidden::Port { Denial::Port } else { Denial::Target };
            Refusal::because(Failure::Denied(denial), why.to_string())
        })
    }
}

impl Gate for Outbound {
    type Pass = Pass;
    type Lease = Lease;

    fn admit(&self, caller: &Caller<'_>, password: Option<&[u8]>) -> Result<Pass, Refusal> {
        pass::admit(&self.parts, caller, password)
    }

    async fn open(&self, caller: &Caller<'_>, pass: &Pass, ask: gate::Ask<'_>) -> Result<Opened<Lease>, Refusal> {
        self.may(ask.target)?;
        let wish = self.wish(caller)?;
        let by = Instant::now() + self.terms.load().times.dial;
        let attempt = Attempt { pass, wish: &wish, ask, by, plain: caller.protocol == gate::Protocol::Http };
        if is_onion(ask.target) {
            return Box::pin(self.dial_onion(attempt)).await;
        }
        let mut plan = match self.decide(&attempt) {
            Ok(plan) => plan,
            Err(refusal) => Box::pin(self.tested(&attempt, refusal)).await?,
        };
        // A new pin is on the disk before anybody leaves by it; it is seldom, and its future is not every connection's.
        if !plan.events.is_empty() {
            Box::pin(self.parts.state.make_durable(std::mem::take(&mut plan.events))).await;
        }
        self.dial(attempt, plan).await
    }

    async fn resolve(&self, caller: &Caller<'_>, pass: &Pass, lookup: Lookup<'_>) -> Result<Resolved, Refusal> {
        let wish = self.wish(caller)?;
        let by = Instant::now() + self.terms.load().times.dial;
        // A look-up has no port; exits that serve the web are nearly all of them.
        let target = Target { host: Host::Name("exit.gate".into()), port: 443 };
        let ask = gate::Ask { target: &target, avoid: &[], early: &[] };
        let attempt = Attempt { pass, wish: &wish, ask, by, plain: false };
        let mut plan = match self.decide(&attempt) {
            Ok(plan) => plan,
            Err(refusal) => self.tested(&attempt, refusal).await?,
        };
        self.parts.state.make_durable(std::mem::take(&mut plan.events)).await;
        self.look_up(&attempt, &plan, lookup).await
    }

    async fn builtin(&self, caller: &Caller<'_>, pass: &Pass, builtin: BuiltinRequest<'_>) -> Result<String, Refusal> {
        let wish = self.wish(caller)?;
        self.run_builtin(pass, &wish, builtin).await
    }

    fn observe(&self, lease: &Lease, target: &Target, observation: Observation) {
        let Some(exit) = lease.exit() else { return };
        match observation {
            Observation::Status(status) => {
                self.parts.refusals.saw(&target.host, exit.id(), status, self.parts.state.now());
            }
            Observation::Died => {
                self.blame(exit);
                self.doubt(exit, ExitFault::Died.into());
            }
        }
    }

    fn stopping(&self, _door: &ListenerConfig) -> impl Future<Output = ()> + Send {
        let mut stopping = self.parts.stopping.clone();
        async move {
            // A sender that is gone means that the app is: that is a stop too.
            let _ = stopping.wait_for(|stop| *stop).await;
        }
    }
}
