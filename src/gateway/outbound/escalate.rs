//! The order in which a request tries the sources of its route, and what the gateway learns from its requests about
//! these sources. [`crate::route::escalation`] decides.

use std::sync::Arc;

use metrics::counter;

use super::super::gate::{OpenRequest, Opened, Refusal};
use super::admission::Lease;
use super::attempt::Attempt;
use super::{Outbound, Wish};
use crate::dial::{DialError, TargetFault};
use crate::exit::{ExitId, Source};
use crate::net::Host;
use crate::route::Plan;
use crate::route::escalation::{Event, Outcome};
use crate::route::selector::Mode;
use crate::telemetry::metrics::ESCALATIONS;

impl Outbound {
    /// Sets the order of the sources in the wish of a request: the request begins with a later source if the site has
    /// refused the earlier ones lately.
    pub(super) fn order_sources(&self, wish: &mut Wish, host: &Host) {
        let (state, now) = (&self.parts.state, self.parts.state.now());
        let Some(start) = state.memory().escalations().begin(state.load().view(), wish, host, now) else { return };
        if let Some(event) = start.event {
            told(wish, event);
        }
        if start.evicted {
            counter!(ESCALATIONS, "route" => wish.label().to_owned(), "reason" => "evicted").increment(1);
            tracing::warn!(
                "too many sites are remembered at which a later source serves: the oldest one was forgotten"
            );
        }
        set_first(wish, start.first);
    }

    /// Sets the order of the sources as [`Self::order_sources`] does, but for a request that uses an open stream if it
    /// can. The request is not counted.
    pub(super) fn present_order(&self, wish: &mut Wish, host: &Host) {
        let level = self.parts.state.memory().escalations().level(wish, host, self.parts.state.now());
        if let Some(level) = level {
            wish.order = Some(wish.policy.sources(&wish.selector)[level..].into());
        }
    }

    /// Records how a request through an exit of `source` ended.
    pub(super) fn note_outcome(&self, wish: &Wish, host: &Host, source: Source, outcome: Outcome) {
        let escalations = self.parts.state.memory().escalations();
        if let Some(event) = escalations.note(wish, host, source, outcome, self.parts.state.now()) {
            told(wish, event);
        }
    }

    /// Records a request that failed. Faults of this gateway, its engines and its rules say nothing about the site.
    pub(super) fn note_failed_dial(&self, wish: &Wish, host: &Host, source: Source, error: &DialError) {
        let is_ours =
            matches!(error, DialError::Engine(_) | DialError::Deadline | DialError::Target(TargetFault::Forbidden));
        if !is_ours {
            self.note_outcome(wish, host, source, Outcome::Failed);
        }
    }

    /// Dials exits of the other sources, because the provider of the exits `refused` refuses the account. Returns `None` if
    /// there are none that the request may use.
    pub(super) async fn dial_other_sources(
        &self,
        attempt: &Attempt<'_>,
        plan: &Plan,
        refused: Vec<ExitId>,
        failed: &[ExitId],
        left: usize,
    ) -> Option<Result<Opened<Lease>, Refusal>> {
        let is_refused = |source: &Source| refused.iter().any(|exit| exit.source() == *source);
        // The sources that an escalation left out come last.
        let all = attempt.wish.policy.sources(&attempt.wish.selector);
        let left_out = all.iter().filter(|source| !attempt.wish.sources().contains(source));
        let in_order = attempt.wish.sources().iter().chain(left_out).copied();
        let others: Arc<[Source]> = in_order.filter(|source| !is_refused(source)).collect();
        if others.is_empty() || attempt.wish.selector.mode == Mode::Strict {
            return None;
        }
        let wish = attempt.wish.with_order(others);
        let failed = [failed, &refused].concat();
        let avoid = [attempt.request.avoid, &failed].concat();
        let attempt = Attempt { wish: &wish, request: OpenRequest { avoid: &avoid, ..attempt.request }, ..*attempt };
        let mut next = match self.decide(&attempt) {
            Ok(next) => next,
            Err(refusal) => self.wait_for_tests(&attempt, refusal, Self::decide).await.ok()?,
        };
        Self::check_sources(&attempt, &next).ok()?;
        self.adopt(plan, &mut next).await;
        Some(self.dial_exits(attempt, next, failed, left).await)
    }

    /// Prepares the plan `next` to replace the plan `before`.
    pub(super) async fn adopt(&self, before: &Plan, next: &mut Plan) {
        if !next.events.is_empty() {
            Box::pin(self.parts.state.make_durable(std::mem::take(&mut next.events))).await;
        }
        // The first plan may have moved the session. The exit before that move is the exit that the client used last.
        if let (Some(before), Some(moved)) = (&before.moved, &mut next.moved) {
            moved.from = before.from.clone();
        }
        next.moved = next.moved.take().filter(|moved| moved.from != moved.to);
    }
}

/// Makes a request begin with the source of this index. The sources before it are left out.
fn set_first(wish: &mut Wish, first: usize) {
    if first > 0 {
        wish.order = wish.policy.sources(&wish.selector).get(first..).map(Into::into);
    }
}

/// Counts and logs a change of the source with which requests to a site begin. The site is not logged, because the
/// targets of clients are written only if `log.targets` allows it.
fn told(wish: &Wish, event: Event) {
    let (route, reason) = (wish.label(), event.as_str());
    counter!(ESCALATIONS, "route" => route.to_owned(), "reason" => reason).increment(1);
    tracing::info!(route, reason, "requests to a site begin with another source of the route");
}
