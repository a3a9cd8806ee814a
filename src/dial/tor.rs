//! Opens a stream through Tor that leaves at a given exit.
//!
//! One dial takes three exchanges:
//!
//! 1. The pool of circuits gives a lease on a circuit to the exit, at once or after a build.
//! 2. The engine's SOCKS port gets greeting, username and request in one write, and gives one reply.
//! 3. On the engine's control connection the stream appears under the username that we made for it, and
//!    [`crate::tor`] attaches it to the leased circuit.
//!
//! The reason of a failure comes over the control connection only: SOCKS has eight error codes, and tor uses one of them
//! for half of all failures.
//!
//! A circuit that dies or hangs before the target answered says nothing about the exit. The dial tries again on another
//! circuit to the same exit, on another engine if there is one, because the guard may be what hangs. It never tries
//! another exit: that choice is the caller's.
//!
//! Next: [`crate::tor`] lends circuits; `dial/tor/socks.rs` is the protocol; `dial/tor/fault.rs` maps faults.

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

/// How many circuits one dial tries before the exit is blamed.
const CIRCUITS: usize = 3;

/// After a SOCKS failure, how long to wait for the reason on the control connection. It is nearly always there already,
/// because tor writes the event first.
const REASON_WAIT: Duration = Duration::from_millis(250);

/// After this time without an answer the engine probes whether the circuit is alive. Nine of ten streams on the public
/// network are open by then.
const SLOW_ANSWER: Duration = Duration::from_secs(2);

/// Options of one dial.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// The route opted in to targets over IPv6.
    pub ipv6: bool,
    /// Data that is sent right behind the request and reaches the target one round trip sooner. After an error the target
    /// may have received it, so it must be safe to send twice, and a dial with early data tries one circuit only.
    pub early: &'a [u8],
}

/// How a stream was opened.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "dead-code", allow(dead_code, reason = "benches/engine reads the fields"))]
pub struct Facts {
    /// The engine that carries it.
    pub engine: EngineId,
    /// The circuit that carries it. `None` for an onion service: tor chooses those circuits.
    pub circuit: Option<CircuitId>,
    /// The relays from guard to exit; empty for an onion service.
    pub path: Arc<[Fingerprint]>,
    pub timings: Timings,
}

/// Moments of the attempt that succeeded.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// The dial began.
    pub started: Instant,
    /// The pool gave a circuit.
    pub leased: Instant,
    /// The SOCKS request was written.
    pub sent: Instant,
    /// The stream's event was read.
    pub seen: Option<Instant>,
    /// ATTACHSTREAM was answered.
    pub attached: Option<Instant>,
    /// The SOCKS reply was read.
    pub replied: Instant,
}

impl Timings {
    fn start() -> Self {
        let now = Instant::now();
        Self { started: now, leased: now, sent: now, seen: None, attached: None, replied: now }
    }

    /// The gateway's own part: from the lease to the written request.
    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "benches/engine reads it"))]
    pub fn before(&self) -> Duration {
        self.sent.saturating_duration_since(self.leased)
    }

    /// How long the dial waited for a circuit.
    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "tests/it reads it"))]
    pub fn circuit_wait(&self) -> Duration {
        self.leased.saturating_duration_since(self.started)
    }

    /// From the stream's event to the answer that it is attached.
    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "benches/engine reads it"))]
    pub fn attach(&self) -> Option<Duration> {
        Some(self.attached?.saturating_duration_since(self.seen?))
    }

    /// From the request to the reply: tor, the circuit and the target.
    pub fn connect(&self) -> Duration {
        self.replied.saturating_duration_since(self.sent)
    }
}

/// Opens a stream to a target that leaves Tor at `way.exit`.
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

/// Opens a stream to an onion service. tor chooses the circuits, and shares them only within one isolation key.
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

/// Resolves a name at the exit, to an IPv4 address if the name has one.
pub async fn resolve(tor: &Tor, way: Way, name: &Host, deadline: Instant) -> Result<IpAddr, DialError> {
    if let Host::Ip(ip) = name {
        return Ok(*ip);
    }
    match ask(tor, way, None, Ask::Resolve(name), Options::default(), deadline).await?.1 {
        Host::Ip(ip) => Ok(ip),
        Host::Name(_) => Err(EngineFault::Protocol.into()),
    }
}

/// Looks up the name of an address at the exit.
pub async fn resolve_ptr(tor: &Tor, way: Way, addr: IpAddr, deadline: Instant) -> Result<Host, DialError> {
    Ok(ask(tor, way, None, Ask::ResolvePtr(addr), Options::default(), deadline).await?.1)
}

/// Sends one request, on up to [`CIRCUITS`] circuits one after the other.
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
            // The exit answered a moment ago, when this circuit was built, so the target is what hangs.
            Err(Attempt::Again(DialError::Exit(ExitFault::Hung))) if is_fresh => {
                return Err(TargetFault::Timeout.into());
            }
            Err(Attempt::Again(why)) => last = why,
        }
    }
    Err(last)
}

/// How an attempt failed.
enum Attempt {
    /// The circuit or the engine died or hung: another circuit may work.
    Again(DialError),
    /// Another circuit would fail in the same way.
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

/// Sends one request on one circuit.
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
    let reply = {
        let mut watched = pin!(watch(&mut expected, &mut seen, &mut attached));
        let reply = tokio::select! {
            biased;
            reply = read_reply(&mut stream) => reply,
            fault = &mut watched => return Err(fault.into()),
            never = probing => match never {},
        };
        match reply {
            Ok(Answer::Yes(host)) => Ok(host),
            // SOCKS refused, or its connection broke: the control connection has the reason.
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

/// Follows the stream on the control connection. Returns only if the stream fails.
async fn watch(expected: &mut Expected, seen: &mut Option<Instant>, attached: &mut Option<Instant>) -> StreamFault {
    if let Ok(Seen { at, answer }) = (&mut expected.seen).await {
        *seen = Some(at);
        match answer.wait().await {
            Ok(_) => *attached = Some(Instant::now()),
            // 552: no such circuit. 551: the circuit is not open. In both cases it died a moment ago.
            Err(ControlError::Refused { code: 551 | 552, .. }) => {
                expected.circuit_is_missing();
                return StreamFault::CircuitGone;
            }
            Err(ControlError::Refused { .. }) => return StreamFault::NotAttached,
            Err(_) => return StreamFault::EngineLost,
        }
    }
    match (&mut expected.end).await {
        // tor served it, perhaps with a refusal (a name that does not resolve): the SOCKS reply is on its way.
        Ok(StreamFault::Ended(EndReason::Done)) | Err(_) => std::future::pending().await,
        Ok(fault) => fault,
    }
}

/// Connects to an engine's SOCKS port.
#[expect(clippy::disallowed_methods, reason = "this goes to an engine, whose address no client chooses")]
async fn connect(addr: &Addr) -> Result<Stream, DialError> {
    let connected = match addr {
        Addr::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
        Addr::Tcp(addr) => TcpStream::connect(addr).await.map(|stream| {
            // Without TCP_NODELAY the request may be slower, but it still works.
            let _ = stream.set_nodelay(true);
            Stream::Tcp(stream)
        }),
    };
    connected.map_err(|e| match e.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => EngineFault::Exhausted.into(),
        _ => EngineFault::Lost.into(),
    })
}

/// Reads the answer and not a byte more: the bytes behind it belong to the stream.
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
