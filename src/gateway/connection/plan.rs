//! What one HTTP request asks of the gateway: parsed from its head, borrowing nothing of it.
//!
//! [`plan`] decides by the request alone and does no I/O. `connection/http.rs` carries plans out, `connection/plain.rs` those
//! that forward, `connection/builtin_host.rs` those for exit.gate.

use crate::gateway::failure::{Denial, Failure};
use crate::gateway::gate::{Opened, Refusal};
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

/// A request that was read.
pub(super) struct Plan {
    pub(super) credentials: Credentials,
    pub(super) mode: AnswerMode,
    pub(super) action: Action,
}

/// How the gateway's own answer to a request must be written.
#[derive(Clone, Copy)]
pub(super) struct AnswerMode {
    /// The client wants to keep the connection.
    keep: bool,
    /// The method is HEAD: no body may follow.
    pub(super) head_only: bool,
    /// The body of the request.
    pub(super) body: Body,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects: bool,
}

impl AnswerMode {
    /// Whether the connection can be kept after the request's body was read.
    pub(super) fn keep(&self) -> bool {
        self.keep
    }

    /// Whether the connection can be kept if nobody reads the body, whose bytes stand where the next request would.
    pub(super) fn keep_unread(&self) -> bool {
        self.keep && self.body == Body::NONE
    }
}

pub(super) enum Action {
    Connect(Target),
    Forward(Target, Exchange),
    /// A request to exit.gate, or the status and text that refuse it.
    Builtin(Result<BuiltinKind, (u16, &'static str)>),
    /// Send this answer.
    Page(Vec<u8>),
    /// Refuse it. Its end is clear, so the client may send another request.
    Refuse(Refusal),
}

/// What follows on a connection after a request.
pub(super) enum AfterRequest<L> {
    /// The next request may come.
    Next,
    Close,
    /// Close with a reset: a clean close would make a truncated answer look complete.
    Reset,
    /// The connection becomes a tunnel.
    Tunnel(Opened<L>),
}

/// Parses a request's head. `inside_builtin`: it came through a tunnel to exit.gate, so a path alone is a request to
/// exit.gate; elsewhere it comes from a browser that takes the gateway for a web site.
pub(super) fn plan(head: &[u8], listener: &ListenerConfig, inside_builtin: bool) -> Result<Plan, Refusal> {
    let request = Request::parse(head).map_err(bad_head)?;
    let mode = AnswerMode {
        keep: request.persists(),
        head_only: request.method == "HEAD",
        body: request.body,
        expects: request.expects,
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
    }
}

pub(super) fn bad_head(fault: HeadFault) -> Refusal {
    Refusal::because(fault.into(), fault.to_string())
}

pub(super) fn only_port_80() -> Refusal {
    Refusal::because(Failure::Denied(Denial::Target), "exit.gate is http:// on port 80")
}
