//! The path from a client's request to an open stream: check the client, check the target, choose exits, dial, and try
//! the next exit after a failure.
//!
//! This module calls the other rooms of the data path in this order. `limit` identifies the client and checks the
//! target. `route` chooses the exits and their order, by one call of a pure function. `dial` opens a stream.
//!
//! If an exit fails, the next exit is tried, up to `gateway.max_attempts` exits. A fault of the target is reported to
//! the client immediately, because the request would fail through every exit. A strict route has one exit and never
//! tries another.
//!
//! Exits that were never tested are not used. If a request could use only untested exits, the best of these exits are put
//! first in the tester's queue, and the request waits for the first good result until its own deadline.
//!
//! Next: `outbound/attempt.rs` dials one plan; `outbound/builtin.rs` answers `http://exit.gate/`; `outbound/rotate.rs`
//! gives a username another exit.

mod admission;
mod attempt;
mod budget;
mod builtin;
mod choice;
mod escalate;
mod hedge;
mod kept;
mod look_up;
mod onion;
mod permitted_route;
mod public;
mod queue;
mod refusal_reporter;
mod report_header;
pub mod rotate;
mod route_meters;
mod upstream;

use std::future::Future;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::Instant;

pub use self::admission::{AdmittedClient, Lease};
use self::attempt::Attempt;
use self::hedge::HedgeBudget;
use self::onion::is_onion;
pub use self::refusal_reporter::{RefusalReporter, Report};
use self::route_meters::AllRouteMeters;
use super::failure::{Denial, Failure};
use super::gate::{BuiltinRequest, Caller, Gate, Lookup, Observation, OpenRequest, Opened, Refusal, Resolved};
use super::listener::ListenerConfig;
use super::meters::RouteMeters;
use super::protocol::Protocol;
use super::relay::Idle;
use crate::dial::{self, ExitFault};
use crate::exit::ExitId;
use crate::exit::identity::{Identities, Identity};
use crate::limit::Limits;
use crate::limit::target::{Forbidden, Rules};
use crate::net::{Host, Target};
use crate::route::escalation::Outcome;
use crate::route::table::{IMPLICIT, Wish};
use crate::state::State;
use crate::tor::Tor;

/// How long a request waits for an exit of the later source with which it should begin. Each request to the site waits so
/// long while that source has no exit. Not tuned: a check of a new exit takes a second or two.
const LATER_WAIT: Duration = Duration::from_secs(3);

/// The time limits of outbound streams.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The time limit for opening a stream. It covers all attempts together, and the wait for the first check of an
    /// exit.
    pub dial: Duration,
    /// The time limit for one attempt through one exit.
    pub attempt: Duration,
    /// How long an open stream may be silent.
    pub idle: Idle,
}

/// The configured settings of outbound streams. A reload replaces all of them together.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The rules that decide which targets are allowed.
    pub rules: Rules,
    /// True if usernames may ask to connect from this machine's own address.
    pub allow_direct: bool,
    pub times: Times,
    /// The time limits for connections to public proxies.
    pub public: dial::public::Times,
    /// How many exits one request may try.
    pub max_attempts: NonZeroU32,
    /// The maximum number of hedging dials (a second dial while a first dial is slow), as a fraction of the number of
    /// all dials.
    pub hedge: f64,
    /// How long an exit is not used for a site after this site has refused the exit.
    pub ban_for: Duration,
}

/// The parts of an [`Outbound`]. `app` sets them.
pub struct Parts {
    /// The snapshot, the sessions and the pins.
    pub state: State,
    /// The keys and the limits of clients.
    pub limits: Limits,
    /// The Tor engines. `None` if Tor is switched off.
    pub tor: Option<Tor>,
    /// The settings at the start. [`Outbound::change`] replaces these settings.
    pub terms: Terms,
    /// Finds the time zone, locale and place of exits.
    pub identities: Identities,
    /// Makes reports about sites that refuse exits.
    pub refusals: RefusalReporter,
    /// A function that tests an exit immediately.
    pub verify: rotate::Verify,
    /// The value becomes true when the gateway stops taking new requests.
    pub stopping: watch::Receiver<bool>,
}

/// The implementation of [`Gate`] that the program uses. The tests have another implementation.
pub struct Outbound {
    parts: Parts,
    terms: ArcSwap<Terms>,
    hedges: HedgeBudget,
    meters: AllRouteMeters,
}

impl Outbound {
    pub fn new(parts: Parts) -> Self {
        let (terms, hedges) = (ArcSwap::from_pointee(parts.terms.clone()), HedgeBudget::new(parts.terms.hedge));
        Self { parts, terms, hedges, meters: AllRouteMeters::default() }
    }

    /// Replaces the settings. The new settings apply to streams that are opened from now on.
    pub fn change(&self, terms: Terms) {
        self.hedges.change(terms.hedge);
        self.terms.store(Arc::new(terms));
    }

    /// Returns how long an exit is not used for a site after this site has refused the exit.
    pub fn ban_for(&self) -> Duration {
        self.terms.load().ban_for
    }

    /// Returns true if clients need a key.
    pub fn needs_key(&self) -> bool {
        self.parts.limits.needs_key()
    }

    /// Returns the counts of the route with this label. Returns `None` if the route was never used. The label
    /// `implicit` stands for all routes without a name.
    pub fn figures(&self, label: &str) -> Option<Arc<RouteMeters>> {
        self.meters.get(label)
    }

    /// Drops the counts of routes that no longer exist, and measures the throughput of the other routes. Must be called
    /// every few seconds.
    pub fn tidy(&self) {
        let snapshot = self.parts.state.snapshot();
        let now = std::time::Instant::now();
        let used = |label: &str| label == IMPLICIT || snapshot.routes.get(label).is_some();
        self.meters.retain(used).iter().for_each(|meters| meters.figures().measure(now));
    }

    fn check_target(&self, target: &Target) -> Result<(), Refusal> {
        self.terms.load().rules.target(target).map_err(|why| {
            let denial = if why == Forbidden::Port { Denial::Port } else { Denial::Target };
            Refusal::because(Failure::Denied(denial), why.to_string())
        })
    }
}

impl Gate for Outbound {
    type Admitted = AdmittedClient;
    type Lease = Lease;

    fn admit(&self, caller: &Caller<'_>, password: Option<&[u8]>) -> Result<AdmittedClient, Refusal> {
        admission::admit(&self.parts, caller, password)
    }

    fn key_name(client: &AdmittedClient) -> Option<&Arc<str>> {
        client.key_name()
    }

    async fn open(
        &self,
        caller: &Caller<'_>,
        client: &AdmittedClient,
        request: OpenRequest<'_>,
    ) -> Result<Opened<Lease>, Refusal> {
        self.check_target(request.target)?;
        // The wish is boxed because it is large, and the box makes the future of every connection smaller.
        let to = Some((&request.target.host, Some(request.target.port)));
        let mut wish = Box::new(self.wish(caller, Some(client), to)?);
        let count = budget::begin_request(client)?;
        let dial = self.terms.load().times.dial;
        let by = Instant::now() + dial;
        let plain = caller.protocol == Protocol::Http;
        if is_onion(request.target) {
            budget::permit_onion(client)?;
            let attempt = Attempt { client, wish: &wish, request, by, plain };
            let opened = Box::pin(self.dial_onion(attempt)).await?;
            budget::count_served(client, &opened)?;
            count.keep();
            return Ok(opened);
        }
        self.order_sources(&mut wish, &request.target.host);
        // If the later source that should serve has nobody, the earlier ones serve soon.
        let early = Attempt { client, wish: &wish, request, by: Instant::now() + LATER_WAIT.min(dial / 2), plain };
        let ordered = if wish.order.is_some() { self.plan(&early).await.ok() } else { None };
        if ordered.is_none() {
            wish.order = None;
        }
        let attempt = Attempt { client, wish: &wish, request, by, plain };
        let mut plan = match ordered {
            Some(plan) => plan,
            None => self.plan(&attempt).await?,
        };
        // A new pin must be stored on disk before its first use. The future is boxed because this is rare, and the box
        // makes the future of every connection smaller.
        if !plan.events.is_empty() {
            Box::pin(self.parts.state.make_durable(std::mem::take(&mut plan.events))).await;
        }
        let opened = self.dial(attempt, plan).await?;
        budget::count_served(client, &opened)?;
        count.keep();
        Ok(opened)
    }

    fn reuse(
        &self,
        caller: &Caller<'_>,
        client: &AdmittedClient,
        target: &Target,
        opened: &Opened<Lease>,
    ) -> Result<bool, Refusal> {
        if !self.may_reuse(caller, client, target, &opened.lease)? {
            return Ok(false);
        }
        let count = budget::begin_request(client)?;
        budget::count_served(client, opened)?;
        count.keep();
        Ok(true)
    }

    async fn resolve(
        &self,
        caller: &Caller<'_>,
        client: &AdmittedClient,
        lookup: Lookup<'_>,
    ) -> Result<Resolved, Refusal> {
        let host = match lookup {
            Lookup::Address(host) => host.clone(),
            Lookup::Pointer(ip) => ip.into(),
        };
        let wish = self.wish(caller, Some(client), Some((&host, None)))?;
        let count = budget::begin_request(client)?;
        let by = Instant::now() + self.terms.load().times.dial;
        // A DNS look-up has no port, but the choice of an exit needs one. Nearly all exits allow port 443.
        let target = Target { host: Host::Name("exit.gate".into()), port: 443 };
        let request = OpenRequest { target: &target, avoid: &[], early: &[] };
        let attempt = Attempt { client, wish: &wish, request, by, plain: false };
        let mut plan = match self.decide_look_up(&attempt) {
            Ok(plan) => plan,
            Err(refusal) => self.wait_for_tests(&attempt, refusal, Self::decide_look_up).await?,
        };
        Self::check_sources(&attempt, &plan)?;
        self.parts.state.make_durable(std::mem::take(&mut plan.events)).await;
        let resolved = self.look_up(&attempt, &plan, lookup).await?;
        count.keep();
        Ok(resolved)
    }

    async fn builtin(
        &self,
        caller: &Caller<'_>,
        client: &AdmittedClient,
        builtin: BuiltinRequest<'_>,
    ) -> Result<String, Refusal> {
        let wish = self.wish(caller, Some(client), None)?;
        self.run_builtin(client, &wish, builtin).await
    }

    async fn report(
        &self,
        caller: &Caller<'_>,
        client: &AdmittedClient,
        target: &Target,
        report: &str,
        last: Option<&ExitId>,
    ) -> Result<(), Refusal> {
        let wish = self.wish(caller, Some(client), Some((&target.host, Some(target.port))))?;
        self.take_header(client, &wish, &target.host, report, last).await
    }

    fn identity(&self, lease: &Lease) -> Option<Identity> {
        self.parts.identities.of(lease.exit()?)
    }

    fn observe(&self, lease: &Lease, target: &Target, observation: Observation) {
        let Some(exit) = lease.exit() else { return };
        match observation {
            Observation::Status(status) => {
                if let Some(wish) = lease.wish() {
                    let outcome = if matches!(status, 403 | 429) { Outcome::Failed } else { Outcome::Served };
                    self.note_outcome(wish, &target.host, exit.id().source(), outcome);
                }
                self.parts.refusals.observe(&target.host, exit.id(), status, self.parts.state.now());
            }
            // A stream over Tor also breaks off if its guard, its circuit or its target fails. So this end of the
            // stream is no sign of a bad exit. A stream from an own address breaks off only if its target fails.
            Observation::Died if matches!(exit.id(), ExitId::Tor(_) | ExitId::Own(_)) => {}
            Observation::Died => {
                self.count_failure(exit);
                self.request_retest(exit, ExitFault::Died.into());
            }
        }
    }

    fn stopping(&self, _: &ListenerConfig) -> impl Future<Output = ()> + Send {
        let mut stopping = self.parts.stopping.clone();
        async move {
            // An error means that the sender was dropped because `app` has ended. The end of `app` counts as a stop
            // too.
            let _ = stopping.wait_for(|stop| *stop).await;
        }
    }
}

#[cfg(test)]
mod tests;
