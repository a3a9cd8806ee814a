//! Decides whether a stream that is kept open for the client's next plain HTTP request may serve that request.

use super::admission::{AdmittedClient, Lease};
use super::onion::is_onion;
use super::{Outbound, budget};
use crate::gateway::gate::{Caller, Refusal};
use crate::gateway::protocol::Protocol;
use crate::net::Target;
use crate::route;

impl Outbound {
    /// Returns true if the stream may serve the request. Routes, rules, keys, sessions and bans may have changed since
    /// the stream was opened, so everything is checked again that [`Gate::open`](crate::gateway::gate::Gate::open)
    /// would check. A changed number of hops or a changed engine counts for new streams only.
    pub(super) fn may_reuse(
        &self,
        caller: &Caller<'_>,
        client: &AdmittedClient,
        target: &Target,
        lease: &Lease,
    ) -> Result<bool, Refusal> {
        self.check_target(target)?;
        let mut wish = self.wish(caller, Some(client), Some((&target.host, Some(target.port))))?;
        if is_onion(target) {
            budget::permit_onion(client)?;
            return Ok(true);
        }
        self.present_order(&mut wish, &target.host);
        let Some(exit) = lease.exit() else { return Ok(false) };
        let (state, plain) = (&self.parts.state, caller.protocol == Protocol::Http);
        let ask = route::Ask { wish: &wish, key: client.key(), target, now: state.now(), avoid: &[], plain };
        Ok(route::may_serve_again(state.load().view(), state.memory(), &ask, exit.id()))
    }
}
