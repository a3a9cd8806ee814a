//! Dials one plan: the first exit, the next one when it fails, or one beside it when it is slow.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::failure::{Failure, NoExit};
use super::super::gate::{self, Facts, Forwarder, Lookup, Opened, Refusal, Resolved};
use super::hedge::Raced;
use super::pass::{Lease, Pass};
use super::{Outbound, Wish};
use crate::dial::{self, DialError, EngineFault, ExitFault, Stream};
use crate::exit::load::{DialEffect, DialSpeed, InFlight};
use crate::exit::{Exit, ExitId, Fingerprint};
use crate::net::{Host, Target};
use crate::route::choose::Plan;
use crate::route::selector::Mode;
use crate::route::{Ask, Isolation};
use crate::tor::{Tor, Way};

/// An exit whose dial takes so many times as long as one was ready to wait is late even if no other dial was made. Arbitrary.
const LATE: u32 = 2;

/// One dial's circumstances: what was asked, by whom, and until when there is time.
pub(super) struct Attempt<'a> {
    pub(super) pass: &'a Pass,
    pub(super) wish: &'a Wish,
    pub(super) ask: gate::Ask<'a>,
    pub(super) by: Instant,
    /// It is one request of plain HTTP, and no tunnel.
    pub(super) plain: bool,
}

/// A stream through one exit, with its place in that exit's load.
struct Won {
    exit: Arc<Exit>,
    opening: Opening,
    flight: InFlight,
    took: Duration,
}

/// A stream, and what came with it.
pub(super) struct Opening {
    pub(super) stream: Stream,
    /// The target's first bytes, if they came with the end of the dial.
    pub(super) first: Vec<u8>,
    /// It ends at a proxy that forwards.
    pub(super) forwarder: Option<Box<Forwarder>>,
}

impl From<Stream> for Opening {
    fn from(stream: Stream) -> Self {
        Self { stream, first: Vec::new(), forwarder: None }
    }
}

impl Outbound {
    /// Opens a stream by the plan, within the deadline.
    pub(super) async fn dial(&self, attempt: Attempt<'_>, mut plan: Plan) -> Result<Opened<Lease>, Refusal> {
        let state = &self.parts.state;
        loop {
            let by = attempt.by.min(Instant::now() + self.terms.load().times.attempt);
            let error = match self.race(&attempt, &plan, by).await {
                Ok(won) => return Ok(self.opened(&attempt, &plan, won)),
                Err(error) => error,
            };
            let Attempt { pass, wish, ask: gate::Ask { target, avoid, .. }, plain, .. } = attempt;
            let ask = Ask { wish, key: pass.key(), target, now: state.now(), avoid, plain };
            let again = is_the_exits(&error) && Instant::now() < attempt.by;
            if !again || plan.fail_over(state.load().view(), state.memory(), &ask).is_none() {
                return Err(Refusal { meters: Some(self.meters.of(wish.label())), ..Failure::from(error).into() });
            }
        }
    }

    /// The first exit of the plan; beside it the second, when the first takes longer than one dial in twenty of either
    /// does, and the budget allows.
    async fn race(&self, attempt: &Attempt<'_>, plan: &Plan, by: Instant) -> Result<Won, DialError> {
        let first = plan.first();
        self.hedges.earn();
        let second = plan.exits.get(1).filter(|_| plan.hedge);
        let patience = second.and_then(|second| patience(first, second));
        let (Some(patience), Some(second)) = (patience, second) else {
            let won = self.through(first, attempt, plan.isolation, by).await?;
            return Ok(self.finished(won, DialSpeed::Unknown));
        };
        // Boxed: two dials at once are large, and most exits have no tail to be slower than.
        Box::pin(self.side_by_side([first, second], attempt, plan.isolation, by, patience)).await
    }

    async fn side_by_side(
        &self,
        [first, second]: [&Arc<Exit>; 2],
        attempt: &Attempt<'_>,
        isolation: Isolation,
        by: Instant,
        patience: Duration,
    ) -> Result<Won, DialError> {
        let began = Instant::now();
        let dial = self.through(first, attempt, isolation, by);
        let beside = self.through(second, attempt, isolation, by);
        match self.hedges.race(dial, beside, patience, is_the_exits).await {
            Raced::First(won) => {
                let speed = if won.took > patience * LATE { DialSpeed::Late } else { DialSpeed::Kept };
                Ok(self.finished(won, speed))
            }
            Raced::Outrun(won) => {
                self.turned(first, first.load().outrun(began.elapsed(), self.parts.state.now()));
                Ok(self.finished(won, DialSpeed::Unknown))
            }
            Raced::Beside(won) => Ok(self.finished(won, DialSpeed::Unknown)),
            Raced::Failed(error) => Err(error),
        }
    }

    /// One exit: opens, and tells its load where that failed.
    async fn through(
        &self,
        exit: &Arc<Exit>,
        attempt: &Attempt<'_>,
        isolation: Isolation,
        by: Instant,
    ) -> Result<Won, DialError> {
        let began = Instant::now();
        let flight = exit.load().begin();
        match self.open_through(exit, attempt, isolation, by).await {
            Ok(opening) => Ok(Won { exit: exit.clone(), opening, flight, took: began.elapsed() }),
            Err(error) => {
                if is_the_exits(&error) && error != DialError::Exit(ExitFault::Unclear) {
                    self.blame(exit);
                } else if let DialError::Target(_) = error {
                    self.turned(exit, exit.load().answered(self.parts.state.now()));
                }
                self.doubt(exit, error);
                tracing::debug!(exit = %exit.id(), %error, "a dial failed");
                Err(error)
            }
        }
    }

    /// Tells the exit's load how long it took.
    fn finished(&self, won: Won, speed: DialSpeed) -> Won {
        self.turned(&won.exit, won.exit.load().succeeded(won.took, speed, self.parts.state.now()));
        won
    }

    /// An exit that is out for being slow needs no test: it works, and its trial will tell when it is quick again.
    fn turned(&self, exit: &Exit, turn: DialEffect) {
        match turn {
            DialEffect::Same => {}
            DialEffect::Back => tracing::debug!(exit = %exit.id(), "an ejected exit is back"),
            DialEffect::Out(_) => {
                tracing::debug!(exit = %exit.id(), "an exit is slower than the others, and is out for a while")
            }
        }
    }

    /// An exit failed by its own fault. When it does so in a row it is out for a while, and the tester looks at it at once:
    /// a verdict takes it out of every pool, or brings it back sooner.
    pub(super) fn blame(&self, exit: &Exit) {
        let (load, now) = (exit.load(), self.parts.state.now());
        // Strict routes go on asking an exit that is out, for they have no other. When its trial is due, this was it: else
        // nobody would look at the exit again, and its pins would wait for a verdict for ever.
        if load.failed(now).is_some() || (load.claim_trial(now) && load.failed(now).is_some()) {
            self.parts.state.request_check(exit.id().clone());
        }
    }

    /// Every way out keeps the deadline itself, because only it can say who let it pass.
    async fn open_through(
        &self,
        exit: &Exit,
        attempt: &Attempt<'_>,
        isolation: Isolation,
        by: Instant,
    ) -> Result<Opening, DialError> {
        let gate::Ask { target, early, .. } = attempt.ask;
        match exit.id() {
            ExitId::Direct => {
                let terms = self.terms.load_full();
                dial::direct::dial(target, &terms.rules, by).await.map(Opening::from)
            }
            ExitId::Tor(fingerprint) => {
                let options = dial::tor::Options { ipv6: attempt.wish.policy.ipv6, early };
                let way = way(*fingerprint, attempt.wish, isolation);
                // Boxed: three conversations are large, and take so long that an allocation does not count.
                let dial = Box::pin(dial::tor::dial(self.tor()?, way, target, options, by));
                dial.await.map(|(stream, _)| stream.into())
            }
            ExitId::Public(id) => Box::pin(self.open_public(exit, id, attempt, isolation, by)).await,
            ExitId::Onion => Err(DialError::Engine(EngineFault::NotReady)),
        }
    }

    /// An onion service: no exit has a part in it, and the choice of circuits is tor's own.
    pub(super) async fn dial_onion(&self, attempt: Attempt<'_>) -> Result<Opened<Lease>, Refusal> {
        let Attempt { pass, wish, ask: gate::Ask { target, early, .. }, by, .. } = attempt;
        let meters = self.meters.of(wish.label());
        let dialed = match self.tor() {
            Ok(tor) => {
                let who = dial::tor::Caller { isolation: wish.isolation(pass.key()), own: wish.own_engine() };
                dial::tor::onion(tor, who, target, early, by).await
            }
            Err(error) => Err(error),
        };
        let (stream, _) =
            dialed.map_err(|error| Refusal { meters: Some(meters.clone()), ..Refusal::from(Failure::from(error)) })?;
        let facts = Facts {
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
            facts,
            idle: self.terms.load().times.idle,
            rate: pass.admission().rate(),
            first_down: Vec::new(),
            sent: !early.is_empty(),
            forwarder: None,
            reuse: true,
            lease: Lease::without_exit(),
        })
    }

    pub(super) fn tor(&self) -> Result<&Tor, DialError> {
        self.parts.tor.as_ref().ok_or(DialError::Engine(EngineFault::NotReady))
    }

    fn opened(&self, attempt: &Attempt<'_>, plan: &Plan, won: Won) -> Opened<Lease> {
        let Attempt { pass, wish, ask, .. } = attempt;
        let Won { exit, opening: Opening { stream, first, forwarder }, flight, .. } = won;
        let now = self.parts.state.now();
        let country = exit.country();
        let facts = Facts {
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
            facts,
            idle: self.terms.load().times.idle,
            rate: pass.admission().rate(),
            first_down: first,
            forwarder,
            // Only a dial through Tor takes early bytes along.
            sent: !ask.early.is_empty() && matches!(exit.id(), ExitId::Tor(_)),
            reuse: wish.selector.mode != Mode::Rotate,
            lease: Lease::new(exit, flight),
        }
    }

    /// Asks the resolver of the plan's first exit.
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
        let way = way(*fingerprint, attempt.wish, plan.isolation);
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

/// How long a dial may take before another is tried: as long as nineteen in twenty take, of the quicker exit. By its own
/// measure alone, an exit that is always slow would never be late.
fn patience(first: &Exit, second: &Exit) -> Option<Duration> {
    let (mine, theirs) = (first.load().p95(), second.load().p95()?);
    Some(mine.map_or(theirs, |mine| mine.min(theirs)))
}

/// Another exit may do better.
fn is_the_exits(error: &DialError) -> bool {
    matches!(error, DialError::Exit(_) | DialError::Deadline)
}

fn way(exit: Fingerprint, wish: &Wish, isolation: Isolation) -> Way {
    Way { exit, hops: wish.policy.hops, isolation, own: wish.own_engine() }
}

/// True of a name that lives inside the Tor network.
pub(super) fn is_onion(target: &Target) -> bool {
    match &target.host {
        Host::Name(name) => name.ends_with(".onion"),
        Host::Ip(_) => false,
    }
}
