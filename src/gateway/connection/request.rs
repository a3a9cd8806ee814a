//! The steps that all HTTP requests have in common: read the head, check the client's key, send a refusal.

use tokio::time::{Instant, timeout};

use super::plan::{AfterRequest, bad_head};
use super::{Connection, ConnectionContext};
use crate::gateway::failure::{ClientFault, Failure};
use crate::gateway::gate::{Gate, Refusal};
use crate::gateway::http::answer;
use crate::gateway::http::auth::Credentials;
use crate::gateway::http::head::{Scan, is_token};
use crate::gateway::protocol::Protocol;
use crate::net::Target;

impl<G: Gate> Connection<'_, G> {
    /// Reads a whole head and returns its length in bytes. Returns `None` if the client sends no more requests, or if
    /// no more requests are accepted.
    pub(super) async fn head(&mut self) -> Result<Option<usize>, Refusal> {
        if self.inbox.is_empty() {
            self.inbox.relax();
            let ConnectionContext { gate, listener, .. } = &self.context;
            let more = tokio::select! {
                biased;
                more = timeout(listener.keep_alive, self.inbox.fill(&mut self.stream)) => more,
                () = gate.stopping(listener) => return Ok(None),
            };
            if !matches!(more, Ok(Ok(1..))) {
                return Ok(None);
            }
            self.deadline = Instant::now() + listener.opening;
        }
        let mut scan = Scan::default();
        let mut skipped_line = false;
        loop {
            // One empty line before a request is skipped (RFC 9112, section 2.2), because old clients send an extra
            // empty line after a body.
            if !skipped_line && self.inbox.bytes().starts_with(b"\r\n") {
                self.inbox.consume(2);
                skipped_line = true;
            }
            if self.inbox.bytes().first().is_some_and(|&first| !is_token(first) && first != b'\r') {
                return Err(Failure::Client(ClientFault::Garbage).into());
            }
            if let Some(length) = scan.end(self.inbox.bytes()).map_err(bad_head)? {
                return Ok(Some(length));
            }
            match self.more().await {
                // The client sent only an empty line. An empty line is no request, so the gateway sends no answer.
                Err(_) if self.inbox.is_empty() => return Ok(None),
                more => more?,
            }
        }
    }

    /// Checks the client's key and the limits, and records the username and the target.
    pub(super) fn enter(
        &mut self,
        protocol: Protocol,
        credentials: &Credentials,
        target: Option<&Target>,
    ) -> Result<G::Admitted, Refusal> {
        self.record.protocol_known(protocol);
        let admitted = self.admit(&self.caller(protocol, credentials.username()), credentials.password())?;
        self.record.asked(credentials.username(), target);
        Ok(admitted)
    }

    /// Sends a refusal. `keep` is true if the connection can serve another request. `head_only` is true if the method
    /// was HEAD.
    pub(super) async fn refuse(&mut self, refusal: &Refusal, keep: bool, head_only: bool) -> AfterRequest<G> {
        let failure = refusal.failure;
        self.record.refused(refusal);
        let keep = keep && !failure.breaks_framing();
        let left = failure == Failure::Client(ClientFault::Left);
        let answer = answer::refusal(refusal, self.record.id(), keep, head_only);
        if !left && self.stream.send(&answer).await.is_ok() && keep { AfterRequest::Next } else { AfterRequest::Close }
    }
}
