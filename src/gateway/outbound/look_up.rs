//! Looks up names and addresses through an exit of Tor.

use std::net::IpAddr;

use tokio::time::Instant;

use super::super::failure::{Failure, NoExit};
use super::super::gate::{Lookup, Refusal, Resolved};
use super::Outbound;
use super::attempt::{Attempt, way};
use crate::dial::{self, DialError};
use crate::exit::ExitId;
use crate::net::Host;
use crate::route::choose::Plan;
use crate::tor::{Tor, Way};

impl Outbound {
    /// Looks up a name or an address with the DNS resolver of the plan's first exit.
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
        let way = way(*fingerprint, attempt);
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

#[cfg(test)]
mod tests;
