//! Opens a stream through a public proxy. The stream is a tunnel, or, for one plain HTTP request, a connection to the
//! proxy itself.
//!
//! A tunnel is tried first, also for a plain HTTP request: a proxy adds no headers to the bytes in a tunnel and does
//! not cache them. Many proxies open tunnels only to port 443 and forward requests to other ports. These proxies get a
//! second connection for a forwarded request.

use tokio::time::Instant;

use super::super::gate::Forwarder;
use super::Outbound;
use super::attempt::{Attempt, DialedStream};
use crate::dial::public::{Reach, Way, authorization, blames_the_proxy, forward, tunnel};
use crate::dial::{DialError, EngineFault, ExitFault, tor};
use crate::exit::{Exit, Offer, Protocol, PublicId, Through};
use crate::net::Target;
use crate::route::{self, Isolation};

/// The number of relays in the circuit to a proxy that is reached through Tor.
const HOPS: u8 = 3;

impl Outbound {
    /// Opens a stream through a public proxy.
    pub(super) async fn open_public(
        &self,
        exit: &Exit,
        id: &PublicId,
        attempt: &Attempt<'_>,
        by: Instant,
    ) -> Result<DialedStream, DialError> {
        let terms = self.terms.load_full();
        let offer = exit.listing().public.clone().ok_or(ExitFault::Unknown)?;
        let reach = self.reach(id, &offer, attempt.isolation())?;
        let login = offer.login.as_ref();
        let way = Way { id, login, reach, times: terms.public, rules: &terms.rules, check_names: true };
        let target = attempt.request.target;
        let forwards = attempt.plain && id.protocol == Protocol::Http;
        if exit.tunnels() || !forwards {
            match tunnel(way, target, by).await {
                Err(DialError::Exit(ExitFault::Refused)) if forwards => {}
                Err(error) => return Err(error),
                Ok(opened) => {
                    return Ok(DialedStream {
                        stream: opened.stream,
                        first: opened.first,
                        forwarder: None,
                        took: None,
                    });
                }
            }
        }
        let stream = forward(way, target, by).await?;
        let authorization = login.map(|login| authorization(login).into());
        let forwarder = Forwarder { origin: origin(target), authorization };
        Ok(DialedStream { stream, first: Vec::new(), forwarder: Some(Box::new(forwarder)), took: None })
    }

    fn reach(&self, id: &PublicId, offer: &Offer, isolation: Isolation) -> Result<Reach<'_>, DialError> {
        match offer.through {
            Through::Direct => Ok(Reach::Direct),
            Through::Tor => {
                let exit = route::carrier(&self.parts.state.load().catalog, id).ok_or(EngineFault::NotReady)?;
                Ok(Reach::Tor(
                    self.tor()?,
                    tor::Way { exit, hops: HOPS, isolation, class: tor::BuildClass::Live, own: None },
                ))
            }
        }
    }

    /// If the error is the fault of the proxy (public or of one's own), requests an immediate test of the proxy. Without a test, other
    /// requests would use the proxy until its next regular check.
    pub(super) fn request_retest(&self, exit: &Exit, error: DialError) {
        let is_proxy = exit.listing().public.is_some() || exit.listing().upstream.is_some();
        if is_proxy && blames_the_proxy(error) {
            self.parts.state.request_check(exit.id().clone());
        }
    }
}

/// Returns `http://` and the target, without the default port.
pub(super) fn origin(target: &Target) -> Box<str> {
    if target.port == 80 { format!("http://{}", target.host).into() } else { format!("http://{target}").into() }
}
