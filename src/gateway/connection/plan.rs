//! What the gateway has to do for one HTTP request. A plan is parsed from the head of the request and holds no
//! references to the head.
//!
//! [`plan`] looks only at the request and does no I/O. The plans are carried out by `connection/http.rs`, by
//! `connection/plain.rs` (forwarded requests) and by `connection/builtin_host.rs` (requests for exit.gate).

use crate::gateway::failure::{Denial, Failure};
use crate::gateway::gate::{Gate, Opened, Refusal};
use crate::gateway::http::auth::Credentials;
use crate::gateway::http::body::Body;
use crate::gateway::http::builtin::{self, BuiltinKind};
use crate::gateway::http::forward::Exchange;
use crate::gateway::http::head::HeadFault;
use crate::gateway::http::page;
use crate::gateway::http::request::{Form, Request};
use crate::gateway::http::response::Asked;
use crate::gateway::listener::ListenerConfig;
use crate::net::Target;

/// What to do for one HTTP request, and how to write an answer to it.
pub(super) struct Plan {
    pub(super) credentials: Credentials,
    pub(super) mode: AnswerMode,
    pub(super) action: Action,
}

/// The facts about a request that the gateway needs to write its own answer.
#[derive(Clone, Copy)]
pub(super) struct AnswerMode {
    /// True if the client wants to keep the connection.
    keep: bool,
    /// True if the method is HEAD: the answer must have no body.
    pub(super) head_only: bool,
    /// The body of the request.
    pub(super) body: Body,
    /// True if the client waits for `100 Continue` before it sends the body.
    pub(super) expects: bool,
    /// True if the answer must contain the identity of the exit.
    pub(super) identity: bool,
}

impl AnswerMode {
    /// Returns true if the connection can be kept after the request's body has been read.
    pub(super) fn keep(&self) -> bool {
        self.keep
    }

    /// Returns true if the connection can be kept although the gateway does not read the request's body. Unread bytes
    /// of a body would be taken for the next request.
    pub(super) fn keep_unread(&self) -> bool {
        self.keep && self.body == Body::NONE
    }
}

pub(super) enum Action {
    Connect(Target),
    Forward(Target, Exchange),
    /// A request to exit.gate, or the HTTP status and the text of its refusal.
    Builtin(Result<BuiltinKind, (u16, &'static str)>),
    /// Send these bytes to the client. They are a complete HTTP answer.
    Page(Vec<u8>),
    /// Refuse the request. The end of the request is known, so the connection can be kept for the client's next
    /// request.
    Refuse(Refusal),
}

/// What the gateway does with a connection after it has served a request.
pub(super) enum AfterRequest<G: Gate> {
    /// Read the next request of the client.
    Next,
    Close,
    /// Close the connection with a reset: a normal close would make a truncated answer look complete.
    Reset,
    /// The connection becomes a tunnel.
    Tunnel(Opened<G::Lease>, G::Admitted),
}

/// Parses a request's head. `inside_builtin` is true if the request came through a tunnel to exit.gate. Inside such a
/// tunnel, a request target that is only a path means exit.gate. On any other connection, a request target that is only
/// a path comes from a browser that opened the proxy port as a web site.
pub(super) fn plan(head: &[u8], listener: &ListenerConfig, inside_builtin: bool) -> Result<Plan, Refusal> {
    let request = Request::parse(head).map_err(bad_head)?;
    let mode = AnswerMode {
        keep: request.persists(),
        head_only: request.method == "HEAD",
        body: request.body,
        expects: request.expects,
        identity: request.asks_identity(),
    };
    let (credentials, action) = match Credentials::read(&request.fields) {
        Ok(credentials) => (credentials, action(&request, listener, mode, inside_builtin)),
        Err(failure) => (Credentials::default(), Action::Refuse(failure.into())),
    };
    Ok(Plan { credentials, mode, action })
}

fn action(request: &Request<'_>, listener: &ListenerConfig, mode: AnswerMode, inside_builtin: bool) -> Action {
    match &request.form {
        Form::Origin(path) if inside_builtin => Action::Builtin(builtin::read(request, path)),
        Form::Absolute { target, path, .. } if builtin::is_builtin(target) && target.port == 80 => {
            Action::Builtin(builtin::read(request, path))
        }
        Form::Absolute { target, .. } if builtin::is_builtin(target) => Action::Refuse(only_port_80()),
        Form::Asterisk => Action::Refuse(bad_head(HeadFault::Target)),
        _ if inside_builtin => Action::Refuse(bad_head(HeadFault::Target)),
        Form::Absolute { authority, path, .. } if request.hops_left() == Some(0) => {
            Action::Page(page::last_hop(request, authority, path, mode.keep_unread()))
        }
        Form::Authority(target) => Action::Connect(target.clone()),
        Form::Absolute { target, authority, path } => {
            Action::Forward(target.clone(), exchange(request, authority, path))
        }
        Form::Origin(path) => Action::Page(page::page(listener, request.method, path, mode.keep_unread())),
    }
}

fn exchange(request: &Request<'_>, authority: &str, path: &str) -> Exchange {
    let mut head = Vec::with_capacity(512);
    request.write_for(authority, path, &mut head);
    let asked = Asked { head: request.method == "HEAD", version: request.version, upgrade: request.upgrade.is_some() };
    Exchange {
        head,
        body: request.body,
        asked,
        keep: request.persists(),
        idempotent: request.is_idempotent(),
        expects: request.expects,
        identity: request.asks_identity(),
        report: request.report(),
    }
}

pub(super) fn bad_head(fault: HeadFault) -> Refusal {
    Refusal::because(fault.into(), fault.to_string())
}

pub(super) fn only_port_80() -> Refusal {
    Refusal::because(Failure::Denied(Denial::Target), "exit.gate is http:// on port 80")
}
