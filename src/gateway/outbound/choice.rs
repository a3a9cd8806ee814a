//! Chooses the exits for a request, and waits for exits that must be tested first.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::super::failure::{Failure, NoExit};
use super::super::gate::Refusal;
use super::attempt::Attempt;
use super::{Outbound, Wish};
use crate::exit::Source;
use crate::route::choose::decide_look_up;
use crate::route::{self, Plan, Why, decide};

/// The time after which a waiting request requests the tests of its exits again. Not tuned: one test of an exit takes
/// longer than this.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl Outbound {
    /// Chooses the exits for one request. Waits if exits must be tested first.
    pub(super) async fn plan(&self, attempt: &Attempt<'_>) -> Result<Plan, Refusal> {
        let plan = match self.decide(attempt) {
            Ok(plan) => plan,
            // The future is boxed because it is large and rare.
            Err(refusal) => Box::pin(self.wait_for_tests(attempt, refusal, Self::decide)).await?,
        };
        Self::check_sources(attempt, &plan)?;
        Ok(plan)
    }

    /// Chooses the exits for one request from the present snapshot.
    pub(super) fn decide(&self, attempt: &Attempt<'_>) -> Result<Plan, Box<route::NoPlan>> {
        let plan = self.decide_once(attempt)?;
        Ok(self.without_spent_sources(attempt, plan, |attempt| self.decide_once(attempt)))
    }

    fn decide_once(&self, attempt: &Attempt<'_>) -> Result<Plan, Box<route::NoPlan>> {
        let state = &self.parts.state;
        decide(state.load().view(), state.memory(), &attempt.question(state.now()), &mut rand::rng())
    }

    /// Chooses the exits for one look-up of a name from the present snapshot.
    pub(super) fn decide_look_up(&self, attempt: &Attempt<'_>) -> Result<Plan, Box<route::NoPlan>> {
        let state = &self.parts.state;
        decide_look_up(state.load().view(), state.memory(), &attempt.question(state.now()), &mut rand::rng())
    }

    /// Handles the refusal of a choice. If the only reason is that exits were not tested yet, the best of them are tested.
    /// The choice (`decide`) is then repeated after every new revision of the state, until the request's deadline. If no source has
    /// listed an exit yet, the request waits for the first list. All other refusals are returned immediately.
    pub(super) async fn wait_for_tests(
        &self,
        attempt: &Attempt<'_>,
        refusal: Box<route::NoPlan>,
        decide: fn(&Self, &Attempt<'_>) -> Result<Plan, Box<route::NoPlan>>,
    ) -> Result<Plan, Refusal> {
        let state = &self.parts.state;
        if !self.may_be_served_soon(&refusal, attempt.wish) {
            return Err(self.refused(&refusal, attempt.wish));
        }
        let mut revisions = state.revisions();
        loop {
            revisions.borrow_and_update();
            let refusal = match decide(self, attempt) {
                Ok(plan) => return Ok(plan),
                Err(refusal) => refusal,
            };
            refusal.untested.iter().for_each(|exit| state.request_check(exit.clone()));
            if !self.may_be_served_soon(&refusal, attempt.wish) || Instant::now() >= attempt.by {
                return Err(self.refused(&refusal, attempt.wish));
            }
            // This loop waits for a new revision of the state. A check that ends without a result makes no new
            // revision, so the checks are requested again after a while.
            let again = attempt.by.min(Instant::now() + ASK_AGAIN);
            let _ = timeout_at(again, revisions.changed()).await;
        }
    }

    /// Returns true if a request that was refused may be served after a while, because nobody has tested the exits yet,
    /// because tor has not read its directory yet, or because the gateway of a provider makes an exit for the request.
    fn may_be_served_soon(&self, refusal: &route::NoPlan, wish: &Wish) -> bool {
        let makes = || {
            let unmet = matches!(
                refusal.why,
                Why::NoneKnown | Why::NoneMatch | Why::NoneRunning | Why::AllBanned | Why::AllFailed
            );
            let (countries, now) = (wish.selector.geo.countries(), self.parts.state.now());
            let mut sources = wish.sources().iter();
            unmet
                && wish.selector.exit.is_none()
                && sources.any(|source| matches!(source, Source::Upstream(name) if name.ask(countries, now)))
        };
        !refusal.untested.is_empty() || refusal.why == Why::NoneKnown && self.parts.tor.is_some() || makes()
    }

    /// Converts a refusal by the module `route` into a refusal for the client. The detail of the refusal says how many
    /// exits are left after each filter step.
    pub(super) fn refused(&self, refusal: &route::NoPlan, wish: &Wish) -> Refusal {
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
            | Why::PinBanned { .. }
            | Why::AllFailed
            | Why::Ipv6 => NoExit::NoneUsable,
        };
        let meters = Some(self.meters.of(wish.label()));
        Refusal { meters, ..Refusal::because(Failure::NoExit(failure), refusal.to_string()) }
    }
}
