//! Finds the route of a request, and checks that the configuration and the client's key allow this route.

use super::{AdmittedClient, Outbound, budget};
use crate::exit::Source;
use crate::gateway::failure::{ClientFault, Denial, Failure};
use crate::gateway::gate::{Caller, Refusal};
use crate::net::Host;
use crate::route::table::Wish;
use crate::route::table::{RuleRefusal, WhyRule};

impl Outbound {
    /// Returns the route that the caller's username selects at the caller's listener. `to` is the host and port of the
    /// request, to which the rules of the route apply. The port is `None` for a look-up of a name. `to` is `None` for
    /// requests without a target: no rule applies to them. `client` is `None` if the client's key does not matter.
    pub(super) fn wish(
        &self,
        caller: &Caller<'_>,
        client: Option<&AdmittedClient>,
        to: Option<(&Host, Option<u16>)>,
    ) -> Result<Wish, Refusal> {
        let snapshot = self.parts.state.load();
        if caller.listener.route.as_ref().is_some_and(|own| snapshot.routes.get(own).is_none()) {
            return Err(Failure::Draining.into());
        }
        // An empty username on the shared port means `any`. On a route's own port it means that route.
        let username = match (caller.username, &caller.listener.route) {
            ("", None) => "any",
            (username, _) => username,
        };
        let wish = snapshot.routes.resolve(username, caller.listener.route.as_deref());
        let wish = wish.map_err(|bad| Refusal::because(Failure::Client(ClientFault::Username), bad.to_string()))?;
        self.permit(client, &wish)?;
        let Some((host, port)) = to else { return Ok(wish) };
        let wish = snapshot.routes.for_target(wish, host, port).map_err(|refused| self.refused_by_rule(&refused))?;
        // A rule never allows what the username alone would not be allowed, so the result of the rule is checked too.
        if !wish.rules.is_empty() {
            self.permit(client, &wish)?;
        }
        Ok(wish)
    }

    /// Refuses sources of exits that the configuration does not allow, and what the client's key may not use.
    fn permit(&self, client: Option<&AdmittedClient>, wish: &Wish) -> Result<(), Refusal> {
        if wish.policy.sources(&wish.selector).contains(&Source::Direct) && !self.terms.load().allow_direct {
            return Err(Failure::Denied(Denial::Source).into());
        }
        client.map_or(Ok(()), |client| budget::permit(client, wish))
    }

    /// Converts the refusal of a rule into a refusal for the client. The refusal is counted for the route of the rule.
    fn refused_by_rule(&self, refused: &RuleRefusal) -> Refusal {
        let failure = match refused.why {
            WhyRule::Username(_) => Failure::Client(ClientFault::Username),
            WhyRule::Refused | WhyRule::NoRoute(_) | WhyRule::Circle => Failure::Denied(Denial::Rule),
        };
        let meters = Some(self.meters.of(refused.rule.route.as_str()));
        Refusal { meters, ..Refusal::because(failure, refused.to_string()) }
    }
}
