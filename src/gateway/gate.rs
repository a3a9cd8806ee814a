//! The seam between the front and the way out: what a connection asks, and what it may be answered.
//!
//! Everything left of this line speaks to clients and knows no exit; everything right of it chooses exits and knows no
//! protocol. A connection asks a [`Gate`] three things: may this client come in ([`Gate::admit`], at once and without
//! waiting, because SOCKS5 wants the answer before the request), a stream to this target ([`Gate::open`]), and the
//! errands of `http://exit.gate/`. The trait is generic and not boxed: there is one gate in the program and one in the
//! tests, and neither costs an allocation a connection.
//!
//! Next: [`super::connection`] asks; `tunnel.rs` answers.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio_rustls::TlsAcceptor;

use super::connection_table::ConnectionTable;
use super::failure::Failure;
use super::record::{ListenerMeters, RouteMeters};
use super::relay::{Idle, Traffic};
use crate::dial::Stream;
use crate::exit::ExitId;
use crate::lifecycle::Cut;
use crate::limit::Bucket;
use crate::net::{Host, Target};

/// How a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// SOCKS4 or 4a.
    Socks4,
    /// SOCKS5.
    Socks5,
    /// An HTTP tunnel.
    Connect,
    /// Plain HTTP.
    Http,
}

impl Protocol {
    /// The word for it in labels and in the access line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Socks4 => "socks4",
            Self::Socks5 => "socks5",
            Self::Connect => "connect",
            Self::Http => "http",
        }
    }
}

/// One listener as its connections see it.
#[derive(Clone)]
pub struct ListenerConfig {
    /// `shared`, or the name of the route: the `listener` of metrics and of the access line.
    pub label: Arc<str>,
    /// The address that is bound.
    pub addr: SocketAddr,
    /// The route whose own port this is; none on the shared port.
    pub route: Option<Arc<str>>,
    /// Whether nobody gets in without a key. A client that offers none is told so before the gate is asked.
    pub demands_key: bool,
    /// Whether everybody must say a username, though nobody needs a key: many clients say it only when they are asked.
    pub demands_name: bool,
    /// TLS to the proxy, if it is offered.
    pub tls: Option<TlsAcceptor>,
    /// Peers that must begin with a PROXY header; all others must not.
    pub trusted: Vec<IpNet>,
    /// From accept to a complete request.
    pub opening: Duration,
    /// Between two requests of plain HTTP.
    pub keep_alive: Duration,
    /// Whether targets and usernames are named in the access line.
    pub log_targets: bool,
    /// What is counted here.
    pub meters: ListenerMeters,
    /// Where its connections are listed while they live.
    pub connections: Arc<ConnectionTable>,
}

/// Who asks.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// Where it came in.
    pub listener: &'a ListenerConfig,
    /// How it speaks.
    pub protocol: Protocol,
    /// The other end of its socket.
    pub peer: SocketAddr,
    /// Whom a trusted peer's PROXY header names, else the peer. Good for counting, never for trusting.
    pub client: SocketAddr,
    /// Whether it came over TLS.
    pub tls: bool,
    /// The user name; empty if none was given.
    pub username: &'a str,
    /// The bytes of this connection so far, live.
    pub traffic: &'a Arc<Traffic>,
    /// Ends this connection.
    pub cut: &'a Cut,
}

/// A stream that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Where to.
    pub target: &'a Target,
    /// Exits that this very request has just failed on.
    pub avoid: &'a [ExitId],
    /// The head of an idempotent request: may go out with the dial, which saves a round trip, and may go out twice.
    /// Empty where nothing may.
    pub early: &'a [u8],
}

/// What a name or address is wanted for.
#[derive(Clone, Copy, Debug)]
pub enum Lookup<'a> {
    /// The address of a name.
    Address(&'a Host),
    /// The name of an address.
    Pointer(IpAddr),
}

/// What a lookup came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// The address of a name.
    Address(IpAddr),
    /// The name of an address.
    Name(Box<str>),
}

/// What `http://exit.gate/` can do for whoever calls it. It acts on the caller's own username and key, never on others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltinRequest<'a> {
    /// `GET /`: the route, session and exit that serve this username.
    WhoAmI,
    /// `POST /rotate`: another exit, please.
    Rotate,
    /// `POST /report`: this exit is refused by that site. The body as it was sent.
    Report(&'a [u8]),
}

/// What only the front can see of a stream that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The target answered with this status.
    Status(u16),
    /// The stream ended before one byte of an answer.
    Died,
}

/// A way out, open.
pub struct Opened<L> {
    /// A stream that ends at the target.
    pub stream: Stream,
    /// Which exit it leaves from.
    pub facts: Facts,
    /// How long nothing may happen on it.
    pub idle: Idle,
    /// The rate that the client's key is held to.
    pub rate: Option<Arc<Bucket>>,
    /// Bytes of the target that were read with the end of the dial; usually none.
    pub first_down: Vec<u8>,
    /// [`Ask::early`] went out with the dial.
    pub sent: bool,
    /// The stream ends at a proxy that opens no tunnels: requests of plain HTTP are written for it.
    pub forwarder: Option<Box<Forwarder>>,
    /// The stream may serve the next plain request of this connection for the same target and credentials.
    pub reuse: bool,
    /// What the way out holds while it is used; dropped when it is not any more.
    pub lease: L,
}

/// What a request for a proxy says that one for its target does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarder {
    /// What stands before the path: `http://` and the target.
    pub origin: Box<str>,
    /// The proxy's login.
    pub authorization: Option<Box<str>>,
}

/// What is said of an exit to the client that uses it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its name.
    pub exit: ExitId,
    /// The address that targets see, if a check has seen it.
    pub ip: Option<IpAddr>,
    /// Its country, in upper case.
    pub country: Option<[u8; 2]>,
    /// The age of its last good check.
    pub checked: Option<Duration>,
    /// `old->new`, when a session had to move.
    pub moved: Option<Box<str>>,
    /// The route's name, or the canonical selector of one without a name.
    pub route: Arc<str>,
    /// What the route counts.
    pub meters: Arc<RouteMeters>,
}

/// Why not, with what only the refuser knows.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Which failure it is.
    pub failure: Failure,
    /// What the sentence of the failure cannot say: which token, which limit, which exit.
    pub detail: Option<Box<str>>,
    /// When it makes sense to come back.
    pub retry_after: Option<Duration>,
    /// The route that refused, if it came that far.
    pub meters: Option<Arc<RouteMeters>>,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { failure, detail: None, retry_after: None, meters: None }
    }
}

impl Refusal {
    /// A failure with what the sentence of it cannot say.
    pub fn because(failure: Failure, detail: impl Into<Box<str>>) -> Self {
        Self { detail: Some(detail.into()), ..failure.into() }
    }
}

/// The way out, as a connection sees it.
pub trait Gate: Send + Sync + 'static {
    /// Who a client is, once its key was checked; handed back with every question it asks.
    type Pass: Send + Sync;
    /// What a way out holds while it is used. Dropping it gives it back.
    type Lease: Send + Sync;

    /// May this client come in? Does not wait. Asked once a SOCKS connection and once an HTTP request.
    fn admit(&self, caller: &Caller<'_>, password: Option<&[u8]>) -> Result<Self::Pass, Refusal>;

    /// A stream to the target. Failing over is the gate's; the future is dropped when the client leaves meanwhile.
    fn open(
        &self,
        caller: &Caller<'_>,
        pass: &Self::Pass,
        ask: Ask<'_>,
    ) -> impl Future<Output = Result<Opened<Self::Lease>, Refusal>> + Send;

    /// What tor's RESOLVE and RESOLVE_PTR ask, answered by an exit.
    fn resolve(
        &self,
        caller: &Caller<'_>,
        pass: &Self::Pass,
        lookup: Lookup<'_>,
    ) -> impl Future<Output = Result<Resolved, Refusal>> + Send;

    /// One of exit.gate's errands; JSON comes back.
    fn builtin(
        &self,
        caller: &Caller<'_>,
        pass: &Self::Pass,
        builtin: BuiltinRequest<'_>,
    ) -> impl Future<Output = Result<String, Refusal>> + Send;

    /// Told what the front saw of a stream: plain HTTP only.
    fn observe(&self, lease: &Self::Lease, target: &Target, observation: Observation);

    /// Resolves once this door takes no new request.
    fn stopping(&self, listener: &ListenerConfig) -> impl Future<Output = ()> + Send;
}
