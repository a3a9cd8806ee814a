//! The interface between a client's protocol and the way out: what a connection asks for, and what it gets.
//!
//! Code above this interface speaks with clients and knows nothing of exits; code below it chooses exits and knows no client
//! protocol. A connection calls a [`Gate`] to let a client in ([`Gate::admit`]: immediate, because SOCKS5 wants that answer
//! before the request), to open a stream to a target ([`Gate::open`]), to look up a name ([`Gate::resolve`]) and to serve
//! requests to `http://exit.gate/` ([`Gate::builtin`]). The trait is generic and not boxed: the program has one gate and the
//! tests have one, and neither costs an allocation per connection.
//!
//! Next: [`super::connection`] is the caller; `outbound.rs` implements it.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::failure::Failure;
use super::listener::ListenerConfig;
use super::meters::RouteMeters;
use super::protocol::Protocol;
use super::relay::Idle;
use crate::dial::Stream;
use crate::exit::ExitId;
use crate::limit::Bucket;
use crate::net::{Host, Target};

/// The client that makes a request.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// The listener that accepted its connection.
    pub listener: &'a ListenerConfig,
    pub protocol: Protocol,
    /// The other end of its socket.
    pub peer: SocketAddr,
    /// The address in a trusted peer's PROXY header, else the peer. Limits count by it; no permission may depend on it.
    pub client: SocketAddr,
    /// Empty if the client sent none.
    pub username: &'a str,
}

/// A request for a stream to a target.
#[derive(Clone, Copy, Debug)]
pub struct OpenRequest<'a> {
    pub target: &'a Target,
    /// Exits on which this client request has failed already.
    pub avoid: &'a [ExitId],
    /// The head of an idempotent request. It may be sent with the dial, which saves a round trip, and may be sent twice.
    /// Empty where nothing may be sent.
    pub early: &'a [u8],
}

/// A DNS question (the RESOLVE and RESOLVE_PTR commands that tor added to SOCKS).
#[derive(Clone, Copy, Debug)]
pub enum Lookup<'a> {
    /// The address of a name.
    Address(&'a Host),
    /// The name of an address.
    Pointer(IpAddr),
}

/// The answer to a [`Lookup`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    Address(IpAddr),
    Name(Box<str>),
}

/// A request to `http://exit.gate/`. It acts on the caller's own username and key, never on those of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltinRequest<'a> {
    /// `GET /`: the route, session and exit that serve this username.
    WhoAmI,
    /// `POST /rotate`: another exit.
    Rotate,
    /// `POST /report`: a site refuses an exit. Holds the body as it was sent.
    Report(&'a [u8]),
}

/// What the forwarder of plain HTTP saw of a stream; inside a tunnel nobody sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The target answered with this status.
    Status(u16),
    /// The stream ended before the first byte of an answer.
    Died,
}

/// An open stream to a target.
pub struct Opened<L> {
    pub stream: Stream,
    pub exit: ExitFacts,
    /// How long the stream may be silent.
    pub idle: Idle,
    /// The byte rate of the client's key or address.
    pub rate: Option<Arc<Bucket>>,
    /// Bytes of the target that were read with the end of the dial; usually none.
    pub first_down: Vec<u8>,
    /// [`OpenRequest::early`] was sent with the dial.
    pub sent_early: bool,
    /// Set if the stream ends at a proxy that opens no tunnels: plain HTTP requests are then written for that proxy.
    pub forwarder: Option<Box<Forwarder>>,
    /// The stream may serve the connection's next plain request with the same target and credentials.
    pub reuse: bool,
    /// Exits that failed in this dial before one succeeded.
    pub failed: Vec<ExitId>,
    /// How many more exits this request may try (`gateway.max_attempts`).
    pub attempts_left: usize,
    /// Held while the stream is in use; dropping it releases the exit's load.
    pub lease: L,
}

/// How a request to a forwarding proxy differs from one to its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarder {
    /// Stands before the path: `http://` and the target.
    pub origin: Box<str>,
    /// The proxy's login.
    pub authorization: Option<Box<str>>,
}

/// The exit of an open stream, as answers and the access line describe it.
#[derive(Clone, Debug)]
pub struct ExitFacts {
    pub exit: ExitId,
    /// The address that targets see, if a check has seen it.
    pub ip: Option<IpAddr>,
    /// The country code, in upper case.
    pub country: Option<[u8; 2]>,
    /// The age of its last good check.
    pub checked: Option<Duration>,
    /// `old->new`, when a session had to move to this exit.
    pub moved: Option<Box<str>>,
    /// The route's name, or the canonical selector of a route without a name.
    pub route: Arc<str>,
    pub meters: Arc<RouteMeters>,
}

/// A request that is refused, with details that a [`Failure`] cannot hold.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub failure: Failure,
    /// Which token, limit or exit it was about; stands behind the failure's own sentence.
    pub detail: Option<Box<str>>,
    /// When another try makes sense.
    pub retry_after: Option<Duration>,
    /// The route that refused, if one was found.
    pub meters: Option<Arc<RouteMeters>>,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { failure, detail: None, retry_after: None, meters: None }
    }
}

impl Refusal {
    /// A failure with a detail.
    pub fn because(failure: Failure, detail: impl Into<Box<str>>) -> Self {
        Self { detail: Some(detail.into()), ..failure.into() }
    }
}

/// The way out, as a connection sees it.
pub trait Gate: Send + Sync + 'static {
    /// A client that was let in; passed to every later call.
    type Admitted: Send + Sync;
    /// What an open stream holds while it is in use. Dropping it releases it.
    type Lease: Send + Sync;

    /// Lets a client in or refuses it. Does not wait. Called once per SOCKS connection and once per HTTP request.
    fn admit(&self, caller: &Caller<'_>, password: Option<&[u8]>) -> Result<Self::Admitted, Refusal>;

    /// The name of the key by which a client was let in.
    fn key_name(admitted: &Self::Admitted) -> Option<&Arc<str>>;

    /// Opens a stream to the target, trying several exits if need be. The future is dropped when the client leaves.
    fn open(
        &self,
        caller: &Caller<'_>,
        admitted: &Self::Admitted,
        request: OpenRequest<'_>,
    ) -> impl Future<Output = Result<Opened<Self::Lease>, Refusal>> + Send;

    /// Asks an exit's resolver.
    fn resolve(
        &self,
        caller: &Caller<'_>,
        admitted: &Self::Admitted,
        lookup: Lookup<'_>,
    ) -> impl Future<Output = Result<Resolved, Refusal>> + Send;

    /// Serves a request to exit.gate; the answer is JSON.
    fn builtin(
        &self,
        caller: &Caller<'_>,
        admitted: &Self::Admitted,
        builtin: BuiltinRequest<'_>,
    ) -> impl Future<Output = Result<String, Refusal>> + Send;

    /// Takes an observation of a plain HTTP stream.
    fn observe(&self, lease: &Self::Lease, target: &Target, observation: Observation);

    /// Resolves once this listener takes no new requests.
    fn stopping(&self, listener: &ListenerConfig) -> impl Future<Output = ()> + Send;
}
