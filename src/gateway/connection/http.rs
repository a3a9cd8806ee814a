//! A connection that speaks HTTP: one request after the other, until one of them becomes a tunnel.
//!
//! Requests are served in their order; those that a client sends ahead wait in the inbox. A request is first read into a
//! [`Plan`], which borrows nothing and decides nothing, and then carried out: here if it is a CONNECT, in `plain.rs` if
//! it is forwarded, in `desk.rs` if it is for exit.gate.

use tokio::time::{Instant, timeout};

use super::plain::Kept;
use super::{Connection, ConnectionContext, Tunnel};
use crate::gateway::failure::{ClientFault, Denial, Failure};
use crate::gateway::gate::{Ask, Gate, ListenerConfig, Opened, Protocol, Refusal};
use crate::gateway::http::auth::Credentials;
use crate::gateway::http::body::Body;
use crate::gateway::http::builtin::{self, BuiltinKind};
use crate::gateway::http::forward::Exchange;
use crate::gateway::http::head::{Fault, Scan, is_token};
use crate::gateway::http::request::{Form, Request};
use crate::gateway::http::response::Asked;
use crate::gateway::http::{answer, page};
use crate::gateway::record::Outcome;
use crate::net::Target;

/// What a request asks of us, nothing of it borrowed from its head.
pub(super) struct Plan {
    pub(super) credentials: Credentials,
    pub(super) manner: Manner,
    pub(super) work: Work,
}

/// How a request wants to be answered.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    /// The client reads another answer.
    keep: bool,
    /// It is a HEAD.
    pub(super) bare: bool,
    /// What follows the head.
    pub(super) body: Body,
    /// The client waits for a 100 before it sends that.
    pub(super) expects: bool,
}

impl Manner {
    /// Whether the connection may live on once the body was read.
    pub(super) fn keep(&self) -> bool {
        self.keep
    }

    /// Whether the connection may live on if nobody reads the body: it stands where the next request would.
    pub(super) fn keep_unread(&self) -> bool {
        self.keep && self.body == Body::NONE
    }
}

/// What is to be done.
pub(super) enum Work {
    Connect(Target),
    Forward(Target, Exchange),
    Builtin(Result<BuiltinKind, (u16, &'static str)>),
    Page(Vec<u8>),
    /// Nothing, for this reason; but where it ends is clear, so the client may send another.
    Refuse(Refusal),
}

/// How a request left the connection.
pub(super) enum After<L> {
    /// Ready for the next one.
    Next,
    /// At its end.
    Close,
    /// At its end in the middle of an answer whose end only a reset can tell from its loss.
    Reset,
    /// A tunnel.
    Open(Opened<L>),
}

/// Reads a request. `inside`: on a tunnel to exit.gate, where a path alone is an errand and not a lost browser.
pub(super) fn plan(head: &[u8], listener: &ListenerConfig, inside: bool) -> Result<Plan, Refusal> {
    let request = Request::parse(head).map_err(bad_head)?;
    let manner = Manner {
        keep: request.persists(),
        bare: request.method == "HEAD",
        body: request.body,
        expects: request.expects,
    };
    let (credentials, work) = match Credentials::read(&request.fields) {
        Ok(credentials) => (credentials, work(&request, listener, manner, inside)),
        Err(failure) => (Credentials::default(), Work::Refuse(failure.into())),
    };
    Ok(Plan { credentials, manner, work })
}

fn work(request: &Request<'_>, listener: &ListenerConfig, manner: Manner, inside: bool) -> Work {
    match &request.form {
        Form::Origin(path) if inside => Work::Builtin(builtin::read(request, path)),
        Form::Absolute { target, path, .. } if builtin::is_here(target) && target.port == 80 => {
            Work::Builtin(builtin::read(request, path))
        }
        Form::Absolute { target, .. } if builtin::is_here(target) => Work::Refuse(only_port_80()),
        Form::Asterisk => Work::Refuse(bad_head(Fault::Target)),
        _ if inside => Work::Refuse(bad_head(Fault::Target)),
        Form::Absolute { authority, path, .. } if request.hops_left() == Some(0) => {
            Work::Page(page::last_hop(request, authority, path, manner.keep_unread()))
        }
        Form::Authority(target) => Work::Connect(target.clone()),
        Form::Absolute { target, authority, path } => Work::Forward(target.clone(), exchange(request, authority, path)),
        Form::Origin(path) => Work::Page(page::page(listener, request.method, path, manner.keep_unread())),
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

fn bad_head(fault: Fault) -> Refusal {
    Refusal::because(fault.into(), fault.to_string())
}

fn only_port_80() -> Refusal {
    Refusal::because(Failure::Denied(Denial::Target), "exit.gate is http:// on port 80")
}

impl<G: Gate> Connection<'_, G> {
    /// Speaks HTTP until a tunnel is open, or to the end.
    pub(super) async fn http(mut self) -> Option<Tunnel<G::Lease>> {
        let mut kept = None;
        self.record.speaks(Protocol::Http);
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
                After::Next => self.deadline = Instant::now() + self.context.listener.opening,
                After::Close => break,
                After::Open(opened) => return Some(self.tunnel(opened)),
                After::Reset => {
                    self.stream.reset();
                    return None;
                }
            }
        }
        drop(kept);
        Box::pin(self.stream.farewell()).await;
        None
    }

    /// Reads a whole head; its length. None: the client has no more requests, or may send no more.
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
        let mut forgiven = false;
        loop {
            // One empty line before a request is forgiven (RFC 9112, section 2.2): old clients end a body with it.
            if !forgiven && self.inbox.bytes().starts_with(b"\r\n") {
                self.inbox.consume(2);
                forgiven = true;
            }
            if self.inbox.bytes().first().is_some_and(|&first| !is_token(first) && first != b'\r') {
                return Err(Failure::Client(ClientFault::Garbage).into());
            }
            if let Some(length) = scan.end(self.inbox.bytes()).map_err(bad_head)? {
                return Ok(Some(length));
            }
            match self.more().await {
                // An empty line was all that came: no request, so nothing to answer.
                Err(_) if self.inbox.is_empty() => return Ok(None),
                more => more?,
            }
        }
    }

    /// Serves the request whose head is there.
    async fn serve(&mut self, length: usize, kept: &mut Option<Kept<G::Lease>>) -> After<G::Lease> {
        let plan = plan(&self.inbox.bytes()[..length], self.context.listener, false);
        self.inbox.consume(length);
        let Plan { credentials, manner, work } = match plan {
            Ok(plan) => plan,
            Err(refusal) => return self.refuse(&refusal, false, false).await,
        };
        match work {
            Work::Connect(target) => match self.http_connect(&target, &credentials).await {
                Ok(Some(opened)) => After::Open(opened),
                Ok(None) => After::Close,
                Err(refusal) => self.refuse(&refusal, manner.keep_unread(), manner.bare).await,
            },
            // Boxed: an exchange is large, and most connections are tunnels.
            Work::Forward(target, exchange) => Box::pin(self.forward(target, &exchange, credentials, kept)).await,
            Work::Builtin(wanted) => match self.enter(Protocol::Http, &credentials, None) {
                Ok(pass) => {
                    let username = credentials.username();
                    if Box::pin(self.builtin(Protocol::Http, username, &pass, wanted, manner)).await {
                        After::Next
                    } else {
                        After::Close
                    }
                }
                Err(refusal) => self.refuse(&refusal, manner.keep_unread(), manner.bare).await,
            },
            Work::Refuse(refusal) => self.refuse(&refusal, manner.keep_unread(), manner.bare).await,
            Work::Page(page) => {
                self.record.settle(Outcome::Here);
                let sent = self.stream.send(&page).await;
                if sent.is_ok() && manner.keep_unread() { After::Next } else { After::Close }
            }
        }
    }

    /// Says why not.
    pub(super) async fn refuse(&mut self, refusal: &Refusal, keep: bool, bare: bool) -> After<G::Lease> {
        let failure = refusal.failure;
        self.record.refused(refusal);
        let keep = keep && !failure.breaks_framing();
        let gone = failure == Failure::Client(ClientFault::Left);
        if !gone && self.stream.send(&answer::refusal(refusal, keep, bare)).await.is_ok() && keep {
            After::Next
        } else {
            After::Close
        }
    }

    /// Lets the client in, and writes down what it asks for.
    pub(super) fn enter(
        &mut self,
        protocol: Protocol,
        credentials: &Credentials,
        target: Option<&Target>,
    ) -> Result<G::Pass, Refusal> {
        self.record.speaks(protocol);
        let pass = self.admit(&self.caller(protocol, credentials.username()), credentials.password())?;
        self.record.asked(credentials.username(), target);
        Ok(pass)
    }

    /// `CONNECT`. None: it was exit.gate, and is over.
    async fn http_connect(
        &mut self,
        target: &Target,
        credentials: &Credentials,
    ) -> Result<Option<Opened<G::Lease>>, Refusal> {
        let pass = self.enter(Protocol::Connect, credentials, Some(target))?;
        let left = Failure::Client(ClientFault::Left);
        if builtin::is_here(target) {
            if target.port != 80 {
                return Err(only_port_80());
            }
            self.record.settle(Outcome::Here);
            self.stream.send(&answer::established(None)).await.map_err(|_| left)?;
            Box::pin(self.desk(Protocol::Connect, credentials.username(), &pass)).await;
            return Ok(None);
        }
        let caller = self.caller(Protocol::Connect, credentials.username());
        let opened = self.open(&caller, &pass, Ask { target, avoid: &[], early: &[] }).await?;
        self.stream.send(&answer::established(Some(&opened.facts))).await.map_err(|_| left)?;
        Ok(Some(opened))
    }
}
