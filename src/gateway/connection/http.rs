//! A client connection that uses HTTP. Requests are served one after the other, until one of them becomes a tunnel.
//!
//! Requests are served in the order of their arrival. Requests that a client sends before it has the earlier answers
//! wait in the inbox. Each request is parsed into a `Plan` (`connection/plan.rs`), and the plan is carried out: a
//! CONNECT in this module, a forwarded request in `connection/plain.rs`, a request for exit.gate in
//! `connection/builtin_host.rs`.

use tokio::time::Instant;

use super::plain::KeptStream;
use super::plan::{Action, AfterRequest, Plan, only_port_80, plan};
use super::{Connection, Tunnel};
use crate::gateway::failure::{ClientFault, Failure};
use crate::gateway::gate::{Gate, OpenRequest, Opened, Refusal};
use crate::gateway::http::auth::Credentials;
use crate::gateway::http::{answer, builtin};
use crate::gateway::protocol::Protocol;
use crate::gateway::record::Outcome;
use crate::net::Target;

impl<G: Gate> Connection<'_, G> {
    /// Serves requests until a tunnel is open or the connection ends.
    pub(super) async fn http(mut self) -> Option<Tunnel<G>> {
        let mut kept = None;
        self.record.protocol_known(Protocol::Http);
        loop {
            let length = match self.head().await {
                Ok(Some(length)) => length,
                Ok(None) => return None,
                Err(refusal) => {
                    self.refuse(&refusal, false, false).await;
                    break;
                }
            };
            match self.serve(length, &mut kept).await {
                AfterRequest::Next => self.deadline = Instant::now() + self.context.listener.opening,
                AfterRequest::Close => break,
                AfterRequest::Tunnel(opened, admitted) => return Some(self.into_tunnel(opened, admitted)),
                AfterRequest::Reset => {
                    self.stream.reset();
                    return None;
                }
            }
        }
        drop(kept);
        Box::pin(self.stream.close_after_reply()).await;
        None
    }

    /// Serves the request whose head is in the inbox. The head has `length` bytes.
    async fn serve(&mut self, length: usize, kept: &mut Option<KeptStream<G::Lease>>) -> AfterRequest<G> {
        let plan = plan(&self.inbox.bytes()[..length], self.context.listener, false);
        self.inbox.consume(length);
        let Plan { credentials, mode, action } = match plan {
            Ok(plan) => plan,
            Err(refusal) => return self.refuse(&refusal, false, false).await,
        };
        match action {
            Action::Connect(target) => match self.http_connect(&target, &credentials, mode.identity).await {
                Ok(Some((opened, admitted))) => AfterRequest::Tunnel(opened, admitted),
                Ok(None) => AfterRequest::Close,
                Err(refusal) => self.refuse(&refusal, mode.keep_unread(), mode.head_only).await,
            },
            // The future of a forwarded request is boxed because it is large, and most connections are tunnels and do
            // not need it.
            Action::Forward(target, exchange) => Box::pin(self.forward(target, &exchange, credentials, kept)).await,
            Action::Builtin(request) => match self.enter(Protocol::Http, &credentials, None) {
                Ok(admitted) => {
                    let username = credentials.username();
                    if Box::pin(self.builtin(Protocol::Http, username, &admitted, request, mode)).await {
                        AfterRequest::Next
                    } else {
                        AfterRequest::Close
                    }
                }
                Err(refusal) => self.refuse(&refusal, mode.keep_unread(), mode.head_only).await,
            },
            Action::Refuse(refusal) => self.refuse(&refusal, mode.keep_unread(), mode.head_only).await,
            Action::Page(page) => {
                self.record.ended(Outcome::Local);
                let sent = self.stream.send(&page).await;
                if sent.is_ok() && mode.keep_unread() { AfterRequest::Next } else { AfterRequest::Close }
            }
        }
    }

    /// Serves a CONNECT request. Returns `None` if the target was exit.gate, because this function has then already
    /// served the whole tunnel.
    async fn http_connect(
        &mut self,
        target: &Target,
        credentials: &Credentials,
        identity: bool,
    ) -> Result<Option<(Opened<G::Lease>, G::Admitted)>, Refusal> {
        let admitted = self.enter(Protocol::Connect, credentials, Some(target))?;
        let left = Failure::Client(ClientFault::Left);
        if builtin::is_builtin(target) {
            if target.port != 80 {
                return Err(only_port_80());
            }
            self.record.ended(Outcome::Local);
            self.stream.send(&answer::established(None)).await.map_err(|_| left)?;
            Box::pin(self.builtin_tunnel(Protocol::Connect, credentials.username(), &admitted)).await;
            return Ok(None);
        }
        let caller = self.caller(Protocol::Connect, credentials.username());
        let opened = self.open(&caller, &admitted, OpenRequest { target, avoid: &[], early: &[] }).await?;
        // The identity is dropped before the await, because otherwise the future of every connection would hold it.
        let answer = {
            let identity = identity.then(|| self.context.gate.identity(&opened.lease)).flatten();
            answer::established(Some((&opened.exit, identity.as_ref())))
        };
        self.stream.send(&answer).await.map_err(|_| left)?;
        Ok(Some((opened, admitted)))
    }
}
