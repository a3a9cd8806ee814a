//! What the key of a client may use: its routes and sources, and its budgets for a day and a month.
//!
//! A request is counted when it begins, and taken back if it did not reach its target. So requests that come at the
//! same time cannot exceed the budget together. The bytes of a stream are counted by [`Spend`](crate::limit::Spend).

use std::time::SystemTime;

use super::super::failure::{Denial, Failure, Limited};
use super::super::gate::{Opened, Refusal};
use super::admission::{AdmittedClient, Lease, over_budget};
use super::attempt::{Attempt, keeps_exit};
use super::{Outbound, Wish};
use crate::exit::{Moment, Source};
use crate::limit::{Account, Spent};
use crate::route::{self, Plan};

/// A request that was counted in the budget of all sources. Dropping this value takes the request back.
pub(super) struct RequestCount<'a>(Option<&'a Account>);

impl RequestCount<'_> {
    /// Keeps the request in the count.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for RequestCount<'_> {
    fn drop(&mut self) {
        if let Some(account) = self.0 {
            account.give_back_request();
        }
    }
}

/// Refuses a username whose route or sources the client's key may not use.
pub(super) fn permit(client: &AdmittedClient, wish: &Wish) -> Result<(), Refusal> {
    let identity = client.identity();
    let denied = |detail: String| Err(Refusal::because(Failure::Denied(Denial::Key), detail));
    let route = wish.entry.as_ref().map(|entry| entry.route.name.as_str());
    if !identity.may_use_route(route) {
        return denied(format!("it may use only the routes {}", identity.routes().join(", ")));
    }
    let sources = wish.policy.sources(&wish.selector);
    match sources.iter().find(|source| !identity.may_use_source(source.as_str())) {
        Some(source) => denied(format!(
            "it may not use the source `{}`, which this username may use; add `-source-…` with one of the sources that \
             the key may use",
            source.as_str()
        )),
        None => Ok(()),
    }
}

/// Refuses a connection to an onion service if the client's key may not use Tor, or if the budget of Tor is used up.
/// Such a connection uses Tor, whatever the sources of the username are.
pub(super) fn permit_onion(client: &AdmittedClient) -> Result<(), Refusal> {
    let tor = Source::Tor.as_str();
    if !client.identity().may_use_source(tor) {
        let why = "it may not use the source `tor`, which reaches onion services";
        return Err(Refusal::because(Failure::Denied(Denial::Key), why.to_owned()));
    }
    check_source(client, Source::Tor)
}

/// Refuses a source whose budget is used up.
fn check_source(client: &AdmittedClient, source: Source) -> Result<(), Refusal> {
    let account = client.identity().account().filter(|account| account.limits_sources());
    match account.and_then(|account| account.source_spent(source.as_str(), now())) {
        Some(spent) => Err(over_budget(spent)),
        None => Ok(()),
    }
}

/// Counts one request of the client in the budget of all sources. A request that is sent again after a failure is
/// counted once.
pub(super) fn begin_request(client: &AdmittedClient) -> Result<RequestCount<'_>, Refusal> {
    let Some(account) = client.identity().account().filter(|_| !client.is_counted()) else {
        return Ok(RequestCount(None));
    };
    if !account.take_request() {
        // A new day may have begun. Then `spent` finds nothing that is used up, and the budget is full again.
        if let Some(spent) = account.spent(now()) {
            return Err(over_budget(spent));
        }
        if !account.take_request() {
            return Err(Failure::Limited(Limited::Budget).into());
        }
    }
    Ok(RequestCount(Some(account)))
}

/// Counts a request that is served by an open stream, in the budget of the stream's source.
pub(super) fn count_served(client: &AdmittedClient, opened: &Opened<Lease>) -> Result<(), Refusal> {
    let Some((account, spend)) = client.identity().account().zip(opened.spend.as_ref()) else { return Ok(()) };
    if !spend.take_request() {
        // A new day may have begun, as in `begin_request`.
        if let Some(spent) = account.source_spent(opened.exit.exit.source().as_str(), now()) {
            return Err(over_budget(spent));
        }
        if !spend.take_request() {
            return Err(Failure::Limited(Limited::Budget).into());
        }
    }
    client.set_counted();
    Ok(())
}

fn now() -> Moment {
    SystemTime::now().into()
}

impl Outbound {
    /// Removes the exits from a plan that belong to sources whose budget is used up. If no exit is left, and the
    /// username needs no particular exit, exits of other sources are chosen. If that fails, the plan is returned as it
    /// was, and [`Outbound::check_sources`] refuses it.
    pub(super) fn without_spent_sources(
        &self,
        attempt: &Attempt<'_>,
        plan: Plan,
        decide: impl Fn(&Attempt<'_>) -> Result<Plan, Box<route::NoPlan>>,
    ) -> Plan {
        let Some(account) = attempt.client.identity().account().filter(|account| account.limits_sources()) else {
            return plan;
        };
        let is_spent = |exit: &crate::exit::Exit| source_spent(account, exit).is_some();
        if !plan.exits.iter().all(|exit| is_spent(exit)) {
            let mut plan = plan;
            plan.exits.retain(|exit| !is_spent(exit));
            return plan;
        }
        if keeps_exit(attempt.wish) {
            return plan;
        }
        // With `fallback`, exits of a later source are chosen only if the earlier sources are left out.
        let sources = attempt.wish.sources();
        let unspent = sources.iter().filter(|source| account.source_spent(source.as_str(), now()).is_none());
        let mut others = unspent.filter_map(|source| {
            let wish = attempt.wish.with_order([*source].into());
            decide(&Attempt { wish: &wish, ..*attempt }).ok()
        });
        others.next().unwrap_or(plan)
    }

    /// Refuses a plan whose first exit belongs to a source whose budget is used up.
    pub(super) fn check_sources(attempt: &Attempt<'_>, plan: &Plan) -> Result<(), Refusal> {
        check_source(attempt.client, plan.first().id().source())
    }
}

fn source_spent(account: &Account, exit: &crate::exit::Exit) -> Option<Spent> {
    account.source_spent(exit.id().source().as_str(), now())
}
