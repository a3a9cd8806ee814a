//! exit.gate: the one target that we are ourselves.

use tokio::time::Instant;

use super::Connection;
use super::http::{After, Manner, Plan, Work, plan};
use crate::gateway::failure::{ClientFault, Failure};
use crate::gateway::gate::{Gate, Protocol};
use crate::gateway::http::answer;
use crate::gateway::http::body::Body;
use crate::gateway::http::builtin::{self, BuiltinKind, REPORT_MAX};
use crate::gateway::record::Outcome;

impl<G: Gate> Connection<'_, G> {
    /// Serves a tunnel to exit.gate, in which the client speaks HTTP as to any site.
    pub(super) async fn desk(&mut self, protocol: Protocol, username: &str, pass: &G::Pass) {
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
                Ok(Plan { work: Work::Builtin(wanted), manner, .. }) => {
                    self.builtin(protocol, username, pass, wanted, manner).await
                }
                Ok(Plan { work, manner, .. }) => {
                    let refusal = match work {
                        Work::Refuse(refusal) => refusal,
                        _ => Failure::Client(ClientFault::Target).into(),
                    };
                    matches!(self.refuse(&refusal, manner.keep_unread(), manner.bare).await, After::Next)
                }
                Err(refusal) => matches!(self.refuse(&refusal, false, false).await, After::Next),
            };
            if !keep {
                return;
            }
        }
    }

    /// Runs one errand; whether the connection lives on.
    pub(super) async fn builtin(
        &mut self,
        protocol: Protocol,
        username: &str,
        pass: &G::Pass,
        wanted: Result<BuiltinKind, (u16, &'static str)>,
        manner: Manner,
    ) -> bool {
        let (wanted, body) = match self.with_body(wanted, manner).await {
            Ok(whole) => whole,
            Err((status, sentence)) => {
                self.record.settle(Outcome::Here);
                let said = builtin::answer(Err((status, sentence)), manner.keep_unread(), manner.bare);
                return self.stream.send(&said).await.is_ok() && manner.keep_unread();
            }
        };
        let caller = self.caller(protocol, username);
        match self.context.gate.builtin(&caller, pass, wanted.with(&body)).await {
            Ok(json) => {
                self.record.settle(Outcome::Here);
                let said = builtin::answer(Ok(&json), manner.keep(), manner.bare);
                self.stream.send(&said).await.is_ok() && manner.keep()
            }
            Err(refusal) => matches!(self.refuse(&refusal, manner.keep(), manner.bare).await, After::Next),
        }
    }

    /// The errand with its body, read whole.
    async fn with_body(
        &mut self,
        wanted: Result<BuiltinKind, (u16, &'static str)>,
        manner: Manner,
    ) -> Result<(BuiltinKind, Vec<u8>), (u16, &'static str)> {
        let wanted = wanted?;
        let length = match manner.body {
            Body::Length(length) if length <= REPORT_MAX as u64 => length as usize,
            Body::Length(_) => return Err((413, "that is too long for a report")),
            _ => return Err((411, "say how long it is: Content-Length")),
        };
        if manner.expects && self.inbox.is_empty() && length > 0 {
            self.stream.send(answer::CONTINUE).await.map_err(|_| (408, "the body did not come"))?;
        }
        while self.inbox.bytes().len() < length {
            self.more().await.map_err(|_| (408, "the body did not come"))?;
        }
        let body = self.inbox.bytes()[..length].to_vec();
        self.inbox.consume(length);
        Ok((wanted, body))
    }
}
