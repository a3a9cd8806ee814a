//! A stream through a public proxy: a tunnel, or, for one request of plain HTTP, one to the proxy itself.
//!
//! A tunnel is asked for first also where a request is plain, because what goes through a tunnel is neither read for
//! headers to add nor kept in a cache. Many proxies open tunnels to port 443 alone and forward the rest; those are asked
//! a second time, over a connection of its own.

use tokio::time::Instant;

use super::super::gate::Forwarder;
use super::Outbound;
use super::attempt::{Attempt, Opening};
use crate::dial::public::{Reach, Way, authorization, blames_the_proxy, forward, tunnel};
use crate::dial::{DialError, EngineFault, ExitFault, tor};
use crate::exit::{Exit, Offer, Protocol, PublicId, Through};
use crate::net::Target;
use crate::route::{self, Isolation};

/// Relays on the way to a proxy that is reached through Tor.
const HOPS: u8 = 3;

impl Outbound {
    /// Opens a stream through a public proxy.
    pub(super) async fn open_public(
        &self,
        exit: &Exit,
        id: &PublicId,
        attempt: &Attempt<'_>,
        isolation: Isolation,
        by: Instant,
    ) -> Result<Opening, DialError> {
        let terms = self.terms.load_full();
        let offer = exit.listing().public.clone().ok_or(ExitFault::Unknown)?;
        let reach = self.reach(id, &offer, isolation)?;
        let login = offer.login.as_ref();
        let way = Way { id, login, reach, times: terms.public, rules: &terms.rules, judge_names: true };
        let target = attempt.ask.target;
        let forwards = attempt.plain && id.protocol == Protocol::Http;
        if exit.tunnels() || !forwards {
            match tunnel(way, target, by).await {
                Err(DialError::Exit(ExitFault::Refused)) if forwards => {}
                Err(error) => return Err(error),
                Ok(opened) => return Ok(Opening { stream: opened.stream, first: opened.first, forwarder: None }),
            }
        }
        let stream = forward(way, target, by).await?;
        let authorization = login.map(|login| authorization(login).into());
        let forwarder = Forwarder { origin: origin(target), authorization };
        Ok(Opening { stream, first: Vec::new(), forwarder: Some(Box::new(forwarder)) })
    }

    fn reach(&self, id: &PublicId, offer: &Offer, isolation: Isolation) -> Result<Reach<'_>, DialError> {
        match offer.through {
            Through::Direct => Ok(Reach::Direct),
            Through::Tor => {
                let exit = route::carrier(&self.parts.state.load().catalog, id).ok_or(EngineFault::NotReady)?;
                Ok(Reach::Tor(self.tor()?, tor::Way { exit, hops: HOPS, isolation, own: None }))
            }
        }
    }

    /// A live request has just failed on a proxy: the judge looks at it at once, or it would be offered to others until
    /// its next turn.
    pub(super) fn doubt(&self, exit: &Exit, error: DialError) {
        if exit.listing().public.is_some() && blames_the_proxy(error) {
            self.parts.state.request_check(exit.id().clone());
        }
    }
}

/// `http://` and the target, without the port that goes without saying.
fn origin(target: &Target) -> Box<str> {
    if target.port == 80 { format!("http://{}", target.host).into() } else { format!("http://{target}").into() }
}
