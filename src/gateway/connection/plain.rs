//! Forwards a plain HTTP request: chooses the stream, sends the request again if that can help, and keeps the stream
//! for the next request.
//!
//! A stream to a target is kept for the next request of the same user to the same target, because a new stream over Tor
//! costs a round trip through three relays. A kept stream is used only for a request that is safe to send twice. The
//! reason: the target may close a kept stream while the request is being sent. The gateway then does not know whether
//! the target has received the request.

use std::io::{self, Read};

use socket2::SockRef;

use super::Connection;
use super::plan::AfterRequest;
use crate::dial::Stream;
use crate::gateway::failure::{AnswerFault, Failure};
use crate::gateway::gate::{Gate, Observation, OpenRequest, Opened, Refusal};
use crate::gateway::http::answer;
use crate::gateway::http::auth::Credentials;
use crate::gateway::http::body::Body;
use crate::gateway::http::forward::{self, Exchange, ExchangeEnd, Notice};
use crate::gateway::protocol::Protocol;
use crate::gateway::record::Outcome;
use crate::net::Target;

/// The maximum number of times that one request is sent, even if more exits may be tried. If a target closes the
/// connection twice without an answer, the target most likely does the same through every exit. Not tuned.
const MAX_SENDS: usize = 3;

/// An open stream to a target that is kept for the next request of the same client.
pub(super) struct KeptStream<L> {
    opened: Opened<L>,
    target: Target,
    credentials: Credentials,
}

impl<L> KeptStream<L> {
    fn can_serve(&self, exchange: &Exchange, target: &Target, credentials: &Credentials) -> bool {
        exchange.idempotent
            && exchange.body == Body::NONE
            && self.target == *target
            && self.credentials == *credentials
            && is_open_and_silent(&self.opened.stream)
    }
}

/// Returns true if the stream is open and the target has sent no bytes that are still unread. Such bytes would be read
/// as the answer to the next request.
fn is_open_and_silent(stream: &Stream) -> bool {
    let read = (&*SockRef::from(stream)).read(&mut [0]);
    read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

impl<G: Gate> Connection<'_, G> {
    /// Sends a request to its target, and sends the target's answer to the client.
    pub(super) async fn forward(
        &mut self,
        target: Target,
        exchange: &Exchange,
        credentials: Credentials,
        kept: &mut Option<KeptStream<G::Lease>>,
    ) -> AfterRequest<G> {
        let mut reused = kept.take().filter(|kept| kept.can_serve(exchange, &target, &credentials));
        let admitted = match self.enter(Protocol::Http, &credentials, Some(&target)) {
            Ok(admitted) => admitted,
            Err(refusal) => return self.refuse_exchange(&refusal, exchange).await,
        };
        let caller = self.caller(Protocol::Http, credentials.username());
        if let Some(report) = &exchange.report {
            // The future is boxed because reports are rare, and the box makes the future of every connection smaller.
            let taken = Box::pin(self.context.gate.report(&caller, &admitted, &target, report, self.record.exit()));
            if let Err(refusal) = taken.await {
                return self.refuse_exchange(&refusal, exchange).await;
            }
        }
        let mut avoid = Vec::new();
        let mut sends = 1;
        loop {
            let old = match reused.take() {
                Some(kept) => match self.context.gate.reuse(&caller, &admitted, &target, &kept.opened) {
                    Ok(may_serve) => Some(kept.opened).filter(|_| may_serve),
                    Err(refusal) => return self.refuse_exchange(&refusal, exchange).await,
                },
                None => None,
            };
            let fresh = old.is_none();
            let mut opened = match old {
                Some(opened) => opened,
                None => {
                    let request = OpenRequest { target: &target, avoid: &avoid, early: exchange.early() };
                    match self.open(&caller, &admitted, request).await {
                        Ok(opened) => opened,
                        Err(refusal) => return self.refuse_exchange(&refusal, exchange).await,
                    }
                }
            };
            let end = self.exchange(&mut opened, exchange, fresh).await;
            self.report_observation(&opened, &target, &end, fresh);
            // If a kept stream has closed (`fresh` is false), this is no sign of a bad exit, so the request may be sent
            // again even if no further exit may be tried.
            let again = sends < MAX_SENDS && (!fresh || opened.attempts_left > 0);
            match end {
                ExchangeEnd::Died { repeatable: true } | ExchangeEnd::Unanswered if again => {
                    sends += 1;
                    if fresh {
                        avoid.append(&mut opened.failed);
                        if !opened.keeps_exit {
                            avoid.push(opened.exit.exit);
                        }
                    }
                }
                end => {
                    let stream = KeptStream { opened, target, credentials };
                    return self.after_exchange(end, exchange, stream, admitted, kept).await;
                }
            }
        }
    }

    async fn exchange(&mut self, opened: &mut Opened<G::Lease>, exchange: &Exchange, fresh: bool) -> ExchangeEnd {
        if !fresh {
            self.record.stream_used(&opened.exit);
        }
        let sent_early = fresh && opened.sent_early;
        let identity = exchange.identity.then(|| self.context.gate.identity(&opened.lease)).flatten();
        let added = answer::fields(&opened.exit, identity.as_ref());
        let Self { stream, inbox, record, .. } = self;
        forward::exchange(stream, inbox, opened, exchange, (sent_early, &added), &record.byte_meter()).await
    }

    /// Reports to the gate what happened on this stream, because the gate cannot see the HTTP answers. A kept stream
    /// that has closed is not reported, because its close is no fault of the exit or of the target.
    fn report_observation(&self, opened: &Opened<G::Lease>, target: &Target, end: &ExchangeEnd, fresh: bool) {
        let observation = match end {
            ExchangeEnd::Answered { status, .. } => Observation::Status(*status),
            ExchangeEnd::Upgraded(_) => Observation::Status(101),
            ExchangeEnd::Died { .. } if fresh => Observation::Died,
            // The exit or the target does not answer, and the gateway cannot know which of the two is at fault.
            ExchangeEnd::Died { .. } | ExchangeEnd::Unanswered | ExchangeEnd::Failed { .. } => return,
        };
        self.context.gate.observe(&opened.lease, target, observation);
    }

    async fn after_exchange(
        &mut self,
        end: ExchangeEnd,
        exchange: &Exchange,
        mut stream: KeptStream<G::Lease>,
        admitted: G::Admitted,
        kept: &mut Option<KeptStream<G::Lease>>,
    ) -> AfterRequest<G> {
        let meters = stream.opened.exit.meters.clone();
        let refusal = |failure: Failure| Refusal { meters: Some(meters), ..failure.into() };
        match end {
            ExchangeEnd::Answered { client_keeps, target_keeps, .. } => {
                self.record.ended(Outcome::Answered);
                *kept = (client_keeps && target_keeps && stream.opened.reuse).then_some(stream);
                if client_keeps { AfterRequest::Next } else { AfterRequest::Close }
            }
            ExchangeEnd::Upgraded(first) => {
                stream.opened.first_down = first;
                AfterRequest::Tunnel(stream.opened, admitted)
            }
            ExchangeEnd::Died { .. } => {
                self.refuse_exchange(&refusal(Failure::Answer(AnswerFault::Incomplete)), exchange).await
            }
            ExchangeEnd::Unanswered => {
                self.refuse_exchange(&refusal(Failure::Answer(AnswerFault::Timeout)), exchange).await
            }
            ExchangeEnd::Failed { failure, notice: Notice::Answer } => {
                self.refuse_exchange(&refusal(failure), exchange).await
            }
            ExchangeEnd::Failed { failure, notice } => {
                self.record.refused(&refusal(failure));
                if notice == Notice::Reset { AfterRequest::Reset } else { AfterRequest::Close }
            }
        }
    }

    /// Refuses a request. The connection is kept only if no part of the request's body is left unread.
    async fn refuse_exchange(&mut self, refusal: &Refusal, exchange: &Exchange) -> AfterRequest<G> {
        let keep = exchange.keep && exchange.body == Body::NONE;
        self.refuse(refusal, keep, exchange.asked.head).await
    }
}
