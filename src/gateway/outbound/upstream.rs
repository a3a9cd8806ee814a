//! Opens a stream through a proxy of one's own: a tunnel, or, for one plain HTTP request, a connection to the proxy
//! itself. As with public proxies (`outbound/public.rs`), a tunnel is tried first, and a proxy that refuses a tunnel
//! gets a second connection for a forwarded request.

use tokio::time::Instant;

use super::super::gate::Forwarder;
use super::Outbound;
use super::attempt::{Attempt, DialedStream};
use super::public::origin;
use crate::dial::public::{Times, authorization};
use crate::dial::{DialError, EngineFault, ExitFault, upstream};
use crate::exit::{Exit, Protocol};

impl Outbound {
    /// Opens a stream through an exit of an upstream source.
    pub(super) async fn open_upstream(
        &self,
        exit: &Exit,
        attempt: &Attempt<'_>,
        by: Instant,
    ) -> Result<DialedStream, DialError> {
        let terms = self.terms.load_full();
        // After a restart an exit is known before its source has read its list again, which takes a moment.
        let proxy = exit.listing().upstream.clone().ok_or(EngineFault::NotReady)?;
        let target = attempt.request.target;
        // A rented exit may be slow, so it may take as long as any exit may take for one attempt.
        let times = Times { reply: terms.times.attempt, ..terms.public };
        let tunnel = upstream::tunnel(&proxy, target, &terms.rules, times, by);
        // Both are awaited to their end: a proxy that refuses the tunnel quickly must not end the check of the target,
        // because the request is then forwarded to the same target.
        let (opened, allowed) = tokio::join!(tunnel, upstream::check_target(target, &terms.rules, by));
        match allowed.and(opened) {
            Err(DialError::Exit(ExitFault::Refused)) if attempt.plain && proxy.protocol == Protocol::Http => {}
            Err(error) => return Err(error),
            Ok(opened) => {
                return Ok(DialedStream { stream: opened.stream, first: opened.first, forwarder: None, took: None });
            }
        }
        let stream = upstream::connect(&proxy, &terms.rules, terms.public.connect, by).await?;
        let authorization = proxy.login.as_ref().map(|login| authorization(login).into());
        let forwarder = Forwarder { origin: origin(target), authorization };
        Ok(DialedStream { stream, first: Vec::new(), forwarder: Some(Box::new(forwarder)), took: None })
    }
}
