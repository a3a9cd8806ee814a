//! Opens a stream through Tor that leaves at a given exit.
//!
//! The gateway takes three steps to open one stream:
//!
//! 1. The pool of circuits returns a lease on a circuit to the exit, either immediately or after the build of a
//!    circuit.
//! 2. The dial writes greeting, username and request to the engine's SOCKS port in one write, and reads one reply.
//! 3. On the engine's control connection the new stream appears under the username that we generated for the stream.
//!    [`crate::tor`] then attaches the stream to the leased circuit.
//!
//! The reason of a failure comes over the control connection only. SOCKS has eight error codes, and tor uses one of
//! these codes for half of all failures.
//!
//! If a circuit dies or hangs before the target answered, this says nothing about the exit. The dial then tries another
//! circuit to the same exit. If there is another engine, that engine is used, because the guard of the first engine may
//! be what hangs. A dial never tries another exit: only its caller chooses exits.
//!
//! Next: [`crate::tor`] lends circuits, `dial/tor/socks.rs` implements the SOCKS protocol, `dial/tor/fault.rs` maps
//! failures.

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{DialError, EngineFault, ExitFault, Stream, TargetFault};
use crate::exit::Fingerprint;
use crate::net::{Host, Target};
use crate::tor::control::{Addr, ControlError};
use crate::tor::event::{CircuitId, EndReason};
use crate::tor::path::{IpVersion, Port};
use crate::tor::stream::{Expected, Seen};
use crate::tor::{EngineId, StreamFault, Tor};

mod fault;
mod socks;
#[cfg(test)]
mod tests;

pub use crate::tor::{Caller, Way};
use socks::{Answer, Ask, Handshake};

/// The number of circuits to one exit that a dial tries before the failure counts as a fault of the exit.
const CIRCUITS: usize = 3;

/// After SOCKS reported a failure, the dial waits this long for the reason on the control connection. The reason is
/// nearly always there already, because tor writes the event first.
const REASON_WAIT: Duration = Duration::from_millis(250);

/// An old tor reports success for a stream that its exit ended without a reason, and tells the end of the stream in the
/// same moment on the control connection. The dial waits this long for it. A newer tor needs no such wait.
const FALSE_SUCCESS_WAIT: Duration = Duration::from_millis(2);

/// If the target has not answered after this time, the engine (tor process) tests whether the circuit still works. On
/// the public network nine of ten streams are open by then.
const SLOW_ANSWER: Duration = Duration::from_secs(2);

/// Options of one dial.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// True if the route allows targets over IPv6.
    pub ipv6: bool,
    /// Data that is sent directly after the request and reaches the target one round trip sooner. If the dial fails,
    /// the target may have received the data nevertheless. So the data must be safe to send twice, and a dial with
    /// early data tries one circuit only.
    pub early: &'a [u8],
}

/// Details about how a stream was opened, for logs and metrics.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "dead-code", allow(dead_code, reason = "benches/engine reads the fields"))]
pub struct Facts {
    /// The engine that carries the stream.
    pub engine: EngineId,
    /// The circuit that carries the stream. `None` for an onion service, because tor chooses those circuits itself.
    pub circuit: Option<CircuitId>,
    /// The relays of the circuit from guard to exit. Empty for an onion service.
    pub path: Arc<[Fingerprint]>,
    pub timings: Timings,
}

/// The time of each step of the attempt that succeeded.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// When the dial began.
    pub started: Instant,
    /// When the pool returned a circuit.
    pub leased: Instant,
    /// When the SOCKS request was written.
    pub sent: Instant,
    /// When tor's event about the new stream was read. `None` if the event was not read.
    pub seen: Option<Instant>,
    /// When tor answered the command ATTACHSTREAM. `None` if that answer was not read.
    pub attached: Option<Instant>,
    /// When the SOCKS reply was read.
    pub replied: Instant,
}

impl Timings {
    fn start() -> Self {
        let now = Instant::now();
        Self { started: now, leased: now, sent: now, seen: None, attached: None, replied: now }
    }

    /// The time that the gateway itself needed: from the lease of the circuit to the written SOCKS request.
    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "benches/engine reads it"))]
    pub fn before(&self) -> Duration {
        self.sent.saturating_duration_since(self.leased)
    }

    /// The time that the dial waited for a circuit.
    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "tests/it reads it"))]
    pub fn circuit_wait(&self) -> Duration {
        self.leased.saturating_duration_since(self.started)
    }

    /// The time from tor's event about the new stream to tor's answer that the stream is attached. `None` if one of the
    /// two was not read.
    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "benches/engine reads it"))]
    pub fn attach(&self) -> Option<Duration> {
        Some(self.attached?.saturating_duration_since(self.seen?))
    }

    /// The time from the SOCKS request to the reply, which is spent in tor, in the circuit and at the target.
    pub fn connect(&self) -> Duration {
        self.replied.saturating_duration_since(self.sent)
    }
}

/// Opens a stream to a target. The stream leaves the Tor network at the relay `way.exit`.
pub async fn dial(
    tor: &Tor,
    way: Way,
    target: &Target,
    options: Options<'_>,
    deadline: Instant,
) -> Result<(Stream, Facts), DialError> {
    let over = match target.host {
        Host::Ip(IpAddr::V6(_)) if !options.ipv6 => return Err(TargetFault::Unreachable.into()),
        Host::Ip(IpAddr::V6(_)) => IpVersion::V6,
        Host::Name(_) if options.ipv6 => IpVersion::Either,
        Host::Ip(IpAddr::V4(_)) | Host::Name(_) => IpVersion::V4,
    };
    let port = Port { number: target.port, over };
    let (stream, _, facts) = ask(tor, way, Some(port), Ask::Connect(target), options, deadline).await?;
    Ok((stream, facts))
}

/// Opens a stream to an onion service. tor chooses the circuits. Only streams with the same isolation key share
/// circuits.
pub async fn onion(
    tor: &Tor,
    who: Caller,
    target: &Target,
    early: &[u8],
    deadline: Instant,
) -> Result<(Stream, Facts), DialError> {
    let mut timings = Timings::start();
    let port = tor.onion(who, deadline).await?;
    timings.leased = Instant::now();
    let work = async {
        let mut stream = connect(&port.addr).await?;
        stream.write_all(&socks::request(&port.username, &Ask::Connect(target), early)).await.map_err(lost)?;
        timings.sent = Instant::now();
        match read_reply(&mut stream).await {
            Ok(Answer::Yes(_)) => Ok(stream),
            Ok(Answer::No(code)) => Err(fault::of_onion(code)),
            Err(why) => Err(why),
        }
    };
    let stream = timeout_at(deadline, work).await.unwrap_or(Err(DialError::Deadline))?;
    timings.replied = Instant::now();
    Ok((stream, Facts { engine: port.engine, circuit: None, path: Arc::new([]), timings }))
}

/// Resolves a host name at the exit. Returns an IPv4 address if the name has one.
pub async fn resolve(tor: &Tor, way: Way, name: &Host, deadline: Instant) -> Result<IpAddr, DialError> {
    if let Host::Ip(ip) = name {
        return Ok(*ip);
    }
    match ask(tor, way, None, Ask::Resolve(name), Options::default(), deadline).await?.1 {
        Host::Ip(ip) => Ok(ip),
        Host::Name(_) => Err(EngineFault::Protocol.into()),
    }
}

/// Looks up the host name of an address (reverse DNS) at the exit.
pub async fn resolve_ptr(tor: &Tor, way: Way, addr: IpAddr, deadline: Instant) -> Result<Host, DialError> {
    Ok(ask(tor, way, None, Ask::ResolvePtr(addr), Options::default(), deadline).await?.1)
}

/// Sends one request. If a circuit fails, the request is repeated on another circuit, on at most [`CIRCUITS`] circuits.
async fn ask(
    tor: &Tor,
    way: Way,
    port: Option<Port>,
    what: Ask<'_>,
    options: Options<'_>,
    deadline: Instant,
) -> Result<(Stream, Host, Facts), DialError> {
    let mut timings = Timings::start();
    let circuits = if options.early.is_empty() { CIRCUITS } else { 1 };
    let (mut last, mut failed) = (DialError::from(ExitFault::Died), None);
    for _ in 0..circuits {
        let lease = tor.lease(way, port, failed, deadline).await?;
        failed = Some(lease.engine());
        timings.leased = Instant::now();
        let mut facts =
            Facts { engine: lease.engine(), circuit: Some(lease.circuit()), path: lease.path().clone(), timings };
        let Ok(expected) = lease.expect(options.ipv6) else {
            last = EngineFault::Lost.into();
            continue;
        };
        let is_fresh = expected.built > timings.started;
        let attempt = attempt(expected, &what, options.early, &mut facts.timings);
        match timeout_at(deadline, attempt).await.unwrap_or(Err(Attempt::Failed(DialError::Deadline))) {
            Ok((stream, host)) => return Ok((stream, host, facts)),
            Err(Attempt::Failed(why)) => return Err(why),
            // The circuit was built a moment ago, and the exit answered then. So the missing answer is a fault of the
            // target.
            Err(Attempt::Again(DialError::Exit(ExitFault::Hung))) if is_fresh => {
                return Err(TargetFault::Timeout.into());
            }
            Err(Attempt::Again(why)) => last = why,
        }
    }
    Err(last)
}

/// Why one attempt on one circuit failed: each variant tells whether an attempt on another circuit makes sense.
enum Attempt {
    /// The circuit or the engine died or did not answer, so another circuit may work.
    Again(DialError),
    /// The attempt failed for a reason that does not depend on the circuit, so another circuit would fail in the same
    /// way.
    Failed(DialError),
}

impl From<DialError> for Attempt {
    fn from(why: DialError) -> Self {
        Self::Failed(why)
    }
}

impl From<StreamFault> for Attempt {
    fn from(fault: StreamFault) -> Self {
        match fault {
            StreamFault::CircuitGone | StreamFault::EngineLost | StreamFault::Unanswered => Self::Again(fault.into()),
            _ => Self::Failed(fault.into()),
        }
    }
}

/// Sends one request on one circuit: gets a lease, sends the request to the engine, and waits for the result.
async fn attempt(
    mut expected: Expected,
    what: &Ask<'_>,
    early: &[u8],
    timings: &mut Timings,
) -> Result<(Stream, Host), Attempt> {
    let mut stream = connect(&expected.addr).await?;
    let request = socks::request(&expected.username(), what, early);
    stream.write_all(&request).await.map_err(|_| Attempt::Again(EngineFault::Lost.into()))?;
    timings.sent = Instant::now();
    let (mut seen, mut attached) = (None, None);
    let doubt = expected.doubt();
    let probing = async {
        sleep(SLOW_ANSWER).await;
        doubt.test();
        std::future::pending().await
    };
    let doubtful = matches!(what, Ask::Connect(_)) && expected.may_be_false_success();
    let reply = {
        let mut watched = pin!(watch(&mut expected, &mut seen, &mut attached));
        let reply = tokio::select! {
            biased;
            reply = read_reply(&mut stream) => reply,
            fault = &mut watched => return Err(fault.into()),
            never = probing => match never {},
        };
        match reply {
            Ok(Answer::Yes(host)) if doubtful => match timeout(FALSE_SUCCESS_WAIT, watched).await {
                Ok(StreamFault::Ended(EndReason::Other)) => return Err(Attempt::Failed(ExitFault::Refused.into())),
                _ => Ok(host),
            },
            Ok(Answer::Yes(host)) => Ok(host),
            // SOCKS refused the request, or its connection broke: the control connection delivers the reason.
            no => match timeout(REASON_WAIT, watched).await {
                Ok(fault) => return Err(fault.into()),
                Err(_) => Err(no),
            },
        }
    };
    (timings.seen, timings.attached, timings.replied) = (seen, attached, Instant::now());
    match reply {
        Ok(host) => Ok((stream, host)),
        Err(Ok(Answer::No(code))) => Err(Attempt::Failed(fault::of_code(code))),
        Err(Ok(Answer::Yes(_))) => Err(Attempt::Failed(EngineFault::Protocol.into())),
        Err(Err(why)) => Err(Attempt::Failed(why)),
    }
}

/// Follows the events of one stream on the control connection. This function returns only if the stream fails.
async fn watch(expected: &mut Expected, seen: &mut Option<Instant>, attached: &mut Option<Instant>) -> StreamFault {
    if let Ok(Seen { at, answer }) = (&mut expected.seen).await {
        *seen = Some(at);
        match answer.wait().await {
            Ok(_) => *attached = Some(Instant::now()),
            // Code 552: the circuit does not exist. Code 551: the circuit is not open. In both cases the circuit died a
            // moment ago.
            Err(ControlError::Refused { code: 551 | 552, .. }) => {
                expected.circuit_is_missing();
                return StreamFault::CircuitGone;
            }
            Err(ControlError::Refused { .. }) => return StreamFault::NotAttached,
            Err(_) => return StreamFault::EngineLost,
        }
    }
    match (&mut expected.end).await {
        // tor completed the request, perhaps with a refusal such as an unknown name: the SOCKS reply will arrive soon.
        Ok(StreamFault::Ended(EndReason::Done)) | Err(_) => std::future::pending().await,
        Ok(fault) => fault,
    }
}

/// Connects to the SOCKS port of an engine.
#[expect(clippy::disallowed_methods, reason = "this goes to an engine, whose address no client chooses")]
async fn connect(addr: &Addr) -> Result<Stream, DialError> {
    let connected = match addr {
        Addr::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
        Addr::Tcp(addr) => TcpStream::connect(addr).await.map(|stream| {
            // If setting TCP_NODELAY fails, the request may be slower, but it still works.
            let _ = stream.set_nodelay(true);
            Stream::Tcp(stream)
        }),
    };
    connected.map_err(|e| match e.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => EngineFault::Exhausted.into(),
        _ => EngineFault::Lost.into(),
    })
}

/// Reads the SOCKS answer and not a byte more, because the bytes after the answer belong to the target's stream.
async fn read_reply(stream: &mut Stream) -> Result<Answer, DialError> {
    let mut handshake = Handshake::default();
    let mut buffer = [0; socks::LONGEST];
    loop {
        let piece = &mut buffer[..handshake.wants()];
        stream.read_exact(piece).await.map_err(lost)?;
        match handshake.take(piece) {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(socks::Garbage) => return Err(EngineFault::Protocol.into()),
        }
    }
}

fn lost(_: io::Error) -> DialError {
    EngineFault::Lost.into()
}
