//! The interface between the client protocols and the exits: what a connection can request, and what it receives.
//!
//! Callers of this interface speak with clients and know nothing about exits. Implementations choose exits and know no
//! client protocol.
//!
//! A connection calls a [`Gate`] for four things. [`Gate::admit`] checks a client's key and limits, and does not wait,
//! because SOCKS5 needs this result before the request. [`Gate::open`] opens a stream to a target. [`Gate::resolve`]
//! looks up a name. [`Gate::builtin`] serves requests to `http://exit.gate/`.
//!
//! The trait [`Gate`] is used as a generic parameter and not as a trait object, because a trait object would need an
//! allocation for each connection.
//!
//! Next: [`super::connection`] calls this interface; `outbound.rs` implements it.

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
use crate::exit::identity::Identity;
use crate::limit::{Bucket, Spend};
use crate::net::{Host, Target};

/// The client that makes a request.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// The listener that accepted the client's connection.
    pub listener: &'a ListenerConfig,
    pub protocol: Protocol,
    /// The address of the other end of the client's socket.
    pub peer: SocketAddr,
    /// The address in a trusted peer's PROXY header, or `peer` if there is no such header. Limits count connections by
    /// this address. Permissions must never depend on this address.
    pub client: SocketAddr,
    /// The client's username. The text is empty if the client sent none.
    pub username: &'a str,
}

/// A request for a stream to a target.
#[derive(Clone, Copy, Debug)]
pub struct OpenRequest<'a> {
    pub target: &'a Target,
    /// The exits through which this client request has already failed.
    pub avoid: &'a [ExitId],
    /// The head of a request that is safe to send twice. The gate may send this head together with the dial, which
    /// saves a round trip. The slice is empty if nothing may be sent with the dial.
    pub early: &'a [u8],
}

/// A DNS question. It comes from the SOCKS commands RESOLVE and RESOLVE_PTR, which are extensions by tor.
#[derive(Clone, Copy, Debug)]
pub enum Lookup<'a> {
    /// Look up the address of a name.
    Address(&'a Host),
    /// Look up the name of an address.
    Pointer(IpAddr),
}

/// The answer to a [`Lookup`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    Address(IpAddr),
    Name(Box<str>),
}

/// A request to `http://exit.gate/`. The request acts only on the username and the key of the client that sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltinRequest<'a> {
    /// `GET /`: returns the route, session and exit that serve this username.
    WhoAmI,
    /// `POST /rotate`: gives this username another exit.
    Rotate,
    /// `POST /report`: reports that a site refuses an exit. The field holds the body of the request, not parsed.
    Report(&'a [u8]),
}

/// What the forwarder of plain HTTP saw on a stream to a target. For tunnels there are no observations, because the
/// gateway does not read their bytes.
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
    /// The time limits for silence on this stream.
    pub idle: Idle,
    /// The limit in bytes per second of the client's key or address. `None` if there is no limit.
    pub rate: Option<Arc<Bucket>>,
    /// Counts the bytes of the stream for the client's key. `None` if the client needed no key.
    pub spend: Option<Spend>,
    /// Bytes that the target sent so early that they were read while the stream was being opened. Usually empty.
    pub first_down: Vec<u8>,
    /// True if the head in [`OpenRequest::early`] was sent together with the dial.
    pub sent_early: bool,
    /// The changes that a request needs because the stream ends at a proxy that opens no tunnels. `None` for a tunnel.
    /// Set only for plain HTTP requests.
    pub forwarder: Option<Box<Forwarder>>,
    /// True if this stream may also serve the connection's next plain HTTP request with the same target and
    /// credentials.
    pub reuse: bool,
    /// True if, after this stream broke off for an unknown reason, the request is sent again through the same exit.
    /// This is true for requests of sessions and pins, because they must not move to another exit for an unknown
    /// reason.
    pub keeps_exit: bool,
    /// The exits that failed in this dial before one succeeded.
    pub failed: Vec<ExitId>,
    /// The number of further exits that this client request may try. The total is limited by `gateway.max_attempts`.
    pub attempts_left: usize,
    /// The caller must hold this value while the stream is in use. Dropping the lease decreases the load of the exit.
    pub lease: L,
}

/// How a request to a forwarding proxy differs from a request to its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarder {
    /// The text that is written before the path: `http://` and the target.
    pub origin: Box<str>,
    /// The value of the field `Proxy-Authorization`. `None` if the proxy requires no login.
    pub authorization: Option<Box<str>>,
}

/// The exit of an open stream, as HTTP answers and the access line describe it.
#[derive(Clone, Debug)]
pub struct ExitFacts {
    pub exit: ExitId,
    /// The exit's address as targets see it. `None` if no check has seen this address.
    pub ip: Option<IpAddr>,
    /// The exit's country code, two letters in upper case. `None` if the country is unknown.
    pub country: Option<[u8; 2]>,
    /// The time since the exit's last successful check. `None` if no check has succeeded yet.
    pub checked: Option<Duration>,
    /// The text `old->new` if the session had to move from the exit `old` to the exit `new`. `None` if the session did
    /// not move.
    pub moved: Option<Box<str>>,
    /// The route's name, or the canonical selector of a route without a name.
    pub route: Arc<str>,
    /// The rules of routes that matched the target, such as `shop#2`. `None` if no rule matched.
    pub rule: Option<Arc<str>>,
    pub meters: Arc<RouteMeters>,
}

/// A refused request, with details that a [`Failure`] cannot hold.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub failure: Failure,
    /// The token, limit or exit that caused the refusal. This text is appended to the sentence of the failure. `None`
    /// if nothing is appended.
    pub detail: Option<Box<str>>,
    /// How long the client should wait before it tries again. `None` if no such time is known.
    pub retry_after: Option<Duration>,
    /// The text `old->new` if the session of this request moved to another exit although the request failed. `None` if
    /// no session moved.
    pub moved: Option<Box<str>>,
    /// The meters of the route that refused the request. `None` if no route was found.
    pub meters: Option<Arc<RouteMeters>>,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { failure, detail: None, retry_after: failure.retry_after(), moved: None, meters: None }
    }
}

impl Refusal {
    /// Makes a refusal from a failure and a detail.
    pub fn because(failure: Failure, detail: impl Into<Box<str>>) -> Self {
        Self { detail: Some(detail.into()), ..failure.into() }
    }
}

/// The interface through which a connection reaches the exits.
pub trait Gate: Send + Sync + 'static {
    /// A client whose key and limits were checked. This value is passed to every later call for the client. The caller
    /// must hold it until the request ends, or until the tunnel ends: dropping it ends the client's count for the
    /// limits.
    type Admitted: Send + Sync;
    /// What a connection must hold while it uses a stream. Dropping the lease decreases the exit's load.
    type Lease: Send + Sync;

    /// Checks a client's key and limits without waiting. Called once per SOCKS connection and once per HTTP request.
    fn admit(&self, caller: &Caller<'_>, password: Option<&[u8]>) -> Result<Self::Admitted, Refusal>;

    /// Returns the name of the client's key. Returns `None` if the client needed no key.
    fn key_name(admitted: &Self::Admitted) -> Option<&Arc<str>>;

    /// Opens a stream to the target, and tries several exits if the first ones fail. The caller drops this future when
    /// the client leaves.
    fn open(
        &self,
        caller: &Caller<'_>,
        admitted: &Self::Admitted,
        request: OpenRequest<'_>,
    ) -> impl Future<Output = Result<Opened<Self::Lease>, Refusal>> + Send;

    /// Returns true if an open stream may serve another request to the same target, and counts that request. Returns
    /// false if the request needs a new stream, for example because the client's session has another exit now.
    /// Refuses the request as [`Gate::open`] would, for example if a budget of the client's key is used up.
    fn reuse(
        &self,
        caller: &Caller<'_>,
        admitted: &Self::Admitted,
        target: &Target,
        opened: &Opened<Self::Lease>,
    ) -> Result<bool, Refusal>;

    /// Looks up a name or an address with the DNS resolver of an exit.
    fn resolve(
        &self,
        caller: &Caller<'_>,
        admitted: &Self::Admitted,
        lookup: Lookup<'_>,
    ) -> impl Future<Output = Result<Resolved, Refusal>> + Send;

    /// Serves a request to exit.gate. The answer is JSON.
    fn builtin(
        &self,
        caller: &Caller<'_>,
        admitted: &Self::Admitted,
        builtin: BuiltinRequest<'_>,
    ) -> impl Future<Output = Result<String, Refusal>> + Send;

    /// Takes the client's report that the site of `target` refused the previous request: the value of the request field
    /// `X-Exitgate-Report`. `last` is the exit that served the previous request of the client's connection. Refuses the
    /// present request if the report cannot be understood.
    fn report(
        &self,
        caller: &Caller<'_>,
        admitted: &Self::Admitted,
        target: &Target,
        report: &str,
        last: Option<&ExitId>,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Returns the time zone, locale and place of the exit of a stream. `None` if the exit's country is unknown. Called
    /// only if the client asks for this.
    fn identity(&self, lease: &Self::Lease) -> Option<Identity>;

    /// Tells the gate what happened on a stream for plain HTTP. A connection calls this function after a request.
    fn observe(&self, lease: &Self::Lease, target: &Target, observation: Observation);

    /// Waits until this listener takes no new requests, because of a shutdown or because its route was removed.
    fn stopping(&self, listener: &ListenerConfig) -> impl Future<Output = ()> + Send;
}
