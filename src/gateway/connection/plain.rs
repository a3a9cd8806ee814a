//! A plain request on its way: over which stream it is sent, how often, and what is kept of it.
//!
//! A stream to the target is kept for the next request of the same user to the same target, because over Tor a new one
//! costs a round trip through three relays. Only a request that may be sent twice is put on a kept stream: such a stream
//! may close under the request, and then nobody can tell whether the target has seen it.

use std::io::{self, Read};

use socket2::SockRef;

use super::Connection;
use super::http::After;
use crate::dial::Stream;
use crate::gateway::failure::{AnswerFault, Failure};
use crate::gateway::gate::{Ask, Gate, Observation, Opened, Protocol, Refusal};
use crate::gateway::http::auth::Credentials;
use crate::gateway::http::body::Body;
use crate::gateway::http::forward::{self, By, End, Exchange};
use crate::gateway::record::Outcome;
use crate::net::Target;

/// How often one request is sent. Arbitrary: an exit that dies under a request is rare, and two in a row are a target
/// that hangs up.
const ATTEMPTS: usize = 3;

/// A stream to a target, between two requests.
pub(super) struct Kept<L> {
    opened: Opened<L>,
    target: Target,
    credentials: Credentials,
}

impl<L> Kept<L> {
    fn serves(&self, exchange: &Exchange, target: &Target, credentials: &Credentials) -> bool {
        exchange.idempotent
            && exchange.body == Body::NONE
            && self.target == *target
            && self.credentials == *credentials
            && is_quiet(&self.opened.stream)
    }
}

/// Open, and with nothing to read: bytes that nobody asked for would be taken for the next answer.
fn is_quiet(stream: &Stream) -> bool {
    let read = (&*SockRef::from(stream)).read(&mut [0]);
    read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

impl<G: Gate> Connection<'_, G> {
    /// Forwards a request and its answer.
    pub(super) async fn forward(
        &mut self,
        target: Target,
        exchange: &Exchange,
        credentials: Credentials,
        kept: &mut Option<Kept<G::Lease>>,
    ) -> After<G::Lease> {
        let mut reused = kept.take().filter(|kept| kept.serves(exchange, &target, &credentials));
        let pass = match self.enter(Protocol::Http, &credentials, Some(&target)) {
            Ok(pass) => pass,
            Err(refusal) => return self.cannot(&refusal, exchange).await,
        };
        let caller = self.caller(Protocol::Http, credentials.username());
        let mut avoid = Vec::new();
        let mut attempt = 1;
        loop {
            let old = reused.take();
            let fresh = old.is_none();
            let mut opened = match old {
                Some(kept) => kept.opened,
                None => {
                    let ask = Ask { target: &target, avoid: &avoid, early: exchange.early() };
                    match self.open(&caller, &pass, ask).await {
                        Ok(opened) => opened,
                        Err(refusal) => return self.cannot(&refusal, exchange).await,
                    }
                }
            };
            let end = self.exchange(&mut opened, exchange, fresh).await;
            self.report_observation(&opened, &target, &end, fresh);
            match end {
                End::Died { again: true } | End::Unanswered if attempt < ATTEMPTS => {
                    attempt += 1;
                    avoid.extend(fresh.then_some(opened.facts.exit));
                }
                end => {
                    let ready = Kept { opened, target, credentials };
                    return self.ended(end, exchange, ready, kept).await;
                }
            }
        }
    }

    async fn exchange(&mut self, opened: &mut Opened<G::Lease>, exchange: &Exchange, fresh: bool) -> End {
        if !fresh {
            self.record.serves(&opened.facts);
        }
        let sent = fresh && opened.sent;
        let Self { stream, inbox, record, .. } = self;
        forward::exchange(stream, inbox, opened, exchange, sent, &record.flow()).await
    }

    /// Tells the gate what a tunnel would have hidden from it. A kept stream that has closed is nobody's fault.
    fn report_observation(&self, opened: &Opened<G::Lease>, target: &Target, end: &End, fresh: bool) {
        let observation = match end {
            End::Answered { status, .. } => Observation::Status(*status),
            End::Upgraded(_) => Observation::Status(101),
            End::Died { .. } if fresh => Observation::Died,
            // Silence is the exit's or the target's, and nobody can tell.
            End::Died { .. } | End::Unanswered | End::Failed { .. } => return,
        };
        self.context.gate.observe(&opened.lease, target, observation);
    }

    async fn ended(
        &mut self,
        end: End,
        exchange: &Exchange,
        mut ready: Kept<G::Lease>,
        kept: &mut Option<Kept<G::Lease>>,
    ) -> After<G::Lease> {
        let meters = ready.opened.facts.meters.clone();
        let refusal = |failure: Failure| Refusal { meters: Some(meters), ..failure.into() };
        match end {
            End::Answered { client_keeps, target_keeps, .. } => {
                self.record.settle(Outcome::Answered);
                *kept = (client_keeps && target_keeps && ready.opened.reuse).then_some(ready);
                if client_keeps { After::Next } else { After::Close }
            }
            End::Upgraded(first) => {
                ready.opened.first_down = first;
                After::Open(ready.opened)
            }
            End::Died { .. } => self.cannot(&refusal(Failure::Answer(AnswerFault::Incomplete)), exchange).await,
            End::Unanswered => self.cannot(&refusal(Failure::Answer(AnswerFault::Timeout)), exchange).await,
            End::Failed { failure, by: By::Answer } => self.cannot(&refusal(failure), exchange).await,
            End::Failed { failure, by } => {
                self.record.refused(&refusal(failure));
                if by == By::Reset { After::Reset } else { After::Close }
            }
        }
    }

    /// Says why not, and lives on if the request leaves nothing unread.
    async fn cannot(&mut self, refusal: &Refusal, exchange: &Exchange) -> After<G::Lease> {
        let keep = exchange.keep && exchange.body == Body::NONE;
        self.refuse(refusal, keep, exchange.asked.head).await
    }
}
