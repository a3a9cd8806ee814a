//! Dials the exits of one plan: the first exit, a second exit at the same time if the first is slow, and the next exit
//! if the dials fail.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::failure::{Failure, NoExit};
use super::super::gate::{ExitFacts, Forwarder, Lookup, OpenRequest, Opened, Refusal, Resolved};
use super::admission::{AdmittedClient, Lease};
use super::hedge::Race;
use super::{Outbound, Wish};
use crate::dial::{self, DialError, EngineFault, ExitFault, Stream};
use crate::exit::load::{DialEffect, DialSpeed, InFlight};
use crate::exit::{Exit, ExitId, Fingerprint, Moment};
use crate::net::{Host, Target};
use crate::route::choose::Plan;
use crate::route::selector::Mode;
use crate::route::{self, Isolation};
use crate::tor::path::{IpVersion, Port};
use crate::tor::{BuildClass, Tor, Way};

/// A dial counts as late if its duration is this many times the hedging delay (the time after which a second dial may
/// begin). This also holds if there was no second dial. Not tuned.
const LATE: u32 = 2;

/// One client request that needs a stream.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) client: &'a AdmittedClient,
    pub(super) wish: &'a Wish,
    pub(super) request: OpenRequest<'a>,
    /// The time before which the stream must be open.
    pub(super) by: Instant,
    /// True if the request is one plain HTTP request, false if it is a tunnel.
    pub(super) plain: bool,
}

impl Attempt<'_> {
    /// Returns the arguments with which `route` chooses exits for this request.
    pub(super) fn question(&self, now: Moment) -> route::Ask<'_> {
        let OpenRequest { target, avoid, .. } = self.request;
        route::Ask { wish: self.wish, key: self.client.key(), target, now, avoid, plain: self.plain }
    }

    /// Returns which other streams may share a circuit with the stream of this request.
    fn isolation(&self) -> Isolation {
        self.wish.isolation(self.client.tenant(), &self.request.target.host)
    }
}

/// A stream through one exit. The stream is counted in that exit's load.
struct DialedExit {
    exit: Arc<Exit>,
    dialed: DialedStream,
    flight: InFlight,
    took: Duration,
}

/// A stream to the target that a dial has opened.
pub(super) struct DialedStream {
    pub(super) stream: Stream,
    /// Bytes that the target sent so early that they were read during the dial. Usually empty.
    pub(super) first: Vec<u8>,
    /// The changes that a request needs because the stream ends at a proxy that forwards plain HTTP. `None` for a
    /// tunnel.
    pub(super) forwarder: Option<Box<Forwarder>>,
}

/// Why no exit opened a stream, and how many exits were dialed. Two exits were dialed if there was a hedging dial.
struct Failed {
    error: DialError,
    exits: usize,
}

impl From<DialError> for Failed {
    fn from(error: DialError) -> Self {
        Self { error, exits: 1 }
    }
}

impl From<Stream> for DialedStream {
    fn from(stream: Stream) -> Self {
        Self { stream, first: Vec::new(), forwarder: None }
    }
}

impl Outbound {
    /// Opens a stream before the deadline. The exits of the plan are tried first. The function dials at most as many
    /// exits as the request may still try.
    pub(super) async fn dial(&self, attempt: Attempt<'_>, mut plan: Plan) -> Result<Opened<Lease>, Refusal> {
        let most = self.terms.load().max_attempts.get() as usize;
        let mut left = most.saturating_sub(attempt.request.avoid.len()).max(1);
        let mut failed = Vec::new();
        loop {
            plan.exits.truncate(left);
            let by =
                attempt.by.min(Instant::now() + self.queue_wait(&attempt, &plan) + self.terms.load().times.attempt);
            let Failed { error, exits } = match self.race(&attempt, &plan, by).await {
                Ok(dialed) => return Ok(self.opened(&attempt, &plan, dialed, failed, left - 1)),
                Err(failure) => failure,
            };
            left = left.saturating_sub(exits);
            let again = left > 0 && another_exit_may_help(&error) && Instant::now() < attempt.by;
            // The future of `next_exit` is boxed because most dials succeed without it, and the box makes the future of
            // every dial smaller.
            if !again || !Box::pin(self.next_exit(&attempt, &mut plan, &mut failed, exits)).await {
                let meters = Some(self.meters.of(attempt.wish.label()));
                return Err(Refusal {
                    meters,
                    retry_after: self.retry_after(&attempt, error),
                    ..Failure::from(error).into()
                });
            }
        }
    }

    /// Returns how long the dial of the plan's first exit waits until the build of its circuit can begin. This is the
    /// gateway's own queue, so it does not count as time of the attempt.
    fn queue_wait(&self, attempt: &Attempt<'_>, plan: &Plan) -> Duration {
        let (ExitId::Tor(relay), Ok(tor)) = (plan.first().id(), self.tor()) else { return Duration::ZERO };
        let port = Port { number: attempt.request.target.port, over: IpVersion::V4 };
        tor.queue_wait(&way(*relay, attempt.wish, attempt.isolation()), Some(port))
    }

    /// Returns when a client should try again that was refused because too many circuits are wanted.
    fn retry_after(&self, attempt: &Attempt<'_>, error: DialError) -> Option<Duration> {
        let busy = error == DialError::Engine(EngineFault::Busy);
        self.tor().ok().filter(|_| busy).map(|tor| tor.retry_after(attempt.wish.own_engine()))
    }

    /// Removes the failed exits from the plan. If no exit is left in the plan and the route is not strict, a new plan
    /// without the failed exits is made. Returns false if there is no exit to try.
    async fn next_exit(&self, attempt: &Attempt<'_>, plan: &mut Plan, failed: &mut Vec<ExitId>, exits: usize) -> bool {
        let state = &self.parts.state;
        for _ in 0..exits {
            failed.push(plan.first().id().clone());
            if plan.fail_over(state.load().view(), state.memory(), &attempt.question(state.now())).is_none() {
                return attempt.wish.selector.mode != Mode::Strict && self.choose_again(attempt, plan, failed).await;
            }
        }
        true
    }

    async fn choose_again(&self, attempt: &Attempt<'_>, plan: &mut Plan, failed: &[ExitId]) -> bool {
        let avoid = [attempt.request.avoid, failed].concat();
        let attempt = Attempt { request: OpenRequest { avoid: &avoid, ..attempt.request }, ..*attempt };
        let Ok(mut next) = self.decide(&attempt) else { return false };
        if !next.events.is_empty() {
            Box::pin(self.parts.state.make_durable(std::mem::take(&mut next.events))).await;
        }
        // The first plan may have moved the session. The exit before that move is the exit that the client used last.
        if let (Some(before), Some(moved)) = (plan.moved.take(), &mut next.moved) {
            moved.from = before.from;
        }
        next.moved = next.moved.filter(|moved| moved.from != moved.to);
        *plan = next;
        true
    }

    /// Dials the first exit of the plan. A second exit is dialed at the same time if the first dial is slow: if it
    /// takes longer than 19 of 20 dials through either exit. The budget of second dials must allow the second dial.
    async fn race(&self, attempt: &Attempt<'_>, plan: &Plan, by: Instant) -> Result<DialedExit, Failed> {
        let first = plan.first();
        self.hedges.earn();
        let second = plan.exits.get(1).filter(|_| plan.hedge);
        let patience = second.and_then(|second| patience(first, second));
        let (Some(patience), Some(second)) = (patience, second) else {
            let dialed = self.through(first, attempt, attempt.isolation(), by).await?;
            return Ok(self.succeeded(dialed, DialSpeed::Unknown));
        };
        // The future of two dials is boxed because it is large, and most dials need no second dial.
        Box::pin(self.side_by_side([first, second], attempt, attempt.isolation(), by, patience)).await
    }

    async fn side_by_side(
        &self,
        [first, second]: [&Arc<Exit>; 2],
        attempt: &Attempt<'_>,
        isolation: Isolation,
        by: Instant,
        patience: Duration,
    ) -> Result<DialedExit, Failed> {
        let began = Instant::now();
        let dial = self.through(first, attempt, isolation, by);
        let beside = self.through(second, attempt, isolation, by);
        match self.hedges.race(dial, beside, patience, another_exit_may_help).await {
            Race::First(dialed) => {
                let speed = if dialed.took > patience * LATE { DialSpeed::Late } else { DialSpeed::Kept };
                Ok(self.succeeded(dialed, speed))
            }
            Race::SecondWasFaster(dialed) => {
                self.log_effect(first, first.load().outrun(began.elapsed(), self.parts.state.now()));
                Ok(self.succeeded(dialed, DialSpeed::Unknown))
            }
            Race::FirstFailed(dialed) => Ok(self.succeeded(dialed, DialSpeed::Unknown)),
            Race::Failed(error) => Err(error.into()),
            Race::BothFailed(error) => Err(Failed { error, exits: 2 }),
        }
    }

    /// Dials through one exit. A failed dial is counted in the load of this exit.
    async fn through(
        &self,
        exit: &Arc<Exit>,
        attempt: &Attempt<'_>,
        isolation: Isolation,
        by: Instant,
    ) -> Result<DialedExit, DialError> {
        tracing::debug!(exit = %exit.id(), "dialing");
        let began = Instant::now();
        let flight = exit.load().begin();
        match self.open_through(exit, attempt, isolation, by).await {
            Ok(dialed) => Ok(DialedExit { exit: exit.clone(), dialed, flight, took: began.elapsed() }),
            Err(error) => {
                if another_exit_may_help(&error) && error != DialError::Exit(ExitFault::Unclear) {
                    self.count_failure(exit);
                } else if let DialError::Target(_) = error {
                    self.log_effect(exit, exit.load().answered(self.parts.state.now()));
                }
                self.request_retest(exit, error);
                tracing::debug!(exit = %exit.id(), %error, "a dial failed");
                Err(error)
            }
        }
    }

    /// Counts a successful dial and its duration in the exit's load.
    fn succeeded(&self, dialed: DialedExit, speed: DialSpeed) -> DialedExit {
        let effect = dialed.exit.load().succeeded(dialed.took, speed, self.parts.state.now());
        self.log_effect(&dialed.exit, effect);
        tracing::debug!(exit = %dialed.exit.id(), ms = dialed.took.as_millis() as u64, "a stream is open");
        dialed
    }

    /// Logs that an exit was ejected or is in use again. An exit that was ejected because it is slow needs no test,
    /// because it still works. The next trial dial through this exit shows whether the exit is fast again.
    fn log_effect(&self, exit: &Exit, effect: DialEffect) {
        match effect {
            DialEffect::Same => {}
            DialEffect::Back => tracing::debug!(exit = %exit.id(), "an ejected exit is in use again"),
            DialEffect::Out(_) => {
                tracing::debug!(exit = %exit.id(), "an exit is slower than the others and is ejected for a while")
            }
        }
    }

    /// Counts a fault of the exit itself. After several faults in a row the exit is ejected for a while and is tested
    /// immediately. The result of the test removes the exit from every pool, or ends the ejection early.
    pub(super) fn count_failure(&self, exit: &Exit) {
        let (load, now) = (exit.load(), self.parts.state.now());
        // Strict routes continue to use an ejected exit, because they have no other exit. If a trial dial was due for
        // the exit, this dial counts as the trial. A test must follow a failed trial. Without a test, the pins of the
        // exit would wait for a test result for ever.
        if load.failed(now).is_some() || (load.claim_trial(now) && load.failed(now).is_some()) {
            self.parts.state.request_check(exit.id().clone());
        }
    }

    /// Opens a stream through one exit. Each kind of dial watches the deadline itself, because only the dial knows who
    /// is at fault for a timeout.
    async fn open_through(
        &self,
        exit: &Exit,
        attempt: &Attempt<'_>,
        isolation: Isolation,
        by: Instant,
    ) -> Result<DialedStream, DialError> {
        let OpenRequest { target, early, .. } = attempt.request;
        match exit.id() {
            ExitId::Direct => {
                let terms = self.terms.load_full();
                dial::direct::dial(target, &terms.rules, by).await.map(DialedStream::from)
            }
            ExitId::Tor(fingerprint) => {
                let options = dial::tor::Options { ipv6: attempt.wish.policy.ipv6, early };
                let way = way(*fingerprint, attempt.wish, isolation);
                // The future is boxed because it is large. Compared with the duration of a dial, the cost of an
                // allocation is negligible.
                let dial = Box::pin(dial::tor::dial(self.tor()?, way, target, options, by));
                dial.await.map(|(stream, _)| stream.into())
            }
            ExitId::Public(id) => Box::pin(self.open_public(exit, id, attempt, isolation, by)).await,
            ExitId::Onion => Err(DialError::Engine(EngineFault::NotReady)),
        }
    }

    /// Opens a stream to an onion service. The stream uses no exit, because tor chooses all relays of the circuits.
    pub(super) async fn dial_onion(&self, attempt: Attempt<'_>) -> Result<Opened<Lease>, Refusal> {
        let Attempt { client, wish, request: OpenRequest { target, early, .. }, by, .. } = attempt;
        let meters = self.meters.of(wish.label());
        let dialed = match self.tor() {
            Ok(tor) => {
                let caller = dial::tor::Caller { isolation: attempt.isolation(), own: wish.own_engine() };
                dial::tor::onion(tor, caller, target, early, by).await
            }
            Err(error) => Err(error),
        };
        let (stream, _) =
            dialed.map_err(|error| Refusal { meters: Some(meters.clone()), ..Refusal::from(Failure::from(error)) })?;
        let exit = ExitFacts {
            exit: ExitId::Onion,
            ip: None,
            country: None,
            checked: None,
            moved: None,
            route: wish.scope.clone(),
            meters,
        };
        Ok(Opened {
            stream,
            exit,
            idle: self.terms.load().times.idle,
            rate: client.admission().rate(),
            first_down: Vec::new(),
            sent_early: !early.is_empty(),
            forwarder: None,
            reuse: true,
            failed: Vec::new(),
            attempts_left: 0,
            lease: Lease::without_exit(),
        })
    }

    pub(super) fn tor(&self) -> Result<&Tor, DialError> {
        self.parts.tor.as_ref().ok_or(DialError::Engine(EngineFault::NotReady))
    }

    fn opened(
        &self,
        attempt: &Attempt<'_>,
        plan: &Plan,
        dialed: DialedExit,
        failed: Vec<ExitId>,
        attempts_left: usize,
    ) -> Opened<Lease> {
        let Attempt { client, wish, request, .. } = attempt;
        let DialedExit { exit, dialed: DialedStream { stream, first, forwarder }, flight, .. } = dialed;
        let now = self.parts.state.now();
        let country = exit.country();
        let facts = ExitFacts {
            exit: exit.id().clone(),
            ip: exit.ip(),
            country: country.is_known().then(|| country.letters()),
            checked: exit.known().good.map(|at| now.since(at)),
            moved: plan.moved.as_ref().map(|moved| format!("{}->{}", moved.from, moved.to).into()),
            route: wish.scope.clone(),
            meters: self.meters.of(wish.label()),
        };
        Opened {
            stream,
            exit: facts,
            idle: self.terms.load().times.idle,
            rate: client.admission().rate(),
            first_down: first,
            forwarder,
            // Only a dial through Tor sends the early bytes.
            sent_early: !request.early.is_empty() && matches!(exit.id(), ExitId::Tor(_)),
            reuse: wish.selector.mode != Mode::Rotate,
            failed,
            attempts_left,
            lease: Lease::new(exit, flight),
        }
    }

    /// Looks up a name or an address with the DNS resolver of the plan's first exit.
    pub(super) async fn look_up(
        &self,
        attempt: &Attempt<'_>,
        plan: &Plan,
        lookup: Lookup<'_>,
    ) -> Result<Resolved, Refusal> {
        let ExitId::Tor(fingerprint) = plan.first().id() else {
            return Err(Refusal::because(
                Failure::NoExit(NoExit::NoneMatch),
                "only exits of Tor answer RESOLVE; let the proxy resolve names (socks5h)",
            ));
        };
        let way = way(*fingerprint, attempt.wish, attempt.isolation());
        let tor = self.tor().map_err(Failure::from)?;
        let answer = match lookup {
            Lookup::Address(host) => dial::tor::resolve(tor, way, host, attempt.by).await.map(Resolved::Address),
            Lookup::Pointer(ip) => self.pointer(tor, way, ip, attempt.by).await,
        };
        answer.map_err(|error| Failure::from(error).into())
    }

    async fn pointer(&self, tor: &Tor, way: Way, ip: IpAddr, by: Instant) -> Result<Resolved, DialError> {
        Ok(match dial::tor::resolve_ptr(tor, way, ip, by).await? {
            Host::Name(name) => Resolved::Name(name),
            Host::Ip(ip) => Resolved::Address(ip),
        })
    }
}

/// Returns how long the first dial may take before a second dial begins. This is the time within which 19 of 20 dials
/// through the faster of the two exits succeed. The times of the first exit alone are not enough: if an exit is always
/// slow, a dial through this exit would never count as late.
fn patience(first: &Exit, second: &Exit) -> Option<Duration> {
    let (first, second) = (first.load().p95(), second.load().p95()?);
    Some(first.map_or(second, |first| first.min(second)))
}

fn another_exit_may_help(error: &DialError) -> bool {
    matches!(error, DialError::Exit(_) | DialError::Deadline)
}

fn way(exit: Fingerprint, wish: &Wish, isolation: Isolation) -> Way {
    Way { exit, hops: wish.policy.hops, isolation, class: BuildClass::Live, own: wish.own_engine() }
}

/// Returns true if the target's name exists only inside the Tor network.
pub(super) fn is_onion(target: &Target) -> bool {
    match &target.host {
        Host::Name(name) => name.ends_with(".onion"),
        Host::Ip(_) => false,
    }
}

#[cfg(test)]
mod tests;
