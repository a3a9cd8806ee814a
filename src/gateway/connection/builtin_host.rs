//! Serves requests to the host name `exit.gate`. The gateway answers these requests itself.

use tokio::time::Instant;

use super::Connection;
use super::plan::{Action, AfterRequest, AnswerMode, Plan, plan};
use crate::gateway::failure::{ClientFault, Failure};
use crate::gateway::gate::Gate;
use crate::gateway::http::answer;
use crate::gateway::http::body::Body;
use crate::gateway::http::builtin::{self, BuiltinKind, REPORT_MAX};
use crate::gateway::protocol::Protocol;
use crate::gateway::record::Outcome;

impl<G: Gate> Connection<'_, G> {
    /// Serves a tunnel to exit.gate. Inside the tunnel the client sends HTTP requests, as it would to any web site.
    pub(super) async fn builtin_tunnel(&mut self, protocol: Protocol, username: &str, admitted: &G::Admitted) {
        loop {
            self.deadline = Instant::now() + self.context.listener.opening;
            let length = match self.head().await {
                Ok(Some(length)) => length,
                Ok(None) => return,
                Err(refusal) => {
                    self.refuse(&refusal, false, false).await;
                    return;
                }
            };
            let plan = plan(&self.inbox.bytes()[..length], self.context.listener, true);
            self.inbox.consume(length);
            let keep = match plan {
                Ok(Plan { action: Action::Builtin(request), mode, .. }) => {
                    self.builtin(protocol, username, admitted, request, mode).await
                }
                Ok(Plan { action, mode, .. }) => {
                    let refusal = match action {
                        Action::Refuse(refusal) => refusal,
                        _ => Failure::Client(ClientFault::Target).into(),
                    };
                    let after = self.refuse(&refusal, mode.keep_unread(), mode.head_only).await;
                    matches!(after, AfterRequest::Next)
                }
                Err(refusal) => matches!(self.refuse(&refusal, false, false).await, AfterRequest::Next),
            };
            if !keep {
                return;
            }
        }
    }

    /// Answers one request to exit.gate. Returns true if the connection can be kept after this request.
    pub(super) async fn builtin(
        &mut self,
        protocol: Protocol,
        username: &str,
        admitted: &G::Admitted,
        request: Result<BuiltinKind, (u16, &'static str)>,
        mode: AnswerMode,
    ) -> bool {
        let (kind, body) = match self.with_body(request, mode).await {
            Ok(whole) => whole,
            Err(refused) => {
                self.record.ended(Outcome::Local);
                let answer = builtin::answer(Err(refused), mode.keep_unread(), mode.head_only);
                return self.stream.send(&answer).await.is_ok() && mode.keep_unread();
            }
        };
        let caller = self.caller(protocol, username);
        match self.context.gate.builtin(&caller, admitted, kind.with(&body)).await {
            Ok(json) => {
                self.record.ended(Outcome::Local);
                let answer = builtin::answer(Ok(&json), mode.keep(), mode.head_only);
                self.stream.send(&answer).await.is_ok() && mode.keep()
            }
            Err(refusal) => matches!(self.refuse(&refusal, mode.keep(), mode.head_only).await, AfterRequest::Next),
        }
    }

    /// Reads the whole body of the request.
    async fn with_body(
        &mut self,
        request: Result<BuiltinKind, (u16, &'static str)>,
        mode: AnswerMode,
    ) -> Result<(BuiltinKind, Vec<u8>), (u16, &'static str)> {
        const INCOMPLETE: (u16, &str) = (408, "the body did not arrive in time");
        let kind = request?;
        let length = match mode.body {
            Body::Length(length) if length <= REPORT_MAX as u64 => length as usize,
            Body::Length(_) => return Err((413, "a report has at most 16 KiB")),
            _ => return Err((411, "a body needs a Content-Length here")),
        };
        if mode.expects && self.inbox.is_empty() && length > 0 {
            self.stream.send(answer::CONTINUE).await.map_err(|_| INCOMPLETE)?;
        }
        while self.inbox.bytes().len() < length {
            self.more().await.map_err(|_| INCOMPLETE)?;
        }
        let body = self.inbox.bytes()[..length].to_vec();
        self.inbox.consume(length);
        Ok((kind, body))
    }
}
