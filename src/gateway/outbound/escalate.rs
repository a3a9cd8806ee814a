//! The order in which a request tries the sources of its route, and what the gateway learns from its requests about
//! these sources. [`crate::route::escalation`] decides.

use metrics::counter;

use super::{Outbound, Wish};
use crate::dial::{DialError, TargetFault};
use crate::exit::Source;
use crate::net::Host;
use crate::route::escalation::{Event, Outcome};
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
