//! Dials the exits of one plan: the first exit, a second exit at the same time if the first is slow, and the next exit
//! if the dials fail.

mod blame;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use self::blame::{another_exit_may_help, counts_against_exit};
use super::super::failure::Failure;
use super::super::gate::{ExitFacts, Forwarder, OpenRequest, Opened, Refusal};
use super::admission::{AdmittedClient, Lease};
use super::hedge::Race;
use super::{Outbound, Wish};
use crate::dial::{self, DialError, EngineFault, ExitFault, Stream};
use crate::exit::load::{DialEffect, DialSpeed, InFlight};
use crate::exit::{Exit, ExitId, Fingerprint, Moment, Source};
use crate::route::choose::Plan;
use crate::route::escalation::{self, Outcome};
use crate::route::selector::Mode;
use crate::route::{self, Isolation, Moved};
use crate::tor::{BuildClass, Tor, Way};

/// A dial counts as late if it takes at least this many times as long as the time after which a second dial through
/// another exit may begin. The dial counts as late even if no second dial began. Not tuned.
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
    pub(super) fn isolation(&self) -> Isolation {
        self.wish.isolation(self.client.tenant(), &self.request.target.host)
    }
}

/// A stream through one exit. The stream is counted in that exit's load.
struct DialedExit {
    exit: Arc<Exit>,
    dialed: DialedStream,
    flight: InFlight,
    /// How long the exit and the target took. The wait for a circuit is not counted.
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
    /// How long the exit and the target took. `None` if only the time of the whole dial is
    /// known.
    pub(super) took: Option<Duration>,
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
        Self { stream, first: Vec::new(), forwarder: None, took: None }
    }
}

impl Outbound {
    /// Opens a stream before the deadline. The exits of the plan are tried first. The function dials at most as many
    /// exits as the request may still try.
    pub(super) async fn dial(&self, attempt: Attempt<'_>, plan: Plan) -> Result<Opened<Lease>, Refusal> {
        let most = self.terms.load().max_attempts.get() as usize;
        let left = most.saturating_sub(attempt.request.avoid.len()).max(1);
        self.dial_exits(attempt, plan, Vec::new(), left).await
    }

    /// Dials at most `left` exits. `failed` are the exits with which this request has already failed.
    pub(super) async fn dial_exits(
        &self,
        attempt: Attempt<'_>,
        mut plan: Plan,
        mut failed: Vec<ExitId>,
        mut left: usize,
    ) -> Result<Opened<Lease>, Refusal> {
        let (began, mut retried) = (self.parts.state.now(), false);
        loop {
            plan.exits.truncate(left);
            self.prefer_ready(&attempt, &mut plan);
            let Failed { error, exits } = match self.race(&attempt, &plan).await {
                Ok(dialed) => return Ok(self.opened(&attempt, &plan, dialed, failed, left - 1)),
                Err(failure) => failure,
            };
            left = left.saturating_sub(exits);
            if error == EngineFault::Account.into() && left > 0 {
                // Two exits were dialed side by side, perhaps of two sources. Only a provider refuses an account.
                let tried = plan.exits.iter().take(exits).map(|exit| exit.id().clone());
                let (refused, others): (Vec<_>, Vec<_>) =
                    tried.partition(|exit| matches!(exit.source(), Source::Upstream(_)));
                let failed = [failed.clone(), others].concat();
                if let Some(opened) = Box::pin(self.dial_other_sources(&attempt, &plan, refused, &failed, left)).await {
                    return opened;
                }
            }
            let again =
                left > 0 && another_exit_may_help(&error, keeps_exit(attempt.wish)) && Instant::now() < attempt.by;
            // If the exit of a session served another stream since this request came, then only the circuit of this
            // request was bad. The session stays, and the request tries the exit once more.
            let serves = plan.first().load().last_success().is_some_and(|at| at >= began);
            if again && !retried && serves && keeps_exit(attempt.wish) && error != ExitFault::Policy.into() {
                retried = true;
                continue;
            }
            // The future of `next_exit` is boxed because most dials succeed without it, and the box makes the future of
            // every dial smaller.
            if !again || !Box::pin(self.next_exit(&attempt, &mut plan, &mut failed, (error, exits))).await {
                let (host, source) = (&attempt.request.target.host, plan.first().id().source());
                self.note_failed_dial(attempt.wish, host, source, &error);
                let meters = Some(self.meters.of(attempt.wish.label()));
                let refusal = Refusal { meters, moved: told_move(&plan), ..Failure::from(error).into() };
                let retry_after = self.retry_after(&attempt, error).or(refusal.retry_after);
                return Err(Refusal { retry_after, ..refusal });
            }
        }
    }

    /// Removes the failed exits from the plan. If no exit is left in the plan and the route is not strict, a new plan
    /// without the failed exits is made. Returns false if there is no exit to try.
    async fn next_exit(
        &self,
        attempt: &Attempt<'_>,
        plan: &mut Plan,
        failed: &mut Vec<ExitId>,
        (error, exits): (DialError, usize),
    ) -> bool {
        let state = &self.parts.state;
        if error == ExitFault::Policy.into() && keeps_exit(attempt.wish) {
            return plan.skip().is_some(); // the exit works, so the session or pin stays
        }
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
        if Self::check_sources(&attempt, &next).is_err() {
            return false;
        }
        self.adopt(plan, &mut next).await;
        *plan = next;
        true
    }

    /// Dials the first exit of the plan. If the first dial takes longer than 95 % of the dials through the faster one
    /// of the first two exits, the second exit of the plan is dialed too, if the budget of second dials allows this.
    /// The faster dial is used.
    async fn race(&self, attempt: &Attempt<'_>, plan: &Plan) -> Result<DialedExit, Failed> {
        let first = plan.first();
        self.hedges.earn();
        let second = plan.exits.get(1).filter(|_| plan.hedge);
        let patience = second.and_then(|second| patience(first, second));
        let (Some(patience), Some(second)) = (patience, second) else {
            let dialed = self.through(first, attempt, &OnceLock::new()).await?;
            return Ok(self.succeeded(dialed, DialSpeed::Unknown));
        };
        // The future of two dials is boxed because it is large, and most dials need no second dial.
        Box::pin(self.side_by_side([first, second], attempt, patience)).await
    }

    async fn side_by_side(
        &self,
        [first, second]: [&Arc<Exit>; 2],
        attempt: &Attempt<'_>,
        patience: Duration,
    ) -> Result<DialedExit, Failed> {
        let (usable, usable_beside) = (OnceLock::new(), OnceLock::new());
        let dial = self.through(first, attempt, &usable);
        let beside = self.through(second, attempt, &usable_beside);
        let may_help = |error: &DialError| another_exit_may_help(error, keeps_exit(attempt.wish));
        match self.hedges.race(dial, beside, patience, may_help).await {
            Race::First(dialed) => {
                let speed = if dialed.took > patience * LATE { DialSpeed::Late } else { DialSpeed::Kept };
                Ok(self.succeeded(dialed, speed))
            }
            Race::SecondWasFaster(dialed) => {
                // An exit that still waited for its circuit was not slow: the wait was in our own queue.
                if let Some(since) = usable.get() {
                    self.log_effect(first, first.load().outrun(since.elapsed(), self.parts.state.now()));
                }
                Ok(self.succeeded(dialed, DialSpeed::Unknown))
            }
            Race::FirstFailed(dialed) => Ok(self.succeeded(dialed, DialSpeed::Unknown)),
            Race::Failed(error) => Err(error.into()),
            Race::BothFailed(error) => Err(Failed { error, exits: 2 }),
        }
    }

    /// Dials through one exit. A dial that failed through the fault of the exit is counted in the load of this exit.
    /// `usable` is set to the time from which the exit could be used: a Tor exit first needs a circuit.
    async fn through(
        &self,
        exit: &Arc<Exit>,
        attempt: &Attempt<'_>,
        usable: &OnceLock<Instant>,
    ) -> Result<DialedExit, DialError> {
        tracing::debug!(exit = %exit.id(), "dialing");
        let began = Instant::now();
        let flight = exit.load().begin();
        match self.open_through(exit, attempt, usable).await {
            Ok(dialed) => {
                let took = dialed.took.unwrap_or_else(|| began.elapsed());
                Ok(DialedExit { exit: exit.clone(), dialed, flight, took })
            }
            Err(error) => {
                if counts_against_exit(exit.id(), &error) {
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
        // A strict route continues to use its exit while the exit is ejected, because it has no other exit. If a trial
        // of the ejected exit (one dial that shows whether the exit works again) was due, this failed dial is the
        // trial. A check by the tester must follow a failed trial. Otherwise the exit might never be found down, and
        // its pins would never move.
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
        usable: &OnceLock<Instant>,
    ) -> Result<DialedStream, DialError> {
        let OpenRequest { target, early, .. } = attempt.request;
        let answer = self.terms.load().times.attempt;
        let by = attempt.by.min(Instant::now() + answer);
        if !matches!(exit.id(), ExitId::Tor(_)) {
            usable.get_or_init(Instant::now);
        }
        match exit.id() {
            ExitId::Direct | ExitId::Own(_) => {
                let terms = self.terms.load_full();
                let from = if let ExitId::Own(ip) = exit.id() { Some(*ip) } else { None };
                // The future is boxed because it makes the future of every other dial larger.
                Box::pin(dial::direct::dial(target, &terms.rules, from, by)).await.map(DialedStream::from)
            }
            ExitId::Tor(fingerprint) => {
                let options = dial::tor::Options {
                    ipv6: attempt.wish.policy.ipv6,
                    early,
                    answer: Some(answer),
                    // If no circuit to this exit is ready before this time, another exit is tried, which may have a
                    // circuit. For a session or a pin there is no such limit: it must keep its exit, so the request
                    // waits for a circuit.
                    circuit_by: (!keeps_exit(attempt.wish)).then_some(by + self.queue_wait(attempt, exit)),
                    leased: Some(usable),
                };
                let way = way(*fingerprint, attempt);
                // The future of the dial is boxed because it is large. A dial takes so long that the cost of the
                // allocation does not matter.
                let dial = Box::pin(dial::tor::dial(self.tor()?, way, target, options, attempt.by));
                dial.await.map(|(stream, facts)| DialedStream { took: Some(facts.timings.connect()), ..stream.into() })
            }
            ExitId::Public(id) => Box::pin(self.open_public(exit, id, attempt, by)).await,
            ExitId::Upstream(_) => Box::pin(self.open_upstream(exit, attempt, by)).await,
            ExitId::Onion => Err(DialError::Engine(EngineFault::NotReady)),
        }
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
        let DialedExit { exit, dialed: DialedStream { stream, first, forwarder, .. }, flight, .. } = dialed;
        let now = self.parts.state.now();
        route::choose::note_use(self.parts.state.memory(), wish, client.key(), &exit);
        let escalates = escalation::applies(wish);
        if escalates && !attempt.plain {
            self.note_outcome(wish, &request.target.host, exit.id().source(), Outcome::Served);
        }
        let learns = (escalates && attempt.plain).then(|| Box::new((*wish).clone()));
        let country = exit.country();
        let facts = ExitFacts {
            exit: exit.id().clone(),
            ip: exit.ip(),
            country: country.is_known().then(|| country.letters()),
            checked: exit.known().good.map(|at| now.since(at)),
            moved: told_move(plan),
            route: wish.scope.clone(),
            rule: wish.rule_text(),
            meters: self.meters.of(wish.label()),
        };
        Opened {
            stream,
            exit: facts,
            idle: self.terms.load().times.idle,
            rate: client.admission().rate(),
            spend: client.spend(exit.id().source()),
            first_down: first,
            forwarder,
            // Only a dial through Tor sends the early bytes.
            sent_early: !request.early.is_empty() && matches!(exit.id(), ExitId::Tor(_)),
            reuse: wish.selector.mode != Mode::Rotate,
            // If a stream through a proxy breaks off, the proxy is probably at fault. So a session or a pin may
            // then use another exit.
            keeps_exit: keeps_exit(wish) && matches!(exit.id(), ExitId::Tor(_) | ExitId::Own(_)),
            failed,
            attempts_left,
            lease: Lease::new(exit, flight, learns),
        }
    }
}

/// Returns how this plan moved the session, as the text `old->new` for HTTP answers. `None` if the plan did not move
/// the session. Logs the move as well, because a SOCKS answer has no field for such a text.
fn told_move(plan: &Plan) -> Option<Box<str>> {
    let Moved { from, to, cause } = plan.moved.as_ref()?;
    tracing::info!(%from, %to, cause = cause.as_str(), "a session moved to another exit");
    Some(format!("{from}->{to}").into())
}

/// Returns how long the first dial may take before a second dial begins: the time within which 95 % of the dials
/// through the faster one of the two exits succeed. The times of the first exit alone are not enough, because for an
/// exit that is always slow this time would be too long.
fn patience(first: &Exit, second: &Exit) -> Option<Duration> {
    let (first, second) = (first.load().p95(), second.load().p95()?);
    Some(first.map_or(second, |first| first.min(second)))
}

/// Returns true if the exit of the request must stay the same unless it fails: the exit of a session or a pin.
pub(super) fn keeps_exit(wish: &Wish) -> bool {
    wish.selector.session.is_some() || wish.selector.mode == Mode::Strict
}

pub(super) fn way(exit: Fingerprint, attempt: &Attempt<'_>) -> Way {
    let (isolation, wish) = (attempt.isolation(), attempt.wish);
    Way { exit, hops: wish.policy.hops, isolation, class: BuildClass::Live, own: wish.own_engine() }
}

#[cfg(test)]
mod tests;
